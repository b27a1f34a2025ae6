/* Preloaded into a child: system calls that fail when they are told to. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
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

static int next(void)
{
    return done < planned ? plan[done++] : 0;
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    static ssize_t (*real)(int, const void *, size_t, int);
    if (!real)
        real = dlsym(RTLD_NEXT, "send");
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
