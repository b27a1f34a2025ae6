# A handle on loan from a pool: how it is filled, how it comes back.
cimport cython
from libc.stdint cimport int64_t

cimport gtcp._corelib.posix as posix
from gtcp._corelib.limits cimport PY_SSIZE_T_MAX
from gtcp._corelib.object cimport new_object

cdef object UNSET = object()
cdef tuple NOTHING = ()


cdef class BasePool(FreeList):
    """The core of Pool, which adds how to dial and what to say. Safe for use by several threads."""
    cdef type lease_type
    cdef bint one_way               # a lease may end without a reply to its last send
    cdef int64_t timeout            # of acquire, in nanoseconds
    cdef object __weakref__

    def acquire(self, timeout=UNSET):
        """Lends a connection: an idle one, else a new one, else the next that comes back.

        `timeout`: seconds to wait and to dial, None for no limit, the pool's `timeout` by default.

        Raises PoolTimeout when none became free in time or too many wait already, PoolClosed, and what dialling
        raises. The PoolConn must be closed; `with` does that.
        """
        cdef BaseConn lease
        if self.lease_type is None:
            raise PoolClosed("the pool was never opened")
        lease = <BaseConn>new_object(self.lease_type, NOTHING)
        self.lend(lease, timeout)
        return lease

    cdef int lend(self, BaseConn lease, object timeout) except -1:
        cdef int64_t now = posix.now()
        cdef int64_t wait = self.timeout if timeout is UNSET else nanoseconds(timeout, "timeout")
        cdef Stream stream
        if self.generation != posix.generation:
            self.after_fork()
        self.check_open()
        stream = self.borrow(now)
        lease.reused = stream is not None
        if stream is None:
            stream = self.obtain(lease, now + wait if wait < NEVER - now else NEVER)
            self.note_wait(now)
        else:
            self.reused += 1
        self.acquired += 1
        stream.uses += 1
        lease.home = self
        lease.stream = stream
        lease.lent_at = posix.now() if not lease.reused else now
        return 0

    cdef Stream obtain(self, BaseConn lease, int64_t deadline):
        """A connection that comes back or a new one, whichever the limits allow."""
        cdef Stream stream
        cdef Reason reason
        while True:
            stream = self.wait_for_one(deadline)
            if stream is None:
                try:
                    stream = self.dial(deadline)
                except:
                    self.failed += 1
                    self.not_dialled()
                    raise
                self.dialled(stream)
                return stream
            reason = self.unfit(stream, posix.now())
            if reason == REASONS:
                lease.reused = True
                self.reused += 1
                return stream
            self.retire(stream, reason)

    cdef Stream dial(self, int64_t deadline):
        """A new connection; no lock is held and no book is open meanwhile."""
        cdef BaseConn conn = self._dial(None if deadline == NEVER else deadline / 1e9)
        cdef Stream stream = conn.open_stream()
        conn.stream = None
        lifetime = self._lifetime()
        if lifetime is not None:
            stream.expires_at = stream.born + nanoseconds(lifetime, "lifetime")
        return stream

    cdef void note_wait(self, int64_t since) noexcept:
        cdef int64_t waited = posix.now() - since
        self.wait_total += waited
        self.wait_longest = max(self.wait_longest, waited)

    cdef int renew(self, object lease_, int64_t deadline) except -1:
        """A lease keeps its place and gets a new connection for its stale one."""
        cdef BaseConn lease = <BaseConn>lease_
        cdef Stream stale = lease.stream
        cdef Stream stream
        if stale is None:
            raise_closed()
        stale.close()
        stream = self.dial(deadline)
        if lease.stream is not stale:   # another thread has ended the lease meanwhile
            stream.close()
            raise_closed()
        self.closed_for[<int>PEER] += 1
        self.created += 1
        stream.uses = 1
        stream.gathered, stream.gathering = stale.gathered, stale.gathering
        lease.stream = stream
        return 0

    def _lend_to(self, BaseConn lease not None, timeout):
        """Fills a handle that its user constructed."""
        lease._check_new()
        self.lend(lease, timeout)

    cdef int take_back(self, object lease_, bint discard) except -1:
        """Ends a lease, once: its connection is kept if it is healthy, empty and in step, else closed."""
        cdef BaseConn lease = <BaseConn>lease_
        cdef Stream stream = lease.stream
        cdef int64_t now, moment
        cdef Reason reason
        if stream.tls is not None and self.holds_plaintext(lease, stream):
            lease.failed = True
        if lease.stream is not stream:
            return 0                    # another thread has ended it meanwhile
        lease.stream = None
        if stream.generation != posix.generation:
            return stream.close()       # the parent's: let go, and in no book of this process
        now = posix.now()
        self.use_total += now - lease.lent_at
        self.use_longest = max(self.use_longest, now - lease.lent_at)
        reason = DISCARDED if discard else self.verdict(lease, stream)
        if reason != REASONS:
            return self.retire(stream, reason)
        self.give_back(stream, now)
        moment = min(stream.expires_at, NEVER if self.ttl == NEVER else now + self.ttl)
        if self.idle and moment < the_alarm.at and not the_alarm.advance(moment):
            self._watch()
        return 0

    cdef bint holds_plaintext(self, BaseConn lease, Stream stream) except -1:
        """TLS has bytes inside that nobody took."""
        if lease.failed or stream.closed or stream.broken is not None or stream.generation != posix.generation:
            return False
        return stream.tls.unread() > 0

    cdef Reason verdict(self, BaseConn lease, Stream stream) noexcept:
        """Why a connection must not serve another lease; REASONS when it may."""
        if stream.end != OPEN:
            return PEER
        if lease.failed or stream.closed or stream.broken is not None or stream.users:
            return ERROR
        if lease.owed and not self.one_way:
            return OWED
        if stream.parser.pending():
            return DIRTY
        if lease.ahead and not self.one_way:
            return OWED
        return REASONS

    cdef int drop(self, object lease_) except -1:
        """Ends a lease that was dropped without being closed."""
        cdef BaseConn lease = <BaseConn>lease_
        cdef Stream stream = lease.stream
        lease.stream = None
        return self.retire(stream, LEAKED)

    # -- for the layer above

    def _configure(self, *, type lease_type, max_size, max_idle, max_waiting, max_uses, ttl, timeout,
                   bint fifo, bint look, bint renews, bint one_way):
        """Options that have been checked; None for no limit, seconds for times."""
        self.lease_type = lease_type
        self.closed = False
        self.max_size = PY_SSIZE_T_MAX if max_size is None else max_size
        self.max_idle = PY_SSIZE_T_MAX if max_idle is None else max_idle
        self.max_waiting = PY_SSIZE_T_MAX if max_waiting is None else max_waiting
        self.max_uses = NEVER if max_uses is None else max_uses
        self.ttl = nanoseconds(ttl, "ttl")
        self.timeout = nanoseconds(timeout, "timeout")
        self.fifo = fifo
        self.look = look
        self.renews = renews
        self.one_way = one_way

    def _reap(self, bint everything=False):
        """Closes what is idle for too long (or all that is idle) and sets the alarm for the next time."""
        cdef Stream stream
        cdef int64_t next_ = NEVER
        if self.generation != posix.generation:
            self.after_fork()
        for stream in self.reap(posix.now(), everything):
            stream.close()
            self.vacate()
        stream = self.oldest
        if stream is not None and self.ttl != NEVER:
            next_ = stream.idle_since + self.ttl
        while stream is not None:
            next_ = min(next_, stream.expires_at)
            stream = stream.newer
        if next_ != NEVER:
            the_alarm.advance(next_)

    def _expire(self):
        """What has been opened until now is closed when it comes back."""
        self.valid_since = posix.now()

    def _shut(self):
        """No more leases; everybody who waits is told, and what comes back is closed."""
        cdef Parker parker
        self.closed = True
        while True:
            parker = self.waiting.pop()
            if parker is None:
                break
            self.connecting += 1        # what a place that became free would have given
            parker.unpark()
        self._reap(True)

    def _books(self):
        """The numbers of this moment, consistent with each other."""
        return {
            "idle": self.idle, "in_use": self.in_use, "connecting": self.connecting, "waiting": self.waiting.size,
            "max_size": None if self.max_size == PY_SSIZE_T_MAX else self.max_size,
            "acquired": self.acquired, "reused": self.reused, "created": self.created, "failed": self.failed,
            "closed": {REASON_NAMES[i]: self.closed_for[i] for i in range(<int>REASONS)},
            "wait_total": self.wait_total / 1e9, "wait_longest": self.wait_longest / 1e9,
            "use_total": self.use_total / 1e9, "use_longest": self.use_longest / 1e9,
        }
