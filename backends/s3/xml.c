/* xml.c: reading what S3 says in XML.
 *
 * A reply is at most some MiB, so it is read as a tree.  libxml2 refuses what is
 * deeper than 256 or has a text of more than 10 MB; a document type, and with it
 * every entity of its own, ends the reading.  Names are taken without their
 * namespace: servers disagree about it.
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libxml/parser.h>
#include <libxml/tree.h>

#include "backends/s3/xml.h"

#define DOCUMENT_MAX	(4u << 20)	/* bytes: 1,000 keys of 1,024 bytes, encoded */

/* ---- documents ------------------------------------------------------------ */

static void refuse_document_type(void *context, const xmlChar *name,
				 const xmlChar *public_id, const xmlChar *system_id)
{
	xmlParserCtxtPtr parser = context;

	parser->wellFormed = 0;
	xmlStopParser(parser);
}

/* NULL: not XML as S3 speaks it. */
static xmlDocPtr document_read(const char *text, size_t count)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	xmlParserCtxtPtr parser;
	xmlDocPtr document;

	pthread_once(&once, xmlInitParser);
	/* What keeps a connection open while a server works may stand before it all. */
	for (; count && memchr(" \t\r\n", *text, 4); text++, count--)
		;
	if (!count || count > DOCUMENT_MAX)
		return NULL;
	parser = xmlNewParserCtxt();
	if (!parser)
		return NULL;
	parser->sax->internalSubset = refuse_document_type;
	document = xmlCtxtReadMemory(parser, text, (int)count, NULL, NULL,
				     XML_PARSE_NONET | XML_PARSE_NOERROR |
				     XML_PARSE_NOWARNING | XML_PARSE_NOCDATA);
	if (document && !xmlDocGetRootElement(document)) {
		xmlFreeDoc(document);
		document = NULL;
	}
	xmlFreeParserCtxt(parser);
	return document;
}

static bool is_called(const xmlNode *node, const char *name)
{
	return node->type == XML_ELEMENT_NODE &&
	       strcmp((const char *)node->name, name) == 0;
}

static const xmlNode *child(const xmlNode *node, const char *name)
{
	const xmlNode *each;

	for (each = node ? node->children : NULL; each; each = each->next)
		if (is_called(each, name))
			return each;
	return NULL;
}

/* The text of an element without elements, malloc'ed; an absent element has none.
 * 0, -ENODATA, -EBADMSG, -ENOMEM. */
static int text_get(const xmlNode *node, char **text)
{
	const xmlNode *each;
	size_t length = 0, count;

	*text = NULL;
	if (!node)
		return -ENODATA;
	for (each = node->children; each; each = each->next) {
		if (each->type == XML_COMMENT_NODE)
			continue;
		if (each->type != XML_TEXT_NODE)
			return -EBADMSG;
		length += strlen((const char *)each->content);
	}
	*text = malloc(length + 1);
	if (!*text)
		return -ENOMEM;
	length = 0;
	for (each = node->children; each; each = each->next) {
		if (each->type != XML_TEXT_NODE)
			continue;
		count = strlen((const char *)each->content);
		memcpy(*text + length, each->content, count);
		length += count;
	}
	(*text)[length] = 0;
	return 0;
}

static int must_get(const xmlNode *parent, const char *name, char **text)
{
	int error = text_get(child(parent, name), text);

	return error == -ENODATA ? -EBADMSG : error;
}

/* Of what is only shown to people. */
static void copy_cut(const xmlNode *parent, const char *name, char *to, size_t room)
{
	char *text;

	to[0] = 0;
	if (text_get(child(parent, name), &text) == 0)
		strncat(to, text, room - 1);
	free(text);
}

/* ---- values --------------------------------------------------------------- */

static int number_get(const xmlNode *parent, const char *name, uint64_t *number)
{
	char *text, *end;
	int error = must_get(parent, name, &text);

	if (error)
		return error;
	errno = 0;
	*number = strtoull(text, &end, 10);
	if (errno || *end || text[0] < '0' || text[0] > '9' || *number > INT64_MAX)
		error = -EBADMSG;
	free(text);
	return error;
}

