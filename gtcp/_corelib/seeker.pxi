# How a caller waits for a connection of a pool: in the queue of the books, by a dial of its own or by those of others.
#
# A dial outlives its caller: whoever is first in the queue gets the connection. One whose caller was served otherwise
# goes on, and for a while spares the next callers dials of their own. One whose caller gave up goes on as long as
# somebody waits.
from libc.stdint cimport int64_t

cimport gtcp._corelib.posix as posix


cdef object seconds_of(int64_t moment):
    """A moment in `time.monotonic()` seconds; None for never."""
    return None if moment == NEVER else moment / 1e9


cdef class Seeker(FreeList):
    """The books with the callers that wait, as threads and greenlets do."""
    cdef set seekers                # who() waits for a connection or dials one

    def __cinit__(self, *args, **kwargs):
        self.seekers = set()

    cdef Stream obtain(self, int64_t since, int64_t deadline):
        """A connection that comes back or a new one, whichever is there first."""
        cdef Claim claim = Claim()
        cdef Stream stream
        cdef object me
        claim.parker = new_parker()
        me = claim.parker.ident
        stream = self.borrow(posix.now())   # making these can run finalizers, and they can end leases
        if stream is not None:
            return stream
        if me in self.seekers:
            raise ConcurrencyError("called again from within the acquire that it interrupted")
        self.queue_up(claim, deadline)
        try:
            self.seekers.add(me)
            while True:
                self.wait_for_gift(claim, deadline)
                stream = self.take_gift(claim)
                if stream is not None:
                    return stream
        except BaseException as error:
            self.give_up(claim)
            self.blame_deadline(error, deadline, claim.doing)
            raise
        finally:
            self.seekers.discard(me)
            self.note_wait(since)

    cdef int queue_up(self, Claim claim, int64_t deadline) except -1:
        self.make_room()
        if not self.join(claim, deadline):
            self.timeouts += 1
            raise self.timed_out("none at once, and nobody may wait" if self.max_waiting == 0
                                 else f"{self.waiting.size - self.waiting.dialling} callers are waiting already")
        return 0

    cdef Stream take_gift(self, Claim claim):
        """The connection of a claim that is queued no longer; None when it is unfit and the claim is queued again."""
        cdef Stream stream
        cdef Reason reason
        if not isinstance(claim.gift, Stream):
            self.raise_gift(claim)
        stream = <Stream>claim.gift
        # A new connection is the caller's, whatever the peer does: else one that hangs up at once would be dialled
        # again and again.
        reason = self.spoilt(stream, posix.now()) if stream.uses or stream.rested else REASONS
        if reason == REASONS:
            return stream
        self.rejoin(claim)
        self.retire(stream, reason)
        return None

    cdef int begin(self, Claim claim, int64_t deadline) except -1:
        """Begins the dial that the owner of a claim is allowed."""
        if claim.wasted >= WASTED_DIALS:
            raise RuntimeError(f"{claim.wasted} new connections in a row were cleared before they could be lent: "
                               "does `dial` or `on_connect` clear the pool?")
        claim.dial = DIAL_BEGUN
        self._begin(claim, seconds_of(deadline))
        return 0

    cdef int wait_for_gift(self, Claim claim, int64_t deadline) except -1:
        """Sleeps and dials until the claim is queued no longer."""
        cdef Parker fresh
        while claim.queue is self.waiting:
            if claim.dial == DIAL_ALLOWED:
                self.begin(claim, deadline)
            elif claim.parker.woken:
                fresh = new_parker()
                claim.parker = fresh    # what happens from here on wakes this one
            else:
                heed_signals(claim.generation)  # a signal that came while this thread was awake does not wake it later
                if not claim.parker.park(self.patience(claim, deadline)) and claim.queue is self.waiting:
                    self.after_rest(claim, deadline)
        if claim.generation != posix.generation:
            raise_forked()
        return 0

    cdef int after_rest(self, Claim claim, int64_t deadline) except -1:
        """Nobody has woken the owner of a queued claim."""
        if posix.now() < deadline:
            self.make_room()
            return self.insist(claim)
        self.timeouts += 1
        raise self.timed_out("no connection in time" if claim.dial == NO_DIAL else f"timed out while {claim.doing}")

    cdef int raise_gift(self, Claim claim) except -1:
        """Raises what ended the claim; several callers each get an exception of their own."""
        cdef object error = claim.gift
        claim.gift = None
        if error is None:
            raise_pool_closed()
        if isinstance(error, PoolTimeout):
            self.timeouts += 1
        if claim.shared:
            error = twin_of(error)
        raise error

    cdef int blame_deadline(self, object error, int64_t deadline, object doing) except -1:
        """The end of acquire's own time is a PoolTimeout, whoever of those at work notices it first."""
        if isinstance(error, Timeout) and not isinstance(error, PoolTimeout) and posix.now() >= deadline:
            self.timeouts += 1
            raise self.timed_out(f"timed out while {doing or 'waiting for a dial'}") from error
        return 0

    cdef object timed_out(self, str text):
        error = PoolTimeout(f"{text} ({self.numbers()})")
        error.stats = self.stats()
        return error

    cdef void note_wait(self, int64_t since) noexcept:
        cdef int64_t waited = posix.now() - since
        self.wait_total += waited
        self.wait_longest = max(self.wait_longest, waited)

    # -- dials of others

    cdef int64_t patience(self, Claim claim, int64_t deadline) noexcept:
        """Until when the owner of a queued claim sleeps if nobody wakes it; then it calls `insist`."""
        cdef int64_t fresh = 0
        cdef Claim orphan
        if claim.dial != NO_DIAL or (self.is_full() and self.orphans.size == 0):
            return deadline
        if not self.gate.is_open():
            return min(deadline, self.gate.next_moment())
        if not self.is_full():
            fresh = posix.now() - self.orphan_patience
            deadline = min(deadline, claim.impatient_at)
        orphan = self.orphans.earliest(fresh)
        return deadline if orphan is None else min(deadline, orphan.dial_began + self.orphan_patience)

    cdef Claim obstacle(self):
        """The dial to be ended so that another one can begin, if there is one that nobody waits for."""
        cdef Claim orphan
        if self.orphans.size == 0 or not self.is_full() or not self.gate.is_open():
            return None
        orphan = self.orphans.earliest(0)
        return orphan if posix.now() >= orphan.dial_began + self.orphan_patience else None

    cdef int insist(self, Claim claim) except -1:
        """The owner has slept in vain: if it has no time to count on the dials of others it begins its own."""
        if claim.queue is self.waiting and claim.dial == NO_DIAL and posix.now() >= claim.impatient_at:
            self.allow(claim)
        return self.nudge()

    cdef int make_room(self) except -1:
        """Ends a dial that nobody waits for if it takes long and keeps another one from its place."""
        cdef Claim orphan = self.obstacle()
        if orphan is None:
            return 0
        self.orphan_patience *= 2       # which the age of the next one has to exceed, so it stays in bounds
        return self.end_orphan(orphan)

    cdef int end_orphan(self, Claim orphan) except -1:
        """Ends a dial that nobody waits for. If it cannot be ended it keeps its place, and nobody counts on it."""
        if orphan.doing is not None and self._cancel(orphan.doing):
            self._unanswered((posix.now() - orphan.dial_began) / 1e9)
            return self.fail(orphan, None, None)
        if orphan.queue is self.orphans:
            self.orphans.remove(orphan)
        return 0

    cdef int end_orphans(self) except -1:
        """The pool is closed, and so is what dials under way are at; who waits for their end is told in any case."""
        cdef Claim orphan
        while self.orphans.first is not None:
            orphan = self.orphans.first
            if orphan.gift is None:
                orphan.gift = PoolClosed("the pool is closed")
            self.end_orphan(orphan)
            orphan.parker.unpark()
        return 0

    cdef int give_up(self, Claim claim) except -1:
        """The caller wants no connection any more. The last one to go ends the dials that others have left behind."""
        cdef Claim orphan
        self.leave(claim)
        orphan = self.orphans.first
        while orphan is not None and self.waiting.size == 0:
            if orphan.abandoned:
                self.end_orphan(orphan)
                orphan = self.orphans.first     # that ran foreign code: the queue may be another one
            else:
                orphan = orphan.behind
        return 0


cdef object twin_of(object error):
    """The same exception once more, so that several threads do not write their tracebacks into one."""
    from copy import copy               # which only few need

    try:
        try:
            twin = copy(error)
        except Exception:               # its __init__ takes something else than its arguments
            twin = type(error).__new__(type(error), *error.args)
            twin.__dict__.update(error.__dict__)
        twin.args = error.args
        twin.__cause__, twin.__suppress_context__ = error.__cause__, error.__suppress_context__
        return twin
    except Exception:
        return error                    # one for all is better than none
