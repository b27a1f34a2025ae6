/* The server that all clients are measured against: one thread, level-triggered epoll, no allocation while it runs.
 *
 *   cserver pkg HEADER           echoes whole packages (HEADER bytes of big-endian length, then the data)
 *   cserver threads HEADER       the same in a thread for each connection, which blocks
 *   cserver raw                  echoes whatever arrives
 *   cserver source HEADER SIZE   answers an 8-byte count N with N packages of SIZE bytes, as fast as it can
 *   cserver lines SIZE           answers an 8-byte count N with N lines of SIZE bytes, the newline included
 *   cserver sink                 reads an 8-byte count N, then N bytes, and answers one byte
 *
 * Prints its port; ends when stdin ends. */
#include "wire.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/resource.h>

enum { COUNT_SIZE = 8, EVENTS = 256, FIRST_BUFFER = 64 * 1024 };

enum mode { PKG, RAW, SOURCE, SINK };
enum { THREAD_STACK = 64 * 1024 };

static enum mode mode;
static int threaded;
static int header = 2;
static char *block; /* whole units, sent again and again by the source */
static size_t block_size, unit_size;

struct conn {
    int fd;
    int writing;        /* waits for EPOLLOUT */
    size_t have, room;  /* bytes in buffer, its size */
    size_t done, ready; /* echo: buffer[done:ready] is still to be sent */
    uint64_t left;      /* source: bytes to send; sink: bytes to read */
    size_t at;          /* source: offset in the block */
    unsigned char *buffer;
};

static int epoll;

static void watch(struct conn *c, int writing) {
    if (c->writing == writing)
        return;
    struct epoll_event event = {.events = writing ? EPOLLOUT : EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
    c->writing = writing;
}

static void drop(struct conn *c) {
    close(c->fd);
    free(c->buffer);
    free(c);
}

/* How many bytes at the start of the buffer are whole packages; makes room when the next one is larger. */
static size_t whole_packages(struct conn *c) {
    size_t end = 0;
    while (c->have - end >= (size_t)header) {
        size_t need = (size_t)header + get_length(c->buffer + end, header);
        if (c->have - end < need) {
            if (need > c->room) {
                c->buffer = realloc(c->buffer, need);
                c->room = need;
            }
            break;
        }
        end += need;
    }
    return end;
}

/* Sends buffer[done:ready]; false when the connection is gone. */
static int flush(struct conn *c) {
    while (c->done < c->ready) {
        ssize_t n = send(c->fd, c->buffer + c->done, c->ready - c->done, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN)
                return 0;
            watch(c, 1);
            return 1;
        }
        c->done += (size_t)n;
    }
    memmove(c->buffer, c->buffer + c->ready, c->have - c->ready);
    c->have -= c->ready;
    c->done = c->ready = 0;
    watch(c, 0);
    return 1;
}

static int on_echo(struct conn *c) {
    if (c->ready == 0) {
        ssize_t n = recv(c->fd, c->buffer + c->have, c->room - c->have, 0);
        if (n <= 0)
            return n < 0 && errno == EAGAIN;
        c->have += (size_t)n;
        c->ready = mode == RAW ? c->have : whole_packages(c);
    }
    return c->ready == 0 || flush(c);
}

/* The 8-byte count that starts a flood: 1 = known, 0 = not yet, -1 = the connection is gone. */
static int read_count(struct conn *c) {
    if (c->left > 0)
        return 1;
    ssize_t n = recv(c->fd, c->buffer + c->have, COUNT_SIZE - c->have, 0);
    if (n <= 0)
        return n < 0 && errno == EAGAIN ? 0 : -1;
    c->have += (size_t)n;
    if (c->have < COUNT_SIZE)
        return 0;
    c->left = get_length(c->buffer, COUNT_SIZE);
    c->have = 0;
    return c->left > 0;
}

static int on_source(struct conn *c) {
    int fresh = c->left == 0, known = read_count(c);
    if (known <= 0)
        return known == 0;
    if (fresh) {
        c->left *= unit_size;
        c->at = 0;
    }
    while (c->left > 0) {
        size_t part = block_size - c->at < c->left ? block_size - c->at : c->left;
        ssize_t n = send(c->fd, block + c->at, part, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN)
                return 0;
            watch(c, 1);
            return 1;
        }
        c->left -= (uint64_t)n;
        c->at = (c->at + (size_t)n) % block_size;
    }
    watch(c, 0);
    return 1;
}

