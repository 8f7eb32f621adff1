/* xml.h: what S3 says in XML, read with libxml2: no network, no entities, no
 * document types, bounded depth and size.  Every reader fails with -EBADMSG on a
 * body that is not the document it names.
 */
#ifndef OBJMAP_S3_XML_H
#define OBJMAP_S3_XML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backends/store/store.h"

/* <Error>, or STS's <ErrorResponse>: whether @text is one; its Code, Message and
 * Region or Endpoint (a redirect's), cut to their rooms. */
struct s3_error {
	char code[64];
	char message[192];
	char region[64];
	char endpoint[256];
};
bool s3_xml_error(const char *text, size_t count, struct s3_error *error);

/* <ListBucketResult>, with encoding-type=url or without: keys decoded, the
 * CommonPrefixes among them as entries whose size is UINT64_MAX.  -EBADMSG also when
 * it is not in the order of the keys' bytes, or promises more after no key. */
int s3_xml_list(const char *text, size_t count, struct store_listing *listing);
/* <ListMultipartUploadsResult>; the markers for the next page (decoded, malloc'ed;
 * NULL unless listing->more). */
int s3_xml_uploads(const char *text, size_t count,
		   struct store_listing *listing, char **next_key,
		   char **next_upload);
/* <DeleteResult> of Quiet mode: the first key that is not gone and why.
 * 0: all are.  -EBADMSG; -EIO: @error is filled, @key (room bytes) too. */
int s3_xml_deleted(const char *text, size_t count, char *key, size_t room,
		   struct s3_error *error);
/* One text of a small document: "UploadId" of <InitiateMultipartUploadResult>,
 * "ETag" of <CompleteMultipartUploadResult>, <CopyPartResult>; deeper ones as
 * "AssumeRoleResult/Credentials/Expiration".  0, -EBADMSG, -E2BIG. */
int s3_xml_text(const char *text, size_t count, const char *document,
		const char *element, char *value, size_t room);
/* "2009-10-12T17:50:30.000Z" (or "+01:00", "+0100" for the Z) in seconds since 1970.  0 or -EBADMSG. */
int s3_xml_time(const char *text, uint64_t *seconds);
/* <Delete> of @nr_keys keys, each behind @prefix (as it is; NULL: none), Quiet,
 * escaped; malloc'ed, *count bytes; or NULL. */
char *s3_xml_delete(const char *const *keys, unsigned int nr_keys,
		    const char *prefix, size_t *count);

#endif
