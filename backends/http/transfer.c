/* transfer.c: what libcurl is told of one request, and what it tells of its reply.
 *
 * Content is copied once: from libcurl's buffer into the sink, from the body into
 * libcurl's buffer.  Nothing is believed that is not whole: libcurl's word is
 * checked against the reply's own length.  Everything here runs on the I/O thread
 * that has the transfer. */
#include "config.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/http/pool.h"
#include "src/clock.h"
#include "src/crc32c.h"

/* libcurl's own.  Larger ones fall out of the CPU's cache before they are copied. */
#define RECEIVE_BUFFER (128l << 10)
#define SEND_BUFFER    (256l << 10)
#define MUCH	      (256u << 10)	/* bytes worth cutting a connection for */
#define UNKNOWN_LENGTH UINT64_MAX
#define INTERIM_MAX    1000u	/* replies of 1xx, each of which moves something */

/* Passes @count bytes, which there are, copying them @in or out of the pieces. */
static void cursor_copy(struct cursor *cursor, char *data, size_t count, bool in)
{
	cursor->total += count;
	while (count) {
		const struct iovec *piece = &cursor->iov[cursor->index];
		size_t part = piece->iov_len - cursor->at;
		char *at = (char *)piece->iov_base + cursor->at;

		if (part > count)
			part = count;
		if (in)
			memcpy(at, data, part);
		else
			memcpy(data, at, part);
		data += part;
		count -= part;
		cursor->at += part;
		if (cursor->at == piece->iov_len) {
			cursor->index++;
			cursor->at = 0;
		}
	}
}

static void cursor_seek(struct cursor *cursor, uint64_t offset)
{
	cursor->index = 0;
	cursor->total = offset;
	while (offset && offset >= cursor->iov[cursor->index].iov_len)
		offset -= cursor->iov[cursor->index++].iov_len;
	cursor->at = offset;
}

static int end_with(struct transfer *transfer, int error, const char *why)
{
	transfer->error = error;
	transfer->why = why;
	return error;
}

/* ---- the request ---------------------------------------------------------- */

static int on_socket(void *context, curl_socket_t fd, curlsocktype purpose)
{
	struct transfer *transfer = context;

	if (watch_fresh(&transfer->thread->watches, fd))
		pool_count_sockets(-1);	/* it was closed without a word */
	if (transfer->nr_fresh < FRESH_MAX)
		transfer->fresh[transfer->nr_fresh++] = fd;
	return CURL_SOCKOPT_OK;
}

/* Of the sockets made for this transfer, one has won: that from @port. */
static void find_connected(struct transfer *transfer, int port)
{
	for (unsigned int i = 0; i < transfer->nr_fresh; i++) {
		struct sockaddr_storage own;
		socklen_t length = sizeof(own);
		const struct sockaddr_in *in = (const void *)&own;

		/* IPv6 has its port in the same place. */
		if (getsockname(transfer->fresh[i], (struct sockaddr *)&own, &length) < 0 ||
		    ntohs(in->sin_port) != port)
			continue;
		watch_carries(&transfer->thread->watches, transfer->fresh[i]);
		pool_count_sockets(1);
		break;
	}
	transfer->nr_fresh = 0;
}

static int on_close(void *context, curl_socket_t fd)
{
	struct http_thread *thread = context;

	if (watch_fresh(&thread->watches, fd))
		pool_count_sockets(-1);
	return close(fd);
}

/* libcurl has a connection and sets out to send.  It does so a second time, by
 * itself, when a kept-alive connection turns out to be dead before a first byte
 * of the reply. */
static int on_send(void *context, char *peer, char *own, int peer_port, int own_port)
{
	struct transfer *transfer = context;

	transfer->sends++;
	if (transfer->nr_fresh)
		find_connected(transfer, own_port);
	return CURL_PREREQFUNC_OK;
}

static size_t on_body(char *data, size_t size, size_t count, void *context)
{
	struct transfer *transfer = context;
	uint64_t left = transfer->request->body_count - transfer->body.total;

	count *= size;
	if (count > left)
		count = left;
	cursor_copy(&transfer->body, data, count, false);
	return count;
}

