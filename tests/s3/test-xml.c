/* test-xml.c: what S3 says in XML is read, and nothing else is. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/s3/xml.h"

#define NS " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""
#define XML "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
#define OBJECT(key) "<Contents><Key>" key "</Key><LastModified>2009-10-12T17:50:30.000Z" \
	"</LastModified><ETag>&quot;e&quot;</ETag><Size>7</Size></Contents>"
#define PREFIX(key) "<CommonPrefixes><Prefix>" key "</Prefix></CommonPrefixes>"
#define LIST(inner) XML "<ListBucketResult" NS "><Name>b</Name>" \
	"<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>" inner \
	"</ListBucketResult>"

static int list(const char *text, struct store_listing *listing)
{
	return s3_xml_list(text, strlen(text), listing);
}

static void refuse_list(const char *text)
{
	struct store_listing listing;

	cr_expect_eq(list(text, &listing), -EBADMSG, "taken: %s", text);
	cr_expect_null(listing.entries);
	cr_expect_eq(listing.nr_entries, 0);
}

Test(xml, a_listing_is_read_with_its_keys_decoded)
{
	struct store_listing listing;

	cr_assert_eq(list(LIST(OBJECT("a+b%2Bc/%C3%A4%26") OBJECT("b%0A")), &listing), 0);
	cr_assert_eq(listing.nr_entries, 2);
	cr_expect_str_eq(listing.entries[0].key, "a b+c/\xc3\xa4&");
	cr_expect_str_eq(listing.entries[1].key, "b\n");
	cr_expect_eq(listing.entries[0].size, 7);
	cr_expect_eq(listing.entries[0].last_modified, 1255369830);
	cr_expect_not(listing.more);
	store_listing_free(&listing);
}

Test(xml, a_server_that_does_not_encode_is_taken_by_its_word)
{
	struct store_listing listing;

	cr_assert_eq(list("<ListBucketResult><IsTruncated>true</IsTruncated>"
			  OBJECT("a%2B+&amp;&#xe4;") "</ListBucketResult>", &listing), 0);
	cr_assert_eq(listing.nr_entries, 1);
	cr_expect_str_eq(listing.entries[0].key, "a%2B+&\xc3\xa4");
	cr_expect(listing.more);
	store_listing_free(&listing);
}

Test(xml, any_namespace_and_none_will_do)
{
	struct store_listing listing;

	cr_assert_eq(list("<x:ListBucketResult xmlns:x=\"urn:other\"><x:IsTruncated>false"
			  "</x:IsTruncated><x:Contents><x:Key>k</x:Key><x:Size>1</x:Size>"
			  "<x:LastModified>2009-10-12T17:50:30Z</x:LastModified>"
			  "</x:Contents></x:ListBucketResult>", &listing), 0);
	cr_assert_eq(listing.nr_entries, 1);
	cr_expect_str_eq(listing.entries[0].key, "k");
	store_listing_free(&listing);
}

Test(xml, blanks_that_kept_the_connection_open_may_stand_before_it)
{
	struct store_listing listing;

	cr_assert_eq(list(" \r\n\t \n" LIST(OBJECT("a")), &listing), 0);
	cr_expect_eq(listing.nr_entries, 1);
	store_listing_free(&listing);
	refuse_list(" \n ");
}

Test(xml, prefixes_stand_among_the_keys_in_order)
{
	struct store_listing listing;

	cr_assert_eq(list(LIST(OBJECT("a") OBJECT("c") PREFIX("b/") PREFIX("d%2F")),
			  &listing), 0);
	cr_assert_eq(listing.nr_entries, 4);
	for (int i = 0; i < 4; i++)
		cr_expect_eq(listing.entries[i].key[0], 'a' + i);
	cr_expect_str_eq(listing.entries[3].key, "d/");
	cr_expect_eq(listing.entries[3].size, UINT64_MAX);
	cr_expect_eq(listing.entries[2].size, 7);
	store_listing_free(&listing);
}

Test(xml, an_empty_listing_is_one)
{
	struct store_listing listing;

	cr_assert_eq(list(LIST(""), &listing), 0);
	cr_expect_eq(listing.nr_entries, 0);
	store_listing_free(&listing);
}

Test(xml, a_listing_out_of_order_is_refused)
{
	refuse_list(LIST(OBJECT("b") OBJECT("a")));
	refuse_list(LIST(OBJECT("a") OBJECT("a")));
	refuse_list(LIST(PREFIX("b/") PREFIX("a/")));
	/* By bytes, not by letters: "%FF" stands behind "z". */
	refuse_list(LIST(OBJECT("%FF") OBJECT("z")));
}

