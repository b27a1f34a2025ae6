# The pool's accounting: which connections are idle, how many are lent or being dialled, who waits.
#
# The methods that change the books run no Python code and make no system call between their first and
# their last line, so the GIL makes them atomic and a finalizer that runs on the same thread always finds
# the books closed. Whoever has to be woken and whatever has to be closed is told to the caller.
cimport cython
from libc.stdint cimport int64_t

cimport gtcp._corelib.posix as posix
from gtcp._corelib.limits cimport PY_SSIZE_T_MAX

cdef enum Reason:
    TTL, LIFETIME, USES, PEER, DIRTY, OWED, ERROR, DISCARDED, FULL, CLEARED, FORKED, LEAKED, REASONS

REASON_NAMES = (
    "ttl", "lifetime", "uses", "peer_closed", "dirty", "owed", "error", "discarded", "full", "cleared", "forked",
    "leaked",
)


cdef class FreeList:
    # Limits, PY_SSIZE_T_MAX for none; nanoseconds, NEVER for none.
    cdef Py_ssize_t max_size
    cdef Py_ssize_t max_idle
    cdef Py_ssize_t max_waiting
    cdef int64_t max_uses
    cdef int64_t ttl
    cdef bint fifo
    cdef bint look                  # look at the socket before it is lent
    cdef bint renews                # a lease that finds its connection stale gets another one

    # The idle connections, in the order in which they came back.
    cdef Stream newest
    cdef Stream oldest
    cdef Py_ssize_t idle
    # Connections on loan and dials in progress: idle + in_use + connecting never exceeds max_size.
    cdef Py_ssize_t in_use
    cdef Py_ssize_t connecting
    cdef ParkerQueue waiting
    cdef bint closed
    # What was opened before this moment is closed instead of being kept; and whose books these are.
    cdef int64_t valid_since
    cdef unsigned long generation

    # Since the pool was made.
    cdef int64_t acquired
    cdef int64_t reused
    cdef int64_t created
    cdef int64_t failed
    cdef int64_t[<int>REASONS] closed_for
    cdef int64_t wait_total
    cdef int64_t wait_longest
    cdef int64_t use_total
    cdef int64_t use_longest

    def __cinit__(self, *args, **kwargs):
        self.max_size = self.max_idle = self.max_waiting = PY_SSIZE_T_MAX
        self.max_uses = self.ttl = NEVER
        self.look = self.renews = True
        self.waiting = ParkerQueue()
        self.generation = posix.generation
        self.closed = True              # until it is configured

    # -- the list

    cdef void _push(self, Stream stream) noexcept:
        stream.older = self.newest
        if self.newest is None:
            self.oldest = stream
        else:
            self.newest.newer = stream
        self.newest = stream
        self.idle += 1

    cdef void _unlink(self, Stream stream) noexcept:
        if stream.newer is None:
            self.newest = stream.older
        else:
            stream.newer.older = stream.older
        if stream.older is None:
            self.oldest = stream.newer
        else:
            stream.older.newer = stream.newer
        stream.newer = stream.older = None
        self.idle -= 1

    # -- lending

    cdef Stream borrow(self, int64_t now):
        """An idle connection that is fit for use, or None. Unfit ones on the way are closed."""
        cdef Stream stream
        cdef Reason reason
        while True:
            stream = self.oldest if self.fifo else self.newest
            if stream is None:
                return None
            self._unlink(stream)
            self.in_use += 1
            try:
                reason = self.unfit(stream, now)
            except:
                self.retire(stream, ERROR)      # a signal's exception
                raise
            if reason == REASONS:
                return stream
            self.retire(stream, reason)

    cdef Reason unfit(self, Stream stream, int64_t now) except? LEAKED:
        """Why an idle connection must not be used again; REASONS when it may be."""
        cdef int said
        if now - stream.idle_since >= self.ttl:
            return TTL
        if now >= stream.expires_at:
            return LIFETIME
        if self.look:
            said = stream.says()
            if said >= 0:
                return PEER if said == 0 else DIRTY
            if said != -posix.EAGAIN:
                return PEER
        return REASONS

    cdef Stream wait_for_one(self, int64_t deadline):
        """A connection that came back, or None: the caller may dial one, and owes `dialled` or `not_dialled`."""
        cdef Parker parker = new_parker()   # first: it can run finalizers, and they can end leases
        cdef Stream stream
        self.check_open()
        stream = self.borrow(posix.now())
        if stream is not None:
            return stream
        if self.waiting.size == 0 and self.idle + self.in_use + self.connecting < self.max_size:
            self.connecting += 1
            return None
        if self.waiting.reentered():
            raise ConcurrencyError("called again from within the acquire it interrupted")
        if self.waiting.size >= self.max_waiting:
            raise PoolTimeout(f"{self.waiting.size} callers are waiting already ({self.numbers()})")
        self.waiting.push(parker)
        try:
            parker.park(deadline)
        except:
            if not self.leave(parker):
                self.refuse(parker)
            raise
        if self.leave(parker):
            raise PoolTimeout(f"no connection became free in time ({self.numbers()})")
        if self.closed:
            self.refuse(parker)
            self.check_open()
        return parker.gift

    cdef bint leave(self, Parker parker) noexcept:
        if not parker.queued:
            return False
        self.waiting.remove(parker)
        return True

    cdef int refuse(self, Parker parker) except -1:
        """Passes on what was handed to a caller who no longer wants it."""
        if parker.gift is not None:
            return self.give_back(parker.gift, posix.now())
        return self.not_dialled()

    cdef int check_open(self) except -1:
        if self.closed:
            raise PoolClosed("the pool is closed")
        return 0

    def numbers(self):
        """The books in a few words, for error texts."""
        limit = "no limit" if self.max_size == PY_SSIZE_T_MAX else self.max_size
        return (f"max_size {limit}, in use {self.in_use}, idle {self.idle}, connecting {self.connecting}, "
                f"waiting {self.waiting.size}")

    # -- dialling

    cdef void dialled(self, Stream stream) noexcept:
        """The dial that `wait_for_one` allowed has succeeded: the connection is on loan."""
        self.connecting -= 1
        self.in_use += 1
        self.created += 1

    cdef int not_dialled(self) except -1:
        """It failed, or was not wanted: the place is free again."""
        self.connecting -= 1
        self.vacate()
        return 0

    cdef int vacate(self) except -1:
        """A place became free: the first in the queue may dial."""
        cdef Parker parker = None
        if self.idle + self.in_use + self.connecting < self.max_size:
            parker = self.waiting.pop()
            if parker is not None:
                self.connecting += 1
                parker.unpark()
        return 0

    # -- coming back

    cdef int give_back(self, Stream stream, int64_t now) except -1:
        """A loan ends with a healthy connection: to the first in the queue, or to the idle ones."""
        cdef Parker parker
        cdef Reason reason = self.unkept(stream, now)
        if reason != REASONS:
            return self.retire(stream, reason)
        stream.idle_since = now
        parker = self.waiting.pop()
        if parker is not None:
            parker.gift = stream
            parker.unpark()
            return 0
        self.in_use -= 1
        self._push(stream)
        return 0

    cdef Reason unkept(self, Stream stream, int64_t now) noexcept:
        """Why a connection that comes back is not kept; REASONS when it is."""
        if self.closed or stream.born < self.valid_since:
            return CLEARED
        if now >= stream.expires_at:
            return LIFETIME
        if stream.uses >= self.max_uses:
            return USES
        if self.idle >= self.max_idle and self.waiting.size == 0 or self.ttl == 0:
            return FULL
        return REASONS

    cdef int retire(self, Stream stream, Reason reason) except -1:
        """A connection on loan is closed; its place becomes free."""
        self.in_use -= 1
        self.closed_for[<int>reason] += 1
        self.vacate()
        stream.close()
        return 0

    # -- the rest of life

    cdef list reap(self, int64_t now, bint everything):
        """Takes the idle connections whose time is over (or all) out of the list; the caller closes them."""
        cdef list victims = []
        cdef Stream stream = self.oldest
        cdef Stream newer
        cdef Reason reason
        while stream is not None:
            newer = stream.newer
            if everything:
                reason = CLEARED
            elif now - stream.idle_since >= self.ttl:
                reason = TTL
            elif now >= stream.expires_at:
                reason = LIFETIME
            else:
                reason = REASONS
            if reason != REASONS:
                self._unlink(stream)
                self.closed_for[<int>reason] += 1
                victims.append(stream)
            stream = newer
        return victims

    cdef int after_fork(self) except -1:
        """In a child: the parent's connections are let go, never shut down, and the books begin anew."""
        cdef Stream stream
        self.generation = posix.generation
        self.waiting = ParkerQueue()
        self.in_use = self.connecting = 0
        for stream in self.reap(0, True):
            self.closed_for[<int>CLEARED] -= 1
            self.closed_for[<int>FORKED] += 1
            stream.close()
        return 0

    # -- what handles ask of their pool; lease.pxi knows handles and does it

    cdef int renew(self, object lease, int64_t deadline) except -1:
        """Gives a lease a fresh connection in place of a stale one."""
        raise NotImplementedError

    cdef int take_back(self, object lease, bint discard) except -1:
        """Ends a lease."""
        raise NotImplementedError

    cdef int drop(self, object lease) except -1:
        """Ends a lease that nobody holds any more."""
        raise NotImplementedError
