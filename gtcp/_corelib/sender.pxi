# A connection's sending side: everything or an exception that says how much, at once or gathered with other sends.
from libc.stdint cimport int64_t

cimport gtcp._corelib.posix as posix
cimport gtcp._corelib.way as way

cdef enum:
    # Gathered sends leave when there are more bytes than this.
    GATHERED = 65536


cdef class Sender(Transport):
    # Sends that wait to leave together; None unless the user asked for that, which may be nested.
    cdef ByteBuffer gathered
    cdef int gathering

    # -- blocking calls

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
        if self.gathered is not None:
            if not self.gathers(out):
                self._flush(deadline)
            if self.gathers(out):
                return self.gather(out)
        return self._transmit(out, deadline)

    cdef int _transmit(self, Out* out, int64_t deadline) except -1:
        cdef Wait wait
        cdef int attempt = 0
        start_wait(&wait, deadline)
        while True:
            try:
                if wait.way != NULL:
                    (<Way>wait.way).pay(CALL + (min(out.size, posix.STRIDE) >> WEIGHT))
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
            if delay is not None and self.pause(nanoseconds(delay, "delay"), deadline):
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

    cdef int _after_failed_tls(self) except -1:
        if self.tls is not None and self.tls.fault is not None:
            self.broken = f"TLS failed: {self.tls.fault}"
            self.tls.flush(self.fd)     # the alert that tells the peer why
        return 0

    # -- gathered sends: small ones wait in a buffer until a receive is about to wait, the buffer is full, or the end

    cdef inline bint gathers(self, Out* out) noexcept:
        """The send can wait together with those that wait already, until the caller waits itself."""
        return self.gathering and out.header_size + out.size <= GATHERED - self.gathered.unread() \
            and (not self.receiver or self.receiver == who() or (way.get() != NULL and (<Way>way.get()).flushes()))

    cdef inline bint gathers_now(self, Out* out) noexcept:
        """The same, and nobody else is concerned."""
        return self.gathers(out) and not self.sending.owner and not self.closed and self.broken is None

    cdef int gather(self, Out* out) except -1:
        """Puts a send behind those that wait. Nobody else sends meanwhile."""
        cdef Py_ssize_t size = out.header_size + out.size
        self.gathered.reserve(size)
        if self.gathered.unread() == 0 and way.get() != NULL and (<Way>way.get()).flushes():
            (<Way>way.get()).gathers(self)
        self.gathered.put(out.header, out.header_size)
        self.gathered.put(out.data, out.size)
        out.sent = size
        return 0

    cdef inline bint has_gathered(self) noexcept:
        """Gathered sends have yet to leave, or the records that they are in."""
        return self.gathered is not None and (
            self.gathered.unread() > 0 or self.tls is not None and self.tls.leaving is not None)

    cdef int enter_to_flush(self) except -1:
        """`enter`, also when the connection has broken since: what was given before may leave."""
        if self.closed:
            self.raise_closed()
        return self.join_users()

    cdef int let_leave(self) except -1:
        cdef Wait wait
        if self.closed or not self.has_gathered():
            return 0
        start_wait(&wait, NEVER)
        wait.way = NULL                 # nor does it step aside: it would end there when it is killed
        try:
            self.enter_to_flush()
            try:
                if not self.flush_step(&wait):
                    (<Hub>current_way()).spawn(self.leave_when_there_is_room)
            finally:
                self.leave()
        except Exception:
            self._after_failed_tls()
        return 0

    def leave_when_there_is_room(self):
        """For a greenlet of its own."""
        try:
            self.flush(NEVER)
        except Exception:
            pass                        # what has not left makes the next call fail, too

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
        self.enter_to_flush()
        try:
            if not self.sending.take(deadline):
                raise Timeout("timed out waiting for another call on this connection")
            try:
                if self.closed:         # since the wait began
                    self.raise_closed()
                self._flush(deadline)
            finally:
                self.sending.give()
        finally:
            self.leave()
        return 0
