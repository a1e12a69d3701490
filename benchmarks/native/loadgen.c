/* A load generator for streamed chat answers: N connections, one request at a time on each.
 *
 * Reads what the fake engine writes: every token is the text ` t<nanoseconds>`, its send time on
 * this machine's monotonic clock, so one-way latency per token needs no second clock. Knows
 * OpenAI chunks ("content", "text") and torbiz frames ("token"), and whole JSON answers.
 *
 * Three kinds of load:
 *   --seconds S [--warmup W] [--ramp R]   closed loop; starts are spread over R seconds, and only
 *                                         what starts after W counts for percentiles and rates
 *   --requests N [--ramp R]               N requests in all
 *   --bursts B                            B times: all connections open, then all ask at once
 * A request that is not over after --limit seconds of the whole run counts as unfinished.
 * Prints one JSON object.
 */
#define _GNU_SOURCE
#include "wire.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <sys/epoll.h>

enum { READ_SIZE = 1 << 18 };

typedef enum { IDLE, CONNECTING, READY, WAITING_HEAD, READING_BODY } State;
typedef struct {
    double *values;
    size_t count, capacity;
} Samples;

typedef struct {
    int fd;
    State state;
    int used, measured;         /* has answered before; counts for percentiles */
    int status, chunked, events, keep_alive, terminated;
    long long content_left;     /* of a sized body, or -1 */
    int chunk_state;            /* 0 size line, 1 data, 2 line end after data, 3 trailer */
    long long chunk_left;
    int tokens;
    int64_t started, first_token, start_at;
    size_t sent;
    Buffer head, line;
} Connection;

static const char *host = "127.0.0.1";
static char path[512] = "/";
static int port = 80, concurrency = 1, bursts, expected_tokens;
static double seconds, warmup, ramp, limit_seconds = 60, pause_ms = 50;
static long long wanted_requests;
static Buffer request;

static Connection *connections;
static int epoll_fd;
static int64_t run_started, measure_from, stop_starting;
static long long started, completed, failed, dropped, short_answers, unfinished, tokens_total;
static long long window_completed, window_tokens, statuses[600];
static int busy, peak_busy;
static Samples ttft, token_latency, duration;
static char first_error[400];

static void add_sample(Samples *s, double value) {
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? s->capacity * 2 : 4096;
        s->values = realloc(s->values, s->capacity * sizeof *s->values);
        if (!s->values) fail("realloc");
    }
    s->values[s->count++] = value;
}

static void note_error(const char *what, const char *detail) {
    if (!first_error[0]) snprintf(first_error, sizeof first_error, "%s %.300s", what, detail);
}

static int in_window(int64_t now) { return now >= measure_from && (!stop_starting || now < stop_starting); }

/* --- one answer --- */

static void disconnect(Connection *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->state = IDLE;
}

static void end_request(Connection *c, int64_t now) {
    busy--;
    completed++;
    statuses[c->status < 600 ? c->status : 0]++;
    if (c->status < 200 || c->status > 299) {
        failed++;
        note_error("status", c->line.length ? c->line.data : c->head.data);
    } else if (c->events && !c->terminated) {
        dropped++;
        note_error("ended early", "");
    } else {
        if (expected_tokens && c->tokens != expected_tokens) {
            short_answers++;
            note_error("wrong number of tokens", c->events ? "" : c->line.data);
        }
        if (in_window(now)) window_completed++;
        if (c->measured) add_sample(&duration, (double)(now - c->started) / 1e6);
    }
    c->used = 1;
    if (c->keep_alive)
        c->state = READY;
    else
        disconnect(c);
}

static void break_off(Connection *c, const char *why) {
    if (c->state == WAITING_HEAD || c->state == READING_BODY) {
        busy--;
        if (c->state == READING_BODY && c->events) dropped++;
        else failed++;
        note_error(why, c->head.length ? c->head.data : "");
    }
    disconnect(c);
}

/* Takes every ` t<ns>` out of the string that starts at text; stops at its closing quote. */
static void read_tokens(Connection *c, const char *text, int64_t now) {
    for (; *text && *text != '"'; text++) {
        if (*text == '\\' && text[1]) {
            text++;
        } else if (*text == ' ' && text[1] == 't' && text[2] >= '0' && text[2] <= '9') {
            char *end;
            long long sent = strtoll(text + 2, &end, 10);
            if (!c->first_token) {
                c->first_token = now;
                if (c->measured) add_sample(&ttft, (double)(now - c->started) / 1e6);
            }
            c->tokens++;
            tokens_total++;
            if (in_window(now)) window_tokens++;
            if (c->measured) add_sample(&token_latency, (double)(now - sent) / 1e6);
            text = end - 1;
        }
    }
}

