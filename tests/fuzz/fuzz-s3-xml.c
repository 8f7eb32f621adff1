/* fuzz-s3-xml.c: any bytes as each document that S3 answers: what is taken is whole
 * and in order, the rest leaves nothing behind. */
#include <errno.h>

#include "backends/s3/xml.h"
#include "tests/fuzz/fuzz.h"

static void check_listing(const struct store_listing *listing, int error, bool strict)
{
	const struct store_entry *entry;

	expect(error == 0 || error == -EBADMSG);
	expect(!error || (!listing->entries && !listing->nr_entries));
	for (unsigned int i = 0; i < listing->nr_entries; i++) {
		entry = &listing->entries[i];
		expect(entry->key && entry->key[0]);
		expect(entry->size <= INT64_MAX || entry->size == UINT64_MAX);
		/* A key can be a prefix too, as "a/" is of "a/b". */
		expect(!i || strcmp(entry[-1].key, entry->key) <= 0);
	}
	expect(!strict || error || !listing->more || listing->nr_entries);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
	char *text = malloc(count ? count : 1);	/* the sanitizer watches its end */
	char key[32], value[64], *next_key, *next_upload;
	struct store_listing listing;
	struct s3_error error;
	uint64_t seconds;
	int result;

	expect(text);
	memcpy(text, data, count);
	if (!s3_xml_error(text, count, &error))
		expect(!error.code[0]);

	result = s3_xml_list(text, count, &listing);
	check_listing(&listing, result, true);
	store_listing_free(&listing);

	result = s3_xml_uploads(text, count, &listing, &next_key, &next_upload);
	check_listing(&listing, result, false);
	expect((next_key && next_upload) == (!result && listing.more));
	store_listing_free(&listing);
	free(next_key);
	free(next_upload);

	result = s3_xml_deleted(text, count, key, sizeof(key), &error);
	expect(result == 0 || result == -EBADMSG || result == -EIO);
	expect(result != -EIO || strlen(key) < sizeof(key));

	result = s3_xml_text(text, count, "AssumeRoleResponse",
			     "AssumeRoleResult/Credentials/Expiration", value,
			     sizeof(value));
	if (result == 0)
		s3_xml_time(value, &seconds);
	result = s3_xml_text(text, count, "InitiateMultipartUploadResult", "UploadId",
			     value, sizeof(value));
	expect(result == 0 || result == -EBADMSG || result == -E2BIG);
	free(text);
	return 0;
}
