/* iov.c: copying between a request's buffers and one flat piece of memory. */
#include <assert.h>
#include <string.h>

#include "src/stage/iov.h"

size_t iov_count(const struct iovec *iov, unsigned int nr_iov)
{
	size_t count = 0;

	for (unsigned int i = 0; i < nr_iov; i++)
		count += iov[i].iov_len;
	return count;
}

/* Steps over the pieces that end within the first *@skip bytes, and leaves in
 * *@skip what is to be skipped of the first piece that remains. */
static unsigned int iov_seek(const struct iovec *iov, unsigned int nr_iov,
			     size_t *skip)
{
	unsigned int i = 0;

	while (i < nr_iov && *skip >= iov[i].iov_len)
		*skip -= iov[i++].iov_len;
	return i;
}

unsigned int iov_slice(const struct iovec *iov, unsigned int nr_iov,
		       size_t skip, size_t count, struct iovec *slice)
{
	unsigned int i = iov_seek(iov, nr_iov, &skip);
	unsigned int nr = 0;

	for (; count; i++, skip = 0) {
		size_t length;

		assert(i < nr_iov);
		length = iov[i].iov_len - skip;
		if (length > count)
			length = count;
		if (!length)
			continue;
		slice[nr].iov_base = (char *)iov[i].iov_base + skip;
		slice[nr++].iov_len = length;
		count -= length;
	}
	return nr;
}

void iov_copy_in(const struct iovec *iov, unsigned int nr_iov, size_t skip,
		 const void *data, size_t count)
{
	const char *from = data;
	unsigned int i = iov_seek(iov, nr_iov, &skip);

	for (; count; i++, skip = 0) {
		size_t length;

		assert(i < nr_iov);
		length = iov[i].iov_len - skip;
		if (length > count)
			length = count;
		if (length)
			memcpy((char *)iov[i].iov_base + skip, from, length);
		from += length;
		count -= length;
	}
}

void iov_copy_out(const struct iovec *iov, unsigned int nr_iov, size_t skip,
		  void *data, size_t count)
{
	char *to = data;
	unsigned int i = iov_seek(iov, nr_iov, &skip);

	for (; count; i++, skip = 0) {
		size_t length;

		assert(i < nr_iov);
		length = iov[i].iov_len - skip;
		if (length > count)
			length = count;
		if (length)
			memcpy(to, (const char *)iov[i].iov_base + skip, length);
		to += length;
		count -= length;
	}
}

void iov_zero(const struct iovec *iov, unsigned int nr_iov, size_t skip,
	      size_t count)
{
	unsigned int i = iov_seek(iov, nr_iov, &skip);

	for (; count; i++, skip = 0) {
		size_t length;

		assert(i < nr_iov);
		length = iov[i].iov_len - skip;
		if (length > count)
			length = count;
		if (length)
			memset((char *)iov[i].iov_base + skip, 0, length);
		count -= length;
	}
}
