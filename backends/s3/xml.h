/* xml.h: what S3 says in XML, read with libxml2: no network, no entities, no
 * document types, bounded depth and size.  Every reader fails with -EBADMSG on a
 * body that is not the document it names.
 */
#ifndef OBJMAP_S3_XML_H
#define OBJMAP_S3_XML_H

#include <stdbool.h>
#include <stddef.h>

#include "backends/store/store.h"

/* <Error>: whether @text is one; its Code, Message and Region or Endpoint (a
 * redirect's), cut to their rooms. */
struct s3_error {
	char code[64];
	char message[192];
	char region[64];
	char endpoint[256];
};
bool s3_xml_error(const char *text, size_t count, struct s3_error *error);

/* <ListBucketResult> of encoding-type=url: keys decoded; with @prefixes, the
 * CommonPrefixes as entries whose size is UINT64_MAX.  *more and the listing's
 * order are checked. */
int s3_xml_list(const char *text, size_t count, struct store_listing *listing);
/* <ListMultipartUploadsResult>; the markers for the next page (malloc'ed or
 * NULL). */
int s3_xml_uploads(const char *text, size_t count,
		   struct store_listing *listing, char **next_key,
		   char **next_upload);
/* <DeleteResult> of Quiet mode: the first key that was not deleted and why.
 * 0: all were.  -EBADMSG; -EIO: @error is filled, @key (room bytes) too. */
int s3_xml_deleted(const char *text, size_t count, char *key, size_t room,
		   struct s3_error *error);
/* One text of a small document: "UploadId" of <InitiateMultipartUploadResult>,
 * "ETag" of <CompleteMultipartUploadResult>, <CopyPartResult>.  0, -EBADMSG,
 * -E2BIG. */
int s3_xml_text(const char *text, size_t count, const char *document,
		const char *element, char *value, size_t room);
/* <Delete> of @nr_keys keys, Quiet, escaped; malloc'ed, *count bytes; or NULL. */
char *s3_xml_delete(const char *const *keys, unsigned int nr_keys,
		    const char *prefix, size_t *count);

#endif
