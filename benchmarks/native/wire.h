/* What the fake engine and the load generator share: clock, byte buffers, socket set-up. */
#ifndef WEFT_BENCH_WIRE_H
#define WEFT_BENCH_WIRE_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    char *data;
    size_t length, capacity;
} Buffer;

static inline void fail(const char *what) {
    perror(what);
    exit(2);
}

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void buffer_reserve(Buffer *b, size_t extra) {
    if (b->length + extra + 1 <= b->capacity) return;
    size_t capacity = b->capacity ? b->capacity : 1024;
    while (capacity < b->length + extra + 1) capacity *= 2;
    b->data = realloc(b->data, capacity);
    if (!b->data) fail("realloc");
    b->capacity = capacity;
}

/* The data stays NUL-terminated, so that str* functions work on it. */
static inline void buffer_append(Buffer *b, const char *data, size_t length) {
    buffer_reserve(b, length);
    memcpy(b->data + b->length, data, length);
    b->length += length;
    b->data[b->length] = 0;
}

static inline void buffer_drop_front(Buffer *b, size_t count) {
    if (!count) return;
    b->length -= count;
    memmove(b->data, b->data + count, b->length);
    b->data[b->length] = 0;
}

static inline void buffer_format(Buffer *b, const char *format, ...) {
    va_list arguments;
    char text[2048];
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof text) fail("buffer_format: text too long");
    buffer_append(b, text, (size_t)length);
}

static inline void set_nonblocking(int fd) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static inline void set_nodelay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static inline void raise_file_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* The value of one header in a NUL-terminated head, or NULL; name ends with a colon. */
static inline const char *header_value(const char *head, const char *name) {
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, length) == 0) {
            const char *value = line + 2 + length;
            while (*value == ' ') value++;
            return value;
        }
    }
    return NULL;
}

#endif
