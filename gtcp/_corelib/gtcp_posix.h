/* The system calls of gtcp: every #ifdef of the project lives here.
 *
 * Each function answers a value >= 0, or -errno read on the very next line,
 * so a caller without the GIL never has to look at errno itself. */
#ifndef GTCP_POSIX_H
#define GTCP_POSIX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/sockios.h>
#endif

#define GTCP_SECOND INT64_C(1000000000)
#define GTCP_MILLISECOND INT64_C(1000000)

/* A peer that is gone is an error code, never a signal. */
#ifdef MSG_NOSIGNAL
#define GTCP_NOSIGNAL MSG_NOSIGNAL
#else
#define GTCP_NOSIGNAL 0
#endif

/* Payloads up to this size are copied behind their header and leave by one
 * send(2); larger ones are gathered by sendmsg(2), which costs more per call
 * but copies nothing. */
#define GTCP_COPY_LIMIT 1024

/* A call moves no more payload than this: while the other side keeps up, the kernel
 * would go on for as long as there is something, whatever the deadline and whoever
 * else waits for this thread. */
#define GTCP_STRIDE 1048576

static inline int64_t gtcp_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * GTCP_SECOND + t.tv_nsec;
}

/* The largest power of two up to x, 0 when x < 1. */
static inline int64_t gtcp_floor_power(int64_t x)
{
    return x < 1 ? 0 : INT64_C(1) << (63 - __builtin_clzll((unsigned long long)x));
}

static inline Py_ssize_t gtcp_recv(int fd, char *where, Py_ssize_t room, int flags)
{
    ssize_t n = recv(fd, where, (size_t)room, flags);
    return n >= 0 ? (Py_ssize_t)n : -(Py_ssize_t)errno;
}

/* Receives into two places, the second after the first is full. */
static inline Py_ssize_t gtcp_recv_two(int fd, char *first, Py_ssize_t first_room, char *second, Py_ssize_t second_room,
                                       int flags)
{
    struct iovec parts[2] = {{first, (size_t)first_room}, {second, (size_t)second_room}};
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    ssize_t n = recvmsg(fd, &message, flags);
    return n >= 0 ? (Py_ssize_t)n : -(Py_ssize_t)errno;
}

static inline Py_ssize_t gtcp_send(int fd, const char *data, Py_ssize_t size, int flags)
{
    ssize_t n = send(fd, data, (size_t)size, flags | GTCP_NOSIGNAL);
    return n >= 0 ? (Py_ssize_t)n : -(Py_ssize_t)errno;
}

/* Sends of the bytes of head + data that follow the first `sent` ones: a stride at most. */
static inline Py_ssize_t gtcp_send_framed(int fd, const char *head, Py_ssize_t head_size,
                                          const char *data, Py_ssize_t size,
                                          Py_ssize_t sent, int flags)
{
    if (sent >= head_size) {
        data += sent - head_size;
        size -= sent - head_size;
        return gtcp_send(fd, data, size < GTCP_STRIDE ? size : GTCP_STRIDE, flags);
    }
    head += sent;
    head_size -= sent;
    if (size <= GTCP_COPY_LIMIT) {
        char whole[GTCP_COPY_LIMIT + 8];
        memcpy(whole, head, (size_t)head_size);
        memcpy(whole + head_size, data, (size_t)size);
        return gtcp_send(fd, whole, head_size + size, flags);
    }
    struct iovec parts[2] = {
        {(void *)head, (size_t)head_size},
        {(void *)data, (size_t)(size < GTCP_STRIDE ? size : GTCP_STRIDE)},
    };
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    ssize_t n = sendmsg(fd, &message, flags | GTCP_NOSIGNAL);
    return n >= 0 ? (Py_ssize_t)n : -(Py_ssize_t)errno;
}

/* Waits for `events` on each of `count` descriptors, `timeout` in nanoseconds
 * or negative for no limit. Never wakes early: what poll(2) needs is rounded up. */
static inline int gtcp_poll(struct pollfd *fds, int count, int64_t timeout)
{
    int n;
#ifdef __linux__
    struct timespec t;
    if (timeout >= 0) {
        t.tv_sec = (time_t)(timeout / GTCP_SECOND);
        t.tv_nsec = (long)(timeout % GTCP_SECOND);
    }
    n = ppoll(fds, (nfds_t)count, timeout >= 0 ? &t : NULL, NULL);
#else
    int ms = -1;
    if (timeout >= 0) {
        int64_t up = (timeout + GTCP_MILLISECOND - 1) / GTCP_MILLISECOND;
        ms = up > 1000000000 ? 1000000000 : (int)up;
    }
    n = poll(fds, (nfds_t)count, ms);
#endif
    return n >= 0 ? n : -errno;
}

static inline int gtcp_poll_one(int fd, int events, int64_t timeout)
{
    struct pollfd p = {fd, (short)events, 0};
    return gtcp_poll(&p, 1, timeout);
}

/* What a connection that should be silent has to say, without consuming it:
 * 0 the peer closed, > 0 bytes are waiting, -EAGAIN all is quiet, else -errno. */
static inline int gtcp_look(int fd)
{
    char byte;
    ssize_t n;
    do
        n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n >= 0 ? (int)n : -errno;
}

/* How many bytes have been sent that the peer's system has yet to confirm; 0 where nobody tells. */
static inline int gtcp_unconfirmed(int fd)
{
    int n = 0;
#if defined(SIOCOUTQ)
    if (ioctl(fd, SIOCOUTQ, &n) < 0)
        n = 0;
#elif defined(SO_NWRITE)
    socklen_t size = sizeof n;
    if (getsockopt(fd, SOL_SOCKET, SO_NWRITE, &n, &size) < 0)
        n = 0;
#else
    (void)fd;
#endif
    return n;
}

/* `which` is SO_RCVTIMEO or SO_SNDTIMEO, `timeout` in nanoseconds, 0 for none. */
static inline int gtcp_set_timeout(int fd, int which, int64_t timeout)
{
    struct timeval t;
    t.tv_sec = (time_t)(timeout / GTCP_SECOND);
    t.tv_usec = (suseconds_t)((timeout % GTCP_SECOND) / 1000);
    return setsockopt(fd, SOL_SOCKET, which, &t, sizeof t) == 0 ? 0 : -errno;
}

/* close() would turn into a reset: what is queued is thrown away. */
static inline int gtcp_set_abort(int fd)
{
    struct linger reset = {1, 0};
    return setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0 ? 0 : -errno;
}

/* Blocking mode, so that one system call can both wait and receive; a call
 * that must not wait says so itself (MSG_DONTWAIT). */
static inline int gtcp_adopt(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    if ((flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
        return -errno;
#ifdef SO_NOSIGPIPE
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
    return 0;
}

static inline int gtcp_set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    return 0;
}

/* A new connection of a listener that is in non-blocking mode. */
static inline int gtcp_accept(int listener)
{
#ifdef __linux__
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    return fd >= 0 ? fd : -errno;
#else
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        return -errno;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
#endif
}

static inline int gtcp_shutdown(int fd, int how)
{
    return shutdown(fd, how) == 0 ? 0 : -errno;
}

/* The number is free again even after EINTR: never retried (Linux, close(2)). */
static inline int gtcp_close(int fd)
{
    return close(fd) == 0 ? 0 : -errno;
}

/* Counts the forks between the first process and this one: what was opened
 * under another number belongs to a parent. */
static unsigned long gtcp_generation = 0;

static void gtcp_forked(void)
{
    gtcp_generation++;
}

static inline int gtcp_watch_forks(void)
{
    return pthread_atfork(NULL, NULL, gtcp_forked);
}

#endif
