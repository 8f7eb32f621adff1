/* checksum.c: the checksums that S3 takes in headers, and base64. */
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#include "backends/s3/client.h"
#include "src/crc32c.h"

void s3_base64(const void *data, size_t count, char *text, size_t room)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *in = data;
	uint32_t bits;
	size_t i;

	for (i = 0; i < count && room > 4; i += 3, room -= 4) {
		bits = (uint32_t)in[i] << 16;
		bits |= i + 1 < count ? (uint32_t)in[i + 1] << 8 : 0;
		bits |= i + 2 < count ? in[i + 2] : 0;
		*text++ = digits[bits >> 18];
		*text++ = digits[bits >> 12 & 63];
		*text++ = i + 1 < count ? digits[bits >> 6 & 63] : '=';
		*text++ = i + 2 < count ? digits[bits & 63] : '=';
	}
	*text = 0;
}

int s3_md5(const struct iovec *iov, unsigned int nr_iov, unsigned char md5[16])
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	unsigned int i;
	int good = context && EVP_DigestInit_ex(context, EVP_md5(), NULL);

	for (i = 0; i < nr_iov && good; i++)
		good = EVP_DigestUpdate(context, iov[i].iov_base, iov[i].iov_len);
	good = good && EVP_DigestFinal_ex(context, md5, NULL);
	EVP_MD_CTX_free(context);
	return good ? 0 : -ENOMEM;
}

int s3_add_md5(struct http_headers *headers, const struct iovec *iov,
	       unsigned int nr_iov)
{
	unsigned char md5[16];
	char text[32];
	int error = s3_md5(iov, nr_iov, md5);

	if (error)
		return error;
	s3_base64(md5, sizeof(md5), text, sizeof(text));
	return http_headers_add(headers, "Content-MD5", text);
}

uint32_t s3_crc32c(const struct iovec *iov, unsigned int nr_iov)
{
	uint32_t crc = 0;
	unsigned int i;

	for (i = 0; i < nr_iov; i++)
		crc = crc32c(crc, iov[i].iov_base, iov[i].iov_len);
	return crc;
}

int s3_add_crc32c(struct http_headers *headers, uint32_t crc)
{
	char text[16];

	crc = htonl(crc);
	s3_base64(&crc, sizeof(crc), text, sizeof(text));
	return http_headers_add(headers, "x-amz-checksum-crc32c", text);
}