static int on_seek(void *context, curl_off_t offset, int origin)
{
	struct transfer *transfer = context;

	if (origin != SEEK_SET || offset < 0 ||
	    (uint64_t)offset > transfer->request->body_count)
		return CURL_SEEKFUNC_FAIL;
	cursor_seek(&transfer->body, (uint64_t)offset);
	return CURL_SEEKFUNC_OK;
}

/* ---- the reply ------------------------------------------------------------ */

static bool method_is(const struct http_request *request, const char *method)
{
	return !strcmp(request->method, method);
}

static bool is_success(const struct http_request *request)
{
	return request->status >= 200 && request->status < 300;
}

static bool has_no_content(const struct http_request *request)
{
	return method_is(request, "HEAD") || request->status == 204 ||
	       request->status == 304;
}

/* The one Content-Length there is, or several that agree. */
static int content_length(const struct http_headers *headers, uint64_t *length)
{
	static const char name[] = "Content-Length:";
	const char *line = NULL, *at;
	uint64_t value;

	*length = UNKNOWN_LENGTH;
	while ((line = http_headers_next(headers, line))) {
		if (strncasecmp(line, name, sizeof(name) - 1))
			continue;
		at = line + sizeof(name);
		if (!*at || strlen(at) > 18 || at[strspn(at, "0123456789")])
			return -EPROTO;
		value = strtoull(at, NULL, 10);
		if (*length != UNKNOWN_LENGTH && *length != value)
			return -EPROTO;
		*length = value;
	}
	return 0;
}

static bool says_close(const struct http_headers *headers)
{
	const char *value = http_headers_find(headers, "Connection");

	if (value && strcasecmp(value, "keep-alive"))
		return true;
	return http_headers_find(headers, "Proxy-Connection");
}

static int headers_complete(struct transfer *transfer)
{
	struct http_request *request = transfer->request;
	uint64_t most;
	int error;

	if (request->status < 200) {	/* 100 Continue: the real one follows */
		request->reply.length = 0;
		if (++transfer->nr_interim > INTERIM_MAX)
			return end_with(transfer, -EPROTO, "the server says again and again that it is at it, and no more");
		return request->status == 101 ?
			end_with(transfer, -EPROTO, "101 is no answer to this") : 0;
	}
	transfer->headed = true;
	transfer->closes |= says_close(&request->reply);
	if (content_length(&request->reply, &request->length))
		return end_with(transfer, -EPROTO, "the reply's Content-Length is none");
	transfer->chunked = http_headers_find(&request->reply, "Transfer-Encoding");
	if (transfer->chunked)
		request->length = UNKNOWN_LENGTH;
	transfer->to_sink = request->sink && (request->status == 200 ||
					      request->status == 206);
	most = transfer->to_sink ? request->sink_count : request->text_max;
	error = request->headed ? request->headed(request) : 0;
	if (error)
		return end_with(transfer, error, "the reply's headers are wrong");
	if (is_success(request) && !has_no_content(request) &&
	    request->length != UNKNOWN_LENGTH && request->length > most)
		return end_with(transfer, -EFBIG, "the reply is longer than what was asked");
	return 0;
}

static size_t on_header(char *data, size_t size, size_t count, void *context)
{
	struct transfer *transfer = context;
	struct http_request *request = transfer->request;
	int error;

	count *= size;
	if (transfer->headed)		/* a trailer */
		return count;
	if (count >= 5 && !memcmp(data, "HTTP/", 5)) {
		long status = 0;

		curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
		request->status = (int)status;
		request->reply.length = 0;
		transfer->closes = count < 8 || memcmp(data, "HTTP/1.1", 8);
		return count;
	}
	if (data[0] == '\r' || data[0] == '\n')
		return headers_complete(transfer) ? 0 : count;
	error = http_headers_add_line(&request->reply, data, count);
	if (error == -E2BIG)
		error = end_with(transfer, -EPROTO, "the reply's headers are too long");
	else if (error == -EINVAL)
		error = end_with(transfer, -EPROTO, "the reply has a header that is none");
	else if (error)
		end_with(transfer, error, strerror(-error));
	return error ? 0 : count;
}

