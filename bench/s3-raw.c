/* s3-raw.c: what a server of objects gives at all: a plain libcurl multi loop over
 * kept-alive connections, without any of objmap.
 *
 *     s3-raw CONNECTIONS get|put [FILE] <LIST
 *
 * LIST has one request a line: URL [FIRST COUNT]; with FIRST and COUNT a get is of that
 * range, and a put sends COUNT bytes: always the same, which stay in the CPU's cache, or
 * those of FILE from FIRST on, read before they are sent.  URLs are signed already (presigned), so that no
 * signing is measured.  What is got is copied into memory once, as anybody must who
 * uses it.  Prints one line of JSON; a reply that is no 200 or 206, or has another
 * length than asked for, ends it with status 1. */
#include <curl/curl.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define SINK_SIZE (64u << 20)

struct job {
	char *url;
	uint64_t first, count;		/* count 0: the whole */
};

struct line {				/* a connection, more or less */
	CURL *easy;
	char *sink;
	uint64_t at, expected;
};

static struct job *jobs;
static size_t nr_jobs, next_job;
static char *source;			/* of puts: SINK_SIZE bytes */
static int source_file = -1;		/* or what they are read from */
static uint64_t bytes;

static void die(const char *why)
{
	fprintf(stderr, "s3-raw: %s\n", why);
	exit(1);
}

static void *allocate(size_t count)
{
	void *memory = malloc(count);

	if (!memory)
		die("no memory");
	return memory;
}

static void read_list(void)
{
	static char text[65536];
	size_t room = 0;

	while (fgets(text, sizeof(text), stdin)) {
		char *url = strtok(text, " \n"), *first = strtok(NULL, " \n");
		char *count = strtok(NULL, " \n");

		if (!url)
			continue;
		if (nr_jobs == room) {
			room = room ? room * 2 : 1024;
			jobs = realloc(jobs, room * sizeof(*jobs));
			if (!jobs)
				die("no memory");
		}
		jobs[nr_jobs++] = (struct job){
			strdup(url), first ? strtoull(first, NULL, 10) : 0,
			count ? strtoull(count, NULL, 10) : 0,
		};
	}
}

static size_t keep(char *data, size_t size, size_t nr, void *context)
{
	struct line *line = context;

	if (line->at + size * nr > SINK_SIZE)
		return 0;
	memcpy(line->sink + line->at, data, size * nr);
	line->at += size * nr;
	return size * nr;
}

static size_t give(char *data, size_t size, size_t nr, void *context)
{
	struct line *line = context;
	size_t count = size * nr;

	if (count > line->expected - line->at)
		count = line->expected - line->at;
	memcpy(data, (line->sink ? line->sink : source) + line->at, count);
	line->at += count;
	return count;
}

static void prepare(struct line *line, const struct job *job, int put)
{
	char range[64];

	line->at = 0;
	line->expected = job->count;
	if (put && line->sink && pread(source_file, line->sink, job->count,
				       (off_t)job->first) != (ssize_t)job->count)
		die("FILE is shorter than that");
	curl_easy_setopt(line->easy, CURLOPT_URL, job->url);
	if (put) {
		curl_easy_setopt(line->easy, CURLOPT_INFILESIZE_LARGE,
				 (curl_off_t)job->count);
	} else if (job->count) {
		snprintf(range, sizeof(range), "%llu-%llu",
			 (unsigned long long)job->first,
			 (unsigned long long)(job->first + job->count - 1));
		curl_easy_setopt(line->easy, CURLOPT_RANGE, range);
	}
}

