/* An engine that only keeps time: an HTTP/1.1 server that speaks the OpenAI API as vLLM does.
 *
 * `max_tokens` of the body is the number of tokens. The model's name sets the pace:
 * `bench-10ms` sends one token each 10 ms, `bench-0ms` without a pause, and
 * `bench-10ms-first200ms` waits 200 ms before the first. Every token is the text
 * ` t<nanoseconds>`: its own send time on CLOCK_MONOTONIC, which the load generator on the
 * same machine reads as one-way latency. A client that closes its connection cancels.
 *
 * usage: fake_engine [port]      prints "port <n>" when it listens on 127.0.0.1
 */
#define _GNU_SOURCE
#include "wire.h"

#include <arpa/inet.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

enum { MAX_TOKENS = 1000000, MAX_BODY = 8 << 20, READ_SIZE = 65536 };

typedef struct {
    int fd;
    int heap_index; /* place among the waiting, or -1 */
    Buffer in, out;
    int watching_writes, keep_alive;
    int streaming, chat, include_usage, tokens, sent, prompt_tokens;
    int64_t due, interval;
    char model[96];
    uint64_t id;
} Connection;

static int epoll_fd, timer_fd, listen_fd;
static Connection **heap;
static int heap_length, heap_capacity;
static long long requests, cancelled, tokens_sent, active, peak;

/* --- the waiting: a binary heap ordered by when the next token is due --- */

static void heap_put(int index, Connection *c) {
    heap[index] = c;
    c->heap_index = index;
}

