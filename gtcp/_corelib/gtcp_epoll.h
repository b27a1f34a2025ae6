/* Readiness of many sockets at once. Linux has epoll; elsewhere every call answers -ENOSYS, and the
 * hub says that it needs Linux. */
#ifndef GTCP_EPOLL_H
#define GTCP_EPOLL_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

#ifdef __linux__

#include <sys/epoll.h>
#include <sys/eventfd.h>

typedef struct epoll_event gtcp_event;

static inline int gtcp_epoll_create(void)
{
    int fd = epoll_create1(EPOLL_CLOEXEC);
    return fd >= 0 ? fd : -errno;
}

/* Edge-triggered: each event says that something came since the last one. */
static inline int gtcp_epoll_add(int epoll, int fd, void *data)
{
    struct epoll_event event;
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    event.data.ptr = data;
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

static inline int gtcp_epoll_del(int epoll, int fd)
{
    return epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL) == 0 ? 0 : -errno;
}

/* Another number of the same socket, and so another entry. */
static inline int gtcp_epoll_copy(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return copy >= 0 ? copy : -errno;
}

/* `timeout` in nanoseconds, negative for no limit, rounded up to milliseconds. */
static inline int gtcp_epoll_wait(int epoll, gtcp_event *events, int room, int64_t timeout)
{
    int ms = -1;
    if (timeout >= 0) {
        int64_t up = (timeout + 999999) / 1000000;
        ms = up > 1000000000 ? 1000000000 : (int)up;
    }
    int n = epoll_wait(epoll, events, room, ms);
    return n >= 0 ? n : -errno;
}

static inline void *gtcp_event_data(const gtcp_event *event) { return event->data.ptr; }
static inline int gtcp_event_in(const gtcp_event *event) { return (event->events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0; }
static inline int gtcp_event_out(const gtcp_event *event) { return (event->events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0; }
static inline int gtcp_event_end(const gtcp_event *event) { return (event->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0; }

/* A descriptor that wakes the loop from another thread. */
static inline int gtcp_bell_create(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd >= 0 ? fd : -errno;
}

static inline void gtcp_bell_ring(int fd)
{
    uint64_t one = 1;
    if (write(fd, &one, sizeof one) < 0) {
        /* Full: it is ringing already. */
    }
}

static inline void gtcp_bell_silence(int fd)
{
    uint64_t count;
    if (read(fd, &count, sizeof count) < 0) {
        /* Nobody rang. */
    }
}

#else

typedef struct { void *data; } gtcp_event;

static inline int gtcp_epoll_create(void) { return -ENOSYS; }
static inline int gtcp_epoll_add(int epoll, int fd, void *data) { (void)epoll; (void)fd; (void)data; return -ENOSYS; }
static inline int gtcp_epoll_del(int epoll, int fd) { (void)epoll; (void)fd; return -ENOSYS; }
static inline int gtcp_epoll_copy(int fd) { (void)fd; return -ENOSYS; }
static inline int gtcp_epoll_wait(int epoll, gtcp_event *events, int room, int64_t timeout)
{
    (void)epoll; (void)events; (void)room; (void)timeout;
    return -ENOSYS;
}
static inline void *gtcp_event_data(const gtcp_event *event) { return event->data; }
static inline int gtcp_event_in(const gtcp_event *event) { (void)event; return 0; }
static inline int gtcp_event_out(const gtcp_event *event) { (void)event; return 0; }
static inline int gtcp_event_end(const gtcp_event *event) { (void)event; return 0; }
static inline int gtcp_bell_create(void) { return -ENOSYS; }
static inline void gtcp_bell_ring(int fd) { (void)fd; }
static inline void gtcp_bell_silence(int fd) { (void)fd; }

#endif
#endif
