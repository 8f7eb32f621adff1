/* test-http.c: the pool of HTTP connections against a server that says what the
 * test wants: replies whole and otherwise, deadlines, cancelling, turns. */
#include <criterion/criterion.h>
#include <curl/curl.h>
#include <errno.h>
#include <netdb.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/http/http.h"
#include "src/clock.h"
#include "tests/http/server.h"

#define MS CLOCK_MS

TestSuite(http, .timeout = 60);

/* ---- a world ------------------------------------------------------------------ */

static struct server *server;
static struct http_client *client;
static char data[1 << 20];		/* what the server has */

static void serve(server_answer *answer)
{
	struct server_options options = { .answer = answer };

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (char)(i * 31 + (i >> 8) * 7);
	server = server_start(&options);
}

static void open_client(struct http_client_options options)
{
	options.no_proxy = true;
	cr_assert_eq(http_client_open(&options, &client), 0);
}

static void world(server_answer *answer)
{
	serve(answer);
	open_client((struct http_client_options){ .connections = 4 });
}

static void world_end(void)
{
	http_client_close(client);
	server_stop(server);
}

struct asked {
	struct http_request request;
	struct iovec iov;
	char *buffer;
	sem_t done;
	unsigned int order;		/* in which it ended, from 1 */
};

static atomic_uint nr_ended;

static void asked_done(struct http_request *request)
{
	struct asked *asked = request->context;

	asked->order = atomic_fetch_add(&nr_ended, 1) + 1;
	sem_post(&asked->done);
}

/* A GET of @path into room for @count bytes. */
static struct asked *get(const char *path, size_t count)
{
	struct asked *asked = calloc(1, sizeof(*asked));

	sem_init(&asked->done, 0, 0);
	asked->buffer = malloc(count + 1);
	asked->iov = (struct iovec){ asked->buffer, count };
	asked->request.method = "GET";
	asked->request.url = server_url(server, path);
	asked->request.sink = &asked->iov;
	asked->request.nr_sink = 1;
	asked->request.sink_count = count;
	asked->request.text_max = 100;
	asked->request.done = asked_done;
	asked->request.context = asked;
	return asked;
}

static struct asked *put(const char *path, size_t count)
{
	struct asked *asked = get(path, 0);

	asked->request.method = "PUT";
	asked->request.sink = NULL;
	asked->iov = (struct iovec){ data, count };
	asked->request.body = &asked->iov;
	asked->request.nr_body = 1;
	asked->request.body_count = count;
	asked->request.priority = PRIORITY_PUSH;
	return asked;
}

static struct asked *submit(struct asked *asked)
{
	http_submit(client, &asked->request);
	return asked;
}

static bool wait_ms(struct asked *asked, unsigned int ms)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += ms % 1000 * 1000000l;
	if (until.tv_nsec >= 1000000000l) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000l;
	}
	return sem_timedwait(&asked->done, &until) == 0;
}

static struct asked *ended(struct asked *asked)
{
	cr_assert(wait_ms(asked, 20000), "a request does not end");
	return asked;
}

static struct asked *ask(struct asked *asked)
{
	return ended(submit(asked));
}

static void drop(struct asked *asked)
{
	http_request_free(&asked->request);
	sem_destroy(&asked->done);
	free(asked->buffer);
	free(asked);
}

static void expect(struct asked *asked, enum http_failure failure, int error)
{
	struct http_request *request = &asked->request;

	cr_assert_eq(request->error, error, "%s: error %d, not %d: %s", request->url,
		     request->error, error, request->message);
	cr_assert_eq(request->failure, failure, "%s: failure %d, not %d: %s",
		     request->url, request->failure, failure, request->message);
	if (error)
		cr_assert(request->message[0], "no word about why");
}

static void expect_status(struct asked *asked, int status)
{
	expect(asked, HTTP_REPLIED, 0);
	cr_assert_eq(asked->request.status, status);
}

static void expect_data(struct asked *asked, size_t count)
{
	expect_status(asked, 200);
	cr_assert_eq(asked->request.sunk, count);
	cr_assert_eq(memcmp(asked->buffer, data, count), 0);
}

/* ---- replies that are whole ------------------------------------------------------ */

static bool reply_1000(struct visit *visit)
{
	visit_reply(visit, data, 1000);
	return true;
}

Test(http, requests_one_after_the_other_use_one_connection)
{
	struct http_counts counts;

	world(reply_1000);
	for (int i = 0; i < 10; i++) {
		struct asked *asked = ask(get("/", 1000));

		expect_data(asked, 1000);
		drop(asked);
	}
	cr_assert_eq(server_connections(server), 1);
	http_counts(&counts);
	cr_assert_eq(counts.connects, 1);
	cr_assert_eq(counts.connections, 1);
	world_end();
	http_counts(&counts);
	cr_assert_eq(counts.connections, 0);
}

