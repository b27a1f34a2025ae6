/* Stands between a process and its sockets (LD_PRELOAD) and does what kernels may do but seldom do.
 *
 * By rule:  chaos_fail("recv", EINTR, 3, 0) lets the next three calls of recv fail.
 * By chance: CHAOS=seed,short,eintr,eagain,enobufs in the environment, or chaos_storm(): transfers of 1 to `short`
 * bytes, and of a thousand calls so many fail with EINTR, EAGAIN, ENOBUFS. The same seed does the same again.
 * CHAOS_ONLY=name spares the calls that do not come from a library with `name` in its path.
 * chaos_clock(s) moves the wall clock; CLOCK_MONOTONIC never moves. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum call {
    SOCKET, BIND, LISTEN, ACCEPT4, CONNECT, SETSOCKOPT, GETSOCKOPT, GETSOCKNAME, GETPEERNAME, FCNTL, IOCTL, RECV,
    RECVMSG, SEND, SENDMSG, PPOLL, POLL, EPOLL_WAIT, EPOLL_CREATE1, EPOLL_CTL, EVENTFD, SHUTDOWN, CLOSE, CALLS
};
static const char *const names[CALLS] = {
    "socket", "bind", "listen", "accept4", "connect", "setsockopt", "getsockopt", "getsockname", "getpeername",
    "fcntl", "ioctl", "recv", "recvmsg", "send", "sendmsg", "ppoll", "poll", "epoll_wait", "epoll_create1",
    "epoll_ctl", "eventfd", "shutdown", "close"
};

static struct rule {
    atomic_int error, times, skip;
} rules[CALLS];
static atomic_long injected;
static atomic_ullong draws;
static unsigned long long seed;
static const char *only;
static atomic_uintptr_t only_from, only_to;
static int most, interrupted, not_ready, no_buffers;
static atomic_long clock_offset;

/* -- what tests may call */

int chaos_fail(const char *name, int error, int times, int skip)
{
    for (int i = 0; i < CALLS; i++)
        if (strcmp(names[i], name) == 0) {
            rules[i].error = error;
            rules[i].skip = skip;
            rules[i].times = times;
            return 0;
        }
    return -1;
}

/* How many of the calls that are to fail have not been made yet. */
int chaos_left(const char *name)
{
    for (int i = 0; i < CALLS; i++)
        if (strcmp(names[i], name) == 0)
            return rules[i].times;
    return -1;
}

void chaos_calm(void)
{
    for (int i = 0; i < CALLS; i++)
        rules[i].times = 0;
    most = interrupted = not_ready = no_buffers = 0;
}

void chaos_storm(unsigned long long new_seed, int new_most, int eintr, int eagain, int enobufs)
{
    seed = new_seed;
    draws = 0;
    most = new_most;
    interrupted = eintr;
    not_ready = eagain;
    no_buffers = enobufs;
}

long chaos_injected(void)
{
    return injected;
}

void chaos_clock(long seconds)
{
    clock_offset = seconds;
}

__attribute__((constructor)) static void begin(void)
{
    only = getenv("CHAOS_ONLY");
    const char *text = getenv("CHAOS");
    unsigned long long s;
    int k, a, b, c;
    if (text && sscanf(text, "%llu,%d,%d,%d,%d", &s, &k, &a, &b, &c) == 5)
        chaos_storm(s, k, a, b, c);
}

/* -- what happens to a call */

static unsigned draw(unsigned below)
{
    uint64_t x = seed + 0x9e3779b97f4a7c15ull * (1 + atomic_fetch_add(&draws, 1));
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return (unsigned)((x ^ (x >> 31)) % below);
}

static int find(struct dl_phdr_info *library, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    if (strstr(library->dlpi_name, only) == NULL)
        return 0;
    for (int i = 0; i < library->dlpi_phnum; i++)
        if (library->dlpi_phdr[i].p_type == PT_LOAD && (library->dlpi_phdr[i].p_flags & PF_X)) {
            uintptr_t from = library->dlpi_addr + library->dlpi_phdr[i].p_vaddr;
            only_to = from + library->dlpi_phdr[i].p_memsz;
            only_from = from;
        }
    return 1;
}

/* The call comes from where chaos is wanted. */
static int meant(const void *caller)
{
    if (only == NULL)
        return 1;
    if (only_from == 0)
        dl_iterate_phdr(find, NULL);
    return (uintptr_t)caller >= only_from && (uintptr_t)caller < only_to;
}

/* The errno that a rule demands for this call, 0 for none. */
static int ruled(enum call call)
{
    struct rule *rule = &rules[call];
    if (rule->times <= 0)
        return 0;
    if (rule->skip > 0) {
        rule->skip--;
        return 0;
    }
    rule->times--;
    injected++;
    return rule->error;
}

static int fails(enum call call, int can_block, int can_lack, const void *caller)
{
    int error = ruled(call);
    if (error == 0 && (interrupted || not_ready || no_buffers) && meant(caller)) {
        int n = (int)draw(1000);
        if (n < interrupted)
            error = EINTR;
        else if (can_block && n < interrupted + not_ready)
            error = EAGAIN;
        else if (can_lack && n >= 1000 - no_buffers)
            error = ENOBUFS;
        if (error)
            injected++;
    }
    if (error)
        errno = error;
    return error;
}

static size_t shortened(size_t size, const void *caller)
{
    if (most == 0 || size <= 1 || !meant(caller))
        return size;
    size_t limit = 1 + draw((unsigned)most);
    if (limit >= size)
        return size;
    injected++;
    return limit;
}

#define CALLER __builtin_return_address(0)

