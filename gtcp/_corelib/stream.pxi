# A connected socket and its operations. Every operation is a step that never has to block: it is done,
# or it says what it waits for. The blocking calls at the end of this part are loops of step and wait.
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from _socket import socket as raw_socket

cimport gtcp._corelib.posix as posix

cdef object detach_socket = raw_socket.detach

cdef enum StreamEnd:
    OPEN = 0
    PEER_CLOSED = 1             # a negative value is the -errno that ended the stream

cdef enum:
    # Sends at least this large are worth the GIL's release: other threads run while the kernel copies.
    LONG_SEND = 32768
    # Gathered sends leave when there are more bytes than this.
    GATHERED = 65536


@cython.final
cdef class Stream:
    # The socket; -1 once it is closed or detached.
    cdef int fd
    # Closed by this side. The descriptor itself lives until the last call in progress has left, so its
    # number cannot become somebody else's under a sleeping thread.
    cdef bint closed
    cdef int users
    # The process that opened it, as a count of forks: another one never shuts it down.
    cdef unsigned long generation
    # How the peer's bytes ended: OPEN, PEER_CLOSED or -errno; and why the stream lost step, or None.
    cdef Py_ssize_t end
    cdef str broken

    cdef Parser parser
    cdef Tls tls                    # None for plain TCP
    cdef Turn sending
    cdef Turn exchanging
    cdef size_t receiver            # who() receives, 0 for nobody
    # The SO_RCVTIMEO in force, 0 for none.
    cdef int64_t receive_timeout
    # Sends that wait to leave together; None unless the user asked for that, which may be nested.
    cdef ByteBuffer gathered
    cdef int gathering
    # Who keeps an eye on the socket between waits, and what was seen; None while nobody does.
    cdef Way watcher
    cdef Watch watch

    # For the pool: neighbours in the free list, moments in nanoseconds, leases so far.
    cdef Stream newer
    cdef Stream older
    cdef int64_t born
    cdef int64_t idle_since
    cdef int64_t expires_at
    cdef int64_t uses

    # What the address layer knows: two tuples or strings of the socket module, or None.
    cdef object local
    cdef object remote

    def __cinit__(self):
        self.fd = -1
        self.generation = posix.generation
        self.expires_at = NEVER
        self.parser = Parser()
        self.sending = Turn()
        self.exchanging = Turn()

    def __dealloc__(self):
        if self.fd >= 0:
            posix.close(self.fd)

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
        cdef Parser parser = self.parser
        cdef Room room
        cdef Py_ssize_t n
        cdef bint bursting = parser.bursting()
        cdef bint flushed = self.gathered is None or self.gathered.unread() == 0 or self.flush_step(wait)
        if wait.going:
            PyErr_CheckSignals()
            if late(wait):
                wait.events = posix.POLLIN
                wait.until = wait.deadline
                return False
        wait.going = True
        parser.make_room(unit, &room)
        if bursting or not flushed:
            wait.sleep = False
        n = self._recv(&room, wait) if self.tls is None else self._recv_tls(&room, wait)
        if n > 0:
            parser.fill(unit, n, &room)
            if n < room.size + room.more and self.watch is not None:
                self.watch.drained = not self.watch.ended
        elif n == -posix.EAGAIN:
            if self.watch is not None:
                self.watch.drained = not self.watch.ended
            wait.events = posix.POLLIN if flushed else posix.POLLIN | posix.POLLOUT
            wait.until = min(wait.deadline, posix.now() + unit.gap) if bursting else wait.deadline
            parser.relax()
            return False
        elif self.closed:
            raise_closed()
        else:
            self.end = n if n < 0 else PEER_CLOSED
            unit.final = True
        return True

    cdef Py_ssize_t _recv(self, Room* room, Wait* wait) except? -1:
        """One successful read: > 0 bytes, 0 at the peer's end, or -errno."""
        cdef int fd = self.fd
        cdef Py_ssize_t n
        if self.watch is not None and self.watch.drained and wait.way != NULL:
            return -posix.EAGAIN        # nothing has come since: no need to ask
        while True:
            if wait.sleep and self._arm(wait.deadline):
                with nogil:
                    if room.more:
                        n = posix.recv_two(fd, room.where, room.size, room.then, room.more, 0)
                    else:
                        n = posix.recv(fd, room.where, room.size, 0)
                if n == -posix.EAGAIN:
                    wait.sleep = False
            else:
                if room.more:
                    n = posix.recv_two(fd, room.where, room.size, room.then, room.more, posix.MSG_DONTWAIT)
                else:
                    n = posix.recv(fd, room.where, room.size, posix.MSG_DONTWAIT)
            if n != -posix.EINTR:
                return n
            PyErr_CheckSignals()

    cdef Py_ssize_t _recv_tls(self, Room* room, Wait* wait) except? -1:
        """The same through TLS: as much plaintext as fits and has come, for a full read to mean what it does in TCP."""
        cdef Tls tls = self.tls
        cdef Room records
        cdef Py_ssize_t n, got = 0
        records.size, records.more = CIPHERTEXT, 0
        while True:
            try:
                n = tls.read(room.where + got, room.size - got)
            except:
                if got and tls.fault is not None:
                    return got          # what came before the failure; the next read raises it again
                raise
            if n > 0:
                got += n
                if got < room.size:
                    continue
            if got:
                return got
            if n == 0:
                return 0
            tls.flush(self.fd)          # answers to what has been read; what cannot leave now waits for the next send
            records.where = tls.room()
            n = self._recv(&records, wait)
            if n < 0:
                tls.relax()
                return n
            tls.feed(tls.block, n)

    cdef bint _arm(self, int64_t deadline) noexcept:
        """Lets a blocking recv sleep for most of the time left; False when it must not sleep at all.

        The kernel's limit is the largest power of two below the time left, so it is seldom set anew;
        what remains is waited for by poll, which is exact.
        """
        cdef int64_t limit = 0
        if deadline != NEVER:
            limit = posix.floor_power(deadline - posix.now() - 10 * posix.MILLISECOND)
            if limit < 10 * posix.MILLISECOND:
                return False
        if limit != self.receive_timeout:
            if posix.set_timeout(self.fd, posix.SO_RCVTIMEO, limit) < 0:
                return False
            self.receive_timeout = limit
        return True

    cdef bint send_step(self, Out* out, Wait* wait) except -1:
        """True when all is with the kernel, or False with wait.events set."""
        cdef int fd = self.fd
        cdef Py_ssize_t total = out.header_size + out.size
        cdef Py_ssize_t n
        if self.tls is not None:
            return self._send_tls(out, wait)
        while out.sent < total:
            if total - out.sent >= LONG_SEND:
                with nogil:
                    n = posix.send_framed(
                        fd, out.header, out.header_size, out.data, out.size, out.sent, posix.MSG_DONTWAIT)
            else:
                n = posix.send_framed(
                    fd, out.header, out.header_size, out.data, out.size, out.sent, posix.MSG_DONTWAIT)
            if n >= 0:
                out.sent += n
                if out.sent == total:
                    break
                PyErr_CheckSignals()
                n = -posix.EAGAIN if late(wait) else 0
            if n == 0:
                continue
            if n == -posix.EAGAIN:
                wait.events = posix.POLLOUT
                wait.until = wait.deadline
                return False
            if n == -posix.EINTR:
                PyErr_CheckSignals()
            elif self.closed:
                raise_closed()
            else:
                raise socket_error(n)
        return True

    cdef bint _send_tls(self, Out* out, Wait* wait) except -1:
        """The same through TLS. What counts as sent are bytes in records; the next send flushes those that wait."""
        cdef Py_ssize_t total = out.header_size + out.size
        cdef Py_ssize_t n
        while True:
            n = self.tls.flush(self.fd)
            if n == 0 and out.sent < total and late(wait):
                n = -posix.EAGAIN
            if n == 0:
                if out.sent == total:
                    return True
                n = self.tls.write_framed(out)
                if n > 0:
                    out.sent += n
                elif not self._feed_tls(wait):
                    return False
            elif n == -posix.EAGAIN:
                wait.events = posix.POLLOUT
                wait.until = wait.deadline
                return False
            elif n == -posix.EINTR:
                PyErr_CheckSignals()
            elif self.closed:
                raise_closed()
            else:
                raise socket_error(n)

    cdef bint _feed_tls(self, Wait* wait) except -1:
        """One read of records that a handshake or a send needs: False with wait.events set when there are none."""
        cdef char* block = <char*>malloc(CIPHERTEXT)    # a receiver may be asleep in a read into the other one
        cdef Py_ssize_t n
        if block == NULL:
            raise MemoryError("no memory to receive TLS records")
        try:
            n = posix.recv(self.fd, block, CIPHERTEXT, posix.MSG_DONTWAIT)
            if n >= 0:
                self.tls.feed(block, n)
        finally:
            free(block)
        if n >= 0 or n == -posix.EINTR:
            PyErr_CheckSignals()
            return True
        if self.closed:
            raise_closed()
        if n != -posix.EAGAIN:
            raise socket_error(n)
        wait.events = posix.POLLIN
        wait.until = wait.deadline
        return False

    cdef bint handshake_step(self, Wait* wait) except -1:
        """True when both sides have agreed, or False with wait.events set."""
        cdef Out nothing
        cdef Py_ssize_t n
        memset(&nothing, 0, sizeof(Out))
        while True:
            n = 0 if self.tls.established else self.tls.handshake()
            if not self._send_tls(&nothing, wait):
                return False
            if n == 0:
                return True
            if not self._feed_tls(wait):
                return False

    cdef int _raise_end(self, Unit* unit) except -1:
        if self.end < 0:
            raise socket_error(self.end)
        partial, expected = self.parser.cut_off(unit)
        if not partial and expected is None:
            raise EOF()
        raise EOF(f"EOF after {len(partial)} of {'?' if expected is None else expected} bytes", partial, expected)

    # -- who may do what

    cdef inline int enter(self) except -1:
        """Begins a call: the descriptor stays valid until `leave`."""
        if self.closed or self.fd < 0:
            raise_closed()
        if self.broken is not None:
            raise BrokenError(f"the connection is out of step: {self.broken}")
        self.users += 1
        return 0

    cdef inline void leave(self) noexcept:
        self.users -= 1
        if self.closed and self.users == 0:
            self._release()

    cdef inline int claim_receiver(self) except -1:
        if self.receiver:
            raise ConcurrencyError("another call is receiving on this connection")
        self.receiver = who()
        return 0

    cdef int claim_turn(self, Turn turn, int64_t deadline) except -1:
        if not turn.try_take():
            if not turn.take(deadline):
                raise Timeout("timed out waiting for another call on this connection")
            if self.closed:
                turn.give()
                raise_closed()
        return 0

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

    cdef bint flush_step(self, Wait* wait) except -1:
        """True when nothing waits any more, or another call sends just now; else False with wait.events set."""
        cdef Out out
        cdef bint done
        if not self.sending.try_take():
            return True
        try:
            memset(&out, 0, sizeof(Out))
            out.data = self.gathered.data()
            out.size = self.gathered.unread()
            try:
                done = self.send_step(&out, wait)
            finally:
                self.gathered.consume(out.sent)
            if done:
                self.gathered.relax()
            return done
        finally:
            self.sending.give()

    cdef int _flush(self, int64_t deadline) except -1:
        """Sends what waits; what cannot leave in time stays, so nothing is cut in two. The caller has the turn."""
        cdef Out out
        if self.gathered is None or self.gathered.unread() == 0:
            return 0
        memset(&out, 0, sizeof(Out))
        out.data = self.gathered.data()
        out.size = self.gathered.unread()
        try:
            self._transmit(&out, deadline)
        finally:
            self.gathered.consume(out.sent)
        self.gathered.relax()
        return 0

    cdef int flush(self, int64_t deadline) except -1:
        """Sends what waits."""
        if self.gathered is None or self.gathered.unread() == 0:
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
        if self.parser.lost:
            self.broken = "memory ran out while receiving"
        elif self.parser.oversized:
            self.broken = "a package was too long"
        return self._after_failed_tls()

    cdef int _after_failed_tls(self) except -1:
        if self.tls is not None and self.tls.fault is not None:
            self.broken = f"TLS failed: {self.tls.fault}"
        return 0

    cdef int wait(self, Wait* wait) except -1:
        """Waits for what a step needs: 1 when it has come, 0 at the time limit."""
        if wait.way == NULL:
            return sleep_until_ready(self.fd, wait.events, wait.until)
        if self.watcher is not <Way>wait.way:
            self.unwatch()
            self.watch = (<Way>wait.way).watch(self.fd)
            self.watcher = <Way>wait.way
        return self.watcher.wait_watched(self.watch, wait.events, wait.until)

    cdef int unwatch(self) except -1:
        cdef Way watcher = self.watcher
        if watcher is not None:
            self.watcher = None
            watcher.unwatch(self.watch)
            self.watch = None
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
        self.enter()
        try:
            self.claim_exchange(min(send_deadline, recv_deadline))
            try:
                self.claim_turn(self.sending, send_deadline)
                try:
                    self._send(out, send_deadline)
                finally:
                    self.sending.give()
                return self._receive(unit, recv_deadline)
            finally:
                self.give_exchange()
        finally:
            self.leave()

    cdef int handshake(self, int64_t deadline) except -1:
        """Blocks until both sides have agreed on TLS."""
        cdef Wait wait
        start_wait(&wait, deadline)
        self.enter()
        try:
            while not self.handshake_step(&wait):
                if not self.wait(&wait):
                    if self.handshake_step(&wait):
                        break
                    raise Timeout("timed out during the TLS handshake")
        except:
            self.broken = "the TLS handshake failed"
            self.tls.flush(self.fd)     # the alert that tells the peer why
            raise
        finally:
            self.leave()
        return 0

    # -- the end

    cdef int farewell(self, int64_t patience) except -1:
        """TLS: says goodbye, and waits `patience` nanoseconds for the peer's. Failing is no error: the end is near."""
        cdef Wait wait
        cdef Out nothing
        if self.tls is None or not self.tls.established or self.tls.goodbye_sent or self.closed or self.users \
                or self.fd < 0 or self.broken is not None or self.end < 0 or self.generation != posix.generation:
            return 0
        memset(&nothing, 0, sizeof(Out))
        start_wait(&wait, posix.now() + patience)
        self.users += 1
        try:
            while self.tls.say_goodbye() != 0 and not self.closed:
                if not self._send_tls(&nothing, &wait) or patience == 0:
                    break
                if not self._feed_tls(&wait) and not self.wait(&wait):
                    break
            self._send_tls(&nothing, &wait)
        except Exception:
            pass
        finally:
            self.leave()
        return 0

    cdef int farewell_half(self) except -1:
        """TLS: tells the peer that nothing more comes; receiving goes on."""
        cdef Wait wait
        cdef Out nothing
        if self.tls is not None and self.tls.established and not self.tls.goodbye_sent:
            memset(&nothing, 0, sizeof(Out))
            start_wait(&wait, 0)
            self.tls.say_goodbye()
            self._send_tls(&nothing, &wait)
        return 0

    cdef int close(self, bint reset=False) except -1:
        """Closes once; wakes everybody who sleeps in a call on this connection."""
        if not reset:
            self.farewell(0)
        if self.closed:
            return 0
        self.closed = True
        if self.fd < 0:
            return 0
        if reset:
            posix.set_abort(self.fd)
        if self.users == 0:
            self._release()
        elif self.generation == posix.generation:
            # This wakes the sleepers. The other direction's goodbye would keep a reset from being one, but a sleeping
            # sender hears of nothing else.
            posix.shutdown(self.fd, posix.SHUT_RD if reset and not self.sending.owner else posix.SHUT_RDWR)
            self.sending.wake_all()
            self.exchanging.wake_all()
        return 0

    cdef void _release(self) noexcept:
        cdef int fd = self.fd
        self.fd = -1
        if self.watcher is not None:
            try:
                self.unwatch()
            except MemoryError:
                pass
        self.parser.buf.release()
        if fd >= 0:
            posix.close(fd)

    cdef int quiet(self) noexcept:
        """What an idle connection has to say: -EAGAIN nothing, 0 the peer closed, > 0 bytes, else -errno."""
        cdef int said
        if self.end != OPEN:
            return 0
        if self.parser.pending():
            return 1
        said = posix.look(self.fd)
        return self._quiet_tls() if said > 0 and self.tls is not None else said

    cdef int _quiet_tls(self) noexcept:
        """Records have come: tickets and key updates are silence, anything else is not."""
        cdef Wait wait
        cdef Room room
        cdef char byte
        cdef Py_ssize_t n
        if self.receiver:
            return -posix.EAGAIN        # somebody is reading these records just now
        start_wait(&wait, 0)
        room.where, room.size, room.more = &byte, 1, 0
        try:
            n = self._recv_tls(&room, &wait)
            if n > 0:
                self.parser.put_back(&byte, n)
        except Exception:
            return 0
        return <int>n


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