static void read_json(Connection *c, const char *json, int64_t now) {
    static const char *keys[] = {"\"content\"", "\"token\"", "\"text\"", "\"answer_text\""};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        for (const char *at = json; (at = strstr(at, keys[i]));) {
            at += strlen(keys[i]);
            while (*at == ' ' || *at == ':') at++;
            if (*at == '"') read_tokens(c, at + 1, now);
        }
    }
}

static void read_line(Connection *c, int64_t now) {
    const char *line = c->line.data;
    if (strncmp(line, "data:", 5)) return;
    line += 5;
    while (*line == ' ') line++;
    if (!strncmp(line, "[DONE]", 6) || strstr(line, "\"done\":true") || strstr(line, "\"done\": true"))
        c->terminated = 1;
    else if (strstr(line, "\"error\":"))
        note_error("error event", line);
    read_json(c, line, now);
}

static void read_body(Connection *c, const char *data, size_t length, int64_t now) {
    if (!c->events) {
        buffer_append(&c->line, data, length);
        return;
    }
    while (length) {
        const char *end = memchr(data, '\n', length);
        size_t part = end ? (size_t)(end - data) : length;
        buffer_append(&c->line, data, part);
        if (!end) return;
        read_line(c, now);
        c->line.length = 0;
        c->line.data[0] = 0;
        data += part + 1;
        length -= part + 1;
    }
}

static void finish_body(Connection *c, int64_t now) {
    if (!c->events && c->line.length && c->status / 100 == 2) read_json(c, c->line.data, now);
    end_request(c, now);
}

/* Returns the bytes used; the request is over when the state is no longer READING_BODY. */
static size_t read_chunked(Connection *c, const char *data, size_t length, int64_t now) {
    size_t used = 0;
    while (used < length && c->state == READING_BODY) {
        if (c->chunk_state == 1) {
            size_t part = length - used;
            if ((long long)part > c->chunk_left) part = (size_t)c->chunk_left;
            read_body(c, data + used, part, now);
            used += part;
            c->chunk_left -= (long long)part;
            if (!c->chunk_left) c->chunk_state = 2;
            continue;
        }
        char byte = data[used++];
        if (c->chunk_state == 0) {
            int digit = byte >= '0' && byte <= '9' ? byte - '0' : (byte | 32) >= 'a' && (byte | 32) <= 'f' ? (byte | 32) - 'a' + 10 : -1;
            if (digit >= 0) c->chunk_left = c->chunk_left * 16 + digit;
            if (byte == '\n') c->chunk_state = c->chunk_left ? 1 : 3;
        } else if (byte == '\n') { /* after data, or the empty trailer */
            if (c->chunk_state == 3) finish_body(c, now);
            c->chunk_state = 0;
            c->chunk_left = 0;
        }
    }
    return used;
}

static void start_body(Connection *c) {
    const char *value;
    c->status = atoi(c->head.data + 9);
    value = header_value(c->head.data, "content-length:");
    c->content_left = value ? atoll(value) : -1;
    value = header_value(c->head.data, "transfer-encoding:");
    c->chunked = value && !strncasecmp(value, "chunked", 7);
    value = header_value(c->head.data, "content-type:");
    c->events = value && !strncasecmp(value, "text/event-stream", 17);
    value = header_value(c->head.data, "connection:");
    c->keep_alive = !(value && !strncasecmp(value, "close", 5)) && (c->chunked || c->content_left >= 0);
    c->state = READING_BODY;
}

static void feed(Connection *c, const char *data, size_t length, int64_t now) {
    if (c->state == WAITING_HEAD) {
        size_t before = c->head.length;
        buffer_append(&c->head, data, length);
        char *end = strstr(c->head.data, "\r\n\r\n");
        if (!end) return;
        size_t head_length = (size_t)(end - c->head.data) + 4;
        end[2] = 0;
        start_body(c);
        data += head_length - before;
        length -= head_length - before;
        if (c->content_left == 0 && !c->chunked) finish_body(c, now);
    }
    if (c->state != READING_BODY) return;
    if (c->chunked) {
        read_chunked(c, data, length, now);
    } else {
        read_body(c, data, length, now);
        if (c->content_left >= 0 && (c->content_left -= (long long)length) <= 0) finish_body(c, now);
    }
}

static void read_from(Connection *c) {
    static char data[READ_SIZE];
    ssize_t n = recv(c->fd, data, sizeof data, 0);
    int64_t now = now_ns();
    if (n > 0) {
        feed(c, data, (size_t)n, now);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        if (n == 0 && c->state == READING_BODY && !c->chunked && c->content_left < 0)
            finish_body(c, now);
        else
            break_off(c, "connection lost");
    }
}

