/* The benchmark's load generator: a closed loop over keep-alive connections, one thread, one epoll.
 *
 *   load PORT CONNECTIONS REQUESTS SECONDS < request-head
 *
 * Sends the head again and again on each connection, the next as soon as the last was answered, until REQUESTS are sent
 * or SECONDS are over, waits up to DRAIN_S for the answers still due, and prints one line of JSON. Every answer must be a
 * 200 with the same body as the first one; a connection the server closes (as gunicorn's sync worker does) is opened
 * again.
 *
 * Why not wrk: it cannot send exactly N requests, which the instruction counts need, and it changes its epoll set twice a
 * request; a client that is the bottleneck lets the server sleep and wake more often than under real load. This one
 * makes two system calls a request and little else: nine tenths of its CPU time are the kernel's TCP.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER_BYTES = 65536, BATCH = 256, DRAIN_S = 5 };

struct connection {
    int fd;
    bool waits; /* a request was sent and not yet answered in full */
    size_t have;
    char buffer[BUFFER_BYTES];
};

static char head[16384];
static size_t head_bytes;
static struct sockaddr_in server;
static int epoll;
static long limit, sent, answered, reopened;
static char body[BUFFER_BYTES];
static long body_bytes = -1;

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what) {
    fprintf(stderr, "after %ld answers: %s\n", answered, what);
    exit(1);
}

static void open_connection(struct connection *c) {
    int one = 1;
    struct timeval patience = {.tv_sec = DRAIN_S};
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience); /* connect waits while a backlog is full */
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&server, sizeof server) != 0) die(strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) != 0) die(strerror(errno));
    c->waits = false;
    c->have = 0;
}

static void send_request(struct connection *c) {
    if (sent >= limit) return;
    if (send(c->fd, head, head_bytes, MSG_NOSIGNAL) != (ssize_t)head_bytes) return; /* closed: seen by the next read */
    sent++;
    c->waits = true;
    c->have = 0;
}

static long content_length(const char *fields) {
    const char *line = strcasestr(fields, "\r\ncontent-length:");
    return line ? strtol(line + 17, NULL, 10) : -1;
}

/* The bytes of the whole answer in c->buffer, or 0 while some are missing. */
static size_t whole_answer(struct connection *c) {
    c->buffer[c->have] = 0;
    char *end = strstr(c->buffer, "\r\n\r\n");
    if (!end) return 0;
    if (strncmp(c->buffer, "HTTP/1.1 200 ", 13) != 0) die("an answer is not HTTP/1.1 200");
    end[2] = 0;
    long length = content_length(c->buffer);
    end[2] = '\r';
    if (length < 0) die("an answer has no Content-Length");
    size_t whole = (size_t)(end + 4 - c->buffer) + (size_t)length;
    if (whole >= BUFFER_BYTES) die("an answer is larger than 64 KiB");
    if (c->have < whole) return 0;
    if (body_bytes < 0) memcpy(body, end + 4, (size_t)(body_bytes = length));
    if (length != body_bytes || memcmp(body, end + 4, (size_t)length) != 0) die("an answer has another body");
    return whole;
}

static void on_readable(struct connection *c) {
    ssize_t got = recv(c->fd, c->buffer + c->have, BUFFER_BYTES - 1 - c->have, 0);
    if (got <= 0) {
        if (c->waits) die(c->have ? "the connection was closed within an answer" : "closed without an answer");
        close(c->fd);
        reopened++;
        open_connection(c);
        send_request(c);
        return;
    }
    c->have += (size_t)got;
    size_t whole = whole_answer(c);
    if (whole == 0) return;
    if (whole != c->have) die("bytes after an answer");
    answered++;
    c->waits = false;
    /* When the answer announces the end, sending would only meet a reset: wait for the close instead. */
    if (strcasestr(c->buffer, "\r\nconnection: close")) return;
    send_request(c);
}

int main(int argc, char **argv) {
    if (argc != 5) die("usage: load PORT CONNECTIONS REQUESTS SECONDS < request-head");
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int connections = atoi(argv[2]);
    limit = atol(argv[3]);
    double seconds = atof(argv[4]);
    head_bytes = fread(head, 1, sizeof head, stdin);
    epoll = epoll_create1(0);
    struct connection *all = calloc((size_t)connections, sizeof *all);
    if (!all || epoll < 0 || head_bytes == 0) die("cannot start");

    double start = now_s(), deadline = start + seconds;
    for (int i = 0; i < connections; i++) {
        open_connection(&all[i]);
        send_request(&all[i]);
    }
    struct epoll_event ready[BATCH];
    while (answered < limit) {
        int count = epoll_wait(epoll, ready, BATCH, 1000);
        if (count < 0 && errno != EINTR) die(strerror(errno));
        for (int i = 0; i < count; i++) on_readable(ready[i].data.ptr);
        double now = now_s();
        if (now >= deadline && limit > sent) limit = sent;
        if (now >= deadline + DRAIN_S) break;
    }
    double elapsed = now_s() - start;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("{\"requests\": %ld, \"missing\": %ld, \"duration_s\": %.6f, \"reopened\": %ld, \"client_cpu_s\": %.6f}\n",
           answered, limit - answered, elapsed, reopened,
           used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
    return 0;
}