static void heap_up(int index) {
    Connection *c = heap[index];
    while (index && heap[(index - 1) / 2]->due > c->due) {
        heap_put(index, heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    heap_put(index, c);
}

static void heap_down(int index) {
    Connection *c = heap[index];
    for (int child; (child = 2 * index + 1) < heap_length; index = child) {
        if (child + 1 < heap_length && heap[child + 1]->due < heap[child]->due) child++;
        if (heap[child]->due >= c->due) break;
        heap_put(index, heap[child]);
    }
    heap_put(index, c);
}

static void wait_until_due(Connection *c) {
    if (heap_length == heap_capacity) {
        heap_capacity = heap_capacity ? heap_capacity * 2 : 256;
        heap = realloc(heap, sizeof *heap * (size_t)heap_capacity);
        if (!heap) fail("realloc");
    }
    heap_put(heap_length++, c);
    heap_up(heap_length - 1);
}

static void stop_waiting(Connection *c) {
    int index = c->heap_index;
    if (index < 0) return;
    c->heap_index = -1;
    Connection *last = heap[--heap_length];
    if (last == c) return;
    heap_put(index, last);
    heap_up(index);
    heap_down(last->heap_index);
}

/* --- sending --- */

static void close_connection(Connection *c) {
    if (c->tokens) {
        cancelled++;
        active--;
    }
    stop_waiting(c);
    close(c->fd);
    c->fd = -1; /* freed by the loop, once no event of this round can name it */
}

static void watch(Connection *c, int writes) {
    if (c->watching_writes == writes) return;
    c->watching_writes = writes;
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | (writes ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

static void flush(Connection *c) {
    size_t done = 0;
    while (done < c->out.length) {
        ssize_t n = send(c->fd, c->out.data + done, c->out.length - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) {
            close_connection(c);
            return;
        }
        done += (size_t)n;
    }
    buffer_drop_front(&c->out, done);
    watch(c, c->out.length > 0);
}

static void answer(Connection *c, const char *status, const char *type, const char *body) {
    buffer_format(&c->out, "HTTP/1.1 %s\r\ncontent-type: %s\r\ncontent-length: %zu\r\n%s\r\n", status,
                  type, strlen(body), c->keep_alive ? "" : "connection: close\r\n");
    buffer_append(&c->out, body, strlen(body));
}

static void append_chunk(Buffer *out, const char *data, size_t length) {
    char size[24];
    buffer_append(out, size, (size_t)snprintf(size, sizeof size, "%zx\r\n", length));
    buffer_append(out, data, length);
    buffer_append(out, "\r\n", 2);
}

static void append_event(Connection *c, const char *choices, const char *usage) {
    char event[1024];
    int length = snprintf(
        event, sizeof event,
        "data: {\"id\":\"%s-%016llx\",\"object\":\"%s\",\"created\":1760000000,\"model\":\"%s\","
        "\"choices\":[%s]%s}\n\n",
        c->chat ? "chatcmpl" : "cmpl", (unsigned long long)c->id,
        c->chat ? "chat.completion.chunk" : "text_completion", c->model, choices, usage);
    append_chunk(&c->out, event, (size_t)length);
}

static void usage_of(Connection *c, char *text, size_t size) {
    snprintf(text, size,
             ",\"usage\":{\"prompt_tokens\":%d,\"total_tokens\":%d,\"completion_tokens\":%d,"
             "\"prompt_tokens_details\":null}",
             c->prompt_tokens, c->prompt_tokens + c->tokens, c->tokens);
}

static void finish(Connection *c) {
    c->tokens = 0;
    active--;
    if (!c->keep_alive) shutdown(c->fd, SHUT_WR);
}

static void send_token(Connection *c, int64_t now) {
    char choice[256], usage[200];
    const char *end = c->sent + 1 == c->tokens ? "\"length\"" : "null";
    if (c->sent == 0 && c->chat)
        append_event(c, "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                        "\"logprobs\":null,\"finish_reason\":null}", "");
    snprintf(choice, sizeof choice,
             c->chat ? "{\"index\":0,\"delta\":{\"content\":\" t%lld\"},\"logprobs\":null,"
                       "\"finish_reason\":%s,\"stop_reason\":null,\"token_ids\":null}"
                     : "{\"index\":0,\"text\":\" t%lld\",\"logprobs\":null,"
                       "\"finish_reason\":%s,\"stop_reason\":null}",
             (long long)now, end);
    append_event(c, choice, "");
    tokens_sent++;
    if (++c->sent < c->tokens) {
        c->due += c->interval;
        wait_until_due(c);
    } else {
        if (c->include_usage) {
            usage_of(c, usage, sizeof usage);
            append_event(c, "", usage);
        }
        append_chunk(&c->out, "data: [DONE]\n\n", 14);
        buffer_append(&c->out, "0\r\n\r\n", 5);
        finish(c);
    }
    flush(c);
}

static void send_whole(Connection *c) {
    static Buffer body;
    char usage[200];
    body.length = 0;
    buffer_format(&body,
                  "{\"id\":\"%s-%016llx\",\"object\":\"%s\",\"created\":1760000000,\"model\":\"%s\","
                  "\"choices\":[{\"index\":0,%s",
                  c->chat ? "chatcmpl" : "cmpl", (unsigned long long)c->id,
                  c->chat ? "chat.completion" : "text_completion", c->model,
                  c->chat ? "\"message\":{\"role\":\"assistant\",\"content\":\"" : "\"text\":\"");
    for (int i = 0; i < c->tokens; i++) buffer_format(&body, " t%lld", (long long)now_ns());
    tokens_sent += c->tokens;
    usage_of(c, usage, sizeof usage);
    buffer_format(&body, "%s,\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null}]%s}",
                  c->chat ? "\",\"refusal\":null,\"tool_calls\":[],\"reasoning_content\":null}" : "\"", usage);
    answer(c, "200 OK", "application/json", body.data);
    finish(c);
    flush(c);
}

/* --- requests --- */

/* The value after `"key":` in our own small bodies. Not a JSON parser: it takes the first match. */
static const char *json_value(const char *body, const char *key) {
    const char *at = strstr(body, key);
    if (!at) return NULL;
    for (at += strlen(key); *at == ' ' || *at == ':'; at++) {}
    return at;
}

static int64_t milliseconds_after(const char *text, const char *mark) {
    const char *at = strstr(text, mark);
    return at ? (int64_t)(strtod(at + strlen(mark), NULL) * 1e6) : 0;
}

static void start_generation(Connection *c, const char *body, int chat) {
    const char *value = json_value(body, "\"max_completion_tokens\"");
    if (!value) value = json_value(body, "\"max_tokens\"");
    int tokens = value ? atoi(value) : 16;
    c->tokens = tokens < 1 ? 1 : tokens > MAX_TOKENS ? MAX_TOKENS : tokens;
    value = json_value(body, "\"model\"");
    c->model[0] = 0;
    if (value && *value == '"') sscanf(value + 1, "%95[A-Za-z0-9._/-]", c->model);
    value = json_value(body, "\"stream\"");
    c->streaming = value && *value == 't';
    value = json_value(body, "\"include_usage\"");
    c->include_usage = value && *value == 't';
    c->interval = milliseconds_after(c->model, "bench-");
    c->chat = chat;
    c->sent = 0;
    c->prompt_tokens = (int)strlen(body) / 4;
    c->id = (uint64_t)++requests * 0x9e3779b97f4a7c15u;
    if (++active > peak) peak = active;
    c->due = now_ns() + milliseconds_after(c->model, "-first");
    if (c->streaming)
        buffer_format(&c->out, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n%s"
                               "transfer-encoding: chunked\r\n\r\n",
                      c->keep_alive ? "" : "connection: close\r\n");
    else
        c->due += c->interval * (c->tokens - 1);
    wait_until_due(c);
}

static void list_models(Connection *c) {
    static const char *paces[] = {"0", "10", "50", "100"};
    char body[2048];
    int length = snprintf(body, sizeof body, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; i < 4; i++)
        length += snprintf(body + length, sizeof body - (size_t)length,
                           "%s{\"id\":\"bench-%sms\",\"object\":\"model\",\"created\":1760000000,"
                           "\"owned_by\":\"vllm\",\"root\":\"bench-%sms\",\"parent\":null,"
                           "\"max_model_len\":131072}",
                           i ? "," : "", paces[i], paces[i]);
    snprintf(body + length, sizeof body - (size_t)length, "]}");
    answer(c, "200 OK", "application/json", body);
}

static void show_stats(Connection *c) {
    char body[256];
    snprintf(body, sizeof body,
             "{\"requests\":%lld,\"active\":%lld,\"peak\":%lld,\"cancelled\":%lld,\"tokens\":%lld}",
             requests, active, peak, cancelled, tokens_sent);
    answer(c, "200 OK", "application/json", body);
}

static void route(Connection *c, const char *line, const char *body) {
    if (!strncmp(line, "POST /v1/chat/completions", 25)) {
        start_generation(c, body, 1);
    } else if (!strncmp(line, "POST /v1/completions", 20)) {
        start_generation(c, body, 0);
    } else if (!strncmp(line, "GET /v1/models", 14)) {
        list_models(c);
    } else if (!strncmp(line, "GET /health", 11)) {
        answer(c, "200 OK", "application/json", "");
    } else if (!strncmp(line, "GET /version", 12)) {
        answer(c, "200 OK", "application/json", "{\"version\":\"0.11.0\"}");
    } else if (!strncmp(line, "GET /stats", 10)) {
        show_stats(c);
    } else {
        answer(c, "404 Not Found", "application/json", "{\"detail\":\"Not Found\"}");
    }
}

/* Answers one request if it is there whole; returns whether it was. */
static int take_request(Connection *c) {
    char *end = c->in.length ? strstr(c->in.data, "\r\n\r\n") : NULL;
    if (!end) return 0;
    *end = 0;
    const char *value = header_value(c->in.data, "content-length:");
    const char *connection = header_value(c->in.data, "connection:");
    size_t body_length = value ? strtoul(value, NULL, 10) : 0;
    int chunked = header_value(c->in.data, "transfer-encoding:") != NULL;
    c->keep_alive = !connection || strncasecmp(connection, "close", 5) != 0;
    size_t head_length = (size_t)(end - c->in.data) + 4;
    if (chunked || body_length > MAX_BODY) {
        c->keep_alive = 0;
        answer(c, chunked ? "411 Length Required" : "413 Content Too Large", "text/plain", "");
        c->in.length = 0;
        return 1;
    }
    if (c->in.length < head_length + body_length) {
        *end = '\r';
        return 0;
    }
    char *body = c->in.data + head_length, kept = body[body_length];
    body[body_length] = 0;
    route(c, c->in.data, body);
    body[body_length] = kept;
    buffer_drop_front(&c->in, head_length + body_length);
    return 1;
}

static void read_from(Connection *c) {
    static char data[READ_SIZE];
    for (;;) {
        ssize_t n = recv(c->fd, data, sizeof data, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n <= 0) {
            close_connection(c);
            return;
        }
        buffer_append(&c->in, data, (size_t)n);
        if ((size_t)n < sizeof data) break;
    }
    while (c->fd >= 0 && !c->tokens && take_request(c)) {}
    if (c->fd >= 0 && c->out.length) flush(c);
}

/* --- the loop --- */

static void accept_all(void) {
    for (int fd; (fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        set_nodelay(fd);
        Connection *c = calloc(1, sizeof *c);
        if (!c) fail("calloc");
        c->fd = fd;
        c->heap_index = -1;
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = c};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event)) fail("epoll_ctl");
    }
}

static void free_if_closed(Connection *c) {
    if (c->fd >= 0) return;
    free(c->in.data);
    free(c->out.data);
    free(c);
}

/* One token for everybody whose time has come when the round starts. */
static void send_due(void) {
    int64_t started = now_ns();
    for (int left = heap_length; left > 0 && heap_length && heap[0]->due <= started; left--) {
        Connection *c = heap[0];
        stop_waiting(c);
        if (c->streaming)
            send_token(c, now_ns());
        else
            send_whole(c);
        if (c->fd >= 0 && !c->tokens)
            while (c->fd >= 0 && !c->tokens && take_request(c)) flush(c);
        free_if_closed(c);
    }
}

static void arm_timer(void) {
    struct itimerspec when = {0};
    if (heap_length) {
        int64_t due = heap[0]->due > 0 ? heap[0]->due : 1;
        when.it_value.tv_sec = due / 1000000000;
        when.it_value.tv_nsec = due % 1000000000;
    }
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void listen_on(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t length = sizeof address;
    int one = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listen_fd, (struct sockaddr *)&address, sizeof address)) fail("bind");
    if (listen(listen_fd, 2048)) fail("listen");
    getsockname(listen_fd, (struct sockaddr *)&address, &length);
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
}

int main(int argc, char **argv) {
    struct epoll_event events[256], event = {.events = EPOLLIN};
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    listen_on(argc > 1 ? atoi(argv[1]) : 0);
    epoll_fd = epoll_create1(0);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    event.data.ptr = &listen_fd;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &event);
    event.data.ptr = &timer_fd;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &event);
    for (;;) {
        int timeout = heap_length && heap[0]->due <= now_ns() ? 0 : -1;
        if (timeout) arm_timer();
        int count = epoll_wait(epoll_fd, events, 256, timeout);
        for (int i = 0; i < count; i++) {
            void *source = events[i].data.ptr;
            uint64_t expirations;
            if (source == &listen_fd) {
                accept_all();
            } else if (source == &timer_fd) {
                if (read(timer_fd, &expirations, sizeof expirations) < 0 && errno != EAGAIN) fail("timer");
            } else {
                Connection *c = source;
                if (events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) read_from(c);
                if (c->fd >= 0 && (events[i].events & EPOLLOUT)) flush(c);
                free_if_closed(c);
            }
        }
        send_due();
    }
}
