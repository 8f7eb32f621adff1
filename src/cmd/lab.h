/* lab.h: what `objmap doctor` tries a server with. */
#ifndef OBJMAP_CMD_LAB_H
#define OBJMAP_CMD_LAB_H

#include "backends/s3/s3.h"
#include "src/cmd/doctor.h"

#define LAB_KEYS_MAX 64u

struct lab {
	struct findings *findings;
	struct s3_client *client;
	const char *prefix;
	uint64_t patience;		/* ns for each request */
	const atomic_bool *stop;	/* set: try nothing more */
	char *keys[LAB_KEYS_MAX];	/* that may exist */
	unsigned int nr_keys;
	char why[320];			/* of the last request that was not done */
	char tag[STORE_TAG_MAX];	/* of the last put or get that was */
};

struct header { const char *name, *value; };
#define NO_HEADERS (const struct header[]){ { NULL, NULL } }
#define HEADER(name, value) (const struct header[]){ { name, value }, { NULL, NULL } }

/* One more key to try things on, gone at the end; NULL: no memory. */
const char *lab_key(struct lab *lab);

/* Fills *call for lab_send(), or for s3_submit(). */
int lab_fill(struct lab *lab, struct s3_call *call, const char *method, const char *key,
	     const char *query, const struct header *headers);
/* Sends @call, which its caller frees, and keeps why it was not done. */
enum store_outcome lab_send(struct lab *lab, struct s3_call *call);
enum store_outcome lab_put(struct lab *lab, const char *key, const void *data,
			   size_t count, const struct header *headers);
/* @key NULL: the bucket itself. */
/* @check looks at a reply that was DONE, and returns what is wrong or NULL. */
typedef const char *reply_check(const struct s3_call *call);

enum store_outcome lab_get(struct lab *lab, const char *key, const char *query,
			   const struct header *headers, reply_check *check);
/* The caller frees *call. */
enum store_outcome lab_post(struct lab *lab, const char *key, const char *query,
			    char *body, size_t count, const struct header *headers,
			    struct s3_call *call);
enum store_outcome lab_delete(struct lab *lab, const char *key);

/* What a volume cannot do without; returns @ok.  What is not is told by lab->why. */
bool lab_must(struct lab *lab, const char *name, bool ok, const char *good,
	      const char *remedy);
/* A condition that does not hold must be refused. */
bool lab_must_refuse(struct lab *lab, const char *name, enum store_outcome outcome,
		     const char *good);
/* What it can do without. */
void lab_want(struct lab *lab, const char *name, bool ok, const char *good,
	      const char *remedy);

/* doctor_uploads.c */
void look_at_uploads(struct lab *lab);

#endif
