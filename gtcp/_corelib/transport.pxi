# A connected socket, with TLS over it when there is one: bytes in and out as steps that never have to
# block, waiting for what a step needs, and the end.
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t
from libc.string cimport memset

cimport gtcp._corelib.posix as posix

cdef enum StreamEnd:
    OPEN = 0
    PEER_CLOSED = 1             # a negative value is the -errno that ended the stream

cdef enum:
    # Sends at least this large are worth the GIL's release: other threads run while the kernel copies.
    LONG_SEND = 32768
    # How long a send that needs records waits before it looks again: 2 ms. Only TLS 1.2 knows such sends, in the
    # middle of a renegotiation, and the records may go to another call, which receives.
    NAP = 2000000
    # Reads of an idle connection's tickets and key updates before it counts as talking.
    SMALL_TALK = 16


cdef class Transport:
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

    cdef Tls tls                    # None for plain TCP
    cdef Turn sending
    cdef size_t receiver            # who() receives, 0 for nobody
    # The SO_RCVTIMEO in force, 0 for none.
    cdef int64_t receive_timeout
    # Who keeps an eye on the socket between waits, and what was seen; None while nobody does.
    cdef Way watcher
    cdef Watch watch

    def __cinit__(self):
        self.fd = -1
        self.generation = posix.generation
        self.sending = Turn()

    def __dealloc__(self):
        if self.fd >= 0:
            posix.close(self.fd)

    # -- who uses it

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
            self.release()

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

    cdef int raise_error(self, Py_ssize_t error) except -1:
        """A system call has failed."""
        if self.closed:
            raise_closed()
        raise socket_error(error)

    # -- receiving

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
                break
            PyErr_CheckSignals()
        if self.watch is not None and (n == -posix.EAGAIN or 0 < n < room.size + room.more):
            self.watch.drained = not self.watch.ended
        return n

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

    cdef Py_ssize_t _recv_tls(self, Room* room, Wait* wait) except? -1:
        """The same through TLS: as much plaintext as fits and has come, for a full read to mean what it does in TCP."""
        cdef Tls tls = self.tls
        cdef Py_ssize_t size = room.size + room.more
        cdef Room records
        cdef Py_ssize_t got, n
        self.check_process()
        got = tls.decrypt(-1, room, 0)
        while got < 0:
            records.where, records.size, records.more = tls.room(), CIPHERTEXT, 0
            tls.answer(self.fd)
            n = self._recv(&records, wait)
            if n < 0:
                tls.relax()
                return n
            got = tls.decrypt(n, room, 0)
            if got < 0:
                PyErr_CheckSignals()
                if late(wait):
                    return -posix.EAGAIN
            while 0 < got < size and n == CIPHERTEXT:
                # That read emptied no socket. A signal's exception would lose what is here: no handler runs.
                n = posix.recv(self.fd, tls.block, CIPHERTEXT, posix.MSG_DONTWAIT)
                if n >= 0:
                    got += self._decrypt_more(n, room, got)
                elif n != -posix.EAGAIN and n != -posix.EINTR:
                    self.end = n
        return got

    cdef Py_ssize_t _decrypt_more(self, Py_ssize_t n, Room* room, Py_ssize_t got) except? -1:
        """What comes behind plaintext that is here already; the end or a failure is for the next call."""
        try:
            n = self.tls.decrypt(n, room, got)
        except Error:
            return 0
        return max(<Py_ssize_t>0, n)

    cdef int check_process(self) except -1:
        """Keys that two processes use would encrypt two texts the same way."""
        if self.generation != posix.generation:
            raise ClosedError("the TLS connection belongs to the process that forked this one")
        return 0

    # -- sending

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
            else:
                self.raise_error(n)
        return True

    cdef bint _send_tls(self, Out* out, Wait* wait) except -1:
        """The same through TLS. What counts as sent are bytes in records; the next send flushes those that wait."""
        cdef Tls tls = self.tls
        cdef Py_ssize_t total = out.header_size + out.size
        cdef Py_ssize_t n
        self.check_process()
        while True:
            n = tls.flush(self.fd)
            if n == 0:
                if out.sent == total:
                    return True
                if out.sent == 0:
                    tls.taken_before = tls.taken
                PyErr_CheckSignals()
                if not late(wait):
                    n = self._encrypt(out)
                    if n > 0:
                        out.sent += n
                    elif not self._take_records():
                        wait.events = 0
                        wait.until = min(wait.deadline, posix.now() + NAP)
                        return False
                    continue
                n = -posix.EAGAIN
            if n == -posix.EAGAIN:
                wait.events = posix.POLLOUT
                wait.until = wait.deadline
                return False
            if n == -posix.EINTR:
                PyErr_CheckSignals()
            else:
                if tls.taken == tls.taken_before:
                    out.sent = 0        # in records, but nothing of them has left
                self.raise_error(n)

    cdef Py_ssize_t _encrypt(self, Out* out) except? -1:
        self.tls.turn.take(NEVER)
        try:
            if self.tls.goodbye_sent:
                self.raise_error(-posix.EPIPE)
            return self.tls.write_framed(out)
        finally:
            self.tls.turn.give()

    cdef bint _take_records(self) except -1:
        """A send needs records: False when none have come, or when another call receives, who will take them."""
        cdef Tls tls = self.tls
        tls.turn.take(NEVER)
        try:
            if self.receiver and self.receiver != who():
                return False
            if self._fetch() == -posix.EAGAIN:
                return False
            tls.look()              # a read: only then OpenSSL bears data in the middle of a renegotiation
            return True
        finally:
            tls.turn.give()

    cdef Py_ssize_t _fetch(self) except? -1:
        """One read of records that have come; -EAGAIN when none have. Needs the turn of TLS, and no receiver."""
        cdef Tls tls = self.tls
        cdef Py_ssize_t n = posix.recv(self.fd, tls.room(), CIPHERTEXT, posix.MSG_DONTWAIT)
        if n >= 0:
            tls.feed(n)
        elif n == -posix.EINTR:
            return self._fetch()
        elif n != -posix.EAGAIN:
            self.raise_error(n)
        return n

    # -- TLS: its beginning, its silence, its end

    cdef bint handshake_step(self, Wait* wait) except -1:
        """True when both sides have agreed, or False with wait.events set."""
        cdef Tls tls = self.tls
        cdef Out nothing
        cdef bint hungry = False, starving = False
        memset(&nothing, 0, sizeof(Out))
        while True:
            tls.turn.take(NEVER)
            try:
                if not hungry or self._fetch() != -posix.EAGAIN:
                    hungry = not tls.established and tls.handshake() != 0
                    starving = False
                else:
                    starving = True
            finally:
                tls.turn.give()
            if not starving and not self._send_tls(&nothing, wait):
                return False
            if not hungry:
                return True
            PyErr_CheckSignals()
            if starving or late(wait):
                tls.relax()
                wait.events = posix.POLLIN
                wait.until = wait.deadline
                return False

    cdef int quiet(self) except? -1:
        """What an idle connection has to say: -EAGAIN nothing, 0 the peer closed, > 0 bytes, else -errno."""
        cdef Tls tls = self.tls
        cdef int said
        if tls is None or self.receiver or self.generation != posix.generation:
            return posix.look(self.fd)
        if not tls.holding and tls.early is None and not tls.inside_record():
            said = posix.look(self.fd)
            if said <= 0:
                return said
        try:
            return self._quiet_tls()
        except Error:
            return 0

    cdef int _quiet_tls(self) except? -1:
        """Tickets and key updates are silence, anything else is not."""
        cdef Tls tls = self.tls
        cdef Py_ssize_t n
        cdef int i
        tls.turn.take(NEVER)
        try:
            for i in range(SMALL_TALK):
                if self.receiver:
                    return 1
                n = tls.look()
                if n != -posix.EAGAIN:
                    return <int>n
                tls.answer(self.fd)
                if self._fetch() == -posix.EAGAIN:
                    return 1 if tls.inside_record() else -posix.EAGAIN
            return 1
        finally:
            tls.turn.give()
            tls.relax()

    cdef int farewell(self, int64_t patience) except -1:
        """TLS: says goodbye, and waits up to `patience` nanoseconds for the peer's unless others use the connection.

        Until then what the peer still sends is dropped. Failing is no error: the end is near.
        """
        cdef Wait wait
        cdef bint alone = self.users == 0
        if self.tls is None or not self.tls.established or self.tls.goodbye_sent or self.closed or self.fd < 0 \
                or self.broken is not None or self.end < 0 or self.sending.owner \
                or self.generation != posix.generation:
            return 0
        start_wait(&wait, posix.now() + patience)
        wait.sleep = False
        self.users += 1
        try:
            if self._send_goodbye(&wait, patience > 0 and alone) and patience and alone:
                self._await_goodbye(&wait)
        except Exception:
            pass
        finally:
            self.leave()
        return 0

    cdef int farewell_half(self, int64_t patience) except -1:
        """TLS: tells the peer that nothing more comes; receiving goes on. Timeout when that cannot leave."""
        cdef Wait wait
        if self.tls is None or not self.tls.established:
            return 0
        start_wait(&wait, posix.now() + patience)
        self.claim_turn(self.sending, wait.deadline)
        try:
            if not self._send_goodbye(&wait, True):
                raise Timeout("timed out while sending")
        finally:
            self.sending.give()
        return 0

    cdef bint _send_goodbye(self, Wait* wait, bint patient) except -1:
        """False when it could not leave."""
        cdef Out nothing
        memset(&nothing, 0, sizeof(Out))
        self.tls.turn.take(NEVER)
        try:
            self.tls.say_goodbye()
        finally:
            self.tls.turn.give()
        while not self._send_tls(&nothing, wait):
            if not patient or not self.wait(wait):
                return False
        return True

    cdef int _await_goodbye(self, Wait* wait) except -1:
        cdef char[RECORD] scrap
        cdef Room room
        cdef Py_ssize_t n
        room.where, room.size, room.more = scrap, RECORD, 0
        while not self.closed:
            n = self._recv_tls(&room, wait)
            if n == -posix.EAGAIN:
                wait.events = posix.POLLIN
                wait.until = wait.deadline
                if not self.wait(wait):
                    break
            elif n <= 0 or late(wait):
                break
        return 0

    # -- waiting

    cdef int wait(self, Wait* wait) except -1:
        """Waits for what a step needs: 1 when it has come, 0 at the time limit."""
        if wait.events == 0:
            new_parker().park(wait.until)
            return wait.until < wait.deadline
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

    cdef void release(self) noexcept:
        """The last user has left: the descriptor goes."""
        cdef int fd = self.fd
        self.fd = -1
        if self.watcher is not None:
            try:
                self.unwatch()
            except MemoryError:
                pass
        if self.tls is not None:
            self.tls.relax()
        if fd >= 0:
            posix.close(fd)
