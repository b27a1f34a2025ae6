/* The load all servers are measured with: one thread, epoll, CONNS connections, WINDOW packages in flight on each.
 *
 *   cload PORT CONNS WINDOW SIZE
 *
 * Closed loop: a reply is answered with the next package at once. For each line "N" on stdin it exchanges N packages
 * and prints "WALL_NS CPU_NS P50 P99 P999", the latencies in ns from send to reply. */
#include "wire.h"

#include <sys/epoll.h>
#include <sys/resource.h>

enum { HEADER = 2, EVENTS = 512, ROOM = 64 * 1024, STEPS = 32, BUCKETS = 64 * STEPS, PATIENCE_MS = 20000 };

struct conn {
    int fd;
    size_t have;            /* bytes of the reply that is not complete yet */
    unsigned first, flying; /* ring of send times: oldest, how many */
    int64_t *sent_at;
};

static int conns, window, epoll;
static size_t frame;
static unsigned char *out;
static struct conn *table;
static int64_t to_send, to_receive, histogram[BUCKETS];

/* Buckets grow with the value, 32 to each doubling: a latency is known to 3 %. */
static int bucket_of(int64_t ns) {
    if (ns < STEPS)
        return ns < 0 ? 0 : (int)ns;
    int shift = 63 - __builtin_clzll((uint64_t)ns) - 5;
    return (shift + 1) * STEPS + (int)((ns >> shift) - STEPS);
}

static int64_t value_of(int bucket) {
    if (bucket < STEPS)
        return bucket;
    return (int64_t)(bucket % STEPS + STEPS) << (bucket / STEPS - 1);
}

static int64_t percentile(double part) {
    int64_t total = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++)
        total += histogram[i];
    for (int i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if ((double)seen >= part * (double)total)
            return value_of(i);
    }
    return 0;
}

static void send_next(struct conn *c, unsigned count, int64_t now) {
    if (count > to_send)
        count = (unsigned)to_send;
    if (count == 0)
        return;
    to_send -= count;
    for (unsigned i = 0; i < count; i++)
        c->sent_at[(c->first + c->flying++) % (unsigned)window] = now;
    send_all(c->fd, out, count * frame);
}

static void on_reply(struct conn *c, unsigned char *in) {
    ssize_t n = recv(c->fd, in, ROOM, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        fprintf(stderr, "cload: the server closed a connection\n");
        exit(1);
    }
    if (c->have == 0 && n >= HEADER && get_length(in, HEADER) != frame - HEADER) {
        fprintf(stderr, "cload: a reply of a wrong size\n");
        exit(1);
    }
    c->have += (size_t)n;
    unsigned done = (unsigned)(c->have / frame);
    c->have %= frame;
    int64_t now = clock_ns(CLOCK_MONOTONIC);
    for (unsigned i = 0; i < done; i++, c->flying--, c->first = (c->first + 1) % (unsigned)window)
        histogram[bucket_of(now - c->sent_at[c->first])]++;
    to_receive -= done;
    send_next(c, done, now);
}

static void run(int64_t n) {
    static unsigned char in[ROOM];
    struct epoll_event events[EVENTS];
    memset(histogram, 0, sizeof histogram);
    to_send = to_receive = n;
    for (int i = 0; i < conns && to_send > 0; i++)
        send_next(&table[i], (unsigned)window, clock_ns(CLOCK_MONOTONIC));
    while (to_receive > 0) {
        int ready = epoll_wait(epoll, events, EVENTS, PATIENCE_MS);
        if (ready == 0) {
            fprintf(stderr, "cload: no reply for %d s\n", PATIENCE_MS / 1000);
            exit(1);
        }
        for (int i = 0; i < ready; i++)
            on_reply(events[i].data.ptr, in);
    }
}

static void open_connections(int port) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    table = allocate(sizeof *table * (size_t)conns);
    for (int i = 0; i < conns; i++) {
        table[i].fd = dial(port);
        table[i].sent_at = allocate(sizeof(int64_t) * (size_t)window);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &table[i]};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, table[i].fd, &event) < 0)
            die("epoll_ctl");
    }
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: cload PORT CONNS WINDOW SIZE\n");
        return 2;
    }
    conns = atoi(argv[2]);
    window = atoi(argv[3]);
    size_t size = (size_t)atoi(argv[4]);
    frame = size + HEADER;
    out = allocate(frame * (size_t)window);
    for (int i = 0; i < window; i++)
        put_length(out + (size_t)i * frame, HEADER, size);
    open_connections(atoi(argv[1]));

    char line[64];
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        int64_t wall = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        run(atoll(line));
        printf("%lld %lld %lld %lld %lld\n", (long long)(clock_ns(CLOCK_MONOTONIC) - wall),
               (long long)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu), (long long)percentile(0.5),
               (long long)percentile(0.99), (long long)percentile(0.999));
        fflush(stdout);
    }
    return 0;
}
