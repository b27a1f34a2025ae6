# Waiting: for a socket, for a turn. A new way to wait (greenlets, a user's function) is added here and
# nowhere else.
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

cimport gtcp._corelib.posix as posix
cimport gtcp._corelib.pythread as pythread
cimport gtcp._corelib.way as way

cdef enum:
    CALL = 8                    # what a system call costs, where a unit that is taken out of the buffer costs 1


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


cdef int sleep_until_ready(int fd, int events, int64_t deadline) except -1:
    """The one place where a thread waits for a socket."""
    cdef unsigned long generation = posix.generation
    cdef int64_t wait
    cdef int n
    while True:
        wait = left(deadline)
        if wait == 0:
            return 0
        with nogil:
            n = posix.poll_one(fd, events, wait)
        if n > 0:
            return 1
        if n == -posix.EINTR:
            heed_signals(generation)
        elif n < 0:
            raise socket_error(n)


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
        while not self.woken:
            wait = left(deadline)
            if wait == 0:
                return 0
            microseconds = -1 if wait < 0 else min(wait, <int64_t>(1 << 30) * posix.MILLISECOND) // 1000 + 1
            with nogil:
                status = pythread.PyThread_acquire_lock_timed(self.lock, microseconds, 1)
            if status == pythread.PY_LOCK_ACQUIRED:
                return 1
            if status == pythread.PY_LOCK_INTR:
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


@cython.final
cdef class ParkerQueue:
    """Those who wait, first come first served."""
    cdef Parker first
    cdef Parker last
    cdef Py_ssize_t size

    cdef void push(self, Parker parker) noexcept:
        parker.before = self.last
        if self.last is None:
            self.first = parker
        else:
            self.last.behind = parker
        self.last = parker
        parker.queued = True
        parker.queue = self
        self.size += 1

    cdef void remove(self, Parker parker) noexcept:
        if not parker.queued:
            return
        if parker.before is None:
            self.first = parker.behind
        else:
            parker.before.behind = parker.behind
        if parker.behind is None:
            self.last = parker.before
        else:
            parker.behind.before = parker.before
        parker.before = parker.behind = None
        parker.queued = False
        self.size -= 1

    cdef bint reentered(self) noexcept:
        """The caller is a signal handler that interrupted a wait in this queue, and holds it up."""
        cdef ThreadParker parker = handling
        while parker is not None and (parker.queue is not self or parker.ident != who()):
            parker = parker.outer
        return parker is not None

    cdef Parker pop(self):
        cdef Parker parker = self.first
        if parker is not None:
            self.remove(parker)
        return parker


@cython.final
cdef class Turn:
    """A role that one caller has at a time; the others queue up, first come first served."""
    cdef size_t owner               # who() has it, 0 for nobody
    cdef int64_t rounds             # how many have had it
    cdef ParkerQueue queue          # None until somebody had to wait
    cdef Parker after               # is woken, once, when nobody has it any more; None for nobody

    cdef inline bint try_take(self) noexcept:
        return self.try_take_for(who())     # asked first, as it can run others

    cdef inline bint try_take_for(self, size_t me) noexcept:
        if self.owner:
            return False
        self.owner = me
        return True

    cdef int take(self, int64_t deadline) except -1:
        """Waits for the role: 1 when it is the caller's, 0 when the deadline passed first."""
        cdef Parker parker
        if self.try_take():
            return 1
        if self.owner == who() or (self.queue is not None and self.queue.reentered()):
            raise ConcurrencyError("called again from within the call it interrupted")
        parker = new_parker()
        if not self.enqueue(parker):
            return 1
        try:
            parker.park(deadline)
        except:
            if not self.leave(parker):
                self.give()
            raise
        return 0 if self.leave(parker) else 1

    cdef bint enqueue(self, Parker parker) except -1:
        """A place in the queue; False when the role is the parker's already."""
        cdef ParkerQueue queue = ParkerQueue() if self.queue is None else self.queue
        # That, as making the parker, can run the collector, its finalizers and through them other threads: only now
        # it counts.
        if self.queue is None:
            self.queue = queue
        if not self.owner:
            self.owner = parker.ident
            return False
        self.queue.push(parker)
        return True

    cdef bint leave(self, Parker parker) noexcept:
        """Stops waiting; False when the role has been handed over in the meantime."""
        if not parker.queued:
            return False
        self.queue.remove(parker)
        return True

    cdef int give(self) except -1:
        """Hands the role to the next in the queue."""
        cdef Parker parker = self.queue.pop() if self.queue is not None else None
        self.rounds += 1
        if parker is not None:
            self.owner = parker.ident
            return parker.unpark()
        self.owner = 0
        if self.after is not None:
            parker, self.after = self.after, None
            parker.unpark()
        return 0

    cdef int wake_all(self) except -1:
        """Ends everybody's wait; what they waited for is closed."""
        cdef Parker parker
        while self.queue is not None:
            parker = self.queue.pop()
            if parker is None:
                break
            parker.unpark()
        return 0


@cython.final
cdef class Signal:
    """Tells any number of waiting callers, now and later, that something has happened."""
    cdef readonly bint is_set
    cdef ParkerQueue waiting        # None until somebody had to wait

    def set(self):
        """It has happened."""
        cdef Parker parker
        self.is_set = True
        while self.waiting is not None:
            parker = self.waiting.pop()
            if parker is None:
                return
            parker.unpark()

    def wait(self, deadline=None):
        """Waits until it has happened (True) or until `deadline`, `time.monotonic()` seconds (False)."""
        return self.wait_until(moment_of(deadline))

    cdef bint wait_until(self, int64_t until) except -1:
        cdef Parker parker
        cdef ParkerQueue queue
        if not self.is_set:
            parker = new_parker()
            queue = self.queue()
        if not self.is_set:             # the allocation can run finalizers, which may have set it
            queue.push(parker)
            try:
                parker.park(until)
            finally:
                queue.remove(parker)
        return self.is_set

    cdef ParkerQueue queue(self):
        """Those who wait."""
        cdef ParkerQueue queue
        if self.waiting is None:
            queue = ParkerQueue()
            if self.waiting is None:    # the allocation can run others
                self.waiting = queue
        return self.waiting


cdef bint pause_within(int64_t duration, int64_t deadline, Signal end=None) except -1:
    """Sleeps for so many nanoseconds, or until `end`; not at all (False) when the deadline would pass meanwhile."""
    cdef int64_t now = posix.now()
    cdef Parker parker
    if duration >= deadline - now:
        if deadline != NEVER:
            return False
        now = NEVER - duration      # for ever
    if end is None:
        parker = new_parker()
        parker.alone = True
        parker.park(now + duration)
    else:
        end.wait_until(now + duration)
    return True


def sleep(seconds_, /):
    """Sleeps for so many seconds, letting others run."""
    cdef int64_t duration = nanoseconds(seconds_, "seconds")
    if duration == 0 and way.get() != NULL:
        current_way().step_aside()
    else:
        pause_within(duration, NEVER)


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
    if polls == NULL:
        raise MemoryError("no memory to wait for the sockets")
    try:
        for fd, events in fds.items():
            polls[i].fd = fd
            polls[i].events = events
            i += 1
        while True:
            wait = left(deadline)
            with nogil:
                n = posix.poll_many(polls, count, wait)
            if n >= 0:
                for i in range(count):
                    if polls[i].revents:
                        ready.append(polls[i].fd)
                return ready
            if n != -posix.EINTR:
                raise socket_error(n)
            heed_signals(generation)
    finally:
        free(polls)
