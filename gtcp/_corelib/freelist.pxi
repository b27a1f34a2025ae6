# The pool's accounting: which connections are idle, which are lent, how many dials are under way, who waits.
#
# The methods that change the books run no Python code and make no system call between their first and
# their last change, so the GIL makes them atomic and a finalizer or a signal handler that runs on the same
# thread always finds the books closed. Waking somebody and closing a connection come last.
#
# The books know no way of waiting. Who finds no idle connection (`borrow`) makes a Claim with a parker and
# `join`s the queue. While it is queued, it begins a dial when `claim.dial` is DIAL_ALLOWED (DIAL_BEGUN from
# then on, DIAL_ELSEWHERE when others finish it), reports the end by `settle` or `fail`, and else sleeps until
# its parker is woken. Once it is queued no longer, `claim.gift` tells the rest; who gives up calls `leave`.
# seeker.pxi does all that.
cimport cython
from libc.stdint cimport int64_t

cimport gtcp._corelib.posix as posix
from gtcp._corelib.limits cimport PY_SSIZE_T_MAX

cdef enum Reason:
    TTL, LIFETIME, USES, PEER, DIRTY, OWED, ERROR, DISCARDED, FULL, CLEARED, FORKED, LEAKED, CHECK, REASONS

REASON_NAMES = (
    "ttl", "lifetime", "uses", "peer_closed", "dirty", "owed", "error", "discarded", "full", "cleared", "forked",
    "leaked", "check",
)


@cython.final
cdef class StreamList:
    """Connections in the order in which they came."""
    cdef Stream newest
    cdef Stream oldest
    cdef Py_ssize_t size

    cdef void push(self, Stream stream) noexcept:
        stream.older = self.newest
        if self.newest is None:
            self.oldest = stream
        else:
            self.newest.newer = stream
        self.newest = stream
        self.size += 1

    cdef void remove(self, Stream stream) noexcept:
        if stream.newer is None:
            self.newest = stream.older
        else:
            stream.newer.older = stream.older
        if stream.older is None:
            self.oldest = stream.newer
        else:
            stream.older.newer = stream.newer
        stream.newer = stream.older = None
        self.size -= 1