static int bool_get(const xmlNode *parent, const char *name, bool *value)
{
	char *text;
	int error = must_get(parent, name, &text);

	if (error)
		return error;
	*value = strcmp(text, "true") == 0;
	if (!*value && strcmp(text, "false") != 0)
		error = -EBADMSG;
	free(text);
	return error;
}

/* "Z", or "+01:00" or "+0100" ahead of it; in seconds. */
static int zone_read(const char *text, int *ahead)
{
	int hours, minutes, end = 0;
	char sign[2];

	*ahead = 0;
	if (strcmp(text, "Z") == 0)
		return 0;
	if ((sscanf(text, "%1[+-]%2d:%2d%n", sign, &hours, &minutes, &end) < 3 ||
	     end != 6) &&
	    (sscanf(text, "%1[+-]%2d%2d%n", sign, &hours, &minutes, &end) < 3 || end != 5))
		return -EBADMSG;
	if (text[end])
		return -EBADMSG;
	*ahead = (hours * 60 + minutes) * (sign[0] == '-' ? -60 : 60);
	return 0;
}

int s3_xml_time(const char *text, uint64_t *seconds)
{
	struct tm tm = { 0 };
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	time_t time;
	int ahead;

	if (!rest)
		return -EBADMSG;
	if (*rest == '.')
		rest += 1 + strspn(rest + 1, "0123456789");
	if (zone_read(rest, &ahead))
		return -EBADMSG;
	time = timegm(&tm) - ahead;
	if (time < 0)
		return -EBADMSG;
	*seconds = (uint64_t)time;
	return 0;
}

