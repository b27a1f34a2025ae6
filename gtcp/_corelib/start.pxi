# Once per process.
cimport gtcp._corelib.posix as posix

POLLIN = posix.POLLIN
POLLOUT = posix.POLLOUT

if posix.watch_forks() != 0:
    raise MemoryError("no memory to watch for forks")
