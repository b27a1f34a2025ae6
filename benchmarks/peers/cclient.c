/* The limit: the best simple blocking client in C, one connection, a kernel timeout of five seconds.
 *
 *   cclient PORT exchange SIZE HEADER   send a package, receive one (a pooled exchange has the same limit)
 *   cclient PORT raw SIZE               send SIZE bytes, receive SIZE bytes
 *   cclient PORT window SIZE COUNT      packages with a 2-byte header, COUNT in flight
 *   cclient PORT flood SIZE             receive packages, copy each payload out, count them
 *   cclient PORT lines SIZE             receive lines, copy each out, count them
 *   cclient PORT sendflood SIZE         send packages by writev, wait for the sink's answer
 *   cclient PORT sendcopy SIZE          the same, the packages copied into one buffer
 *   cclient PORT threads SIZE COUNT     COUNT threads, each its own connection, exchange
 *   cclient PORT redis 0                PING and +PONG with a Redis server
 *
 * One unit of work is one exchange, package or line. */
#include "wire.h"

#include <pthread.h>

enum { TIMEOUT_S = 5, COPY_LIMIT = 4096, FLOOD_BUFFER = 256 * 1024, BATCH = 512, MAX_THREADS = 64 };

static int port, size, argument = 2;

struct buffers {
    unsigned char *out, *in;
};

static struct buffers make_buffers(size_t each) {
    struct buffers b = {allocate(each + 8), allocate(each + 8)};
    memset(b.out, 'x', each + 8);
    return b;
}

/* ---- packages ---- */

/* Small packages are copied behind their header (one send); large ones leave from where they are (one writev). */
static void send_package(int fd, struct buffers b, int header) {
    unsigned char head[8];
    put_length(head, header, (uint64_t)size);
    if (size > COPY_LIMIT) {
        struct iovec parts[2] = {{head, (size_t)header}, {b.out, (size_t)size}};
        send_parts(fd, parts, 2);
        return;
    }
    unsigned char frame[COPY_LIMIT + 8];
    memcpy(frame, head, (size_t)header);
    memcpy(frame + header, b.out, (size_t)size);
    send_all(fd, frame, (size_t)(header + size));
}

static void recv_package(int fd, struct buffers b, int header) {
    size_t have = 0, need = (size_t)header;
    while (have < need) {
        have += recv_some(fd, b.in + have, (size_t)(header + size) - have);
        if (need == (size_t)header && have >= need)
            need += get_length(b.in, header);
    }
}

static void do_exchange(int fd, struct buffers b, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        send_package(fd, b, argument);
        recv_package(fd, b, argument);
    }
}

static void do_raw(int fd, struct buffers b, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        send_all(fd, b.out, (size_t)size);
        recv_exactly(fd, b.in, (size_t)size);
    }
}

/* Frames `argument` packages, sends them at once, then takes the replies apart. */
static void do_window(int fd, struct buffers b, int64_t n) {
    static unsigned char out[FLOOD_BUFFER], in[FLOOD_BUFFER], copy[FLOOD_BUFFER];
    size_t frame = (size_t)size + 2, want = (size_t)argument * frame;
    if (want > sizeof out)
        exit(2);
    for (int64_t i = 0; i < n; i += argument) {
        for (size_t at = 0; at < want; at += frame) {
            put_length(out + at, 2, (uint64_t)size);
            memcpy(out + at + 2, b.out, (size_t)size);
        }
        send_all(fd, out, want);
        size_t have = 0, at = 0;
        while (at < want) {
            have += recv_some(fd, in + have, want - have);
            for (uint64_t length; have - at >= 2 && have - at >= 2 + (length = get_length(in + at, 2)); at += 2 + length)
                memcpy(copy + at, in + at + 2, length);
        }
    }
}

/* ---- floods ---- */

static void ask(int fd, uint64_t count) {
    unsigned char request[8];
    put_length(request, 8, count);
    send_all(fd, request, sizeof request);
}

/* Copies `length` bytes to the next free place, as a program that keeps its packages would. */
static unsigned char kept[FLOOD_BUFFER];
static size_t kept_at;

static void keep(const unsigned char *from, size_t length) {
    if (kept_at + length > sizeof kept)
        kept_at = 0;
    memcpy(kept + kept_at, from, length);
    kept_at += length;
}

static void do_flood(int fd, struct buffers b, int64_t n) {
    (void)b;
    static unsigned char in[FLOOD_BUFFER];
    size_t have = 0;
    ask(fd, (uint64_t)n);
    while (n > 0) {
        have += recv_some(fd, in + have, sizeof in - have);
        size_t at = 0;
        for (uint64_t length; have - at >= 2 && have - at >= 2 + (length = get_length(in + at, 2)); at += 2 + length, n--)
            keep(in + at + 2, length);
        memmove(in, in + at, have - at);
        have -= at;
    }
}