/* The part of it that there is room for. */
static int keep_text(struct transfer *transfer, const char *data, size_t count)
{
	struct http_request *request = transfer->request;
	size_t room = request->text_max - request->text_count, wanted;
	char *text;

	if (count > room && is_success(request))
		return end_with(transfer, -EFBIG, "the reply is longer than what was asked");
	if (count > room)
		count = room;
	wanted = request->text_count + count + 1;
	if (wanted > transfer->text_room) {
		if (wanted < 2 * transfer->text_room)
			wanted = 2 * transfer->text_room;
		text = realloc(request->text, wanted);
		if (!text)
			return end_with(transfer, -ENOMEM, strerror(ENOMEM));
		request->text = text;
		transfer->text_room = wanted;
	}
	memcpy(request->text + request->text_count, data, count);
	request->text_count += count;
	request->text[request->text_count] = 0;
	return 0;
}

static size_t on_content(char *data, size_t size, size_t count, void *context)
{
	struct transfer *transfer = context;
	struct http_request *request = transfer->request;

	count *= size;
	transfer->received += count;
	if (!transfer->to_sink)
		return keep_text(transfer, data, count) ? 0 : count;
	if (count > request->sink_count - transfer->sink.total) {
		end_with(transfer, -EFBIG, "the reply is longer than what was asked");
		return 0;
	}
	if (request->sums)
		crc32c_sum(request->sums, request->sum_unit, transfer->sink.total, data,
			   count);
	cursor_copy(&transfer->sink, data, count, true);
	return count;
}

/* ---- to libcurl ----------------------------------------------------------- */

struct transfer *transfer_new(struct http_thread *thread)
{
	struct transfer *transfer = calloc(1, sizeof(*transfer));

	if (!transfer)
		return NULL;
	transfer->thread = thread;
	transfer->easy = curl_easy_init();
	if (!transfer->easy) {
		free(transfer);
		return NULL;
	}
	return transfer;
}

void transfer_free(struct transfer *transfer)
{
	curl_easy_cleanup(transfer->easy);
	free(transfer->lines);
	free(transfer->no_values);
	free(transfer);
}

static void set_callbacks(struct transfer *transfer)
{
	CURL *easy = transfer->easy;

	curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->curl_error);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_content);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_READDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
	curl_easy_setopt(easy, CURLOPT_SEEKDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_send);
	curl_easy_setopt(easy, CURLOPT_PREREQDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, on_socket);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, transfer->thread);
}

/* What is the same for all requests of a client. */
static void set_client(struct transfer *transfer, const struct http_client *client)
{
	const struct http_client_options *options = &client->options;
	CURL *easy = transfer->easy;

	curl_easy_reset(easy);
	set_callbacks(transfer);
	curl_easy_setopt(easy, CURLOPT_SHARE, transfer->thread->share);
#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS);
#endif
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1l);
	curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 1l);
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0l);
	curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1l);	/* keys may hold "/../" */
	curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1l);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1l);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2l);
#if LIBCURL_VERSION_NUM >= 0x075700
	/* Whoever is given up while a name is looked up leaves that to its thread;
	 * waiting for it would stop all that this one carries. */
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1l);
#endif
	curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1l);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1l);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 30l);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 10l);
	/* Every new connection would wait this long for a dead address family. */
	curl_easy_setopt(easy, CURLOPT_HAPPY_EYEBALLS_TIMEOUT_MS, 50l);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER);
	curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, SEND_BUFFER);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, options->client_name);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
			 (long)(options->connect_timeout / CLOCK_MS));
	if (options->ca_bundle)
		curl_easy_setopt(easy, CURLOPT_CAINFO, options->ca_bundle);
	if (options->no_proxy)
		curl_easy_setopt(easy, CURLOPT_PROXY, "");
	transfer->client_id = client->id;
}

/* libcurl takes "Name: " for the wish to leave the header out, "Name;" for one
 * without a value. */
static bool has_no_value(const char *line, size_t length)
{
	return length > 2 && line[length - 1] == ' ' && line[length - 2] == ':';
}

/* The request's lines as the list libcurl wants, without copying them, and one
 * that keeps it from waiting for 100 Continue. */