static int time_get(const xmlNode *parent, const char *name, uint64_t *seconds)
{
	char *text;
	int error = must_get(parent, name, &text);

	if (!error)
		error = s3_xml_time(text, seconds);
	free(text);
	return error;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Of encoding-type=url, in place.  A '+' is a blank: servers encode as forms do,
 * and a plus sign itself as %2B. */
static int url_decode(char *text)
{
	char *to = text;
	int high, low;

	for (; *text; text++) {
		if (*text == '+') {
			*to++ = ' ';
		} else if (*text != '%') {
			*to++ = *text;
		} else {
			high = hex_value(text[1]);
			low = high < 0 ? -1 : hex_value(text[2]);
			if (low < 0 || (high | low) == 0)
				return -EBADMSG;
			*to++ = (char)(high << 4 | low);
			text += 2;
		}
	}
	*to = 0;
	return 0;
}

/* Whether keys are encoded: some servers do not know how, and then do not say it. */
static bool is_encoded(const xmlNode *root)
{
	char *text;
	bool encoded = text_get(child(root, "EncodingType"), &text) == 0 &&
		       strcmp(text, "url") == 0;

	free(text);
	return encoded;
}

static int key_get(const xmlNode *parent, const char *name, bool encoded, char **key)
{
	int error = must_get(parent, name, key);

	if (!error && encoded)
		error = url_decode(*key);
	if (!error && !(*key)[0])
		error = -EBADMSG;
	if (error) {
		free(*key);
		*key = NULL;
	}
	return error;
}

/* ---- errors and small documents ------------------------------------------- */

bool s3_xml_error(const char *text, size_t count, struct s3_error *error)
{
	xmlDocPtr document = document_read(text, count);
	const xmlNode *root = document ? xmlDocGetRootElement(document) : NULL;

	memset(error, 0, sizeof(*error));
	if (root && is_called(root, "ErrorResponse"))	/* STS */
		root = child(root, "Error");
	if (root && is_called(root, "Error")) {
		copy_cut(root, "Code", error->code, sizeof(error->code));
		copy_cut(root, "Message", error->message, sizeof(error->message));
		copy_cut(root, "Region", error->region, sizeof(error->region));
		copy_cut(root, "Endpoint", error->endpoint, sizeof(error->endpoint));
	} else {
		root = NULL;
	}
	xmlFreeDoc(document);
	return root;
}

/* @path: NAME/NAME/.. below @node. */
static const xmlNode *descend(const xmlNode *node, const char *path)
{
	char name[64];
	size_t length;

	while (node && *path) {
		length = strcspn(path, "/");
		if (length >= sizeof(name))
			return NULL;
		memcpy(name, path, length);
		name[length] = 0;
		node = child(node, name);
		path += length + (path[length] == '/');
	}
	return node;
}

int s3_xml_text(const char *text, size_t count, const char *document,
		const char *element, char *value, size_t room)
{
	xmlDocPtr tree = document_read(text, count);
	const xmlNode *root = tree ? xmlDocGetRootElement(tree) : NULL;
	char *found = NULL;
	int error = -EBADMSG;

	if (root && is_called(root, document))
		error = text_get(descend(root, element), &found);
	if (error == -ENODATA)
		error = -EBADMSG;
	if (!error && strlen(found) >= room)
		error = -E2BIG;
	if (!error)
		strcpy(value, found);
	if (found)
		explicit_bzero(found, strlen(found));	/* STS's are secrets */
	free(found);
	xmlFreeDoc(tree);
	return error;
}

/* ---- listings ------------------------------------------------------------- */

/* Room for as many entries as @root has elements called @name or @other. */
static int listing_room(struct store_listing *listing, const xmlNode *root,
			const char *name, const char *other)
{
	const xmlNode *each;
	size_t nr = 1;

	memset(listing, 0, sizeof(*listing));
	for (each = root->children; each; each = each->next)
		nr += is_called(each, name) || is_called(each, other);
	listing->entries = calloc(nr, sizeof(*listing->entries));
	return listing->entries ? 0 : -ENOMEM;
}

static int object_read(const xmlNode *node, bool encoded, struct store_entry *entry)
{
	int error = key_get(node, "Key", encoded, &entry->key);

	if (!error)
		error = number_get(node, "Size", &entry->size);
	if (!error)
		error = time_get(node, "LastModified", &entry->last_modified);
	return error;
}

static int compare_entries(const void *a, const void *b)
{
	const struct store_entry *x = a, *y = b;
	int order = strcmp(x->key, y->key);

	if (!order && x->upload && y->upload)
		order = strcmp(x->upload, y->upload);
	return order;
}

/* Objects and prefixes come as two lists; each must be in order, for the next page
 * begins after the last key.  Made one. */
static int put_in_order(struct store_listing *listing)
{
	const struct store_entry *last[2] = { NULL, NULL }, *entry;
	bool prefix;

	for (unsigned int i = 0; i < listing->nr_entries; i++) {
		entry = &listing->entries[i];
		prefix = entry->size == UINT64_MAX;
		if (last[prefix] && strcmp(last[prefix]->key, entry->key) >= 0)
			return -EBADMSG;
		last[prefix] = entry;
	}
	if (last[0] && last[1])
		qsort(listing->entries, listing->nr_entries, sizeof(*listing->entries),
		      compare_entries);
	return 0;
}

static int list_read(const xmlNode *root, struct store_listing *listing)
{
	bool encoded = is_encoded(root);
	int error = listing_room(listing, root, "Contents", "CommonPrefixes");
	struct store_entry *entry;
	const xmlNode *each;

	if (!error)
		error = bool_get(root, "IsTruncated", &listing->more);
	for (each = root->children; each && !error; each = each->next) {
		entry = &listing->entries[listing->nr_entries];
		if (is_called(each, "Contents")) {
			error = object_read(each, encoded, entry);
		} else if (is_called(each, "CommonPrefixes")) {
			error = key_get(each, "Prefix", encoded, &entry->key);
			entry->size = UINT64_MAX;
		} else {
			continue;
		}
		listing->nr_entries++;
	}
	if (!error)
		error = put_in_order(listing);
	return error;
}

int s3_xml_list(const char *text, size_t count, struct store_listing *listing)
{
	xmlDocPtr document = document_read(text, count);
	const xmlNode *root = document ? xmlDocGetRootElement(document) : NULL;
	int error = -EBADMSG;

	memset(listing, 0, sizeof(*listing));
	if (root && is_called(root, "ListBucketResult"))
		error = list_read(root, listing);
	if (error)
		store_listing_free(listing);
	xmlFreeDoc(document);
	return error;
}

static int upload_read(const xmlNode *node, bool encoded, struct store_entry *entry)
{
	int error = key_get(node, "Key", encoded, &entry->key);

	if (!error)
		error = key_get(node, "UploadId", false, &entry->upload);
	if (!error)
		error = time_get(node, "Initiated", &entry->last_modified);
	return error;
}

static int uploads_read(const xmlNode *root, struct store_listing *listing,
			char **next_key, char **next_upload)
{
	bool encoded = is_encoded(root);
	int error = listing_room(listing, root, "Upload", "Upload");
	const xmlNode *each;

	if (!error)
		error = bool_get(root, "IsTruncated", &listing->more);
	for (each = root->children; each && !error; each = each->next)
		if (is_called(each, "Upload"))
			error = upload_read(each, encoded,
					    &listing->entries[listing->nr_entries++]);
	if (!error && listing->more)
		error = key_get(root, "NextKeyMarker", encoded, next_key);
	if (!error && listing->more)
		error = key_get(root, "NextUploadIdMarker", false, next_upload);
	/* Pages go by their markers, so that servers need not sort within one. */
	if (!error)
		qsort(listing->entries, listing->nr_entries, sizeof(*listing->entries),
		      compare_entries);
	return error;
}

int s3_xml_uploads(const char *text, size_t count, struct store_listing *listing,
		   char **next_key, char **next_upload)
{
	xmlDocPtr document = document_read(text, count);
	const xmlNode *root = document ? xmlDocGetRootElement(document) : NULL;
	int error = -EBADMSG;

	memset(listing, 0, sizeof(*listing));
	*next_key = *next_upload = NULL;
	if (root && is_called(root, "ListMultipartUploadsResult"))
		error = uploads_read(root, listing, next_key, next_upload);
	if (error) {
		store_listing_free(listing);
		free(*next_key);
		free(*next_upload);
		*next_key = *next_upload = NULL;
	}
	xmlFreeDoc(document);
	return error;
}

/* ---- DeleteObjects -------------------------------------------------------- */

int s3_xml_deleted(const char *text, size_t count, char *key, size_t room,
		   struct s3_error *error)
{
	xmlDocPtr document = document_read(text, count);
	const xmlNode *root = document ? xmlDocGetRootElement(document) : NULL;
	const xmlNode *each = NULL;

	memset(error, 0, sizeof(*error));
	if (!root || !is_called(root, "DeleteResult")) {
		xmlFreeDoc(document);
		return -EBADMSG;
	}
	for (each = root->children; each; each = each->next) {
		if (!is_called(each, "Error"))
			continue;
		copy_cut(each, "Code", error->code, sizeof(error->code));
		if (strcmp(error->code, "NoSuchKey") == 0)	/* as wished */
			continue;
		copy_cut(each, "Message", error->message, sizeof(error->message));
		copy_cut(each, "Key", key, room);
		break;
	}
	if (!each)
		error->code[0] = 0;
	xmlFreeDoc(document);
	return each ? -EIO : 0;
}

/* Appends @text to @at, which has six bytes for each of its. */
static char *escape(const char *text, char *at)
{
	for (; *text; text++) {
		switch (*text) {
		case '&':  at = stpcpy(at, "&amp;");  break;
		case '<':  at = stpcpy(at, "&lt;");   break;
		case '>':  at = stpcpy(at, "&gt;");   break;
		case '\r': at = stpcpy(at, "&#13;");  break;
		case '\n': at = stpcpy(at, "&#10;");  break;
		case '\t': at = stpcpy(at, "&#9;");   break;
		default:   *at++ = *text;
		}
	}
	*at = 0;
	return at;
}

char *s3_xml_delete(const char *const *keys, unsigned int nr_keys,
		    const char *prefix, size_t *count)
{
	static const char begin[] = "<Delete xmlns=\"http://s3.amazonaws.com/doc/"
				    "2006-03-01/\"><Quiet>true</Quiet>";
	static const char object[] = "<Object><Key>", object_end[] = "</Key></Object>";
	static const char end[] = "</Delete>";
	size_t room = sizeof(begin) + sizeof(end);
	char *text, *at;
	unsigned int i;

	if (!prefix)
		prefix = "";
	for (i = 0; i < nr_keys; i++)
		room += 6 * (strlen(prefix) + strlen(keys[i])) + sizeof(object) +
			sizeof(object_end);
	text = malloc(room);
	if (!text)
		return NULL;
	at = stpcpy(text, begin);
	for (i = 0; i < nr_keys; i++) {
		at = escape(prefix, stpcpy(at, object));
		at = stpcpy(escape(keys[i], at), object_end);
	}
	*count = (size_t)(stpcpy(at, end) - text);
	return text;
}
