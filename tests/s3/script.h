/* script.h: an S3 server that plays what a test wrote down.
 *
 * A line answers the requests whose first line begins with its words, so many times;
 * the first line that fits is taken.  What none fits is answered 500, and counted. */
#ifndef OBJMAP_TESTS_S3_SCRIPT_H
#define OBJMAP_TESTS_S3_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>

#include "backends/s3/s3.h"

#define XML_ERROR(CODE) "<?xml version=\"1.0\"?><Error><Code>" CODE "</Code>" \
			"<Message>words of " CODE "</Message></Error>"

struct line {
	const char *request;	/* "GET /bucket/key" */
	const char *status;	/* "200 OK"; NULL: hangs up without a word */
	const char *headers;	/* "ETag: \"x\"\r\n"; NULL: none */
	const char *body;	/* NULL: none */
	unsigned int times;	/* 0: always */
	size_t cut;		/* bytes of the body's end that never come */
};

struct script;
/* @lines stay; until the one without a request. */
struct script *script_start(const struct line *lines, bool tls);
void script_stop(struct script *script);
/* While it is shut nobody is answered, or only the first @nr requests. */
void script_shut(struct script *script);
void script_shut_after(struct script *script, unsigned int nr);
void script_open(struct script *script);
unsigned int script_port(const struct script *script);
/* How many requests began with @request, and how many nothing fitted. */
unsigned int script_count(struct script *script, const char *request);
unsigned int script_misfits(struct script *script);
/* Copies the value of header @name of the nr-th (from 0) request that began with
 * @request; false: there is none. */
bool script_header(struct script *script, const char *request, unsigned int nr,
		   const char *name, char *value, size_t size);
/* The body of that request; NULL: none.  Until script_stop(). */
const char *script_body(struct script *script, const char *request, unsigned int nr);

/* An environment with keys "AKID" and "SECRET" and nothing else; without proxies. */
void script_environment(void);
/* Options with the script as endpoint; the strings stay until the next call. */
struct s3_options script_options(const struct script *script);
struct s3_client *script_client(const struct script *script);
/* A store of bucket "b" with prefix "p" that tries once. */
struct store *script_store(const struct script *script, const struct s3_options *options);

#endif