static int set_headers(struct transfer *transfer)
{
	static char no_expect[] = "Expect:";
	struct http_headers *headers = &transfer->request->headers;
	const char *line = NULL;
	unsigned int nr = 1, i = 0;
	struct curl_slist *lines;
	char *text;

	while ((line = http_headers_next(headers, line)))
		nr++;
	if (nr > transfer->lines_room) {
		lines = realloc(transfer->lines, nr * sizeof(*lines));
		if (!lines)
			return -ENOMEM;
		transfer->lines = lines;
		transfer->lines_room = nr;
	}
	free(transfer->no_values);
	transfer->no_values = NULL;
	lines = transfer->lines;
	lines[0].data = no_expect;
	while ((line = http_headers_next(headers, line))) {
		size_t length = strlen(line);

		lines[i].next = &lines[i + 1];
		lines[++i].data = (char *)line;
		if (!has_no_value(line, length))
			continue;
		if (!transfer->no_values)
			transfer->no_values = malloc(headers->length);
		if (!transfer->no_values)
			return -ENOMEM;
		text = transfer->no_values + (line - headers->text);
		memcpy(text, line, length - 2);
		memcpy(text + length - 2, ";", 2);
		lines[i].data = text;
	}
	lines[i].next = NULL;
	curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, lines);
	return 0;
}

static void set_method(struct transfer *transfer)
{
	struct http_request *request = transfer->request;
	CURL *easy = transfer->easy;
	bool put = method_is(request, "PUT"), head = method_is(request, "HEAD");
	bool sends = put || method_is(request, "POST") || request->body_count;

	curl_easy_setopt(easy, CURLOPT_HTTPGET, 1l);
	if (sends) {
		curl_easy_setopt(easy, CURLOPT_UPLOAD, 1l);
		curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE,
				 (curl_off_t)request->body_count);
	} else if (head) {
		curl_easy_setopt(easy, CURLOPT_NOBODY, 1l);
	}
	curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST,
			 put || head || (!sends && method_is(request, "GET")) ?
			 NULL : request->method);
}

int transfer_load(struct transfer *transfer, struct http_request *request)
{
	transfer->request = request;
	transfer->body = (struct cursor){ request->body, request->nr_body, 0, 0, 0 };
	transfer->sink = (struct cursor){ request->sink, request->nr_sink, 0, 0, 0 };
	cursor_seek(&transfer->body, 0);
	transfer->text_room = 0;
	transfer->received = 0;
	transfer->sends = transfer->nr_fresh = transfer->nr_interim = 0;
	transfer->headed = transfer->to_sink = false;
	transfer->chunked = transfer->closes = false;
	transfer->error = 0;
	transfer->why = NULL;
	transfer->progress = 0;
	transfer->fd = -1;
	transfer->curl_error[0] = 0;
	request->length = UNKNOWN_LENGTH;
	if (transfer->client_id != request->client->id)
		set_client(transfer, request->client);
	if (curl_easy_setopt(transfer->easy, CURLOPT_URL, request->url) != CURLE_OK)
		return -ENOMEM;
	set_method(transfer);
	return set_headers(transfer);
}

bool transfer_has_much_left(const struct transfer *transfer)
{
	const struct http_request *request = transfer->request;

	if (!transfer->sends || request->body_count - transfer->body.total > MUCH)
		return true;
	if (!transfer->headed)		/* a change is as good as made */
		return method_is(request, "GET");
	return request->length == UNKNOWN_LENGTH ||
	       request->length - transfer->received > MUCH;
}

uint64_t transfer_progress(const struct transfer *transfer)
{
	curl_off_t in = 0, out = 0;
	long headers = 0, sent = 0;
	int waiting = 0;

	curl_easy_getinfo(transfer->easy, CURLINFO_SIZE_DOWNLOAD_T, &in);
	curl_easy_getinfo(transfer->easy, CURLINFO_SIZE_UPLOAD_T, &out);
	curl_easy_getinfo(transfer->easy, CURLINFO_HEADER_SIZE, &headers);
	curl_easy_getinfo(transfer->easy, CURLINFO_REQUEST_SIZE, &sent);
	/* What the kernel has taken and not yet sent has not moved: on a slow way that
	 * can be all of it, for long. */
	if (transfer->fd >= 0 && ioctl(transfer->fd, SIOCOUTQ, &waiting) < 0)
		waiting = 0;
	return (uint64_t)in + (uint64_t)out + (uint64_t)headers + (uint64_t)sent -
	       (uint64_t)waiting;
}