static void open_line(struct line *line, int put, struct curl_slist *headers)
{
	line->easy = curl_easy_init();
	if (!line->easy)
		die("no memory");
	curl_easy_setopt(line->easy, CURLOPT_PRIVATE, line);
	curl_easy_setopt(line->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(line->easy, CURLOPT_BUFFERSIZE, 256L << 10);
	curl_easy_setopt(line->easy, CURLOPT_UPLOAD_BUFFERSIZE, 512L << 10);
	curl_easy_setopt(line->easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(line->easy, CURLOPT_WRITEFUNCTION, keep);
	curl_easy_setopt(line->easy, CURLOPT_WRITEDATA, line);
	if (put) {
		curl_easy_setopt(line->easy, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(line->easy, CURLOPT_READFUNCTION, give);
		curl_easy_setopt(line->easy, CURLOPT_READDATA, line);
		line->sink = source_file < 0 ? NULL : allocate(SINK_SIZE);
	} else {
		line->sink = allocate(SINK_SIZE);
	}
}

static void check(struct line *line, CURLcode result, int put)
{
	long status = 0;

	curl_easy_getinfo(line->easy, CURLINFO_RESPONSE_CODE, &status);
	if (result != CURLE_OK)
		die(curl_easy_strerror(result));
	if (status != 200 && status != 206) {
		fprintf(stderr, "s3-raw: status %ld\n", status);
		exit(1);
	}
	if (line->expected && line->at != line->expected)
		die("a reply of another length");
	bytes += line->at;
	(void)put;
}

static void run(struct line *lines, unsigned int nr_lines, int put)
{
	CURLM *multi = curl_multi_init();
	unsigned int busy = 0;
	CURLMsg *message;
	int left;

	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)nr_lines);
	for (; busy < nr_lines && next_job < nr_jobs; busy++) {
		prepare(&lines[busy], &jobs[next_job++], put);
		curl_multi_add_handle(multi, lines[busy].easy);
	}
	while (busy) {
		int running;

		curl_multi_perform(multi, &running);
		while ((message = curl_multi_info_read(multi, &left))) {
			struct line *line;

			if (message->msg != CURLMSG_DONE)
				continue;
			curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &line);
			check(line, message->data.result, put);
			curl_multi_remove_handle(multi, line->easy);
			busy--;
			if (next_job < nr_jobs) {
				prepare(line, &jobs[next_job++], put);
				curl_multi_add_handle(multi, line->easy);
				busy++;
				running = 1;
			}
		}
		if (busy)
			curl_multi_poll(multi, NULL, 0, 1000, NULL);
	}
	curl_multi_cleanup(multi);
}

static double seconds(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

int main(int argc, char **argv)
{
	unsigned int nr_lines = argc == 3 || argc == 4 ? (unsigned int)atoi(argv[1]) : 0;
	int put = nr_lines && strcmp(argv[2], "put") == 0;
	struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
	struct timespec begin, end;
	struct rusage usage;
	struct line *lines;

	if (!nr_lines || (!put && (strcmp(argv[2], "get") != 0 || argc == 4))) {
		fprintf(stderr, "usage: s3-raw CONNECTIONS get|put [FILE] <LIST\n");
		return 2;
	}
	if (argc == 4 && (source_file = open(argv[3], O_RDONLY | O_CLOEXEC)) < 0)
		die("FILE cannot be opened");
	read_list();
	curl_global_init(CURL_GLOBAL_ALL);
	lines = allocate(nr_lines * sizeof(*lines));
	if (put) {
		source = allocate(SINK_SIZE);
		for (size_t i = 0; i < SINK_SIZE; i++)
			source[i] = (char)(i * 2654435761u >> 13);
	}
	for (unsigned int i = 0; i < nr_lines; i++)
		open_line(&lines[i], put, headers);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	run(lines, nr_lines, put);
	clock_gettime(CLOCK_MONOTONIC, &end);
	getrusage(RUSAGE_SELF, &usage);
	printf("{\"seconds\": %.6f, \"requests\": %zu, \"bytes\": %llu, \"cpu\": %.3f}\n",
	       (double)(end.tv_sec - begin.tv_sec) +
	       (double)(end.tv_nsec - begin.tv_nsec) / 1e9, nr_jobs,
	       (unsigned long long)bytes, seconds(usage.ru_utime) + seconds(usage.ru_stime));
	return 0;
}
