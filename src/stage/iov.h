/* iov.h: copying between a request's buffers and one flat piece of memory. */
#ifndef OBJMAP_IOV_H
#define OBJMAP_IOV_H

#include <stddef.h>
#include <sys/uio.h>

/* Bytes of all @nr_iov pieces together. */
size_t iov_count(const struct iovec *iov, unsigned int nr_iov);

/* Copies @count bytes from @data into the pieces, from byte @skip of them on. */
void iov_copy_in(const struct iovec *iov, unsigned int nr_iov, size_t skip,
		 const void *data, size_t count);

/* Copies @count bytes out of the pieces, from byte @skip of them on, to @data. */
void iov_copy_out(const struct iovec *iov, unsigned int nr_iov, size_t skip,
		  void *data, size_t count);

/* Fills @count bytes of the pieces, from byte @skip on, with zeros. */
void iov_zero(const struct iovec *iov, unsigned int nr_iov, size_t skip,
	      size_t count);

/* Describes bytes @skip to @skip + @count of the pieces in @slice, which has
 * room for @nr_iov.  Returns how many of its entries are used. */
unsigned int iov_slice(const struct iovec *iov, unsigned int nr_iov,
		       size_t skip, size_t count, struct iovec *slice);

#endif
