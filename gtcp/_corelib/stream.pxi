# A connection and its operations. Every operation is a step that never has to block: it is done, or it
# says what it waits for. The blocking calls at the end of this part are loops of step and wait.
cimport cython
from libc.stdint cimport int64_t

from _socket import socket as raw_socket

cimport gtcp._corelib.posix as posix

cdef enum:
    # Units that may be taken out of the buffer before they are paid for.
    UNPAID = 64

cdef object detach_socket = raw_socket.detach
cdef int64_t streams = 0            # made so far


@cython.final
cdef class Stream(Sender):
    cdef Framing parser
    cdef Turn exchanging
    cdef int64_t number             # that no other stream has
    # How many units will have been taken when they are to be paid for; NEVER while nobody asks for that. Many bytes
    # bring it nearer.
    cdef int64_t due_at
    # Bytes that a receive into the caller's memory has put there.
    cdef Py_ssize_t in_target

    # For the pool: neighbours in the free list, moments in nanoseconds, leases so far.
    cdef Stream newer
    cdef Stream older
    cdef int64_t born
    cdef int64_t idle_since
    cdef int64_t expires_at
    cdef int64_t uses
    cdef bint rested                # has been idle in the pool

    # What the address layer knows: two tuples or strings of the socket module, or None.
    cdef object local
    cdef object remote

    def __cinit__(self):
        global streams
        streams += 1
        self.number = streams
        self.expires_at = self.due_at = NEVER
        self.parser = Framing()
        self.exchanging = Turn()

    # -- steps: never block unless wait.sleep says that the thread may

    cdef object recv_step(self, Unit* unit, Wait* wait):
        """The unit, or None with wait.events set. Raises at the end of the stream."""
        cdef object value
        while True:
            if not self.settle(wait):
                return None
            value = self.parser.take(unit)
            if value is not None:
                return value
            if self.end != OPEN:
                self._raise_end(unit)
            if not self.read_step(unit, wait):
                return None

    cdef bint read_step(self, Unit* unit, Wait* wait) except -1:
        """One read: True when bytes or the end have come, False with wait.events set."""
        cdef Framing parser = self.parser
        cdef Room room
        cdef Py_ssize_t n
        cdef bint bursting = parser.bursting()
        cdef bint flushed
        if wait.way != NULL:
            self.charge(wait, CALL)
        flushed = not self.has_gathered() or self.flush_step(wait)
        if wait.going:
            heed_signals(wait.generation)
            if late(wait):
                wait.events = posix.POLLIN
                wait.until = wait.deadline
                return False
        wait.going = True
        if not spend(wait):
            return False
        if bursting or not flushed or self.draining:
            wait.sleep = False
        self.in_target = unit.got
        if self.tls is None and self.is_drained(wait):
            self.just_read = 0
            n = -posix.EAGAIN           # and no need of room
        else:
            parser.make_room(unit, &room)
            room.size = min(room.size, posix.STRIDE)
            n = self.recv_some(&room, wait)
        if n > 0:
            parser.fill(unit, n, &room)
            self.due_at -= n >> WEIGHT
        elif self.closed or (flushed and self.ends(n)):
            self.raise_closed()
        elif n == -posix.EAGAIN:
            wait.events = posix.POLLIN if flushed else posix.POLLIN | posix.POLLOUT
            wait.until = min(wait.deadline, posix.now() + unit.gap) if bursting else wait.deadline
            parser.relax()
            if self.draining:
                self.drain()            # what keeps it from its end now may be over before something comes
            return False
        elif n == 0 and self.shut and not flushed:
            return False                # replies leave first: `flush_step` has said what they wait for
        elif passes(n):
            raise socket_error(n)
        else:
            self.end = n if n < 0 else PEER_CLOSED
            unit.final = True
        return True

    cdef inline bint settle(self, Wait* wait) except -1:
        """Units that lie in the buffer are not for nothing: False when others have to be served first."""
        return self.parser.units < self.due_at or self.charge(wait, 0)

    cdef bint charge(self, Wait* wait, int cost) except -1:
        """Pays for what has been taken, and for what comes now. False when others have to be served first."""
        cdef int64_t units = self.parser.units
        cdef int64_t due = max(<int64_t>0, units + UNPAID - self.due_at)
        self.due_at = units + UNPAID
        wait.credit -= due
        if wait.way != NULL:
            (<Way>wait.way).pay(due + cost)
            if self.closed:             # while others had their turn
                self.raise_closed()
        return solvent(wait)

    cdef bint rests(self) noexcept:
        """Nothing is under way: no unit has begun to arrive, and no exchange waits for its reply."""
        return self.parser.pending() == 0 and not self.in_target and self.just_read <= 0 \
            and (self.tls is None or not self.tls.inside_record()) \
            and not self.exchanging.owner and not self.sending.owner

    cdef inline bint ends(self, Py_ssize_t n) noexcept:
        """A server that ends is done with a connection on which a read gave this."""
        if n != 0 and n != -posix.EAGAIN:
            return False
        return self.draining and ((self.shut and n == 0) or self.rests())

    cdef int drain(self) except -1:
        """Ends the receive that waits for the peer's next unit, and later ones; what has arrived is delivered."""
        cdef AfterSend again
        self.draining = True
        if self.closed or self.fd < 0 or self.generation != posix.generation:
            return 0
        if self.sending.owner:
            again = AfterSend()
            again.stream = self
            self.sending.after = again
        if self.receiver and self.rests() and posix.look(self.fd) == -posix.EAGAIN:
            self.shut = True
            posix.shutdown(self.fd, posix.SHUT_RD)      # which, unlike closing, loses nothing that came
        return 0

    cdef int _raise_end(self, Unit* unit) except -1:
        if self.end < 0:
            raise socket_error(self.end)
        partial, expected = self.parser.cut_off(unit)
        if not partial and expected is None:
            end = EOF()
        else:
            end = EOF(f"EOF after {len(partial)} of {'?' if expected is None else expected} bytes", partial, expected)
        end._stream = self.number
        raise end

    # -- who may do what

    cdef int claim_exchange(self, int64_t deadline) except -1:
        """The right to send and to receive what answers it: other exchanges queue up, a plain receiver is refused."""
        self.claim_turn(self.exchanging, deadline)
        try:
            self.claim_receiver()
        except:
            self.exchanging.give()
            raise
        return 0

    cdef inline int give_exchange(self) except -1:
        self.receiver = 0
        return self.exchanging.give()

    # -- blocking calls

    cdef object receive(self, Unit* unit, int64_t deadline):
        """One unit, waiting for it until the deadline."""
        cdef object value
        if self.parser.buf.unread() and not self.receiver and not self.closed and self.broken is None \
                and self.parser.units < self.due_at:
            # It may be here already, and then nobody else is concerned.
            try:
                value = self.parser.take(unit)
            except:
                self._after_failed_receive(unit)
                raise
            if value is not None:
                return value
        self.enter()
        try:
            self.claim_receiver()
            try:
                return self._receive(unit, deadline)
            finally:
                self.receiver = 0
        finally:
            self.leave()

    cdef object _receive(self, Unit* unit, int64_t deadline):
        cdef Wait wait
        cdef object value
        start_wait(&wait, deadline)
        try:
            while True:
                value = self.recv_step(unit, &wait)
                if value is not None:
                    return value
                if not self.wait(&wait):
                    # What arrived at the last moment counts.
                    wait.sleep = False
                    unit.final = True
                    value = self.recv_step(unit, &wait)
                    if value is not None:
                        return value
                    raise Timeout("timed out while receiving")
        except:
            self._after_failed_receive(unit)
            raise

    cdef int _after_failed_receive(self, Unit* unit) except -1:
        """Bytes that were received for a unit that did not become whole stay with the connection."""
        if unit.kind == INTO and unit.got:
            self.parser.put_back(unit.target, unit.got)
        if self.tls is not None and hasattr(self.tls.fault, "partial"):
            self.tls.fault.partial, self.tls.fault.expected = self.parser.cut_off(unit)
        if self.parser.lost:
            self.broken = "memory ran out while receiving"
        elif self.parser.oversized:
            self.broken = "a package was too long"
        return self._after_failed_tls()

    cdef object exchange(self, Out* out, int64_t send_deadline, Unit* unit, int64_t recv_deadline):
        """Sends, then receives; no other exchange gets in between."""
        cdef object value = None
        self.enter()
        try:
            self.claim_exchange(min(send_deadline, recv_deadline))
            try:
                if out.sent == 0:       # else it goes on after a pause
                    self.parser.check_in_step()
                self.claim_turn(self.sending, send_deadline)
                try:
                    self._send(out, send_deadline)
                finally:
                    self.sending.give()
                value = self._receive(unit, recv_deadline)
                return value
            finally:
                if value is None and out.sent:
                    self.parser.await_late(1)
                self.give_exchange()
        finally:
            self.leave()

    cdef int handshake(self, int64_t deadline) except -1:
        """Blocks until both sides have agreed on TLS. Nobody else may send or receive meanwhile."""
        cdef Wait wait
        start_wait(&wait, deadline)
        self.enter()
        try:
            self.claim_exchange(deadline)
            try:
                self.claim_turn(self.sending, deadline)
                try:
                    self._handshake(&wait)
                finally:
                    self.sending.give()
            finally:
                self.give_exchange()
        finally:
            self.leave()
        return 0

    cdef int _handshake(self, Wait* wait) except -1:
        try:
            while not self.handshake_step(wait):
                if not self.wait(wait):
                    if self.handshake_step(wait):
                        break
                    raise Timeout("timed out during the TLS handshake")
        except BaseException as error:
            self.after_failed_handshake(error)
            raise
        return 0

    cdef int after_failed_handshake(self, object error) except -1:
        if isinstance(error, EOF):
            error._stream = self.number
        self.broken = "the TLS handshake failed"
        self.tls.flush(self.fd)         # the alert that tells the peer why
        return 0

    # -- the end

    cdef int close(self, bint reset=False, int64_t patience=0) except -1:
        """Closes once; wakes everybody who sleeps in a call on this connection.

        With TLS the peer's goodbye is waited for, if nobody else uses the connection: `patience` nanoseconds at most.
        """
        if not self.begin_close():
            return 0
        try:
            if self.ending is not None:
                self.ending.set()
            if reset:
                if self.generation == posix.generation:     # else the parent's end would be a reset, too
                    posix.set_abort(self.fd)
            elif self.tls is not None:
                self.farewell(patience if self.users == 1 else 0)
        finally:
            self.finish_close(reset)
        return 0

    cdef bint begin_close(self) noexcept:
        """No call may begin any more; False when that is so already. The caller finishes it."""
        if self.closed:
            return False
        self.closed = True
        if self.fd < 0:
            return False
        if self.used_in != posix.generation:
            self.users = 0              # none of this process
        self.users += 1
        return True

    cdef int finish_close(self, bint reset=False) except -1:
        if self.tls is not None and not reset and self.generation == posix.generation and not self.receiver:
            self.swallow()
        if self.users > 1 and self.generation == posix.generation:
            # This wakes the sleepers. The other direction's goodbye would keep a reset from being one, but a
            # sleeping sender hears of nothing else.
            posix.shutdown(self.fd, posix.SHUT_RD if reset and not self.sending.owner else posix.SHUT_RDWR)
            self.sending.wake_all()
            self.exchanging.wake_all()
        self.leave()
        return 0

    cdef void release(self) noexcept:
        self.parser.buf.release()
        if self.gathered is not None:
            self.gathered.release()
        if self.tls is not None:
            self.tls.relax()
        Socket.release(self)

    # -- for the pool

    cdef int says(self) except? -1:
        """What an idle connection has to say: -EAGAIN nothing, 0 the peer closed, > 0 bytes, else -errno."""
        if self.end != OPEN:
            return 0
        return 1 if self.parser.pending() else self.quiet()

    cdef Py_ssize_t unread(self) except? -1:
        """Bytes that have been received and not been taken."""
        cdef Py_ssize_t n = self.parser.pending()
        return n if self.tls is None or self.generation != posix.generation else n + self.tls.unread()


@cython.final
cdef class AfterSend(Parker):
    """Has a connection drained that a send was under way on."""
    cdef Stream stream

    cdef int unpark(self) except -1:
        return self.stream.drain()


cdef Stream adopt(object sock, object local, object remote):
    """A stream over a connected socket, which it owns from now on, also when this fails."""
    cdef Stream stream = Stream()
    cdef int error
    # socket.socket's own `detach` is Python code: a signal handler could raise in it and lose the descriptor.
    stream.fd = detach_socket(sock) if isinstance(sock, raw_socket) else sock.detach()
    stream.local = local
    stream.remote = remote
    stream.born = posix.now()
    error = posix.adopt(stream.fd)
    if error < 0:
        raise socket_error(error)
    return stream
