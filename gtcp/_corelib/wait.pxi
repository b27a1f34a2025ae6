# Waiting: for a socket, for a wake-up. A new way to wait (greenlets, a user's function) is added here and
# nowhere else.
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

cimport gtcp._corelib.posix as posix
cimport gtcp._corelib.pythread as pythread
cimport gtcp._corelib.thread as thread
cimport gtcp._corelib.way as way

cdef enum:
    CALL = 8                    # what a system call costs, where a unit that is taken out of the buffer costs 1
    # A signal that comes in the moment before a system call does not wake who sleeps in it. So the main thread, in
    # which handlers run, looks up after 50 ms, and once a second if it sleeps on.
    FIRST_LOOK = 50000000
    NEXT_LOOK = 1000000000


cdef class Parker:
    """One who waits in a queue: sleeps in `park` until somebody calls `unpark`, once."""
    cdef size_t ident               # who() waits
    cdef object gift                # what the waker hands over
    cdef bint woken
    cdef bint alone                 # nobody will wake it: it just sleeps
    # The neighbours in the queue, whether it is in one, and which queue it is or was in.
    cdef Parker before
    cdef Parker behind
    cdef bint queued
    cdef object queue

    cdef int park(self, int64_t deadline) except -1:
        """Sleeps until woken (1) or until the deadline (0). Runs signal handlers, whose exceptions leave."""
        raise NotImplementedError

    cdef int unpark(self) except -1:
        """Wakes the sleeper, now or when it goes to sleep. From any thread."""
        raise NotImplementedError


cdef class Watch:
    """A socket that a way to wait keeps an eye on between the waits, so that waiting costs no system call."""
    cdef int fd
    cdef bint copied                # `fd` is another number of the socket, which is closed with the watch
    # Nothing has come since a read found no more; the peer has ended, so every read will find something.
    cdef bint drained
    cdef bint ended
    # Who waits to read and to write.
    cdef object reader
    cdef object writer


cdef class Gatherer:
    """One whose gathered sends leave before the greenlet waits that gathered them."""

    cdef int let_leave(self) except -1:
        """Sends what it can; the rest leaves when there is room. An error is told by the next call."""
        raise NotImplementedError


cdef class Way:
    """A way to wait other than putting the thread to sleep."""

    cdef size_t who(self) noexcept:
        """Who is calling; see the function of this name."""
        return 0

    cdef int wait_ready(self, int fd, int events, int64_t deadline) except -1:
        """Waits until the socket is ready (1) or the deadline has passed (0)."""
        raise NotImplementedError

    cdef list wait_any(self, dict fds, int64_t deadline):
        """Waits for the first of several sockets; the ready ones."""
        raise NotImplementedError

    cdef Watch watch(self, int fd):
        """Begins to keep an eye on a socket."""
        cdef Watch watch = Watch()
        watch.fd = fd
        return watch

    cdef bint unwatch(self, Watch watch) except -1:
        """Ends that; the descriptor is about to be closed. True when the way will close it."""
        return False

    cdef int wait_watched(self, Watch watch, int events, int64_t deadline) except -1:
        """`wait_ready` for a socket that is watched."""
        return self.wait_ready(watch.fd, events, deadline)

    cdef Parker parker(self):
        """A place in a queue for the caller."""
        raise NotImplementedError

    cdef int step_aside(self) except -1:
        """Lets those run who can."""
        return 0

    cdef int pay(self, int64_t cost) except -1:
        """For what may go on for ever without a wait: now and then others have their turn."""
        return 0

    cdef bint flushes(self) noexcept:
        """Whatever the caller waits for, its gathered sends leave before."""
        return False

    cdef int gathers(self, Gatherer gatherer) except -1:
        """The caller's first of them is there."""
        return 0


cdef inline Way current_way():
    """The calling thread's way to wait; None: it sleeps."""
    cdef PyObject* current = way.get()
    return <Way>current if current != NULL else None


cdef inline size_t who() noexcept:
    """Who is calling: two calls with the same answer cannot wait for each other."""
    if way.get() == NULL:
        return <size_t>pythread.PyThread_get_thread_ident()
    return (<Way>way.get()).who()


cdef inline int heed_signals(unsigned long generation) except -1:
    """Runs signal handlers. When one of them forks, a call that began in `generation` ends in the child: it is the
    parent's, and nobody here would wake it."""
    PyErr_CheckSignals()
    if generation != posix.generation:
        raise_forked()
    return 0