/* --- asking --- */

static void watch(Connection *c, uint32_t events, int operation) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(epoll_fd, operation, c->fd, &event);
}

static void open_connection(Connection *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, host, &address.sin_addr);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) fail("socket");
    set_nodelay(c->fd);
    c->used = 0;
    int outcome = connect(c->fd, (struct sockaddr *)&address, sizeof address);
    if (outcome && errno != EINPROGRESS) {
        note_error("connect", strerror(errno));
        disconnect(c);
        return;
    }
    c->state = CONNECTING;
    watch(c, EPOLLOUT, EPOLL_CTL_ADD);
}

static void write_request(Connection *c) {
    while (c->sent < request.length) {
        ssize_t n = send(c->fd, request.data + c->sent, request.length - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) {
            break_off(c, "send failed");
            return;
        }
        c->sent += (size_t)n;
    }
    watch(c, c->sent < request.length ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
}

static void ask(Connection *c) {
    c->head.length = c->line.length = 0;
    if (c->line.data) c->line.data[0] = 0;
    c->sent = 0;
    c->status = c->chunked = c->events = c->terminated = c->tokens = c->chunk_state = 0;
    c->chunk_left = 0;
    c->first_token = 0;
    c->state = WAITING_HEAD;
    c->started = now_ns();
    c->measured = c->started >= measure_from;
    started++;
    if (++busy > peak_busy) peak_busy = busy;
    write_request(c);
}

static int may_start(int64_t now) {
    if (wanted_requests && started >= wanted_requests) return 0;
    return !stop_starting || now < stop_starting;
}

static void handle(Connection *c, uint32_t events) {
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error) {
            failed++;
            note_error("connect", strerror(error));
            disconnect(c);
            c->start_at = now_ns() + 100000000;
        } else if (events & EPOLLOUT) {
            c->state = READY;
            watch(c, EPOLLIN, EPOLL_CTL_MOD);
        }
        return;
    }
    if (events & EPOLLOUT && c->sent < request.length) write_request(c);
    if (c->fd >= 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read_from(c);
}

/* Waits for events; calls of ours between two of them last no longer than this. */
static void poll_events(int timeout_ms) {
    struct epoll_event events[512];
    int count = epoll_wait(epoll_fd, events, 512, timeout_ms);
    for (int i = 0; i < count; i++) handle(events[i].data.ptr, events[i].events);
}

static int out_of_time(void) { return now_ns() > run_started + (int64_t)(limit_seconds * 1e9); }

static void run_closed_loop(void) {
    while (!out_of_time()) {
        int64_t now = now_ns();
        int next_ms = 100, open_to_start = may_start(now);
        for (int i = 0; open_to_start && i < concurrency; i++) {
            Connection *c = &connections[i];
            if (c->start_at > now) {
                int wait_ms = (int)((c->start_at - now) / 1000000) + 1;
                if (wait_ms < next_ms) next_ms = wait_ms;
                continue;
            }
            if (c->state == IDLE) open_connection(c);
            if (c->state == READY) ask(c);
            open_to_start = may_start(now);
        }
        if (!open_to_start && !busy) break;
        poll_events(next_ms);
    }
}

static int count_in(State state) {
    int count = 0;
    for (int i = 0; i < concurrency; i++) count += connections[i].state == state;
    return count;
}

static void run_bursts(void) {
    for (int round = 0; round < bursts && !out_of_time(); round++) {
        for (int i = 0; i < concurrency; i++)
            if (connections[i].state == IDLE) open_connection(&connections[i]);
        while (count_in(READY) < concurrency && !out_of_time()) {
            poll_events(50);
            for (int i = 0; i < concurrency; i++)
                if (connections[i].state == IDLE) open_connection(&connections[i]);
        }
        for (int64_t until = now_ns() + (int64_t)(pause_ms * 1e6); now_ns() < until;) poll_events(10);
        for (int i = 0; i < concurrency; i++)
            if (connections[i].state == READY) ask(&connections[i]);
        while (busy && !out_of_time()) poll_events(50);
    }
}