/* ---- the end -------------------------------------------------------------- */

static int curl_errno(const struct transfer *transfer, CURLcode code)
{
	long os = 0;

	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return -ENOENT;
	case CURLE_COULDNT_CONNECT:
		curl_easy_getinfo(transfer->easy, CURLINFO_OS_ERRNO, &os);
		return os ? -(int)os : -ECONNREFUSED;
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
	case CURLE_SEND_FAIL_REWIND:
		return -ECONNRESET;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_CERTPROBLEM:
		return -EACCES;
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_SSL_CIPHER:
	case CURLE_WEIRD_SERVER_REPLY:
		return -EPROTO;
	case CURLE_UNSUPPORTED_PROTOCOL:	/* of the URL, or HTTP/0.9 */
		return transfer->sends ? -EPROTO : -EINVAL;
	case CURLE_URL_MALFORMAT:
		return -EINVAL;
	case CURLE_OUT_OF_MEMORY:
		return -ENOMEM;
	default:
		return -EIO;
	}
}

/* What libcurl says, and what to do where that is known. */
static void tell(struct transfer *transfer, CURLcode code, const char *why)
{
	struct http_request *request = transfer->request;
	const char *advice = "";

	if (code == CURLE_PEER_FAILED_VERIFICATION)
		advice = "; a CA that the system does not know is named by --ca-bundle";
	snprintf(request->message, sizeof(request->message), "%.*s%s",
		 (int)(sizeof(request->message) - 1 - strlen(advice)), why, advice);
}

/* A reply that goes on behind its Content-Length: libcurl leaves the rest out and
 * closes the connection, which nothing else about such a reply would do. */
static bool was_longer_than_it_said(const struct transfer *transfer)
{
	curl_socket_t fd = CURL_SOCKET_BAD;

	if (!transfer->to_sink || transfer->closes)
		return false;
	curl_easy_getinfo(transfer->easy, CURLINFO_ACTIVESOCKET, &fd);
	return fd == CURL_SOCKET_BAD;
}

/* libcurl calls it a success. */
static void judge_length(struct transfer *transfer)
{
	struct http_request *request = transfer->request;

	if (!transfer->headed)
		end_with(transfer, -ECONNRESET, "the reply's headers were cut");
	else if (is_success(request) && transfer->body.total != request->body_count)
		end_with(transfer, -EPROTO, "the reply came before all was sent");
	else if (has_no_content(request) || transfer->chunked)
		return;
	else if (request->length == UNKNOWN_LENGTH && is_success(request))
		end_with(transfer, -EPROTO, "the reply does not say how long it is");
	else if (request->length != UNKNOWN_LENGTH &&
		 request->length != transfer->received)
		end_with(transfer, -ECONNRESET, "the reply was cut");
	else if (was_longer_than_it_said(transfer))
		end_with(transfer, -EPROTO, "the reply is longer than it said");
}

void transfer_judge(struct transfer *transfer, CURLcode code)
{
	struct http_request *request = transfer->request;
	const char *why = transfer->why;
	long connects = 0;

	if (curl_easy_getinfo(transfer->easy, CURLINFO_NUM_CONNECTS, &connects) ==
	    CURLE_OK && connects > 0)
		pool_count_connects((unsigned int)connects);
	request->resent = transfer->sends > 1;
	request->sunk = transfer->sink.total;
	if (code == CURLE_OK && !transfer->error) {
		judge_length(transfer);
		why = transfer->why;
	} else if (!transfer->error) {
		transfer->error = curl_errno(transfer, code);
		why = transfer->curl_error[0] ? transfer->curl_error :
						curl_easy_strerror(code);
	}
	request->error = transfer->error;
	if (!request->error)
		request->failure = HTTP_REPLIED;
	else
		request->failure = transfer->sends ? HTTP_LOST : HTTP_NOT_SENT;
	if (request->error && !request->message[0])
		tell(transfer, code, why);
}