cdef inline int64_t until_look(int64_t wait, bint looked) noexcept:
    """How long a system call may sleep, of so many nanoseconds (below 0: no limit), before it looks for signals."""
    cdef int64_t nap = NEXT_LOOK if looked else FIRST_LOOK
    return nap if (wait > nap or wait < 0) and thread.is_main() else wait


cdef int sleep_until_ready(int fd, int events, int64_t deadline) except -1:
    """The one place where a thread waits for a socket."""
    cdef unsigned long generation = posix.generation
    cdef int64_t wait
    cdef int n
    cdef bint looked = False
    while True:
        heed_signals(generation)
        wait = left(deadline)
        if wait == 0:
            return 0
        wait = until_look(wait, looked)
        with nogil:
            n = posix.poll_one(fd, events, wait)
        if n > 0:
            return 1
        if n < 0 and n != -posix.EINTR:
            raise socket_error(n)
        looked = looked or n == 0


cdef Parker new_parker():
    """A place in a queue for the caller, to sleep there in the way it waits."""
    cdef Parker parker = ThreadParker() if way.get() == NULL else current_way().parker()
    parker.ident = who()
    return parker


@cython.final
cdef class ThreadParker(Parker):
    cdef pythread.PyThread_type_lock lock
    # The one in whose sleep the signal handler runs that sleeps here.
    cdef ThreadParker outer
    cdef unsigned long generation

    def __cinit__(self):
        self.generation = posix.generation
        self.lock = pythread.PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError("no memory for a lock")
        pythread.PyThread_acquire_lock(self.lock, pythread.WAIT_LOCK)

    def __dealloc__(self):
        if self.lock != NULL:
            if not self.woken:
                pythread.PyThread_release_lock(self.lock)
            pythread.PyThread_free_lock(self.lock)

    cdef int park(self, int64_t deadline) except -1:
        cdef int64_t wait
        cdef long long microseconds
        cdef pythread.PyLockStatus status
        cdef bint looked = False
        while not self.woken:
            wait = left(deadline)
            if wait == 0:
                return 0
            wait = until_look(wait, looked)
            microseconds = -1 if wait < 0 else min(wait, <int64_t>(1 << 30) * posix.MILLISECOND) // 1000 + 1
            with nogil:
                status = pythread.PyThread_acquire_lock_timed(self.lock, microseconds, 1)
            if status == pythread.PY_LOCK_ACQUIRED:
                return 1
            looked = looked or status == pythread.PY_LOCK_FAILURE
            if status == pythread.PY_LOCK_INTR or thread.is_main():
                self.run_handlers()
        return 1

    cdef int run_handlers(self) except -1:
        global handling
        self.outer = handling
        handling = self
        try:
            heed_signals(posix.generation if self.alone else self.generation)
        finally:
            handling = self.outer
            self.outer = None
        return 0

    cdef int unpark(self) except -1:
        if not self.woken:
            self.woken = True
            pythread.PyThread_release_lock(self.lock)
        return 0


# The innermost sleeper that runs signal handlers, which can call us again from within its sleep.
cdef ThreadParker handling = None


def wait_any(fds, deadline=None):
    """Waits until one of the sockets is ready: `fds` maps a descriptor to POLLIN, POLLOUT or both.

    Answers the list of ready descriptors, empty when `deadline` (`time.monotonic()` seconds) came first.
    """
    cdef int64_t until = moment_of(deadline)
    if way.get() != NULL:
        return current_way().wait_any(fds, until)
    return sleep_until_any(fds, until)


cdef list sleep_until_any(dict fds, int64_t deadline):
    cdef int count = len(fds), n, i = 0
    cdef list ready = []
    cdef posix.pollfd* polls = <posix.pollfd*>malloc(max(1, count) * sizeof(posix.pollfd))
    cdef unsigned long generation = posix.generation
    cdef int64_t wait
    cdef bint looked = False
    if polls == NULL:
        raise MemoryError("no memory to wait for the sockets")
    try:
        for fd, events in fds.items():
            polls[i].fd = fd
            polls[i].events = events
            i += 1
        while True:
            wait = left(deadline)
            wait = until_look(wait, looked)
            with nogil:
                n = posix.poll_many(polls, count, wait)
            if n > 0 or (n == 0 and left(deadline) == 0):
                for i in range(count):
                    if polls[i].revents:
                        ready.append(polls[i].fd)
                return ready
            if n < 0 and n != -posix.EINTR:
                raise socket_error(n)
            looked = looked or n == 0
            heed_signals(generation)
    finally:
        free(polls)