Test(xml, what_is_not_a_whole_listing_is_refused)
{
	refuse_list("");
	refuse_list("not XML");
	refuse_list("<html><body>Welcome</body></html>");
	refuse_list("<Error><Code>SlowDown</Code></Error>");
	refuse_list(LIST(OBJECT("")));
	refuse_list(LIST(OBJECT("a%zz")));
	refuse_list(LIST(OBJECT("a%2")));
	refuse_list(LIST(OBJECT("a%00b")));
	refuse_list(LIST("<Contents><Key>a</Key><Size>1</Size></Contents>"));
	refuse_list(LIST("<Contents><Key>a</Key><Size>-1</Size><LastModified>"
			 "2009-10-12T17:50:30Z</LastModified></Contents>"));
	refuse_list(LIST("<Contents><Key>a</Key><Size>18446744073709551615</Size>"
			 "<LastModified>2009-10-12T17:50:30Z</LastModified></Contents>"));
	refuse_list(LIST("<Contents><Key>a</Key><Size>1 MB</Size><LastModified>"
			 "2009-10-12T17:50:30Z</LastModified></Contents>"));
	refuse_list(LIST("<Contents><Key>a</Key><Size>1</Size><LastModified>"
			 "yesterday</LastModified></Contents>"));
	refuse_list(LIST("<Contents><Key><b>a</b></Key><Size>1</Size><LastModified>"
			 "2009-10-12T17:50:30Z</LastModified></Contents>"));
	refuse_list("<ListBucketResult>" OBJECT("a") "</ListBucketResult>");
	refuse_list("<ListBucketResult><IsTruncated>perhaps</IsTruncated>"
		    "</ListBucketResult>");
}

Test(xml, a_page_may_be_empty_and_not_the_last)
{
	struct store_listing listing;

	cr_assert_eq(list("<ListBucketResult><IsTruncated>true</IsTruncated>"
			  "</ListBucketResult>", &listing), 0);
	cr_expect_eq(listing.nr_entries, 0);
	cr_expect(listing.more);
	store_listing_free(&listing);
}

Test(xml, a_listing_cut_anywhere_is_refused)
{
	const char *whole = LIST(OBJECT("a") OBJECT("b"));
	struct store_listing listing;
	char *cut;

	for (size_t count = 0; count < strlen(whole); count++) {
		cut = malloc(count + 1);	/* the sanitizer watches its end */
		memcpy(cut, whole, count);
		cr_expect_eq(s3_xml_list(cut, count, &listing), -EBADMSG, "%zu", count);
		free(cut);
	}
}

