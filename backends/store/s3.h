/* s3.h: what the files of the S3 store share; nobody else includes it. */
#ifndef OBJMAP_STORE_S3_H
#define OBJMAP_STORE_S3_H

#include <pthread.h>

#include "backends/s3/s3.h"
#include "backends/s3/xml.h"
#include "backends/store/store.h"

struct s3_op;

struct s3_store {
	struct store store;		/* must stay first */
	struct s3_client *client;
	char *prefix;			/* "" or "PREFIX/" */
	size_t prefix_length;

	pthread_mutex_t lock;		/* over all below */
	pthread_cond_t change;
	struct s3_op *under_way;	/* calls not done yet */
	pthread_t watch;		/* looks whether they were cancelled */
	bool watching, idle, closing;
	int logged_error;		/* of the last failure told, and when */
	uint64_t logged_at;
};

/* One call that is made for a request; or for nobody, when a left upload is
 * aborted. */
struct s3_op {
	struct s3_call call;		/* must stay first */
	struct s3_store *s3;
	struct store_request *request;	/* NULL: nobody waits */
	void (*done)(struct s3_op *op);	/* not in the list any more; frees it */
	struct s3_op *previous, *next;
	bool cut;			/* its call was cancelled */
	char key[STORE_KEY_MAX];	/* from the top of the bucket */
	char *query, *body;		/* malloc'ed or NULL */
	struct iovec iov;		/* of @body, or of @byte */
	struct iovec *pieces;		/* malloc'ed: of a part's body, or NULL */
	char byte;			/* where what nobody asked for is read to */
	unsigned int step;		/* whose done() it is says what it means */
	struct upload *upload;		/* of a put in parts */
	struct store_listing found;	/* list_uploads: of earlier pages */
};

/* ---- s3.c ----------------------------------------------------------------------- */

/* A call for @request on @key, relative to the prefix, or from the top when it
 * begins with '/'; NULL: the bucket itself.  NULL: it was completed as FAILED (no
 * memory, a key that is too long). */
struct s3_op *s3_op_new(struct s3_store *s3, struct store_request *request,
			const char *method, const char *key);
/* Takes over @query (malloc'ed; NULL: no memory).  0 or -ENOMEM. */
int s3_op_query(struct s3_op *op, char *query);
/* Takes over @body (malloc'ed; NULL: no memory) of @count bytes.  0 or -ENOMEM. */
int s3_op_body(struct s3_op *op, char *body, size_t count);
void s3_op_start(struct s3_op *op, void (*done)(struct s3_op *op));
void s3_op_free(struct s3_op *op);
/* Completes op->request as the call was judged, and frees @op. */
void s3_op_complete(struct s3_op *op);
/* The same as another outcome, which @op's error and message go with. */
void s3_op_complete_as(struct s3_op *op, enum store_outcome outcome);
/* FAILED for want of memory and the like, when there was no call. */
void s3_op_fail(struct s3_op *op, int error);
/* Counts a call beyond the one that the doorway counted. */
void s3_count_call(struct s3_store *s3, const struct store_request *request);
/* Tag, size, times and metadata of an object from the reply's headers. */
void s3_take_object(const struct s3_call *call, struct store_reply *reply);

/* ---- the operations ---------------------------------------------------------------- */

void s3_get(struct s3_store *s3, struct store_request *request);
void s3_put(struct s3_store *s3, struct store_request *request);
/* Adds x-amz-meta-NAME headers.  0 or as http_headers_add(). */
int s3_add_metadata(struct http_headers *headers, const struct store_metadata *metadata);
/* Adds If-None-Match or If-Match as @request wants. */
int s3_add_condition(struct http_headers *headers, const struct store_request *request);
void s3_put_parts(struct s3_store *s3, struct store_request *request);
void s3_forget(struct store *store, struct store_request *request);
void s3_delete(struct s3_store *s3, struct store_request *request);
void s3_abort_upload(struct s3_store *s3, struct store_request *request);
void s3_list(struct s3_store *s3, struct store_request *request);
void s3_list_uploads(struct s3_store *s3, struct store_request *request);

#endif