cdef class FreeList:
    # Limits, PY_SSIZE_T_MAX for none; nanoseconds, NEVER for none.
    cdef Py_ssize_t max_size
    cdef Py_ssize_t max_idle
    cdef Py_ssize_t min_idle
    cdef Py_ssize_t max_waiting
    cdef int64_t max_uses
    cdef int64_t ttl
    cdef bint fifo
    cdef bint look                  # look at the socket before it is lent
    cdef bint renews                # a lease that finds its connection stale gets another one

    # Every open connection is in one of the lists; idle + lent + connecting exceeds max_size only after `resize`.
    cdef StreamList idle
    cdef StreamList lent
    cdef Py_ssize_t connecting
    cdef ClaimQueue waiting
    cdef ClaimQueue orphans         # dials under way that nobody in the queue began
    cdef int64_t orphan_patience    # how long they spare others a dial, and keep their place from them
    cdef Gate gate
    cdef bint closed
    cdef Signal drained             # set when the pool is closed and nothing is lent any more
    # What was opened before this moment is closed instead of being kept; and whose books these are.
    cdef int64_t valid_since
    cdef unsigned long generation

    # Since the pool was made.
    cdef int64_t acquired
    cdef int64_t reused
    cdef int64_t created
    cdef int64_t failed
    cdef int64_t timeouts
    cdef int64_t closed_for[<int>REASONS]
    cdef int64_t wait_total
    cdef int64_t wait_longest
    cdef int64_t use_total
    cdef int64_t use_longest

    def __cinit__(self, *args, **kwargs):
        self.max_size = self.max_idle = self.max_waiting = PY_SSIZE_T_MAX
        self.max_uses = self.ttl = NEVER
        self.look = self.renews = True
        self.drained = Signal()
        self.closed = True              # until it is configured
        self.begin_books()

    cdef bint begin_books(self) except -1:
        """False when that is done already, by a finalizer that has used the pool meanwhile."""
        cdef StreamList idle = StreamList(), lent = StreamList()
        cdef ClaimQueue waiting = ClaimQueue(), orphans = ClaimQueue()
        cdef Gate gate = Gate()
        # Making these can run finalizers; the old ones go when all is done.
        if self.idle is not None and self.generation == posix.generation:
            return False
        idle, self.idle = self.idle, idle
        lent, self.lent = self.lent, lent
        waiting, self.waiting = self.waiting, waiting
        orphans, self.orphans = self.orphans, orphans
        gate, self.gate = self.gate, gate
        self.orphan_patience = ORPHAN_PATIENCE
        self.connecting = 0
        self.generation = posix.generation
        return True

    # -- lending

    cdef Stream borrow(self, int64_t now):
        """An idle connection that is fit for use, lent from now on, or None. Unfit ones on the way are closed."""
        cdef Stream stream
        cdef Reason reason
        while True:
            stream = self.idle.oldest if self.fifo else self.idle.newest
            if stream is None:
                return None
            self.idle.remove(stream)
            self.lent.push(stream)
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
        return TTL if now - stream.idle_since >= self.ttl else self.spoilt(stream, now)

    cdef Reason spoilt(self, Stream stream, int64_t now) except? LEAKED:
        """The same for one that has not rested."""
        cdef int said
        if now >= stream.expires_at:
            return LIFETIME
        if stream.born < self.valid_since:
            return CLEARED
        if self.look:
            said = stream.says()
            if said > 0:
                return DIRTY if stream.uses else REASONS    # a greeting that nobody has read yet
            if said != -posix.EAGAIN:
                return PEER
        return REASONS

    # -- waiting for one

    cdef bint join(self, Claim claim, int64_t deadline) except -1:
        """Queues a claim, unless a connection has come back meanwhile. False when too many wait already."""
        cdef bint patient
        if self.closed:
            raise_pool_closed()
        if self.waiting.size == 0 and self.hand_over(claim):
            return True
        claim.since = posix.now()
        claim.impatient_at = claim.since + (deadline - claim.since) // 2
        # Whoever may not wait gets a dial rather than a refusal.
        patient = deadline > claim.since and self.waiting.size - self.waiting.dialling < self.max_waiting
        if (patient and self.is_covered(1)) or not self.allow(claim):
            if not patient and deadline > claim.since:
                return False
        self.waiting.push(claim)
        return True

    cdef int rejoin(self, Claim claim) noexcept:
        """Puts a claim that got a connection unfit for use back to its place, if the pool still serves anybody."""
        claim.gift = None
        if not self.closed and not self.hand_over(claim):
            if claim.queue is not None:
                claim.queue.remove(claim)
            self.waiting.push_front(claim)
        return 0

    cdef bint hand_over(self, Claim claim) noexcept:
        """Gives an idle connection to the first of all claims, if there is one that is not too old."""
        cdef Stream stream = self.idle.oldest if self.fifo else self.idle.newest
        if stream is None or self.overdue(stream, posix.now()) != REASONS:
            return False
        self.idle.remove(stream)
        self.lent.push(stream)
        claim.gift = stream
        return True

    cdef inline bint is_full(self) noexcept:
        return self.idle.size + self.lent.size + self.connecting >= self.max_size

    cdef bint is_covered(self, Py_ssize_t more) noexcept:
        """Dials of others will serve all who wait without one, and `more`, if they end soon."""
        cdef Py_ssize_t wanted = self.waiting.size - self.waiting.dialling + more
        return wanted <= self.orphans.size \
            and wanted <= self.orphans.begun_since(posix.now() - self.orphan_patience)

    cdef bint allow(self, Claim claim) noexcept:
        """Reserves a place for a dial on behalf of the claim, if limits and address permit one."""
        if self.is_full() or not self.gate.is_open():
            return False
        self.connecting += 1
        self.gate.enter(claim)
        claim.dial = DIAL_ALLOWED
        claim.dial_began = posix.now()
        if claim.queue is not None:
            claim.queue.dialling += 1
        return True

    cdef void unqueue(self, Claim claim) noexcept:
        """Its owner waits no more; a dial that it began goes on."""
        self.waiting.remove(claim)
        if claim.dial == DIAL_BEGUN or claim.dial == DIAL_ELSEWHERE:
            self.orphans.push(claim)

    cdef int leave(self, Claim claim) except -1:
        """The owner gives up: what was reserved for it or given to it goes to others."""
        cdef object gift = claim.gift
        claim.gift = None
        if claim.generation != self.generation:
            return 0
        if claim.queue is self.waiting:
            self.unqueue(claim)
        if claim.dial == DIAL_ALLOWED or claim.dial == DIAL_BEGUN:
            self.end_dial(claim)
        claim.abandoned = claim.dial == DIAL_ELSEWHERE
        if isinstance(gift, Stream):
            return self.give_back(<Stream>gift, posix.now())
        return self.nudge()

    cdef int nudge(self) except -1:
        """Places may have become free: those who wait without a dial of their own may begin one."""
        cdef Claim claim
        while self.waiting.size > self.waiting.dialling and not self.is_full():
            claim = self.waiting.first_without_dial()
            if self.is_covered(0) or not self.allow(claim):
                claim.parker.unpark()   # what it waits for has a moment: see `Seeker.patience`
                break
            claim.parker.unpark()
        if self.closed and self.lent.size == 0:
            self.drained.set()
        return 0

    # -- dialling

    cdef void end_dial(self, Claim claim) noexcept:
        self.connecting -= 1
        self.gate.leave(claim)
        if claim.queue is self.waiting:
            self.waiting.dialling -= 1
        elif claim.queue is not None:
            self.orphans.remove(claim)
        claim.dial = NO_DIAL

    cdef int settle(self, Claim claim, Stream stream) except -1:
        """A dial succeeded: the connection goes to the first in the queue, or to the idle ones."""
        if claim.generation != posix.generation or claim.dial == NO_DIAL:
            return stream.close()       # the parent's, or too late
        self.end_dial(claim)
        self.gate.succeeded()
        self.orphan_patience = ORPHAN_PATIENCE
        claim.wasted += stream.born < self.valid_since
        self.created += 1
        self.lent.push(stream)
        self.give_back(stream, posix.now())
        self.nudge()
        return claim.parker.unpark()

    cdef int fail(self, Claim claim, object error, str trouble) except -1:
        """A dial failed. `trouble`: what is wrong with the address, None if it may be all right.

        The error goes to the one who began the dial. When it was a probe, those who waited for its outcome get it too.
        """
        cdef list awake = [claim]
        cdef int64_t probed = self.gate.probe_began if claim.probing else -1
        cdef Py_ssize_t sharers
        cdef Claim other, behind
        if claim.generation != posix.generation or claim.dial == NO_DIAL:
            return 0
        self.end_dial(claim)
        self.failed += 1
        if trouble is not None:
            self.gate.failed(trouble)
        if claim.queue is self.waiting:
            self.unqueue(claim)
        if claim.gift is None:
            claim.gift = error
        # Without a connection that could come back all wait for the probe, else as many as could have dialled.
        sharers = self.max_size - self.idle.size - self.lent.size - self.connecting if self.lent.size \
            else PY_SSIZE_T_MAX
        other = self.waiting.first
        while other is not None:
            behind = other.behind
            if other.dial == NO_DIAL:
                if other.since <= probed and sharers > 0 and trouble is not None:
                    sharers -= 1
                    self.unqueue(other)
                    other.gift = error
                    other.shared = True
                awake.append(other)     # the others look at the gate anew
            other = behind
        for other in awake:
            other.parker.unpark()
        return self.nudge()

    # -- coming back

    cdef int give_back(self, Stream stream, int64_t now) except -1:
        """A loan ends with a healthy connection: to the first in the queue, or to the idle ones."""
        cdef Claim claim
        cdef Reason reason = self.unkept(stream, now)
        if stream.generation != posix.generation:
            return stream.close()       # the parent's: let go, and in no book of this process
        if reason != REASONS:
            return self.retire(stream, reason)
        stream.idle_since = now
        if self.waiting.size:
            claim = self.waiting.first
            self.unqueue(claim)
            claim.gift = stream
            if claim.dial == DIAL_ALLOWED:
                self.end_dial(claim)    # not begun, and needed no more
            self.nudge()
            return claim.parker.unpark()
        self.lent.remove(stream)
        stream.rested = True
        self.idle.push(stream)
        return self.keep(stream, now)

    cdef int keep(self, Stream stream, int64_t now) except -1:
        """It rests from now on."""
        return 0

    cdef Reason unkept(self, Stream stream, int64_t now) noexcept:
        """Why a connection that comes back is not kept; REASONS when it is."""
        if self.closed or stream.born < self.valid_since:
            return CLEARED
        # However short its life, a new connection serves the one who waits for it.
        if now >= stream.expires_at and (stream.uses or self.waiting.size == 0):
            return LIFETIME
        if stream.uses >= self.max_uses:
            return USES
        if self.idle.size + self.lent.size + self.connecting > self.max_size:
            return FULL
        if self.waiting.size:
            return REASONS
        if self.ttl == 0:
            return TTL
        return FULL if self.idle.size >= self.max_idle else REASONS

    cdef int retire(self, Stream stream, Reason reason) except -1:
        """A connection on loan is closed; its place becomes free."""
        if stream.generation != posix.generation:
            return stream.close()       # the parent's: let go, and in no book of this process
        self.lent.remove(stream)
        self.closed_for[<int>reason] += 1
        self.nudge()
        return self.bury(stream, reason)

    cdef int bury(self, Stream stream, Reason reason) except -1:
        """Closes a connection that is in no book any more."""
        return stream.close()

    # -- the rest of life

    cdef Reason overdue(self, Stream stream, int64_t now) noexcept:
        if now - stream.idle_since >= self.ttl:
            return TTL
        if now >= stream.expires_at:
            return LIFETIME
        if stream.born < self.valid_since or self.closed:
            return CLEARED
        return FULL if self.idle.size + self.lent.size + self.connecting > self.max_size else REASONS

    cdef int reap(self, int64_t now) except -1:
        """Closes the idle connections whose time is over, and those above the limit, oldest first."""
        cdef Stream stream = self.idle.oldest
        cdef Reason reason
        while stream is not None:
            reason = self.overdue(stream, now)
            if reason == REASONS:
                stream = stream.newer
                continue
            self.idle.remove(stream)
            self.closed_for[<int>reason] += 1
            self.nudge()
            self.bury(stream, reason)
            stream = self.idle.oldest   # closing ran foreign code: the list may be another one
        return 0

    cdef int64_t next_expiry(self) noexcept:
        """When the time of the next idle connection is over; NEVER without one."""
        cdef Stream stream = self.idle.oldest
        cdef int64_t moment = NEVER
        if stream is not None and self.ttl != NEVER:
            moment = stream.idle_since + self.ttl
        while stream is not None:
            moment = min(moment, stream.expires_at)
            stream = stream.newer
        return moment

    cdef int shut(self) except -1:
        """No more leases; everybody who waits is told."""
        cdef Claim claim
        self.closed = True
        while self.waiting.first is not None:
            claim = self.waiting.first
            self.unqueue(claim)
            claim.parker.unpark()
        return self.nudge()

    cdef int after_fork(self) except -1:
        """In a child: the parent's connections are let go, never shut down, and the books begin anew."""
        cdef StreamList idle = self.idle
        cdef Py_ssize_t lost = idle.size + self.lent.size
        cdef Stream stream
        if self.begin_books():
            self.closed_for[<int>FORKED] += lost
        while idle.oldest is not None:
            stream = idle.oldest
            idle.remove(stream)
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