Test(xml, document_types_and_entities_are_refused)
{
	const char *plain = "<ListBucketResult><IsTruncated>false</IsTruncated>"
			    "</ListBucketResult>";
	FILE *file = fopen("test-xml.secret", "w");
	struct store_listing listing;

	fputs("file", file);
	fclose(file);
	cr_expect_eq(list(plain, &listing), 0);
	store_listing_free(&listing);
	refuse_list("<!DOCTYPE ListBucketResult><ListBucketResult>"
		    "<IsTruncated>false</IsTruncated></ListBucketResult>");
	refuse_list("<!DOCTYPE ListBucketResult [<!ENTITY e \"a\">]><ListBucketResult>"
		    "<IsTruncated>false</IsTruncated>" OBJECT("&e;")
		    "</ListBucketResult>");
	refuse_list("<!DOCTYPE ListBucketResult [<!ENTITY e SYSTEM \"test-xml.secret\">]>"
		    "<ListBucketResult><IsTruncated>false</IsTruncated>" OBJECT("&e;")
		    "</ListBucketResult>");
	refuse_list("<!DOCTYPE ListBucketResult SYSTEM \"http://127.0.0.1:1/x\">"
		    "<ListBucketResult><IsTruncated>false</IsTruncated>"
		    "</ListBucketResult>");
	refuse_list("<ListBucketResult><IsTruncated>false</IsTruncated>" OBJECT("&e;")
		    "</ListBucketResult>");
	remove("test-xml.secret");
}

Test(xml, depth_and_size_are_bounded)
{
	size_t room = 5u << 20, i;
	char *text = malloc(room);
	struct store_listing listing;

	memset(text, ' ', room);
	memcpy(text, "<ListBucketResult>", 18);
	memcpy(text + room - 53, "<IsTruncated>false</IsTruncated>", 32);
	memcpy(text + room - 20, "</ListBucketResult>", 19);
	cr_expect_eq(s3_xml_list(text, room, &listing), -EBADMSG);
	/* The same within the bound is fine: it was the size. */
	cr_expect_eq(s3_xml_list(text + (2u << 20), room - (2u << 20), &listing),
		     -EBADMSG);
	memcpy(text + (2u << 20), "<ListBucketResult>", 18);
	cr_expect_eq(s3_xml_list(text + (2u << 20), room - (2u << 20), &listing), 0);
	store_listing_free(&listing);
	for (i = 0; i + 6 <= 6 * 2000; i += 3)
		memcpy(text + i, "<a>", 3);
	cr_expect_eq(s3_xml_list(text, i, &listing), -EBADMSG);
	free(text);
}

Test(xml, an_error_is_known_by_its_root)
{
	struct s3_error error;
	const char *text = XML "<Error><Code>PermanentRedirect</Code><Message>The bucket is "
		"elsewhere</Message><Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint>"
		"<Region>eu-west-1</Region><RequestId>1</RequestId></Error>";
	const char *sts = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">"
		"<Error><Type>Sender</Type><Code>ExpiredToken</Code><Message>late</Message>"
		"</Error></ErrorResponse>";

	cr_assert(s3_xml_error(text, strlen(text), &error));
	cr_expect_str_eq(error.code, "PermanentRedirect");
	cr_expect_str_eq(error.message, "The bucket is elsewhere");
	cr_expect_str_eq(error.region, "eu-west-1");
	cr_expect_str_eq(error.endpoint, "b.s3.eu-west-1.amazonaws.com");
	cr_assert(s3_xml_error(sts, strlen(sts), &error));
	cr_expect_str_eq(error.code, "ExpiredToken");
	text = LIST(OBJECT("a"));
	cr_expect_not(s3_xml_error(text, strlen(text), &error));
	cr_expect_str_empty(error.code);
	text = "<Error><Code>cut";
	cr_expect_not(s3_xml_error(text, strlen(text), &error));
	cr_expect_not(s3_xml_error("", 0, &error));
}

Test(xml, a_long_error_is_cut_to_its_room)
{
	struct s3_error error;
	char text[2000] = "<Error><Code>";

	memset(text + 13, 'C', 1000);
	strcpy(text + 1013, "</Code></Error>");
	cr_assert(s3_xml_error(text, strlen(text), &error));
	cr_expect_eq(strlen(error.code), sizeof(error.code) - 1);
}

