# Waiting for others: a role that one caller has at a time, and what many are told.
cimport cython
from libc.stdint cimport int64_t

cimport gtcp._corelib.posix as posix
cimport gtcp._corelib.way as way


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
