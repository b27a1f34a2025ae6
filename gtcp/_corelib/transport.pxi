# The socket with TLS over it when there is one: bytes in and out as steps that never have to block, and the
# beginning, the silence and the end of a TLS session.
cimport cython
from libc.stdint cimport int64_t
from libc.string cimport memset

cimport gtcp._corelib.posix as posix

cdef enum StreamEnd:
    OPEN = 0
    PEER_CLOSED = 1             # a negative value is the -errno that ended the stream

cdef enum:
    # How long a send that needs records waits before it looks again: 2 ms. Only TLS 1.2 knows such sends, in the
    # middle of a renegotiation, and the records may go to another call, which receives.
    NAP = 2000000
    # Reads of an idle connection's tickets and key updates before it counts as talking.
    SMALL_TALK = 16


cdef class Transport(Socket):
    cdef Tls tls                    # None for plain TCP
    # How the peer's bytes ended: OPEN, PEER_CLOSED or -errno.
    cdef Py_ssize_t end

    # -- receiving and sending

    cdef Py_ssize_t recv_some(self, Room* room, Wait* wait) except? -1:
        """One successful read: > 0 bytes, 0 at the peer's end, or -errno."""
        return self._recv(room, wait) if self.tls is None else self._recv_tls(room, wait)

    cdef Py_ssize_t _recv_tls(self, Room* room, Wait* wait) except? -1:
        """As much plaintext as fits and has come, so that a full read means what it does in TCP."""
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
            if n < 0 or (n == 0 and (self.closed or self.shut)):    # what we shut was not cut off by the peer
                tls.relax()
                return n
            got = tls.decrypt(n, room, 0)
            if got < 0:
                heed_signals(wait.generation)
                if late(wait):
                    got = -posix.EAGAIN
                    break
            while 0 < got < size and n == CIPHERTEXT:
                # That read emptied no socket. A signal's exception would lose what is here: no handler runs.
                n = posix.recv(self.fd, tls.block, CIPHERTEXT, posix.MSG_DONTWAIT)
                if n >= 0:
                    got += self._decrypt_more(n, room, got)
                elif not passes(n):
                    self.end = n
            tls.relax()
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

    cdef bint send_step(self, Out* out, Wait* wait) except -1:
        """True when all is with the kernel, or False with wait.events set."""
        return self._send_plain(out, wait) if self.tls is None else self._send_tls(out, wait)

    cdef bint _send_tls(self, Out* out, Wait* wait) except -1:
        """What counts as sent are bytes in records; those that cannot leave now leave with the next send."""
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
                heed_signals(wait.generation)
                if not spend(wait):
                    return False
                if not late(wait):
                    n = self._encrypt(out)
                    if n > 0:
                        out.sent += n
                        if out.sent < total:
                            self.pay(n, wait)
                    elif not self._take_records(wait):
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
                heed_signals(wait.generation)
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

    cdef bint _take_records(self, Wait* wait) except -1:
        """A send needs records: False when none have come, or when another call receives, who will take them."""
        cdef Tls tls = self.tls
        tls.turn.take(NEVER)
        try:
            if self.receiver and self.receiver != (wait.caller or who()):
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
        if n == 0 and self.closed:
            raise_closed()          # what we shut ourselves was not cut off by the peer
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
                tls.relax()
                return True
            heed_signals(wait.generation)
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
        cdef int rounds = SMALL_TALK
        tls.turn.take(NEVER)
        try:
            while rounds:
                rounds -= 1
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
            if not self.receiver:
                tls.relax()
            tls.turn.give()

    cdef bint owes_farewell(self) noexcept:
        """TLS: this side has not said goodbye, and can."""
        return self.tls is not None and self.tls.established and not self.tls.goodbye_sent and self.broken is None \
            and self.end >= 0 and not self.sending.owner and self.generation == posix.generation

    cdef int farewell(self, int64_t patience) except -1:
        """After the connection was marked as closed: says goodbye.

        Waits up to `patience` nanoseconds for the peer's goodbye and drops what it still sends. Failing is no error:
        the end is near.
        """
        cdef Wait wait
        if not self.owes_farewell():
            return 0
        start_wait(&wait, posix.now() + patience)
        wait.sleep = False
        try:
            while not self.farewell_step(&wait, patience > 0):
                if patience == 0 or not self.wait(&wait):
                    break
        except Exception:
            pass
        return 0

    cdef int swallow(self) noexcept:
        """Takes what has come and nobody will read, tickets mostly: the kernel answers a close with unread bytes by a
        reset, and the peer would lose what it has yet to receive."""
        cdef char[RECORD] scrap
        cdef int rounds = SMALL_TALK
        while rounds and posix.recv(self.fd, scrap, RECORD, posix.MSG_DONTWAIT) > 0:
            rounds -= 1
        return 0

    cdef bint arriving(self) noexcept:
        """Before the end: what was sent has yet to reach the peer, and a close might be a reset, which costs it that.

        What the peer still says is swallowed.
        """
        if self.closed or self.receiver or self.generation != posix.generation or posix.poll_one(self.fd, 0, 0) != 0:
            return False
        if not self.draining and self.broken is None and posix.look(self.fd) <= 0:
            return False
        self.swallow()
        return posix.unconfirmed(self.fd) > 0

    cdef bint farewell_step(self, Wait* wait, bint patient) except -1:
        """True when both have said goodbye (or only this side, if it is not patient), False with wait.events set."""
        if not self.goodbye_step(wait):
            return False
        return not patient or self._hear_goodbye(wait)

    cdef int farewell_half(self, int64_t patience) except -1:
        """TLS: tells the peer that nothing more comes; receiving goes on. Timeout when that cannot leave."""
        cdef Wait wait
        if self.tls is None or not self.tls.established:
            return 0
        start_wait(&wait, posix.now() + patience)
        self.claim_turn(self.sending, wait.deadline)
        try:
            while not self.goodbye_step(&wait):
                if not self.wait(&wait):
                    raise Timeout("timed out while sending")
        finally:
            self.sending.give()
        return 0

    cdef bint goodbye_step(self, Wait* wait) except -1:
        """True when this side's goodbye has left, or False with wait.events set."""
        cdef Out nothing
        memset(&nothing, 0, sizeof(Out))
        self.tls.turn.take(NEVER)
        try:
            self.tls.say_goodbye()
        finally:
            self.tls.turn.give()
        return self._send_tls(&nothing, wait)

    cdef bint _hear_goodbye(self, Wait* wait) except -1:
        """True when the peer has said goodbye or gone, or False with wait.events set."""
        cdef char[RECORD] scrap
        cdef Room room
        cdef Py_ssize_t n = 1
        room.where, room.size, room.more = scrap, RECORD, 0
        while n > 0 and not late(wait):
            if not spend(wait):
                return False
            n = self._recv_tls(&room, wait)
        wait.events = posix.POLLIN
        wait.until = wait.deadline
        return n != -posix.EAGAIN