/* --- the report --- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double at_rank(const Samples *s, double rank) {
    return s->values[(size_t)floor(rank * (double)(s->count - 1) + 0.5)];
}

static void print_samples(const char *name, Samples *s) {
    if (!s->count) {
        printf("\"%s\":null,", name);
        return;
    }
    double sum = 0;
    for (size_t i = 0; i < s->count; i++) sum += s->values[i];
    qsort(s->values, s->count, sizeof *s->values, by_value);
    printf("\"%s\":{\"count\":%zu,\"mean\":%.4f,\"p50\":%.4f,\"p95\":%.4f,\"p99\":%.4f,\"max\":%.4f},",
           name, s->count, sum / (double)s->count, at_rank(s, 0.5), at_rank(s, 0.95), at_rank(s, 0.99),
           s->values[s->count - 1]);
}

static void print_report(int64_t ended) {
    double elapsed = (double)(ended - run_started) / 1e9;
    double window = seconds > 0 ? seconds - warmup : elapsed;
    printf("{\"started\":%lld,\"completed\":%lld,\"failed\":%lld,\"dropped\":%lld,\"short\":%lld,"
           "\"unfinished\":%lld,\"peak_busy\":%d,\"tokens\":%lld,\"seconds\":%.3f,"
           "\"requests_per_s\":%.3f,\"tokens_per_s\":%.2f,",
           started, completed, failed, dropped, short_answers, unfinished, peak_busy, tokens_total, elapsed,
           (double)window_completed / window, (double)window_tokens / window);
    print_samples("ttft_ms", &ttft);
    print_samples("token_ms", &token_latency);
    print_samples("duration_ms", &duration);
    printf("\"statuses\":{");
    const char *separator = "";
    for (int status = 0; status < 600; status++)
        if (statuses[status]) {
            printf("%s\"%d\":%lld", separator, status, statuses[status]);
            separator = ",";
        }
    printf("},\"first_error\":\"");
    for (const char *at = first_error; *at; at++)
        if (*at == '"' || *at == '\\') printf("\\%c", *at);
        else putchar((unsigned char)*at < 32 ? ' ' : *at);
    printf("\"}\n");
}

/* --- options --- */

static void read_url(const char *url) {
    static char name[128];
    if (sscanf(url, "http://%127[^:/]:%d%511s", name, &port, path) < 2) {
        fprintf(stderr, "the URL must be http://ADDRESS:PORT/path: %s\n", url);
        exit(2);
    }
    host = name;
}

static void build_request(const char *url, const char *headers, const char *body_file) {
    Buffer body = {0};
    char data[4096];
    size_t n;
    FILE *file = fopen(body_file, "rb");
    if (!file) fail(body_file);
    while ((n = fread(data, 1, sizeof data, file))) buffer_append(&body, data, n);
    fclose(file);
    read_url(url);
    buffer_format(&request, "POST %s HTTP/1.1\r\nHost: %s:%d\r\nContent-Type: application/json\r\n", path, host, port);
    buffer_append(&request, headers, strlen(headers));
    buffer_format(&request, "Content-Length: %zu\r\n\r\n", body.length);
    buffer_append(&request, body.data, body.length);
}

static void prepare_connections(void) {
    connections = calloc((size_t)concurrency, sizeof *connections);
    if (!connections) fail("calloc");
    for (int i = 0; i < concurrency; i++) {
        connections[i].fd = -1;
        connections[i].start_at = run_started + (int64_t)(ramp * 1e9 * i / concurrency);
    }
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"url", 1, 0, 'u'},      {"header", 1, 0, 'h'}, {"body", 1, 0, 'b'},   {"concurrency", 1, 0, 'c'},
        {"seconds", 1, 0, 's'},  {"warmup", 1, 0, 'w'}, {"ramp", 1, 0, 'r'},   {"requests", 1, 0, 'n'},
        {"bursts", 1, 0, 'B'},   {"limit", 1, 0, 'l'},  {"tokens", 1, 0, 't'}, {0, 0, 0, 0}};
    const char *url = NULL, *body_file = NULL;
    Buffer headers = {0};
    buffer_append(&headers, "", 0);
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'u': url = optarg; break;
        case 'h': buffer_format(&headers, "%s\r\n", optarg); break;
        case 'b': body_file = optarg; break;
        case 'c': concurrency = atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'w': warmup = atof(optarg); break;
        case 'r': ramp = atof(optarg); break;
        case 'n': wanted_requests = atoll(optarg); break;
        case 'B': bursts = atoi(optarg); break;
        case 'l': limit_seconds = atof(optarg); break;
        case 't': expected_tokens = atoi(optarg); break;
        default: return 2;
        }
    }
    if (!url || !body_file || concurrency < 1 || (seconds <= 0 && wanted_requests < 1 && bursts < 1)) {
        fprintf(stderr, "usage: loadgen --url URL --body FILE (--seconds S | --requests N | --bursts B) ...\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    build_request(url, headers.data, body_file);
    epoll_fd = epoll_create1(0);
    run_started = now_ns();
    measure_from = run_started + (int64_t)(warmup * 1e9);
    stop_starting = seconds > 0 ? run_started + (int64_t)(seconds * 1e9) : 0;
    prepare_connections();
    if (bursts) run_bursts();
    else run_closed_loop();
    unfinished = busy;
    print_report(now_ns());
    return 0;
}