static void do_lines(int fd, struct buffers b, int64_t n) {
    (void)b;
    static unsigned char in[FLOOD_BUFFER];
    size_t have = 0;
    ask(fd, (uint64_t)n);
    while (n > 0) {
        have += recv_some(fd, in + have, sizeof in - have);
        size_t at = 0;
        for (unsigned char *end; (end = memchr(in + at, '\n', have - at)) != NULL; n--) {
            keep(in + at, (size_t)(end - (in + at)));
            at = (size_t)(end - in) + 1;
        }
        memmove(in, in + at, have - at);
        have -= at;
    }
}

/* Each package stays where it is; headers and payloads leave by writev, BATCH packages a call. */
static void do_sendflood(int fd, struct buffers b, int64_t n) {
    static unsigned char heads[BATCH][2];
    static struct iovec parts[2 * BATCH];
    ask(fd, (uint64_t)n * (uint64_t)(size + 2));
    while (n > 0) {
        int count = n < BATCH ? (int)n : BATCH;
        for (int i = 0; i < count; i++) {
            put_length(heads[i], 2, (uint64_t)size);
            parts[2 * i] = (struct iovec){heads[i], 2};
            parts[2 * i + 1] = (struct iovec){b.out, (size_t)size};
        }
        send_parts(fd, parts, 2 * count);
        n -= count;
    }
    unsigned char answer;
    recv_exactly(fd, &answer, 1);
}

static void do_sendcopy(int fd, struct buffers b, int64_t n) {
    static unsigned char out[FLOOD_BUFFER];
    size_t frame = (size_t)size + 2, at = 0;
    if (frame > sizeof out)
        exit(2);
    ask(fd, (uint64_t)n * frame);
    for (; n > 0; n--) {
        put_length(out + at, 2, (uint64_t)size);
        memcpy(out + at + 2, b.out, (size_t)size);
        at += frame;
        if (at + frame > sizeof out || n == 1) {
            send_all(fd, out, at);
            at = 0;
        }
    }
    unsigned char answer;
    recv_exactly(fd, &answer, 1);
}

static void do_redis(int fd, struct buffers b, int64_t n) {
    (void)b;
    char reply[64];
    for (int64_t i = 0; i < n; i++) {
        send_all(fd, "PING\r\n", 6);
        size_t have = 0;
        while (have == 0 || reply[have - 1] != '\n')
            have += recv_some(fd, reply + have, sizeof reply - have);
    }
}

/* ---- threads ---- */

static pthread_barrier_t start_line, finish_line;
static int64_t share;

static void *exchanger(void *unused) {
    (void)unused;
    int fd = dial(port);
    set_timeout(fd, TIMEOUT_S);
    struct buffers b = make_buffers((size_t)size);
    for (;;) {
        pthread_barrier_wait(&start_line);
        for (int64_t i = 0; i < share; i++) {
            send_package(fd, b, 2);
            recv_package(fd, b, 2);
        }
        pthread_barrier_wait(&finish_line);
    }
    return NULL;
}

static void do_threads(int fd, struct buffers b, int64_t n) {
    (void)fd;
    (void)b;
    share = n / argument;
    pthread_barrier_wait(&start_line);
    pthread_barrier_wait(&finish_line);
}

static void start_threads(void) {
    pthread_barrier_init(&start_line, NULL, (unsigned)argument + 1);
    pthread_barrier_init(&finish_line, NULL, (unsigned)argument + 1);
    for (int i = 0; i < argument; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, exchanger, NULL) != 0)
            die("pthread_create");
    }
}

/* ---- rounds ---- */

typedef void work(int fd, struct buffers b, int64_t n);

static work *find(const char *name) {
    static const struct {
        const char *name;
        work *run;
    } works[] = {
        {"exchange", do_exchange},
        {"raw", do_raw},
        {"window", do_window},
        {"flood", do_flood},
        {"lines", do_lines},
        {"sendflood", do_sendflood},
        {"sendcopy", do_sendcopy},
        {"threads", do_threads},
        {"redis", do_redis},
    };
    for (size_t i = 0; i < sizeof works / sizeof *works; i++)
        if (strcmp(works[i].name, name) == 0)
            return works[i].run;
    fprintf(stderr, "cclient: no work named %s\n", name);
    exit(2);
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: cclient PORT WORK SIZE [HEADER | COUNT]\n");
        return 2;
    }
    port = atoi(argv[1]);
    work *run = find(argv[2]);
    size = atoi(argv[3]);
    if (argc > 4)
        argument = atoi(argv[4]);
    int fd = dial(port);
    set_timeout(fd, TIMEOUT_S);
    struct buffers b = make_buffers((size_t)size);
    if (run == do_threads)
        start_threads();

    char line[64];
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        int64_t wall = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        run(fd, b, atoll(line));
        printf("%lld %lld\n", (long long)(clock_ns(CLOCK_MONOTONIC) - wall),
               (long long)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu));
        fflush(stdout);
    }
    return 0;
}