Test(xml, small_documents_give_one_text)
{
	const char *text = XML "<InitiateMultipartUploadResult" NS "><Bucket>b</Bucket>"
		"<Key>k</Key><UploadId>VXBsb2Fk</UploadId></InitiateMultipartUploadResult>";
	const char *sts = "<AssumeRoleResponse><AssumeRoleResult><Credentials>"
		"<AccessKeyId>id</AccessKeyId></Credentials></AssumeRoleResult>"
		"</AssumeRoleResponse>";
	char value[16];

	cr_expect_eq(s3_xml_text(text, strlen(text), "InitiateMultipartUploadResult",
				 "UploadId", value, sizeof(value)), 0);
	cr_expect_str_eq(value, "VXBsb2Fk");
	cr_expect_eq(s3_xml_text(text, strlen(text), "InitiateMultipartUploadResult",
				 "UploadId", value, 8), -E2BIG);
	cr_expect_eq(s3_xml_text(text, strlen(text), "CompleteMultipartUploadResult",
				 "UploadId", value, sizeof(value)), -EBADMSG);
	cr_expect_eq(s3_xml_text(text, strlen(text), "InitiateMultipartUploadResult",
				 "ETag", value, sizeof(value)), -EBADMSG);
	cr_expect_eq(s3_xml_text(text, strlen(text) - 5, "InitiateMultipartUploadResult",
				 "UploadId", value, sizeof(value)), -EBADMSG);
	cr_expect_eq(s3_xml_text(sts, strlen(sts), "AssumeRoleResponse",
				 "AssumeRoleResult/Credentials/AccessKeyId", value,
				 sizeof(value)), 0);
	cr_expect_str_eq(value, "id");
	/* A 200 whose body is an error is not the document. */
	text = "<Error><Code>InternalError</Code></Error>";
	cr_expect_eq(s3_xml_text(text, strlen(text), "CompleteMultipartUploadResult",
				 "ETag", value, sizeof(value)), -EBADMSG);
}

Test(xml, uploads_are_read_and_sorted_with_the_markers_of_the_next_page)
{
	struct store_listing listing;
	char *key, *upload;
	const char *text = XML "<ListMultipartUploadsResult" NS "><Bucket>b</Bucket>"
		"<NextKeyMarker>b%2B</NextKeyMarker><NextUploadIdMarker>u+1"
		"</NextUploadIdMarker><EncodingType>url</EncodingType>"
		"<IsTruncated>true</IsTruncated>"
		"<Upload><Key>b%2B</Key><UploadId>u2</UploadId><Initiator/><Initiated>"
		"2010-11-10T20:48:33.000Z</Initiated></Upload>"
		"<Upload><Key>a</Key><UploadId>u1</UploadId><Initiated>"
		"2010-11-10T20:48:34Z</Initiated></Upload></ListMultipartUploadsResult>";

	cr_assert_eq(s3_xml_uploads(text, strlen(text), &listing, &key, &upload), 0);
	cr_assert_eq(listing.nr_entries, 2);
	cr_expect_str_eq(listing.entries[0].key, "a");
	cr_expect_str_eq(listing.entries[0].upload, "u1");
	cr_expect_eq(listing.entries[0].last_modified, 1289422114);
	cr_expect_str_eq(listing.entries[1].key, "b+");
	cr_expect_str_eq(key, "b+");
	cr_expect_str_eq(upload, "u+1");
	cr_expect(listing.more);
	store_listing_free(&listing);
	free(key);
	free(upload);
	text = "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated>"
	       "</ListMultipartUploadsResult>";
	cr_expect_eq(s3_xml_uploads(text, strlen(text), &listing, &key, &upload),
		     -EBADMSG);
	cr_expect_null(key);
	text = "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>"
	       "</ListMultipartUploadsResult>";
	cr_expect_eq(s3_xml_uploads(text, strlen(text), &listing, &key, &upload), 0);
	cr_expect_eq(listing.nr_entries, 0);
	cr_expect_null(key);
	store_listing_free(&listing);
}

