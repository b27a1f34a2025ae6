# Who wants a connection of a pool and has none yet: the queue, and the gate in front of an address that
# cannot be reached. How the owner of a claim waits is its parker's affair.
cimport cython
from libc.stdint cimport int64_t

cimport gtcp._corelib.posix as posix

cdef enum DialState:
    NO_DIAL
    DIAL_ALLOWED                # a place is reserved: the owner shall begin a dial
    DIAL_BEGUN                  # the owner is at it
    DIAL_ELSEWHERE              # somebody else brings the dial to its end

cdef enum:
    # Failed dials in a row make the next one wait, the first time 20 ms, twice as long each time, 150 ms at
    # most, less a random share of up to a half: a request soon after the address is back is served in 200 ms.
    BACKOFF_FIRST = 20000000
    BACKOFF_LAST = 150000000
    # A probe that says nothing for a second no longer keeps the next one from its try.
    PROBE_PATIENCE = 1000000000
    # A dial whose caller was served otherwise spares the next caller one of its own, for 250 ms: without that, a
    # busy pool would begin a dial for each lease while the first of them is under way. After that it makes room for
    # another one if there is none; each time twice as late until one succeeds, or a slow dial never would.
    ORPHAN_PATIENCE = 250000000
    # So many connections in a row that were cleared before they were lent are no accident.
    WASTED_DIALS = 8


@cython.final
cdef class Claim:
    """A caller's claim to a connection: ends with a gift, a Stream or the exception to raise."""
    cdef Parker parker              # wakes the owner: look again
    cdef object gift
    cdef bint shared                # the gift is an exception that others get too
    cdef int64_t since
    cdef int64_t impatient_at       # half of its time is over: it counts on nobody else's dial any more
    cdef DialState dial
    cdef object doing               # what tells how far somebody else is with it
    cdef int64_t dial_began
    cdef bint probing
    cdef bint abandoned             # the owner gave up, the dial goes on for others
    cdef int wasted                 # dials of its own whose connection was cleared at once
    cdef unsigned long generation
    # The queue that it is in, and its neighbours there.
    cdef ClaimQueue queue
    cdef Claim before
    cdef Claim behind

    def __cinit__(self):
        self.generation = posix.generation


@cython.final
cdef class ClaimQueue:
    """Claims in the order in which they came."""
    cdef Claim first
    cdef Claim last
    cdef Py_ssize_t size
    cdef Py_ssize_t dialling        # those with a dial of their own, allowed or under way

    cdef void push(self, Claim claim) noexcept:
        claim.before = self.last
        if self.last is None:
            self.first = claim
        else:
            self.last.behind = claim
        self.last = claim
        self._entered(claim)

    cdef void push_front(self, Claim claim) noexcept:
        claim.behind = self.first
        if self.first is None:
            self.last = claim
        else:
            self.first.before = claim
        self.first = claim
        self._entered(claim)

    cdef inline void _entered(self, Claim claim) noexcept:
        claim.queue = self
        self.size += 1
        if claim.dial != NO_DIAL:
            self.dialling += 1

    cdef void remove(self, Claim claim) noexcept:
        if claim.before is None:
            self.first = claim.behind
        else:
            claim.before.behind = claim.behind
        if claim.behind is None:
            self.last = claim.before
        else:
            claim.behind.before = claim.before
        claim.before = claim.behind = None
        claim.queue = None
        self.size -= 1
        if claim.dial != NO_DIAL:
            self.dialling -= 1

    cdef Claim earliest(self, int64_t moment):
        """Of those whose dial began after that, the one that began first."""
        cdef Claim claim = self.first
        cdef Claim found = None
        while claim is not None:
            if claim.dial_began > moment and (found is None or claim.dial_began < found.dial_began):
                found = claim
            claim = claim.behind
        return found

    cdef Py_ssize_t begun_since(self, int64_t moment) noexcept:
        """How many have dials that began after that."""
        cdef Claim claim = self.first
        cdef Py_ssize_t count = 0
        while claim is not None:
            count += claim.dial_began > moment
            claim = claim.behind
        return count

    cdef Claim first_without_dial(self):
        cdef Claim claim = self.first
        while claim is not None and claim.dial != NO_DIAL:
            claim = claim.behind
        return claim


@cython.final
cdef class Gate:
    """When the address may be dialled: always, or after failures one probe at a time, with pauses."""
    cdef int failures               # in a row
    cdef int64_t opens_at
    cdef Py_ssize_t probes          # dials under way that began after a failure
    cdef int64_t probe_began        # the last of them
    cdef str trouble                # what the last failure said

    cdef inline bint is_open(self) noexcept:
        return self.failures == 0 or posix.now() >= self.next_moment()

    cdef int64_t next_moment(self) noexcept:
        """When it opens, if nothing happens before; in the past when it is open."""
        if self.failures == 0:
            return 0
        return max(self.opens_at, self.probe_began + PROBE_PATIENCE) if self.probes else self.opens_at

    cdef void enter(self, Claim claim) noexcept:
        """A dial begins."""
        if self.failures:
            claim.probing = True
            self.probes += 1
            self.probe_began = posix.now()

    cdef void leave(self, Claim claim) noexcept:
        if claim.probing:
            claim.probing = False
            self.probes -= 1

    cdef void succeeded(self) noexcept:
        self.failures = 0
        self.trouble = None

    cdef void failed(self, str trouble) noexcept:
        cdef int64_t now = posix.now()
        cdef int64_t pause = min(<int64_t>BACKOFF_LAST, <int64_t>BACKOFF_FIRST << min(self.failures, 10))
        pause -= pause * (now // 1000 % 500) // 1000        # the clock's digits are random enough
        self.failures += 1
        self.opens_at = now + pause
        self.trouble = trouble
