# A handle on loan from a pool: how it is filled, and how it comes back.
cimport cython
from libc.stdint cimport int64_t

cimport gtcp._corelib.posix as posix
from gtcp._corelib.object cimport new_object

cdef enum:
    # Between attempts to find a connection that the user's hooks accept, from 2 to 150 ms, and how many there are.
    CHECK_PAUSE = 1000000
    CHECK_PAUSE_LAST = 150000000
    SPOILT_LEASES = 8

cdef object NOT_GIVEN = object()
UNSET = NOT_GIVEN               # for the Python layer
cdef tuple NOTHING = ()


cdef class Lender(Seeker):
    # Accounting, waiting, and what handles ask for.
    cdef type lease_type
    cdef type conn_type
    cdef bint one_way               # a lease may end without a reply to its last send
    cdef int64_t timeout            # of acquire, in nanoseconds
    # Whether the layer above wants to be asked and told: `_greet`, `_part`, `_mourn`.
    cdef str greeters               # what `_greet` calls; empty for nothing
    cdef bint greets
    cdef bint parts
    cdef bint mourns
    cdef dict held                  # what `_hold` notes of each lease, by id; None when nobody watches them
    # (stream, reason) of what ended where no hook can run: in finalizers, amid acquire, in the hook itself.
    cdef list unmourned
    cdef set mourners               # who() is in the hook
    cdef bint unwatched             # in a child nobody looks after the pool before its first lease
    cdef int64_t tended_until       # a pool below min_idle need not be looked after before this moment
    cdef object __weakref__

    def __cinit__(self, *args, **kwargs):
        self.unmourned = []
        self.mourners = set()

    cdef int lend(self, BaseConn lease, object timeout) except -1:
        cdef int64_t wait = self.timeout if timeout is NOT_GIVEN else nanoseconds(timeout, "timeout")
        cdef int64_t now = posix.now()
        cdef int64_t deadline = after(now, wait)
        cdef Stream stream
        cdef int attempt = 0, spoilt = 0
        cdef int64_t pause
        if self.generation != posix.generation:
            self.after_fork()
        if self.closed:
            raise_pool_closed()
        while True:
            stream = self.borrow(now)
            if stream is None:
                stream = self.obtain(now, deadline)
                now = posix.now()
            if lease.home is not None:
                self.give_back(stream, now)
                lease._check_new()      # another thread has opened it meanwhile
            self.fill(lease, stream, now)
            if not self.greets or self.greet(lease, stream, deadline):
                return self.note_lease(lease, now)
            attempt += 1
            pause = 0
            # A new connection that is no good will be followed by others like it, and one that is idle again by itself;
            # an old one may be the last.
            if not lease.reused or not stream.closed:
                spoilt += 1
                pause = self.pause_after(spoilt)
            now = posix.now()
            if now >= deadline or pause and not pause_within(pause, deadline):
                self.timeouts += 1
                raise self.timed_out(f"no connection passed the check in time, {attempt} did not")
            now = posix.now()

    cdef int fill(self, BaseConn lease, Stream stream, int64_t now) except -1:
        """Makes the handle one for this connection, which is on loan."""
        lease.home = self
        lease.stream = stream
        lease.reused = stream.uses > 0 or stream.rested
        lease.lent_at = now
        stream.uses += 1
        return 0

    cdef int note_lease(self, BaseConn lease, int64_t now) except -1:
        """Counts it, and tells who watches over leases and idle connections. If that fails, the lease ends."""
        self.acquired += 1
        self.reused += lease.reused
        if self.held is None and self.idle.size >= self.min_idle and not self.unwatched:
            return 0
        try:
            if self.unwatched:
                self.unwatched = False
                self._call_if_needed()
            if self.held is not None:
                self._hold(lease)
            if self.idle.size < self.min_idle:
                self.fill_soon(now)
        except:
            self.take_back(lease, False)    # a signal's exception
            raise
        return 0

    cdef int fill_soon(self, int64_t now) except -1:
        """Has idle connections dialled: at once, but in a burst of leases not for each of them."""
        if now >= self.tended_until:
            self.tended_until = now + 10 * posix.MILLISECOND
            return self.call_at(now)
        return self.call_at(self.tended_until)

    cdef bint greet(self, BaseConn lease, Stream stream, int64_t deadline) except -1:
        """Whether the user's check and hook accept the lease; the handle is empty again if not."""
        lease.answered = True           # for the time being: a dead connection fails the check, it is not replaced
        try:
            if self._greet(lease, lease.reused, seconds_of(deadline)) and self.is_in_step(lease, stream):
                return True
        except BaseException as error:
            self.reject(lease, stream, ERROR)
            self.blame_deadline(error, deadline, "waiting for on_acquire")
            raise
        self.reject(lease, stream, CHECK)
        return False

    cdef int64_t pause_after(self, int spoilt) except -1:
        """What to wait after so many connections that the hooks left unfit; there is an end to it."""
        if spoilt == SPOILT_LEASES:
            raise RuntimeError(f"{self.greeters} ended {spoilt} leases in a row or left them out of step")
        return min(CHECK_PAUSE << spoilt, CHECK_PAUSE_LAST)

    cdef bint is_in_step(self, BaseConn lease, Stream stream) noexcept:
        """The check and the hook have left the lease fit for its user, whose traces begin here."""
        if lease.stream is not stream or self.verdict(lease, stream) != REASONS:
            return False
        lease.owed = lease.answered = False
        lease.ahead = 0
        lease.recv_deadline = lease.send_deadline = NEVER
        return True

    cdef int reject(self, BaseConn lease, Stream stream, Reason reason) except -1:
        """Undoes `fill`; the connection is closed."""
        lease.home = None
        lease.failed = lease.owed = lease.answered = False
        lease.ahead = 0
        if lease.stream is not stream:
            return 0                    # the hook has ended the lease by itself
        lease.stream = None
        return self.retire(stream, reason)

    # -- what lease handles ask for

    cdef int renew(self, object lease_, int64_t deadline) except -1:
        """A lease keeps its place and gets a new connection for its stale one."""
        cdef BaseConn lease = <BaseConn>lease_
        cdef Stream stale = lease.stream
        if stale is None:
            raise_closed()
        stale.close()
        return self.replace(lease, stale, self.redial(deadline))

    cdef int replace(self, BaseConn lease, Stream stale, Stream stream) except -1:
        """The new connection takes the place of the stale one."""
        if stale.generation != posix.generation:
            stream.close()              # the lease is the parent's
            raise_closed()
        if stale.gathered is not None:
            stream.gathered = ByteBuffer()
        self.created += 1
        self.lent.push(stream)
        if lease.stream is not stale or self.closed:
            self.give_back(stream, posix.now())
            if self.closed:
                raise_pool_closed()
            raise_closed()              # somebody else has ended the lease meanwhile
        self.lent.remove(stale)
        self.closed_for[<int>PEER] += 1
        stream.uses = 1
        stream.gathering = stale.gathering      # nothing waits there: it would be owed a reply
        lease.stream = stream
        return self.bury(stale, PEER)

    cdef Stream redial(self, int64_t deadline):
        """A connection for a lease that has a place already."""
        cdef BaseConn conn
        try:
            conn = <BaseConn>self._redial(seconds_of(deadline))
        except:
            self.failed += 1
            raise
        return self.take_over(conn)

    cdef Stream take_over(self, BaseConn conn):
        """`take_stream` of a handle that nobody else would close if that fails."""
        try:
            return self.take_stream(conn)
        except:
            conn._end(True)
            raise

    cdef Stream take_stream(self, BaseConn conn):
        """The connection of a handle that a dial made, with the end of its life stamped on it."""
        cdef Stream stream = conn.open_stream()
        cdef object lifetime = self._lifetime()
        if stream.closed or stream.end != OPEN or stream.broken is not None or conn.failed or stream.users:
            raise BrokenError("dial or on_connect has left a connection that is closed, in use or out of step, as it "
                              "is when a call on it failed")
        if lifetime is not None:
            stream.expires_at = after(stream.born, nanoseconds(lifetime, "lifetime"))
        conn.stream = None
        return stream

    cdef int take_back(self, object lease_, bint discard) except -1:
        """Ends a lease, once: its connection is kept if it is healthy, empty and in step, else closed."""
        cdef BaseConn lease = <BaseConn>lease_
        cdef Stream stream = lease.stream
        cdef Reason reason
        if stream is None:
            return 0                    # another thread has ended it meanwhile
        if stream.generation != posix.generation:
            lease.stream = None
            return stream.close()       # the parent's: let go, and in no book of this process
        if lease.parting:               # called by the hook, or by another thread meanwhile
            lease.failed = lease.failed or discard
            return 0
        if stream.tls is not None and self.holds_plaintext(lease, stream):
            lease.failed = True
        if lease.stream is not stream:
            return 0                    # another thread has ended it meanwhile
        reason = DISCARDED if discard else self.verdict(lease, stream)
        if self.parts and reason == REASONS:
            return self.part(lease, stream)
        return self.end_loan(lease, stream, reason)

    cdef int end_loan(self, BaseConn lease, Stream stream, Reason reason) except -1:
        """The handle is dead from now on; its connection goes on, if there is no reason why it must not."""
        cdef int64_t now = posix.now()
        self.end_lease(lease, now)
        if reason != REASONS:
            return self.retire(stream, reason)
        return self.give_back(stream, now)

    cdef int keep(self, Stream stream, int64_t now) except -1:
        return self.call_at(min(after(now, self.ttl), stream.expires_at))

    cdef bint holds_plaintext(self, BaseConn lease, Stream stream) except -1:
        """TLS has bytes inside that nobody took."""
        if lease.failed or stream.closed or stream.broken is not None:
            return False
        return stream.tls.unread() > 0

    cdef int part(self, BaseConn lease, Stream stream) except -1:
        """The end of a loan whose connection is fit: the hook sees the lease first, then comes the verdict."""
        cdef bint accepted
        lease.parting = True
        lease.answered = True           # a connection that turns out to be dead is not replaced
        try:
            accepted = self._part(lease)
        except:                         # a signal's exception
            self.end_loan(lease, stream, ERROR)
            raise
        return self.end_loan(lease, stream, self.verdict(lease, stream) if accepted else ERROR)

    cdef int end_lease(self, BaseConn lease, int64_t now) except -1:
        """The handle has no connection any more."""
        cdef int64_t used = now - lease.lent_at
        if self.held is not None:
            self.held.pop(<size_t><void*>lease, None)
        lease.stream = None
        self.use_total += used
        self.use_longest = max(self.use_longest, used)
        return 0

    cdef Reason verdict(self, BaseConn lease, Stream stream) noexcept:
        """Why a connection must not serve another lease; REASONS when it may."""
        if stream.end != OPEN:
            return PEER
        if stream.closed and self.closed:
            return CLEARED              # cut by `close`
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
        """Ends a lease that was dropped without being closed. Runs in finalizers, so nothing foreign is called."""
        cdef BaseConn lease = <BaseConn>lease_
        cdef Stream stream = lease.stream
        self.end_lease(lease, posix.now())
        self.lent.remove(stream)
        self.closed_for[<int>LEAKED] += 1
        self.nudge()
        stream.close()
        if self.mourns:
            self.unmourned.append((stream, <int>LEAKED))
        if self.mourns or self.idle.size < self.min_idle:
            self.call_soon()
        return 0

    cdef int bury(self, Stream stream, Reason reason) except -1:
        stream.close()
        if self.mourns and (who() in self.seekers or who() in self.mourners):
            self.unmourned.append((stream, <int>reason))    # the hook could not use the pool, or would call itself
            self.call_at(0)
        elif self.mourns:
            self.mourn(stream, reason)
        if self.idle.size < self.min_idle and not self.closed:
            self.fill_soon(posix.now())
        return 0

    cdef int mourn(self, Stream stream, int reason) except -1:
        """Tells the hook, with a handle that still knows its addresses."""
        cdef BaseConn conn = <BaseConn>new_object(self.conn_type, NOTHING)
        cdef object me = who()
        conn.stream = stream
        self.mourners.add(me)
        try:
            self._mourn(conn, REASON_NAMES[reason])
        finally:
            self.mourners.discard(me)
        return 0

    cdef int call_at(self, int64_t moment) except -1:
        """The pool wants to be looked after at that moment."""
        if the_alarm.is_later(moment) and not the_alarm.advance(moment):
            self._watch()
        return 0

    cdef int call_soon(self) except -1:
        """The same at once, from a finalizer."""
        the_alarm.advance(0)
        return 0

    cdef int after_fork(self) except -1:
        self.seekers = set()
        self.unmourned = []
        self.mourners = set()
        self.unwatched = True
        FreeList.after_fork(self)
        self._forked()
        return 0