static bool reply_all(struct visit *visit)
{
	visit_reply(visit, data, sizeof(data));
	return true;
}

Test(http, a_reply_is_spread_over_the_pieces_of_the_sink)
{
	char *buffer = malloc(sizeof(data));
	struct iovec iov[] = { { buffer, 1 }, { buffer + 1, 0 },
			       { buffer + 1, 70001 },
			       { buffer + 70002, sizeof(data) - 70002 } };
	struct asked *asked;

	world(reply_all);
	asked = get("/", 0);
	asked->request.sink = iov;
	asked->request.nr_sink = 4;
	asked->request.sink_count = sizeof(data);
	expect_status(ask(asked), 200);
	cr_assert_eq(memcmp(buffer, data, sizeof(data)), 0);
	drop(asked);
	world_end();
	free(buffer);
}

static bool compare_body(struct visit *visit)
{
	char value[32] = "none";

	visit_header(visit, "Content-Length", value, sizeof(value));
	if (visit_header(visit, "Expect", value, sizeof(value)) ||
	    visit_header(visit, "Transfer-Encoding", value, sizeof(value)) ||
	    visit->body_count != strtoull(visit->target + 1, NULL, 10) ||
	    strtoull(value, NULL, 10) != visit->body_count || value[0] == 'n' ||
	    memcmp(visit->body, data, visit->body_count))
		visit_say(visit, "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n");
	else
		visit_reply(visit, "", 0);
	return true;
}

Test(http, a_body_goes_out_of_its_pieces_with_its_length)
{
	struct iovec iov[] = { { data, 3 }, { data + 3, 500000 }, { data, 0 },
			       { data + 500003, sizeof(data) - 500003 } };
	struct asked *asked;

	world(compare_body);
	asked = put("/1048576", sizeof(data));
	asked->request.body = iov;
	asked->request.nr_body = 4;
	expect_status(ask(asked), 200);
	drop(asked);
	asked = ask(put("/0", 0));
	expect_status(asked, 200);
	drop(asked);
	asked = put("/5", 5);
	asked->request.method = "POST";
	expect_status(ask(asked), 200);
	drop(asked);
	asked = put("/0", 0);
	asked->request.method = "POST";
	expect_status(ask(asked), 200);
	drop(asked);
	world_end();
}

static bool reply_head(struct visit *visit)
{
	char value[64];

	if (strcmp(visit->method, "HEAD") ||
	    !visit_header(visit, "X-Empty", value, sizeof(value)) || value[0] ||
	    !visit_header(visit, "X-Full", value, sizeof(value)) ||
	    strcmp(value, "a  b") || visit_header(visit, "Cookie", value, sizeof(value)))
		visit_say(visit, "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n");
	else
		visit_say(visit, "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n"
				 "Set-Cookie: a=b; path=/\r\nETag: \"x\"\r\n\r\n");
	return true;
}

Test(http, headers_go_both_ways)
{
	struct asked *asked;

	world(reply_head);
	for (int i = 0; i < 2; i++) {	/* the second has no cookie */
		asked = get("/", 0);
		asked->request.method = "HEAD";
		asked->request.sink = NULL;
		http_headers_add(&asked->request.headers, "X-Empty", "");
		http_headers_add(&asked->request.headers, "X-Full", "a  b");
		expect_status(ask(asked), 200);
		cr_assert_eq(asked->request.length, 12345);
		cr_assert_str_eq(http_headers_find(&asked->request.reply, "etag"),
				 "\"x\"");
		drop(asked);
	}
	cr_assert_eq(server_connections(server), 1);
	world_end();
}

static bool reply_chunked(struct visit *visit)
{
	visit_say(visit, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
			 "5\r\nhello\r\n");
	if (visit_is(visit, "/cut"))
		return false;
	visit_say(visit, "0\r\nX-Late: yes\r\n\r\n");
	return true;
}

Test(http, a_chunked_reply_is_whole_with_its_end_only)
{
	struct asked *asked;

	world(reply_chunked);
	asked = ask(get("/", 100));
	expect_status(asked, 200);
	cr_assert_eq(asked->request.sunk, 5);
	cr_assert_eq(asked->request.length, UINT64_MAX);
	cr_assert_eq(memcmp(asked->buffer, "hello", 5), 0);
	drop(asked);
	asked = ask(get("/", 4));
	expect(asked, HTTP_LOST, -EFBIG);
	drop(asked);
	asked = ask(get("/cut", 100));
	expect(asked, HTTP_LOST, -ECONNRESET);
	drop(asked);
	world_end();
}

static bool reply_continue(struct visit *visit)
{
	visit_say(visit, "HTTP/1.1 100 Continue\r\nX-Not: this\r\n\r\n"
			 "HTTP/1.1 102 Processing\r\n\r\n");
	visit_reply(visit, data, 1000);
	return true;
}

