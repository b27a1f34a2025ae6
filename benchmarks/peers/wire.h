/* What the C peers share: loopback sockets, big-endian lengths, clocks, and the "rounds" protocol.
 *
 * Rounds: a client prints "ready", then for each line "N" on stdin does N units of work and prints
 * "WALL_NS CPU_NS". End of input ends the program, so a client never outlives the harness. */
#ifndef GTCP_BENCH_WIRE_H
#define GTCP_BENCH_WIRE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static inline void die(const char *what) {
    perror(what);
    exit(1);
}

static inline int64_t clock_ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void put_length(unsigned char *at, int header, uint64_t length) {
    for (int i = header - 1; i >= 0; i--, length >>= 8)
        at[i] = (unsigned char)length;
}

static inline uint64_t get_length(const unsigned char *at, int header) {
    uint64_t length = 0;
    for (int i = 0; i < header; i++)
        length = length << 8 | at[i];
    return length;
}

static inline void set_nodelay(int fd) {
    int on = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        die("TCP_NODELAY");
}

static inline struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static inline int dial(int port) {
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("connect");
    set_nodelay(fd);
    return fd;
}

/* The cheapest timeout a blocking program can have: the kernel keeps it, no extra syscall. */
static inline void set_timeout(int fd, int seconds) {
    struct timeval limit = {.tv_sec = seconds};
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0)
        die("SO_RCVTIMEO");
}

static inline void send_all(int fd, const void *data, size_t size) {
    const char *at = data;
    while (size > 0) {
        ssize_t n = send(fd, at, size, MSG_NOSIGNAL);
        if (n < 0)
            die("send");
        at += n;
        size -= (size_t)n;
    }
}

/* All of a two-part message, header and payload, without copying the payload. */
static inline void send_parts(int fd, struct iovec *parts, int count) {
    while (count > 0) {
        ssize_t n = writev(fd, parts, count);
        if (n < 0)
            die("writev");
        while (count > 0 && (size_t)n >= parts->iov_len) {
            n -= (ssize_t)parts->iov_len;
            parts++;
            count--;
        }
        if (count > 0) {
            parts->iov_base = (char *)parts->iov_base + n;
            parts->iov_len -= (size_t)n;
        }
    }
}

static inline size_t recv_some(int fd, void *into, size_t room) {
    ssize_t n = recv(fd, into, room, 0);
    if (n < 0)
        die("recv");
    if (n == 0) {
        fprintf(stderr, "the peer closed the connection\n");
        exit(1);
    }
    return (size_t)n;
}

static inline void recv_exactly(int fd, void *into, size_t size) {
    for (size_t have = 0; have < size;)
        have += recv_some(fd, (char *)into + have, size - have);
}

static inline void *allocate(size_t size) {
    void *memory = calloc(1, size);
    if (memory == NULL)
        die("calloc");
    return memory;
}

#endif