#define REAL(name) \
    static __typeof__(name) *real; \
    if (real == NULL) \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define PLAIN(name, CALL, parameters, arguments) \
    int name parameters \
    { \
        REAL(name); \
        return fails(CALL, 0, 0, CALLER) ? -1 : real arguments; \
    }

PLAIN(accept4, ACCEPT4, (int fd, struct sockaddr *a, socklen_t *n, int flags), (fd, a, n, flags))
PLAIN(poll, POLL, (struct pollfd * fds, nfds_t n, int ms), (fds, n, ms))
PLAIN(ppoll, PPOLL, (struct pollfd * fds, nfds_t n, const struct timespec *t, const sigset_t *s), (fds, n, t, s))
PLAIN(epoll_wait, EPOLL_WAIT, (int fd, struct epoll_event *e, int n, int ms), (fd, e, n, ms))

/* These are never interrupted: they fail by rule only. */
#define RULED(name, CALL, parameters, arguments) \
    int name parameters \
    { \
        REAL(name); \
        int error = ruled(CALL); \
        if (error) { \
            errno = error; \
            return -1; \
        } \
        return real arguments; \
    }

RULED(socket, SOCKET, (int d, int t, int p), (d, t, p))
RULED(bind, BIND, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n))
RULED(listen, LISTEN, (int fd, int n), (fd, n))
RULED(epoll_create1, EPOLL_CREATE1, (int flags), (flags))
RULED(epoll_ctl, EPOLL_CTL, (int fd, int what, int whom, struct epoll_event *e), (fd, what, whom, e))
RULED(eventfd, EVENTFD, (unsigned n, int flags), (n, flags))
RULED(shutdown, SHUTDOWN, (int fd, int how), (fd, how))
RULED(setsockopt, SETSOCKOPT, (int fd, int l, int o, const void *v, socklen_t n), (fd, l, o, v, n))
RULED(getsockopt, GETSOCKOPT, (int fd, int l, int o, void *v, socklen_t *n), (fd, l, o, v, n))
RULED(getsockname, GETSOCKNAME, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n))
RULED(getpeername, GETPEERNAME, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n))

/* An interrupted connect goes on in the kernel. */
int connect(int fd, const struct sockaddr *a, socklen_t n)
{
    REAL(connect);
    int error = fails(CONNECT, 0, 0, CALLER);
    if (error == 0 || error == EINTR) {
        int done = real(fd, a, n);
        if (error == 0)
            return done;
    }
    errno = error;
    return -1;
}

/* Whatever close says, the descriptor is gone (Linux), unless it never was one. */
int close(int fd)
{
    REAL(close);
    int error = ruled(CLOSE);
    if (error == 0)
        return real(fd);
    real(fd);
    errno = error;
    return -1;
}

int fcntl(int fd, int command, ...)
{
    REAL(fcntl);
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    int error = command == F_GETFL || command == F_SETFL ? ruled(FCNTL) : 0;
    if (error) {
        errno = error;
        return -1;
    }
    return real(fd, command, argument);
}

/* Python has its own uses of others. */
int ioctl(int fd, unsigned long request, ...)
{
    REAL(ioctl);
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    int error = request == SIOCOUTQ ? ruled(IOCTL) : 0;
    if (error) {
        errno = error;
        return -1;
    }
    return real(fd, request, argument);
}

int fcntl64(int fd, int command, ...)
{
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    return fcntl(fd, command, argument);
}

ssize_t recv(int fd, void *where, size_t size, int flags)
{
    REAL(recv);
    /* Who only looks is told the truth. */
    return fails(RECV, !(flags & MSG_PEEK), 0, CALLER) ? -1 : real(fd, where, shortened(size, CALLER), flags);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    REAL(recvmsg);
    if (fails(RECVMSG, 1, 0, CALLER))
        return -1;
    if (most == 0 || message->msg_iovlen == 0 || !meant(CALLER))
        return real(fd, message, flags);
    struct msghdr less = *message;
    struct iovec part = message->msg_iov[0];
    part.iov_len = shortened(part.iov_len, CALLER);
    less.msg_iov = &part;
    less.msg_iovlen = 1;
    return real(fd, &less, flags);
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    REAL(send);
    return fails(SEND, 1, 1, CALLER) ? -1 : real(fd, data, shortened(size, CALLER), flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    REAL(sendmsg);
    if (fails(SENDMSG, 1, 1, CALLER))
        return -1;
    if (most == 0 || message->msg_iovlen == 0 || !meant(CALLER))
        return real(fd, message, flags);
    /* The beginning of the first part that is not empty. */
    struct msghdr less = *message;
    struct iovec part = {NULL, 0};
    for (size_t i = 0; i < message->msg_iovlen && part.iov_len == 0; i++)
        part = message->msg_iov[i];
    part.iov_len = shortened(part.iov_len, CALLER);
    less.msg_iov = &part;
    less.msg_iovlen = 1;
    return real(fd, &less, flags);
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
    REAL(clock_gettime);
    int error = real(clock, t);
    if (error == 0 && clock == CLOCK_REALTIME)
        t->tv_sec += clock_offset;
    return error;
}

/* What a fortified build calls instead. */
ssize_t __recv_chk(int fd, void *where, size_t size, size_t room, int flags)
{
    if (size > room)
        abort();
    return recv(fd, where, size, flags);
}

int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *t, const sigset_t *s, size_t room)
{
    if (n * sizeof *fds > room)
        abort();
    return ppoll(fds, n, t, s);
}

int __poll_chk(struct pollfd *fds, nfds_t n, int ms, size_t room)
{
    if (n * sizeof *fds > room)
        abort();
    return poll(fds, n, ms);
}