Test(http, interim_replies_are_passed_over)
{
	struct asked *asked;

	world(reply_continue);
	asked = ask(get("/", 1000));
	expect_data(asked, 1000);
	cr_assert_null(http_headers_find(&asked->request.reply, "X-Not"));
	drop(asked);
	world_end();
}

static bool reply_redirect(struct visit *visit)
{
	visit_say(visit, visit_is(visit, "/") ?
			 "HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n" :
			 "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
	return true;
}

Test(http, a_redirect_is_the_callers_business)
{
	struct asked *asked;

	world(reply_redirect);
	asked = ask(get("/", 10));
	expect_status(asked, 302);
	cr_assert_str_eq(http_headers_find(&asked->request.reply, "location"), "/other");
	cr_assert_eq(server_requests(server), 1);
	drop(asked);
	world_end();
}

static bool reply_long_error(struct visit *visit)
{
	visit_say(visit, visit_is(visit, "/200") ?
			 "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" :
			 "HTTP/1.1 503 No\r\nContent-Length: 5000\r\n\r\n");
	visit_write(visit, data, 5000);
	return true;
}

Test(http, the_text_of_an_error_is_cut_and_that_of_a_success_is_not)
{
	struct asked *asked;

	world(reply_long_error);
	asked = ask(get("/503", 10000));
	expect_status(asked, 503);
	cr_assert_eq(asked->request.sunk, 0);
	cr_assert_eq(asked->request.text_count, 100);
	cr_assert_eq(memcmp(asked->request.text, data, 100), 0);
	cr_assert_eq(asked->request.text[100], 0);
	drop(asked);
	asked = get("/200", 0);
	asked->request.sink = NULL;
	expect(ask(asked), HTTP_LOST, -EFBIG);
	drop(asked);
	world_end();
}

/* ---- replies that are not -------------------------------------------------------- */

static const struct wrong {
	const char *path, *reply;
	int error;
} wrongs[] = {
	{ "/short", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc", -ECONNRESET },
	{ "/none", "", -ECONNRESET },
	{ "/cut", "HTTP/1.1 200 OK\r\nContent-Le", -ECONNRESET },
	{ "/endless", "HTTP/1.1 200 OK\r\n\r\nabc", -EPROTO },
	{ "/old", "HTTP/1.0 200 OK\r\n\r\nabc", -EPROTO },
	{ "/longer", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", -EPROTO },
	{ "/long", "HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\nabc", -EFBIG },
	{ "/two", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
	  -EPROTO },
	{ "/minus", "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc", -EPROTO },
	{ "/word", "HTTP/1.1 200 OK\r\nContent-Length: three\r\n\r\nabc", -EPROTO },
	{ "/garbage", "SSH-2.0-OpenSSH_9.2\r\n", -EPROTO },
	{ "/colon", "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n", -EPROTO },
	{ "/control", "HTTP/1.1 200 OK\r\nA: b\001c\r\nContent-Length: 0\r\n\r\n", -EPROTO },
	{ "/folded", "HTTP/1.1 200 OK\r\nA: b\r\n c: d\r\nContent-Length: 0\r\n\r\n",
	  -EPROTO },
	{ "/switch", "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", -EPROTO },
};
#define NR_WRONGS (sizeof(wrongs) / sizeof(*wrongs))

static bool reply_wrong(struct visit *visit)
{
	for (size_t i = 0; i < NR_WRONGS; i++)
		if (visit_is(visit, wrongs[i].path))
			visit_say(visit, wrongs[i].reply);
	if (visit_is(visit, "/good"))
		return reply_1000(visit);
	if (visit_is(visit, "/reset")) {
		visit_say(visit, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc");
		usleep(50000);
		return visit_reset(visit);
	}
	return visit_is(visit, "/longer");
}

Test(http, a_reply_that_is_not_whole_is_no_success)
{
	struct asked *asked;

	world(reply_wrong);
	for (size_t i = 0; i < NR_WRONGS; i++) {
		asked = ask(get(wrongs[i].path, 1000));
		expect(asked, HTTP_LOST, wrongs[i].error);
		drop(asked);
		asked = ask(get("/good", 1000));	/* and nothing is left of it */
		expect_data(asked, 1000);
		drop(asked);
	}
	asked = ask(get("/reset", 1000));
	expect(asked, HTTP_LOST, -ECONNRESET);
	drop(asked);
	world_end();
}

static bool reply_many_headers(struct visit *visit)
{
	visit_say(visit, "HTTP/1.1 200 OK\r\n");
	for (int i = 0; i < 2000; i++)
		visit_say(visit, "X-Some: 0123456789012345678901234567890123456789\r\n");
	visit_say(visit, "Content-Length: 0\r\n\r\n");
	return true;
}

Test(http, headers_without_end_are_refused)
{
	struct asked *asked;

	world(reply_many_headers);
	asked = ask(get("/", 10));
	expect(asked, HTTP_LOST, -EPROTO);
	cr_assert_leq(asked->request.reply.room, 2 * HTTP_HEADERS_MAX);
	drop(asked);
	world_end();
}

static int headed_no(struct http_request *request)
{
	return request->status == 200 ? -ESTALE : 0;
}

Test(http, who_asked_may_refuse_a_reply_by_its_headers)
{
	struct asked *asked;

	world(reply_all);
	asked = get("/", sizeof(data));
	asked->request.headed = headed_no;
	expect(ask(asked), HTTP_LOST, -ESTALE);
	cr_assert_eq(asked->request.sunk, 0);
	drop(asked);
	world_end();
}

/* ---- connections that fail -------------------------------------------------------- */

Test(http, what_finds_no_server_was_not_sent)
{
	struct asked *asked;

	world(reply_1000);
	asked = get("/", 10);
	free(asked->request.url);
	asked->request.url = strdup("http://no-such-host.invalid/");
	expect(ask(asked), HTTP_NOT_SENT, -ENOENT);
	drop(asked);
	asked = get("/", 10);
	free(asked->request.url);
	asked->request.url = strdup("http://127.0.0.1:1/");
	expect(ask(asked), HTTP_NOT_SENT, -ECONNREFUSED);
	drop(asked);
	asked = get("/", 10);
	free(asked->request.url);
	asked->request.url = strdup("ftp://127.0.0.1/");
	expect(ask(asked), HTTP_NOT_SENT, -EINVAL);
	drop(asked);
	world_end();
}

#define STALL (400 * MS)

static atomic_bool drip_paused;		/* the server itself did not run for long */

static bool reply_stall(struct visit *visit)
{
	uint64_t last = clock_now();

	if (visit_is(visit, "/good"))
		return reply_1000(visit);
	if (visit_is(visit, "/drip")) {
		visit_say(visit, "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n");
		for (int i = 0; i < 20000; i += 1000) {
			usleep(50000);
			if (clock_now() - last > STALL / 2)
				atomic_store(&drip_paused, true);
			last = clock_now();
			visit_write(visit, data + i, 1000);
		}
		return true;
	}
	visit_say(visit, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
	if (visit_is(visit, "/drops")) {
		for (int i = 0; i < 1000; i++) {
			usleep(20000);
			visit_write(visit, data + i, 1);
		}
		return true;
	}
	server_wait_open(visit->server);
	return false;
}

Test(http, a_stalled_reply_is_given_up_and_a_slow_one_is_not)
{
	struct asked *stalled, *slow;
	uint64_t began = clock_now(), took;

	serve(reply_stall);
	server_shut_gate(server);
	open_client((struct http_client_options){ .stall_timeout = STALL });
	stalled = ask(get("/stall", 1000));
	expect(stalled, HTTP_LOST, -ETIMEDOUT);
	took = clock_now() - began;
	cr_assert(took > STALL - 50 * MS && took < 15000 * MS);
	drop(stalled);
	/* A machine that pauses the server makes a stall of it: then once more. */
	for (int i = 0; i < 10; i++) {
		atomic_store(&drip_paused, false);
		slow = ask(get("/drip", 20000));
		if (!slow->request.error || !atomic_load(&drip_paused))
			break;
		drop(slow);
	}
	expect_data(slow, 20000);
	drop(slow);
	world_end();
}

Test(http, content_that_comes_in_drops_is_given_up)
{
	struct asked *drops;

	serve(reply_stall);
	server_shut_gate(server);
	open_client((struct http_client_options){ .stall_timeout = STALL });
	drops = ask(get("/drops", 1000));
	expect(drops, HTTP_LOST, -ETIMEDOUT);
	drop(drops);
	world_end();
}

#if LIBCURL_VERSION_NUM >= 0x075700	/* an older one waits */
static atomic_bool names_are_slow, lookup_ended;

/* Instead of the C library's, for libcurl too: names are looked up until the test does
 * not want that any more, and then there is none. */
int getaddrinfo(const char *restrict node, const char *restrict service,
		const struct addrinfo *restrict hints, struct addrinfo **restrict found)
{
	while (atomic_load(&names_are_slow))
		usleep(10000);
	atomic_store(&lookup_ended, true);
	return EAI_NONAME;
}

Test(http, a_name_that_is_looked_up_for_long_keeps_nobody_waiting)
{
	struct asked *slow, *good;
	bool waited;

	world(reply_stall);
	atomic_store(&names_are_slow, true);
	slow = get("/", 10);
	free(slow->request.url);
	slow->request.url = strdup("http://name.example/");
	slow->request.deadline = clock_now() + 100 * MS;
	ask(slow);
	good = ask(get("/good", 1000));
	waited = atomic_load(&lookup_ended);
	atomic_store(&names_are_slow, false);
	cr_expect(!waited);
	expect(slow, HTTP_NOT_SENT, -ETIMEDOUT);
	expect_data(good, 1000);
	drop(slow);
	drop(good);
	while (!atomic_load(&lookup_ended))
		usleep(10000);
	world_end();
}
#endif

static bool reply_that_it_is_at_it(struct visit *visit)
{
	for (int i = 0; i < 20000; i++)
		visit_say(visit, "HTTP/1.1 102 Processing\r\n\r\n");
	return false;
}

Test(http, a_server_that_only_says_that_it_is_at_it_is_given_up)
{
	struct asked *asked;

	world(reply_that_it_is_at_it);
	asked = ask(get("/", 10));
	expect(asked, HTTP_LOST, -EPROTO);
	drop(asked);
	world_end();
}

/* Takes the body piece by piece; all of it is in the kernel's hands long before. */
static bool take_slowly(struct visit *visit)
{
	uint64_t last = clock_now(), left = visit->length;
	int room = 32768;
	char piece[32768];
	ssize_t n;

	setsockopt(visit->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	for (; left; left -= (uint64_t)n) {
		n = recv(visit->fd, piece, sizeof(piece) < left ? sizeof(piece) : left,
			 MSG_WAITALL);
		if (n <= 0)
			return false;
		usleep(30000);
		if (clock_now() - last > STALL / 2)
			atomic_store(&drip_paused, true);
		last = clock_now();
	}
	visit_reply(visit, "", 0);
	return true;
}

Test(http, a_body_that_a_slow_way_takes_long_to_carry_has_not_stalled)
{
	struct server_options options = { .answer = take_slowly, .leaves_body = true };
	struct asked *slow;

	server = server_start(&options);
	open_client((struct http_client_options){ .stall_timeout = STALL });
	for (int i = 0; i < 10; i++) {
		atomic_store(&drip_paused, false);
		slow = ask(put("/", sizeof(data)));
		if (!slow->request.error || !atomic_load(&drip_paused))
			break;
		drop(slow);
	}
	expect(slow, HTTP_REPLIED, 0);
	drop(slow);
	world_end();
}

Test(http, a_deadline_ends_what_runs_and_what_waits)
{
	struct asked *running, *waiting, *later;
	uint64_t limit = 400 * MS, began, took;
	bool slow;

	serve(reply_stall);
	server_shut_gate(server);
	open_client((struct http_client_options){ .connections = 1 });
	for (;; limit *= 3) {
		began = clock_now();
		running = get("/stall", 1000);
		running->request.deadline = began + limit;
		submit(running);
		waiting = get("/stall", 1000);
		waiting->request.deadline = began + limit / 2;
		submit(waiting);
		later = submit(get("/good", 1000));
		ended(waiting);
		ended(running);
		took = clock_now() - began;
		expect_data(ended(later), 1000);
		/* What was not even sent in its time, or ended with the other, had too
		 * little of it: the machine is slow. */
		slow = running->request.failure == HTTP_NOT_SENT ||
		       waiting->order > running->order;
		if (!slow || limit > 5000 * MS)
			break;
		drop(running);
		drop(waiting);
		drop(later);
	}
	expect(waiting, HTTP_NOT_SENT, -ETIMEDOUT);
	expect(running, HTTP_LOST, -ETIMEDOUT);
	cr_assert_lt(waiting->order, running->order, "the deadlines have changed places");
	cr_assert(took > limit - 10 * MS && took < limit + 10000 * MS);
	drop(running);
	drop(waiting);
	drop(later);
	world_end();
}

/* A connection that has served is dropped when the next request has come in. */
static bool reply_once(struct visit *visit)
{
	if (visit->connection == 0 && visit->number == 1)
		return visit_reset(visit);
	if (visit->body_count && memcmp(visit->body, data, visit->body_count))
		return visit_reset(visit);
	return reply_1000(visit);
}

Test(http, a_request_that_libcurl_sent_again_says_so)
{
	struct asked *asked;

	world(reply_once);
	asked = ask(get("/", 1000));
	expect_data(asked, 1000);
	cr_assert_not(asked->request.resent);
	drop(asked);
	asked = put("/", 300000);
	asked->request.text_max = 1000;
	ask(asked);
	expect_status(asked, 200);
	cr_assert(asked->request.resent);
	cr_assert_eq(server_requests(server), 3);
	drop(asked);
	world_end();
}

static bool reply_early(struct visit *visit)
{
	visit_say(visit, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
	server_wait_open(visit->server);	/* a reset would overtake the reply */
	return false;
}

Test(http, a_refusal_before_all_is_sent_is_heard)
{
	struct server_options options = { .answer = reply_early, .leaves_body = true };
	struct asked *asked;
	char *much = calloc(1, 16 << 20);

	server = server_start(&options);
	server_shut_gate(server);
	open_client((struct http_client_options){ .connections = 1 });
	asked = put("/", 0);
	asked->iov = (struct iovec){ much, 16 << 20 };
	asked->request.body_count = 16 << 20;
	expect_status(ask(asked), 403);
	cr_assert_str_eq(asked->request.text, "no");
	drop(asked);
	world_end();
	free(much);
}

/* ---- cancelling ------------------------------------------------------------------ */

static bool reply_gate(struct visit *visit)
{
	server_wait_open(visit->server);
	return reply_1000(visit);
}

Test(http, what_waits_is_cancelled_at_once)
{
	struct asked *running, *waiting, *last;

	serve(reply_gate);
	server_shut_gate(server);
	open_client((struct http_client_options){ .connections = 1 });
	running = submit(put("/", 1000));
	running->request.text_max = 1000;
	cr_assert(server_wait_requests(server, 1));
	waiting = submit(get("/", 1000));
	last = submit(get("/", 1000));
	http_cancel(&waiting->request);
	expect(ended(waiting), HTTP_NOT_SENT, -ECANCELED);
	http_cancel(&running->request);		/* little is left of it */
	cr_assert(!wait_ms(running, 200));
	server_open_gate(server);
	expect_status(ended(running), 200);
	expect_data(ended(last), 1000);
	cr_assert_eq(server_requests(server), 2);
	drop(running);
	drop(waiting);
	drop(last);
	world_end();
}

static bool reply_gate_late(struct visit *visit)
{
	char head[80];
	size_t count = strtoul(visit->target + 1, NULL, 10);

	snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n",
		 count);
	if (visit_is(visit, "/0"))
		server_wait_open(visit->server);
	visit_say(visit, head);
	visit_write(visit, data, 1000);
	server_wait_open(visit->server);
	visit_write(visit, data + 1000, count - 1000);
	return true;
}

static sem_t headed;

static int note_headed(struct http_request *request)
{
	sem_post(&headed);
	return 0;
}

Test(http, what_runs_is_cut_when_much_is_left)
{
	struct asked *much, *little, *unanswered;

	world(reply_gate_late);
	server_shut_gate(server);
	sem_init(&headed, 0, 0);
	much = get("/1000000", sizeof(data));
	little = get("/2000", 2000);
	much->request.headed = little->request.headed = note_headed;
	submit(much);
	submit(little);
	unanswered = submit(get("/0", 1000));
	cr_assert(server_wait_requests(server, 3));
	sem_wait(&headed);		/* the headers arrive */
	sem_wait(&headed);
	http_cancel(&much->request);
	http_cancel(&little->request);
	http_cancel(&unanswered->request);
	expect(ended(much), HTTP_LOST, -ECANCELED);
	expect(ended(unanswered), HTTP_LOST, -ECANCELED);
	cr_assert(!wait_ms(little, 200));
	server_open_gate(server);
	expect_data(ended(little), 2000);
	drop(much);
	drop(little);
	drop(unanswered);
	world_end();
}

/* ---- whose turn it is --------------------------------------------------------------- */

Test(http, demand_goes_before_prefetch_before_push)
{
	struct asked *first, *push, *prefetch, *demand;

	serve(reply_gate);
	server_shut_gate(server);
	open_client((struct http_client_options){ .connections = 1 });
	first = submit(get("/", 1000));
	cr_assert(server_wait_requests(server, 1));
	push = put("/", 1000);
	push->request.text_max = 1000;
	submit(push);
	prefetch = get("/", 1000);
	prefetch->request.priority = PRIORITY_PREFETCH;
	submit(prefetch);
	demand = submit(get("/", 1000));
	server_open_gate(server);
	ended(first);
	expect_data(ended(demand), 1000);
	expect_data(ended(prefetch), 1000);
	expect_status(ended(push), 200);
	cr_assert_eq(demand->order, 2);
	cr_assert_eq(prefetch->order, 3);
	cr_assert_eq(push->order, 4);
	drop(first);
	drop(push);
	drop(prefetch);
	drop(demand);
	world_end();
}

Test(http, clients_take_turns)
{
	struct http_client_options options = { .connections = 1, .no_proxy = true };
	struct http_client *other;
	struct asked *first, *many[10], *few[2];

	serve(reply_gate);
	server_shut_gate(server);
	open_client((struct http_client_options){ .connections = 1 });
	cr_assert_eq(http_client_open(&options, &other), 0);
	first = submit(get("/", 1000));
	cr_assert(server_wait_requests(server, 1));
	for (int i = 0; i < 10; i++)
		many[i] = submit(get("/", 1000));
	for (int i = 0; i < 2; i++) {
		few[i] = get("/", 1000);
		http_submit(other, &few[i]->request);
	}
	server_open_gate(server);
	for (int i = 0; i < 10; i++)
		ended(many[i]);
	/* One of the first's, one of the other's, ...: it waits for two at most. */
	cr_assert_leq(ended(few[0])->order, 3);
	cr_assert_leq(ended(few[1])->order, 5);
	cr_assert_eq(many[9]->order, 13);
	drop(ended(first));
	for (int i = 0; i < 10; i++)
		drop(many[i]);
	drop(few[0]);
	drop(few[1]);
	http_client_close(other);
	world_end();
}

Test(http, there_are_never_more_connections_than_asked_for)
{
	struct http_counts counts;
	struct asked *all[40];

	serve(reply_gate);
	server_shut_gate(server);
	open_client((struct http_client_options){ .connections = 5 });
	for (int i = 0; i < 40; i++)
		all[i] = submit(get("/", 1000));
	cr_assert(server_wait_requests(server, 5));
	usleep(200000);
	http_counts(&counts);
	cr_assert_eq(counts.busy, 5);
	cr_assert_eq(counts.queued, 35);
	cr_assert_eq(counts.connections, 5);
	server_open_gate(server);
	for (int i = 0; i < 40; i++) {
		expect_data(ended(all[i]), 1000);
		drop(all[i]);
	}
	cr_assert_eq(server_most(server), 5);
	world_end();
}

/* Room for @mib MiB that the server never fills. */
static struct asked *get_mib(unsigned int mib, enum request_priority priority)
{
	struct asked *asked = get("/", (size_t)mib << 20);

	asked->request.priority = priority;
	return asked;
}

static unsigned int nr_busy(void)
{
	struct http_counts counts;

	http_counts(&counts);
	return counts.busy;
}

/* 256 MiB of demand; half of it for all that is not. */
Test(http, bytes_in_flight_are_bounded_unless_one_alone_has_more)
{
	static const struct {
		enum request_priority priority;
		unsigned int mib[4], busy;
	} cases[] = {
		{ PRIORITY_DEMAND, { 128, 128, 1, 1 }, 2 },
		{ PRIORITY_DEMAND, { 128, 127, 1, 1 }, 3 },
		{ PRIORITY_DEMAND, { 300, 1, 1, 1 }, 1 },
		{ PRIORITY_PREFETCH, { 64, 64, 1, 1 }, 2 },
		{ PRIORITY_PUSH, { 64, 63, 1, 1 }, 3 },
		{ PRIORITY_PUSH, { 200, 1, 1, 1 }, 1 },
	};
	struct asked *asked[4];
	unsigned int before;

	serve(reply_gate);
	open_client((struct http_client_options){ .connections = 16 });
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		server_shut_gate(server);
		before = server_requests(server);
		for (int j = 0; j < 4; j++)
			asked[j] = submit(get_mib(cases[i].mib[j], cases[i].priority));
		cr_assert(server_wait_requests(server, before + cases[i].busy));
		usleep(50000);
		cr_expect_eq(nr_busy(), cases[i].busy, "case %zu: %u at once", i, nr_busy());
		cr_expect_eq(server_requests(server), before + cases[i].busy, "case %zu", i);
		server_open_gate(server);
		for (int j = 0; j < 4; j++) {
			expect_data(ended(asked[j]), 1000);
			drop(asked[j]);
		}
	}
	world_end();
}

static bool reply_gate_puts(struct visit *visit)
{
	if (!strcmp(visit->method, "PUT"))
		server_wait_open(visit->server);
	return reply_1000(visit);
}

Test(http, a_read_is_not_queued_behind_pushes)
{
	struct asked *puts[40], *asked;

	serve(reply_gate_puts);
	server_shut_gate(server);
	open_client((struct http_client_options){ .connections = 8 });
	for (int i = 0; i < 40; i++) {
		puts[i] = put("/", 1000);
		puts[i]->request.text_max = 1000;
		submit(puts[i]);
	}
	cr_assert(server_wait_requests(server, 7));
	usleep(100000);
	cr_assert_eq(server_requests(server), 7);
	for (int i = 0; i < 3; i++) {
		asked = ask(get("/", 1000));
		expect_data(asked, 1000);
		drop(asked);
	}
	server_open_gate(server);
	for (int i = 0; i < 40; i++) {
		expect_status(ended(puts[i]), 200);
		drop(puts[i]);
	}
	world_end();
}

Test(http, pushes_leave_half_of_the_connections_while_there_are_reads)
{
	struct asked *puts[8], *asked;
	unsigned int before, at_once;
	uint64_t began, took;

	serve(reply_gate_puts);
	open_client((struct http_client_options){ .connections = 8 });
	/* A read counts for a second: what took longer is tried again. */
	for (int tries = 0; tries < 10; tries++) {
		server_shut_gate(server);
		before = server_requests(server);
		began = clock_now();
		asked = ask(get("/", 1000));
		expect_data(asked, 1000);
		drop(asked);
		for (int i = 0; i < 8; i++) {
			puts[i] = put("/", 1000);
			puts[i]->request.text_max = 1000;
			submit(puts[i]);
		}
		cr_assert(server_wait_requests(server, before + 5));
		usleep(100000);
		at_once = server_requests(server) - before;
		took = clock_now() - began;
		server_open_gate(server);
		for (int i = 0; i < 8; i++) {
			expect_status(ended(puts[i]), 200);
			drop(puts[i]);
		}
		if (took < 900 * MS)
			break;
	}
	cr_assert_eq(at_once, 5);	/* one GET, four PUTs */
	world_end();
}

/* ---- what is asked before sending ----------------------------------------------------- */

static bool reply_signed(struct visit *visit)
{
	char value[16];

	if (visit_header(visit, "X-Signed", value, sizeof(value)))
		return reply_1000(visit);
	visit_say(visit, "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
	return true;
}

static int sign(struct http_request *request)
{
	return http_headers_add(&request->headers, "X-Signed", "yes");
}

static int refuse_to_sign(struct http_request *request)
{
	return -EKEYEXPIRED;
}

Test(http, a_request_is_signed_when_it_leaves_the_queue)
{
	struct asked *asked;

	world(reply_signed);
	asked = get("/", 1000);
	asked->request.prepare = sign;
	expect_data(ask(asked), 1000);
	drop(asked);
	asked = get("/", 1000);
	asked->request.prepare = refuse_to_sign;
	expect(ask(asked), HTTP_NOT_SENT, -EKEYEXPIRED);
	drop(asked);
	cr_assert_eq(server_requests(server), 1);
	world_end();
}

/* ---- TLS and proxies -------------------------------------------------------------------- */

static char *certificate(const char *name)
{
	char path[] = "/tmp/omXXXXXX";

	close(mkstemp(path));
	certificate_make(path, name);
	return strdup(path);
}

static void serve_tls(const char *name, char **file)
{
	struct server_options options = { .answer = reply_1000 };

	*file = certificate(name);
	options.certificate = *file;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (char)(i * 31);
	server = server_start(&options);
}

static void expect_tls(const char *ca, enum http_failure failure, int error)
{
	struct asked *asked;

	open_client((struct http_client_options){ .ca_bundle = ca });
	asked = ask(get("/", 1000));
	expect(asked, failure, error);
	drop(asked);
	http_client_close(client);
}

Test(http, a_certificate_is_always_verified)
{
	char *own, *other;

	serve_tls("IP:127.0.0.1", &own);
	other = certificate("IP:127.0.0.1");
	expect_tls(own, HTTP_REPLIED, 0);
	expect_tls(other, HTTP_NOT_SENT, -EACCES);
	expect_tls(NULL, HTTP_NOT_SENT, -EACCES);
	server_stop(server);
	unlink(own);
	free(own);
	serve_tls("DNS:other.example", &own);
	expect_tls(own, HTTP_NOT_SENT, -EACCES);
	server_stop(server);
	unlink(own);
	unlink(other);
	free(own);
	free(other);
}

Test(http, a_server_without_TLS_was_not_sent_anything)
{
	struct asked *asked;

	world(reply_1000);
	asked = get("/", 10);
	free(asked->request.url);
	cr_assert_gt(asprintf(&asked->request.url, "https://127.0.0.1:%u/",
			      server_port(server)), 0);
	expect(ask(asked), HTTP_NOT_SENT, -EPROTO);
	drop(asked);
	world_end();
}

Test(http, a_CA_bundle_that_is_not_there_is_refused)
{
	struct http_client_options options = { .ca_bundle = "/nowhere/ca.pem" };

	cr_assert_eq(http_client_open(&options, &client), -ENOENT);
}

static bool reply_proxy(struct visit *visit)
{
	if (!strncmp(visit->target, "http://", 7))
		visit_reply(visit, "proxied", 7);
	else
		visit_reply(visit, "direct", 6);
	return true;
}

Test(http, the_usual_variables_name_a_proxy)
{
	struct http_client_options options = { .connections = 2 };
	struct asked *asked;
	char *url;

	serve(reply_proxy);
	url = server_url(server, "");
	setenv("http_proxy", url, 1);
	cr_assert_eq(http_client_open(&options, &client), 0);
	asked = get("/", 10);
	free(asked->request.url);
	asked->request.url = strdup("http://somewhere.example/a");
	expect_status(ask(asked), 200);
	cr_assert_eq(memcmp(asked->buffer, "proxied", 7), 0);
	drop(asked);
	http_client_close(client);
	open_client((struct http_client_options){ .connections = 2 });
	asked = ask(get("/", 10));
	expect_status(asked, 200);
	cr_assert_eq(memcmp(asked->buffer, "direct", 6), 0);
	drop(asked);
	world_end();
	free(url);
}