Test(xml, the_key_that_was_not_deleted_is_named)
{
	struct s3_error error;
	char key[8] = "";
	const char *text = XML "<DeleteResult" NS "><Error><Key>gone</Key><Code>NoSuchKey"
		"</Code></Error><Error><Key>k&lt;ey too long</Key><Code>AccessDenied</Code>"
		"<Message>Access Denied</Message></Error></DeleteResult>";

	cr_expect_eq(s3_xml_deleted(text, strlen(text), key, sizeof(key), &error), -EIO);
	cr_expect_str_eq(key, "k<ey to");
	cr_expect_str_eq(error.code, "AccessDenied");
	cr_expect_str_eq(error.message, "Access Denied");
	text = "<DeleteResult/>";
	cr_expect_eq(s3_xml_deleted(text, strlen(text), key, sizeof(key), &error), 0);
	text = "<DeleteResult><Error><Key>gone</Key><Code>NoSuchKey</Code></Error>"
	       "</DeleteResult>";
	cr_expect_eq(s3_xml_deleted(text, strlen(text), key, sizeof(key), &error), 0);
	cr_expect_str_empty(error.code);
	cr_expect_eq(s3_xml_deleted("", 0, key, sizeof(key), &error), -EBADMSG);
	text = "<Error><Code>MalformedXML</Code></Error>";
	cr_expect_eq(s3_xml_deleted(text, strlen(text), key, sizeof(key), &error),
		     -EBADMSG);
}

Test(xml, keys_to_delete_are_escaped)
{
	static const char *const keys[] = { "a<b>&\"'", "\r\n\t\xc3\xa4" };
	size_t count;
	char *text = s3_xml_delete(keys, 2, "p&/", &count);

	cr_assert_not_null(text);
	cr_expect_eq(count, strlen(text));
	cr_expect_str_eq(text, "<Delete" NS "><Quiet>true</Quiet>"
		"<Object><Key>p&amp;/a&lt;b&gt;&amp;\"'</Key></Object>"
		"<Object><Key>p&amp;/&#13;&#10;&#9;\xc3\xa4</Key></Object></Delete>");
	free(text);
	text = s3_xml_delete(keys, 0, NULL, &count);
	cr_expect_str_eq(text, "<Delete" NS "><Quiet>true</Quiet></Delete>");
	free(text);
}

Test(xml, times_are_those_of_utc)
{
	uint64_t seconds = 1;

	cr_expect_eq(s3_xml_time("1970-01-01T00:00:00Z", &seconds), 0);
	cr_expect_eq(seconds, 0);
	cr_expect_eq(s3_xml_time("2026-11-22T17:40:46.123456789Z", &seconds), 0);
	cr_expect_eq(seconds, 1795369246);
	cr_expect_eq(s3_xml_time("2026-11-22T17:40:46+00:00", &seconds), 0);
	cr_expect_eq(seconds, 1795369246);
	cr_expect_eq(s3_xml_time("2026-11-22T17:40:46+01:00", &seconds), 0);
	cr_expect_eq(seconds, 1795365646);
	cr_expect_eq(s3_xml_time("2026-11-22T17:40:46-02:30", &seconds), 0);
	cr_expect_eq(seconds, 1795378246);
	cr_expect_eq(s3_xml_time("2026-11-22T17:40:46-0230", &seconds), 0);
	cr_expect_eq(seconds, 1795378246);
	cr_expect_eq(s3_xml_time("2026-11-22T17:40:46+1:00", &seconds), -EBADMSG);
	cr_expect_eq(s3_xml_time("2026-11-22T17:40:46+010", &seconds), -EBADMSG);
	cr_expect_eq(s3_xml_time("2026-11-22T17:40:46+01000", &seconds), -EBADMSG);
	cr_expect_eq(s3_xml_time("2026-11-22T17:40:46+01:00x", &seconds), -EBADMSG);
	cr_expect_eq(s3_xml_time("2026-11-22T17:40:46", &seconds), -EBADMSG);
	cr_expect_eq(s3_xml_time("2026-11-22", &seconds), -EBADMSG);
	cr_expect_eq(s3_xml_time("1960-01-01T00:00:00Z", &seconds), -EBADMSG);
	cr_expect_eq(s3_xml_time("", &seconds), -EBADMSG);
}