/* MSG_TRUNC throws the bytes away inside the kernel: the sink costs next to nothing, the number is the sender's. */
static int on_sink(struct conn *c) {
    int known = read_count(c);
    if (known <= 0)
        return known == 0;
    for (int turn = 0; turn < 16; turn++) {
        ssize_t n = recv(c->fd, NULL, c->left < 1 << 20 ? c->left : 1 << 20, MSG_TRUNC);
        if (n <= 0)
            return n < 0 && errno == EAGAIN;
        c->left -= (uint64_t)n;
        if (c->left == 0)
            return send(c->fd, "", 1, MSG_NOSIGNAL) == 1;
    }
    return 1;
}

static struct conn *accept_one(int listener, int flags) {
    int fd = accept4(listener, NULL, NULL, flags | SOCK_CLOEXEC);
    if (fd < 0)
        return NULL;
    set_nodelay(fd);
    struct conn *c = allocate(sizeof *c);
    c->fd = fd;
    c->room = FIRST_BUFFER;
    c->buffer = allocate(c->room);
    return c;
}

static void *echo_until_end(void *conn) {
    while (on_echo(conn))
        ;
    drop(conn);
    return NULL;
}

/* A thread for each connection; the main one waits for the end of stdin. */
static void *accept_for_ever(void *listener) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, THREAD_STACK);
    for (;;) {
        pthread_t thread;
        struct conn *c = accept_one(*(int *)listener, 0);
        if (c && pthread_create(&thread, &attributes, echo_until_end, c) != 0)
            die("pthread_create");
    }
}

static void accept_all(int listener) {
    struct conn *c;
    while ((c = accept_one(listener, SOCK_NONBLOCK))) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
            die("epoll_ctl");
    }
}

static void prepare(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    threaded = strcmp(name, "threads") == 0;
    if ((threaded || strcmp(name, "pkg") == 0) && argc == 3) {
        mode = PKG;
        header = atoi(argv[2]);
        return;
    }
    if (strcmp(name, "raw") == 0) {
        mode = RAW;
        return;
    }
    if (strcmp(name, "sink") == 0) {
        mode = SINK;
        return;
    }
    int packages = strcmp(name, "source") == 0 && argc == 4;
    if (!packages && !(strcmp(name, "lines") == 0 && argc == 3)) {
        fprintf(stderr, "usage: cserver pkg HEADER | threads HEADER | raw | source HEADER SIZE | lines SIZE | sink\n");
        exit(2);
    }
    mode = SOURCE;
    size_t size = (size_t)atoi(argv[argc - 1]);
    header = packages ? atoi(argv[2]) : 0;
    unit_size = (size_t)header + size;
    size_t units = (256 * 1024 + unit_size - 1) / unit_size;
    block_size = units * unit_size;
    block = allocate(block_size);
    memset(block, 'x', block_size);
    for (size_t i = 0; i < units; i++) {
        if (packages)
            put_length((unsigned char *)block + i * unit_size, header, size);
        else
            block[(i + 1) * unit_size - 1] = '\n';
    }
}

static int listen_anywhere(void) {
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | (threaded ? 0 : SOCK_NONBLOCK) | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 4096) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        die("listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv) {
    prepare(argc, argv);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    int listener = listen_anywhere();
    if (threaded) {
        pthread_t acceptor;
        if (pthread_create(&acceptor, NULL, accept_for_ever, &listener) != 0)
            die("pthread_create");
        while (getchar() != EOF)
            ;
        return 0;
    }

    epoll = epoll_create1(EPOLL_CLOEXEC);
    static struct conn listening, control;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listening};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    event.data.ptr = &control;
    epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event);

    struct epoll_event events[EVENTS];
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (c == &control)
                return 0;
            if (c == &listening) {
                accept_all(listener);
                continue;
            }
            int alive = mode == SOURCE ? on_source(c) : mode == SINK ? on_sink(c) : on_echo(c);
            if (!alive)
                drop(c);
        }
    }
}
