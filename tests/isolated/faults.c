/* Preloaded into a child: system calls that fail when they are told to. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* What the next sends do: n > 0 takes n bytes at most, n < 0 fails with that errno, 0 is as usual. */
static int plan[256];
static int planned;
static int done;

static unsigned lookup_microseconds;

void faults_send(const int *steps, int count)
{
    done = 0;
    planned = count < 256 ? count : 256;
    for (int i = 0; i < planned; i++)
        plan[i] = steps[i];
}

int faults_left(void)
{
    return planned - done;
}

void faults_lookup(unsigned microseconds)
{
    lookup_microseconds = microseconds;
}

/* The most that one call was asked to send or to receive since the last question. */
static size_t most;

long faults_most(void)
{
    size_t answer = most;
    most = 0;
    return (long)answer;
}

static void note(size_t size)
{
    if (size > most)
        most = size;
}

static void note_parts(const struct msghdr *message)
{
    size_t size = 0;
    for (size_t i = 0; i < message->msg_iovlen; i++)
        size += message->msg_iov[i].iov_len;
    note(size);
}

static int next(void)
{
    return done < planned ? plan[done++] : 0;
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    static ssize_t (*real)(int, const void *, size_t, int);
    if (!real)
        real = dlsym(RTLD_NEXT, "send");
    note(size);
    int step = next();
    if (step < 0) {
        errno = -step;
        return -1;
    }
    return real(fd, data, step && (size_t)step < size ? (size_t)step : size, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    static ssize_t (*real)(int, const struct msghdr *, int);
    if (!real)
        real = dlsym(RTLD_NEXT, "sendmsg");
    note_parts(message);
    int step = next();
    if (step < 0) {
        errno = -step;
        return -1;
    }
    if (!step)
        return real(fd, message, flags);
    struct iovec first = message->msg_iov[0];
    struct msghdr part = *message;
    if ((size_t)step < first.iov_len)
        first.iov_len = step;
    part.msg_iov = &first;
    part.msg_iovlen = 1;
    return real(fd, &part, flags);
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    if (!real)
        real = dlsym(RTLD_NEXT, "getaddrinfo");
    if (lookup_microseconds && hints && !(hints->ai_flags & AI_NUMERICHOST))
        usleep(lookup_microseconds);
    return real(host, service, hints, found);
}

/* The next call of this thread that may sleep has a signal come just before it, too early to wake it. */
static __thread int coming;

void faults_signal(int number)
{
    coming = number;
}

static void before_sleep(void)
{
    if (coming) {
        int number = coming;
        coming = 0;
        raise(number);
    }
}

ssize_t recv(int fd, void *data, size_t size, int flags)
{
    static ssize_t (*real)(int, void *, size_t, int);
    if (!real)
        real = dlsym(RTLD_NEXT, "recv");
    note(size);
    if (!(flags & MSG_DONTWAIT))
        before_sleep();
    return real(fd, data, size, flags);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    static ssize_t (*real)(int, struct msghdr *, int);
    if (!real)
        real = dlsym(RTLD_NEXT, "recvmsg");
    note_parts(message);
    if (!(flags & MSG_DONTWAIT))
        before_sleep();
    return real(fd, message, flags);
}

int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
    static int (*real)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
    if (!real)
        real = dlsym(RTLD_NEXT, "ppoll");
    if (!timeout || timeout->tv_sec || timeout->tv_nsec)
        before_sleep();
    return real(fds, count, timeout, mask);
}

int epoll_wait(int epoll, struct epoll_event *events, int room, int milliseconds)
{
    static int (*real)(int, struct epoll_event *, int, int);
    if (!real)
        real = dlsym(RTLD_NEXT, "epoll_wait");
    if (milliseconds)
        before_sleep();
    return real(epoll, events, room, milliseconds);
}

static void before_taking(sem_t *lock)
{
    int value = 0;
    if (sem_getvalue(lock, &value) == 0 && value <= 0)
        before_sleep();
}

int sem_wait(sem_t *lock)
{
    static int (*real)(sem_t *);
    if (!real)
        real = dlsym(RTLD_NEXT, "sem_wait");
    before_taking(lock);
    return real(lock);
}

int sem_timedwait(sem_t *lock, const struct timespec *until)
{
    static int (*real)(sem_t *, const struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "sem_timedwait");
    before_taking(lock);
    return real(lock, until);
}

int sem_clockwait(sem_t *lock, clockid_t clock, const struct timespec *until)
{
    static int (*real)(sem_t *, clockid_t, const struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "sem_clockwait");
    before_taking(lock);
    return real(lock, clock, until);
}
