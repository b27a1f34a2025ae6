# What the Python layer builds its pool on.
cimport cython
from libc.stdint cimport int64_t
from libc.string cimport memcpy

cimport gtcp._corelib.posix as posix
from gtcp._corelib.limits cimport PY_SSIZE_T_MAX
from gtcp._corelib.object cimport new_object


cdef class BasePool(Lender):
    """What every Pool shares, however its callers wait. The layer above adds how to dial and what to say."""

    # -- for the layer above

    def _configure(self, *, type lease_type, type conn_type, max_size, max_idle, min_idle, max_waiting, max_uses, ttl,
                   timeout, bint fifo, bint look, bint renews, bint one_way, str greeters, bint parts, bint mourns,
                   dict held):
        """Options that have been checked; None for no limit, seconds for times."""
        self.lease_type = lease_type
        self.conn_type = conn_type
        self.max_size = PY_SSIZE_T_MAX if max_size is None else max_size
        self.max_idle = PY_SSIZE_T_MAX if max_idle is None else max_idle
        self.min_idle = min_idle
        self.max_waiting = PY_SSIZE_T_MAX if max_waiting is None else max_waiting
        self.max_uses = NEVER if max_uses is None else max_uses
        self.ttl = nanoseconds(ttl, "ttl")
        self.timeout = nanoseconds(timeout, "timeout")
        self.fifo = fifo
        self.look = look
        self.renews = renews
        self.one_way = one_way
        self.greeters = greeters
        self.greets = bool(greeters)
        self.parts = parts
        self.mourns = mourns
        self.held = held
        self.closed = False

    def _begin_apart(self, bring):
        """Begins a dial that nobody waits for, by `bring(claim)`; None when limits or the address forbid it."""
        cdef Claim claim = Claim()
        claim.parker = new_parker()
        if self.closed or not self.allow(claim):
            return None
        claim.dial = DIAL_ELSEWHERE
        self.orphans.push(claim)
        try:
            bring(claim)
        except:
            self.fail(claim, None, None)
            raise
        return claim

    def _pass_on(self, Claim claim not None, doing):
        """The dial of a claim goes on in another thread; `str(doing)` tells how far it is."""
        claim.doing = doing
        if claim.dial == DIAL_BEGUN:    # else it has ended meanwhile, and another one may be allowed already
            claim.dial = DIAL_ELSEWHERE

    def _settle(self, Claim claim not None, BaseConn conn not None):
        """The dial of a claim has succeeded, unless this raises."""
        self.settle(claim, self.take_stream(conn))

    def _fail(self, Claim claim not None, error, trouble):
        """The dial of a claim has failed; `trouble` is the address's fault in words, or None."""
        self.fail(claim, error, trouble)

    def _outcome(self, Claim claim not None, deadline):
        """Waits for the end of a reserved dial; answers its error, None for success. Timeout at the deadline."""
        if not claim.parker.park(moment_of(deadline)):
            raise self.timed_out("not all connections in time")
        return claim.gift

    def _call_in(self, seconds_):
        """Has the pool looked after in so many seconds."""
        self.call_at(after(posix.now(), nanoseconds(seconds_, "seconds")))

    def _next_try(self):
        """Seconds until the address may be dialled again; None when the limits forbid it."""
        return None if self.is_full() else max(0, self.gate.next_moment() - posix.now()) / 1e9

    def _note_dial(self, trouble):
        """Tells what a dial that is no claim's alone says: what is wrong with the address, or None."""
        if trouble is None:
            self.gate.succeeded()
        else:
            self.gate.failed(trouble)

    def _reap(self, bint apart=False):
        """Closes what is idle for too long and sets the alarm. The hook hears of it, or `apart`: True if it has to."""
        cdef object me = who()
        cdef int64_t moment
        if self.generation != posix.generation:
            self.after_fork()
        if apart:
            self.seekers.add(me)
        try:
            self.reap(posix.now())
        finally:
            if apart:
                self.seekers.discard(me)
        if not apart:
            self._tell()
        moment = self.next_expiry()
        if moment != NEVER:
            self.call_at(moment)
        return bool(self.unmourned)

    def _tell(self):
        """Tells the hook what it has not heard, unless the hook asks for it: who called that goes on telling."""
        while self.unmourned and who() not in self.mourners:
            stream, reason = self.unmourned.pop(0)
            self.mourn(stream, reason)

    def _expire(self):
        """What has been opened until now is not lent again."""
        self.valid_since = posix.now()

    def _resize(self, max_size):
        self.max_size = PY_SSIZE_T_MAX if max_size is None else max_size
        self.reap(posix.now())
        self.nudge()
        if self.idle.size < self.min_idle:
            self.fill_soon(posix.now())

    def _shut(self):
        """No more leases; everybody who waits is told, and what comes back is closed."""
        self.shut()
        self.reap(posix.now())
        self.end_orphans()

    def _cut(self, deadline):
        """Waits until all leases have come back; closes the connections of the others and answers how many."""
        return 0 if self.drained.wait(deadline) else self.close_lent()

    cdef Py_ssize_t close_lent(self) except -1:
        """Closes the connections on loan under their users; how many."""
        cdef list streams = []
        cdef Stream stream = self.lent.oldest
        while stream is not None:
            streams.append(stream)
            stream = stream.newer
        for stream in streams:
            stream.close()
        return len(streams)

    def _is_unused(self):
        return self.idle.size == 0 and self.lent.size == 0 and self.connecting == 0 and self.waiting.size == 0

    @property
    def closed(self):
        """The pool lends nothing any more."""
        return self.closed

    def numbers(self):
        """The books in a few words, for error texts."""
        limit = "no limit" if self.max_size == PY_SSIZE_T_MAX else self.max_size
        trouble = "" if self.gate.trouble is None else f", last dial failed: {self.gate.trouble}"
        return (f"{self.addr}: max_size {limit}, in use {self.lent.size}, idle {self.idle.size}, "
                f"connecting {self.connecting}, waiting {self.waiting.size - self.waiting.dialling}{trouble}")

    def _books(self):
        """The numbers of this moment, consistent with each other."""
        # Making objects can run finalizers, which end leases: first all numbers, then the objects.
        cdef Py_ssize_t idle = self.idle.size, in_use = self.lent.size, connecting = self.connecting
        cdef Py_ssize_t waiting = self.waiting.size - self.waiting.dialling
        cdef int64_t acquired = self.acquired, reused = self.reused, created = self.created, failed = self.failed
        cdef int64_t timeouts = self.timeouts
        cdef int64_t wait_total = self.wait_total, wait_longest = self.wait_longest
        cdef int64_t use_total = self.use_total, use_longest = self.use_longest
        cdef int64_t closed_for[<int>REASONS]
        memcpy(closed_for, self.closed_for, sizeof(self.closed_for))
        return {
            "idle": idle, "in_use": in_use, "connecting": connecting, "waiting": waiting,
            "max_size": None if self.max_size == PY_SSIZE_T_MAX else self.max_size,
            "acquired": acquired, "reused": reused, "created": created, "failed": failed, "timeouts": timeouts,
            "closed": {REASON_NAMES[i]: closed_for[i] for i in range(<int>REASONS)},
            "wait_total": wait_total / 1e9, "wait_longest": wait_longest / 1e9,
            "use_total": use_total / 1e9, "use_longest": use_longest / 1e9,
        }


cdef class BlockingPool(BasePool):
    """A pool whose callers block. Safe for use by several threads."""

    def acquire(self, timeout=NOT_GIVEN):
        """Lends a connection: an idle one, a new one or the next that comes back, whichever is there first.

        `timeout`: seconds to wait and to dial, None for no limit, the pool's `timeout` by default.

        Raises PoolTimeout when there was none in time or too many wait already, PoolClosed, and what dialling and the
        pool's hooks raise; after an Exception of `check` it lends another one. The PoolConn must be closed; `with` does
        that.
        """
        cdef BaseConn lease
        if self.lease_type is None:
            raise PoolClosed("the pool was never opened")
        lease = <BaseConn>new_object(self.lease_type, NOTHING)
        self.lend(lease, timeout)
        return lease
