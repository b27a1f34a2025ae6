# A connection and its operations. Every operation is a step that never has to block: it is done, or it
# says what it waits for. The blocking calls at the end of this part are loops of step and wait.
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t

from _socket import socket as raw_socket

cimport gtcp._corelib.posix as posix

cdef object detach_socket = raw_socket.detach

cdef enum:
    # Gathered sends leave when there are more bytes than this.
    GATHERED = 65536


@cython.final
cdef class Stream(Transport):
    cdef Framing parser
    cdef Turn exchanging
    # A server ends: whoever would wait for the peer's next unit finds the connection closed.
    cdef bint draining
    # Sends that wait to leave together; None unless the user asked for that, which may be nested.
    cdef ByteBuffer gathered
    cdef int gathering

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
        self.expires_at = NEVER
        self.parser = Framing()
        self.exchanging = Turn()

    # -- steps: never block unless wait.sleep says that the thread may

    cdef object recv_step(self, Unit* unit, Wait* wait):
        """The unit, or None with wait.events set. Raises at the end of the stream."""
        cdef object value
        while True:
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
        cdef bint flushed = not self.has_gathered() or self.flush_step(wait)
        if wait.going:
            PyErr_CheckSignals()
            if late(wait):
                wait.events = posix.POLLIN
                wait.until = wait.deadline
                return False
        wait.going = True
        if not spend(wait):
            return False
        parser.make_room(unit, &room)
        if bursting or not flushed or self.draining:
            wait.sleep = False
        n = self.recv_some(&room, wait)
        if n > 0:
            parser.fill(unit, n, &room)
        elif self.closed or (self.draining and (n == 0 or n == -posix.EAGAIN) and not unit.got and self.rests()):
            self.raise_closed()
        elif n == -posix.EAGAIN:
            wait.events = posix.POLLIN if flushed else posix.POLLIN | posix.POLLOUT
            wait.until = min(wait.deadline, posix.now() + unit.gap) if bursting else wait.deadline
            parser.relax()
            return False
        else:
            self.end = n if n < 0 else PEER_CLOSED
            unit.final = True
        return True

    cdef bint rests(self) noexcept:
        """Nothing is under way: no unit has begun to arrive, and no exchange waits for its reply."""
        return self.parser.pending() == 0 and not self.exchanging.owner and not self.sending.owner

    cdef int drain(self) except -1:
        """Ends the receive that waits for the peer's next unit, and later ones; what has arrived is delivered."""
        self.draining = True
        if self.closed or self.fd < 0 or self.generation != posix.generation:
            return 0
        if self.receiver and self.rests() and posix.look(self.fd) == -posix.EAGAIN:
            self.shut = True
            posix.shutdown(self.fd, posix.SHUT_RD)      # which, unlike closing, loses nothing that came
        return 0

    cdef int _raise_end(self, Unit* unit) except -1:
        if self.end < 0:
            raise socket_error(self.end)
        partial, expected = self.parser.cut_off(unit)
        if not partial and expected is None:
            raise EOF()
        raise EOF(f"EOF after {len(partial)} of {'?' if expected is None else expected} bytes", partial, expected)

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

    # -- gathered sends: small ones wait in a buffer until a receive is about to wait, the buffer is full, or the end

    cdef int gather(self, Out* out, int64_t deadline) except -1:
        """Puts a send behind those that wait; what does not fit makes all leave first. The caller has the turn."""
        cdef Py_ssize_t size = out.header_size + out.size
        if self.gathered.unread() + size > GATHERED:
            self._flush(deadline)
        if size > GATHERED:
            return self._transmit(out, deadline)
        self.gathered.append(out.header, out.header_size)
        self.gathered.append(out.data, out.size)
        out.sent = size
        return 0

    cdef inline bint has_gathered(self) noexcept:
        """Gathered sends have yet to leave, or the records that they are in."""
        return self.gathered is not None and (
            self.gathered.unread() > 0 or self.tls is not None and self.tls.leaving is not None)

    cdef bint flush_step(self, Wait* wait) except -1:
        """True when nothing waits any more, or another call sends just now; else False with wait.events set."""
        cdef Out out
        if not self.sending.try_take():
            return True
        try:
            load_buffered(&out, self.gathered)
            try:
                return self.send_step(&out, wait)
            finally:
                self.gathered.consume(out.sent)
                self.gathered.relax()
        finally:
            self.sending.give()

    cdef int _flush(self, int64_t deadline) except -1:
        """Sends what waits; what cannot leave in time stays, so nothing is cut in two. The caller has the turn."""
        cdef Out out
        if not self.has_gathered():
            return 0
        load_buffered(&out, self.gathered)
        try:
            self._transmit(&out, deadline)
        finally:
            self.gathered.consume(out.sent)
            self.gathered.relax()
        return 0

    cdef int flush(self, int64_t deadline) except -1:
        """Sends what waits."""
        if not self.has_gathered():
            return 0
        self.enter()
        try:
            self.claim_turn(self.sending, deadline)
            try:
                self._flush(deadline)
            finally:
                self.sending.give()
        finally:
            self.leave()
        return 0

    # -- blocking calls

    cdef object receive(self, Unit* unit, int64_t deadline):
        """One unit, waiting for it until the deadline."""
        cdef object value
        if self.parser.buf.unread() and not self.receiver and not self.closed and self.broken is None:
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

    cdef int _after_failed_tls(self) except -1:
        if self.tls is not None and self.tls.fault is not None:
            self.broken = f"TLS failed: {self.tls.fault}"
            self.tls.flush(self.fd)     # the alert that tells the peer why
        return 0

    cdef int transmit(self, Out* out, int64_t deadline) except -1:
        """Hands everything to the kernel, waiting for its buffers and for other senders."""
        self.enter()
        try:
            self.claim_turn(self.sending, deadline)
            try:
                self._send(out, deadline)
            finally:
                self.sending.give()
        finally:
            self.leave()
        return 0

    cdef inline int _send(self, Out* out, int64_t deadline) except -1:
        """The caller has the turn."""
        if self.gathered is None:
            return self._transmit(out, deadline)
        if self.gathering:
            return self.gather(out, deadline)
        self._flush(deadline)
        return self._transmit(out, deadline)

    cdef int _transmit(self, Out* out, int64_t deadline) except -1:
        cdef Wait wait
        cdef int attempt = 0
        start_wait(&wait, deadline)
        while True:
            try:
                while not self.send_step(out, &wait):
                    if not self.wait(&wait):
                        if self.send_step(out, &wait):
                            break
                        raise Timeout("timed out while sending")
                return 0
            except BaseException as error:
                if not self._pause(out, error, attempt, deadline):
                    raise
                attempt += 1

    cdef bint _pause(self, Out* out, object error, int attempt, int64_t deadline) except -1:
        """True after the pause that the retry policy prescribes, with the turn kept: nobody sends into a message."""
        try:
            delay = None if out.retry == NULL else (<object>out.retry).delay(attempt, error)
            if delay is not None and pause_within(nanoseconds(delay, "delay"), deadline):
                return True
        except BaseException as interruption:
            self._after_failed_send(out, interruption)
            raise
        self._after_failed_send(out, error)
        return False

    cdef int _after_failed_send(self, Out* out, object error) except -1:
        """A failure tells how much was sent; a package cut in two leaves the peer out of step for good."""
        if isinstance(error, Error):
            error.sent = max(0, out.sent - out.header_size)
        if 0 < out.sent < out.header_size + out.size and (out.header_size or not isinstance(error, Error)):
            self.broken = "an earlier send stopped in the middle"
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
        except:
            self.after_failed_handshake()
            raise
        return 0

    cdef int after_failed_handshake(self) except -1:
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
            if reset:
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
        return n if self.tls is None else n + self.tls.unread()


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
