/* multipart.c: the words of a multipart upload: its id, its parts, its tag. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/s3/client.h"

/* An ETag in XML: what XML keeps to itself is spelled out. */
static void put_escaped(FILE *stream, const char *text)
{
	for (; *text; text++) {
		switch (*text) {
		case '&':
			fputs("&amp;", stream);
			break;
		case '<':
			fputs("&lt;", stream);
			break;
		case '>':
			fputs("&gt;", stream);
			break;
		case '"':
			fputs("&quot;", stream);
			break;
		default:
			fputc(*text, stream);
		}
	}
}

char *s3_complete_body(const struct s3_part *parts, unsigned int nr_parts)
{
	char *text = NULL;
	size_t count = 0;
	FILE *stream = open_memstream(&text, &count);
	unsigned int i;
	bool failed;

	if (!stream)
		return NULL;
	fputs("<CompleteMultipartUpload "
	      "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">", stream);
	for (i = 0; i < nr_parts; i++) {
		fprintf(stream, "<Part><PartNumber>%u</PartNumber><ETag>", i + 1);
		put_escaped(stream, parts[i].etag);
		fputs("</ETag></Part>", stream);
	}
	fputs("</CompleteMultipartUpload>", stream);
	failed = ferror(stream);
	if (fclose(stream) == 0 && !failed)
		return text;
	free(text);
	return NULL;
}

int s3_upload_id(const char *text, size_t count, char id[S3_UPLOAD_ID_MAX])
{
	int error = s3_xml_text(text, count, "InitiateMultipartUploadResult",
				"UploadId", id, S3_UPLOAD_ID_MAX);

	return error || !*id ? -EBADMSG : 0;
}

static int hex_digit(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

/* The 16 bytes of an ETag that is an MD5; false: it is none. */
static bool etag_md5(const char *etag, unsigned char md5[16])
{
	unsigned int i;

	etag += *etag == '"';
	for (i = 0; i < 32; i++)
		if (!isxdigit((unsigned char)etag[i]))
			return false;
	if (etag[32] && strcmp(etag + 32, "\"") != 0)
		return false;
	for (i = 0; i < 16; i++)
		md5[i] = (unsigned char)(hex_digit(etag[2 * i]) << 4 |
					 hex_digit(etag[2 * i + 1]));
	return true;
}

int s3_upload_etag(const struct s3_part *parts, unsigned int nr_parts,
		   char etag[STORE_TAG_MAX])
{
	unsigned char *md5s = malloc(16 * (size_t)nr_parts + 1), md5[16];
	struct iovec iov = { .iov_base = md5s, .iov_len = 16 * (size_t)nr_parts };
	unsigned int i;
	int error = md5s ? 0 : -ENOMEM;

	for (i = 0; i < nr_parts && !error; i++)
		if (!etag_md5(parts[i].etag, md5s + 16 * i))
			error = -EINVAL;
	if (!error)
		error = s3_md5(&iov, 1, md5);
	free(md5s);
	if (error)
		return error;
	etag[0] = '"';
	for (i = 0; i < 16; i++)
		snprintf(etag + 1 + 2 * i, 3, "%02x", md5[i]);
	snprintf(etag + 33, STORE_TAG_MAX - 33, "-%u\"", nr_parts);
	return 0;
}

char *s3_upload_query(const char *id, unsigned int part)
{
	char encoded[3 * S3_UPLOAD_ID_MAX], *query;
	int made;

	if (s3_encode(id, false, encoded, sizeof(encoded)) < 0)
		return NULL;
	if (part)
		made = asprintf(&query, "partNumber=%u&uploadId=%s", part, encoded);
	else
		made = asprintf(&query, "uploadId=%s", encoded);
	return made < 0 ? NULL : query;
}
