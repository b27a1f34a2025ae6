# TLS between the parser and the socket. OpenSSL works on memory here, never on the descriptor: plaintext
# on one side, records on the other, so there is nothing that could block, and no SIGPIPE.
#
# OpenSSL's calls let go of the GIL, and neither its session nor its memory bears two callers: each method
# that says so needs `turn`, which nobody holds while waiting for a socket.
cimport cython
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cimport gtcp._corelib.posix as posix

cdef enum:
    RECORD = 16384              # plaintext of one record at most
    RECORDS = 65536             # plaintext that is encrypted at once
    CIPHERTEXT = 32768          # bytes read from the socket at once
    RECORD_HEADER = 5           # type, version, length
    SMALL = 1024                # up to here a bytes object that is copied is cheaper than a memoryview
    # Answers that OpenSSL gives by itself (to key updates, say) may wait for a peer that does not read, but
    # nobody sends that many.
    MAX_ANSWERS = 1 << 20

# The block for received records that was given back last: connections share it, since none keeps one while idle.
cdef char* spare_records = NULL


@cython.final
cdef class Tls:
    """One end of a TLS session over memory.

    `session` is an ssl.SSLObject over the two ssl.MemoryBIOs and `calls` are its methods read, write, do_handshake
    and unwrap. `translate` turns an exception of theirs into the one to raise, None for "more records are needed" or
    EOF for the peer's goodbye.
    """
    cdef object session
    cdef object read_call
    cdef object write_call
    cdef object handshake_call
    cdef object unwrap_call
    cdef object incoming
    cdef object outgoing
    cdef object translate
    cdef bint established
    cdef Turn turn
    # There may be records or plaintext inside that nobody took: how many bytes of plaintext at most.
    cdef bint holding
    cdef Py_ssize_t inside
    # Plaintext that was taken out before anybody asked for it: `early[early_taken:]`, or None.
    cdef bytes early
    cdef Py_ssize_t early_taken
    # How much of a record's header has come, and how much of its body is missing.
    cdef uint8_t[RECORD_HEADER] header
    cdef int header_got
    cdef Py_ssize_t body_missing
    # Records on their way out: `leaving[left:]` has yet to be sent. How many bytes the kernel has taken in all, and
    # had taken when the message at hand began.
    cdef bytes leaving
    cdef Py_ssize_t left
    cdef int64_t taken
    cdef int64_t taken_before
    # Where records are received; NULL while none come.
    cdef char* block
    # The peer said goodbye properly; we did.
    cdef bint goodbye_received
    cdef bint goodbye_sent
    # The error that ended the session, raised again by every later call.
    cdef object fault

    def __cinit__(self, session, tuple calls not None, incoming, outgoing, translate):
        self.session = session
        self.read_call, self.write_call, self.handshake_call, self.unwrap_call = calls
        self.incoming = incoming
        self.outgoing = outgoing
        self.translate = translate
        self.turn = Turn()

    def __dealloc__(self):
        self.relax()

    def ask(self, question):
        """`question(session)`, while nobody else uses the session."""
        self.turn.take(NEVER)
        try:
            return question(self.session)
        finally:
            self.turn.give()

    # -- records to send

    cdef int collect(self) except -1:
        """Takes the records out that OpenSSL has made. Needs the turn."""
        cdef bytes records = self.outgoing.read()
        if records:
            self.leaving = records if self.leaving is None else self.leaving[self.left:] + records
            self.left = 0
        return 0

    cdef Py_ssize_t flush(self, int fd) except? -1:
        """Sends collected records: 0 when all have left, else -errno. The GIL is kept, so records keep their order."""
        cdef Py_ssize_t n
        if self.leaving is None:
            return 0
        while self.left < PyBytes_GET_SIZE(self.leaving):
            n = posix.send(fd, PyBytes_AS_STRING(self.leaving) + self.left,
                           PyBytes_GET_SIZE(self.leaving) - self.left, posix.MSG_DONTWAIT)
            if n < 0:
                return n
            self.left += n
            self.taken += n
        self.leaving = None
        return 0

    cdef int answer(self, int fd) except -1:
        """Sends what OpenSSL answers to records that came; what cannot leave now leaves with the next send."""
        if self.leaving is not None:
            self.flush(fd)
            if self.leaving is not None and PyBytes_GET_SIZE(self.leaving) - self.left > MAX_ANSWERS:
                self.fault = BrokenError("the peer makes TLS answer and does not read")
                raise self.fault
        return 0

    # -- records received

    cdef char* room(self) except NULL:
        """The block for the records that come next."""
        global spare_records
        if self.block == NULL:
            self.block = spare_records if spare_records != NULL else <char*>malloc(CIPHERTEXT)
            spare_records = NULL
            if self.block == NULL:
                raise MemoryError("no memory to receive TLS records")
        return self.block

    cdef void relax(self) noexcept:
        """Gives the block back."""
        global spare_records
        if spare_records == NULL:
            spare_records = self.block
        else:
            free(self.block)
        self.block = NULL

    cdef int feed(self, Py_ssize_t n) except -1:
        """n bytes have been received into the block; 0 means that the peer closed the socket. Needs the turn."""
        if not self.holding and not self.inside_record():
            self.inside = 0
        self.inside += n
        self.holding = True
        if n == 0:
            self.incoming.write_eof()
            return 0
        self.follow(self.block, n)
        try:
            self.incoming.write(PyBytes_FromStringAndSize(self.block, n) if n <= SMALL
                                else PyMemoryView_FromMemory(self.block, n, PyBUF_READ))
        except:
            self.fault = BrokenError("received bytes were lost")
            raise
        return 0

    cdef void follow(self, const char* block, Py_ssize_t n) noexcept:
        """Keeps track of where records begin and end."""
        cdef Py_ssize_t step
        while n:
            if self.header_got < RECORD_HEADER:
                self.header[self.header_got] = <uint8_t>block[0]
                self.header_got += 1
                self.body_missing = self.header[3] << 8 | self.header[4]
                step = 1
            else:
                step = min(n, self.body_missing)
                self.body_missing -= step
            if self.header_got == RECORD_HEADER and self.body_missing == 0:
                self.header_got = 0
            block += step
            n -= step

    cdef inline bint inside_record(self) noexcept:
        """A record has begun to come and has not come whole."""
        return self.header_got > 0

    cdef Py_ssize_t decrypt(self, Py_ssize_t n, Room* room, Py_ssize_t got) except? -1:
        """Feeds the first n bytes of the block (-1: nothing) and reads into the room behind `got`. Takes the turn."""
        if n < 0 and not self.holding and self.early is None and not self.turn.owner:
            return 0 if self.goodbye_received else -posix.EAGAIN
        if not self.turn.try_take():
            try:
                self.turn.take(NEVER)
            except:
                if n >= 0:
                    self.fault = BrokenError("received bytes were lost in an interruption")
                raise
        try:
            if n >= 0:
                self.feed(n)
            return self.read_two(room, got)
        finally:
            self.turn.give()

    cdef Py_ssize_t unread(self) except? -1:
        """Bytes of plaintext that nobody took. Takes the turn."""
        cdef Py_ssize_t n = 0
        if not self.holding and self.early is None:
            return 0
        self.turn.take(NEVER)
        try:
            if self.look() > 0:
                n = PyBytes_GET_SIZE(self.early) - self.early_taken + self.session.pending()
        except Error:
            pass                        # it is for the next read
        finally:
            self.turn.give()
        return n

    # -- plaintext; all of this needs the turn

    cdef Py_ssize_t read_two(self, Room* room, Py_ssize_t got) except? -1:
        """`read` into both places of the room, behind the first `got` bytes."""
        cdef Py_ssize_t n = 0, more
        if got < room.size:
            n = self.read(room.where + got, room.size - got)
            if n < room.size - got:
                return n
        if room.more == 0:
            return n
        got += n - room.size
        try:
            more = self.read(room.then + got, room.more - got)
        except Error:
            if n == 0:
                raise
            return n                    # the next call raises it again
        return n + more if n == 0 or more > 0 else n

    cdef Py_ssize_t read(self, char* where, Py_ssize_t room) except? -1:
        """As much plaintext as fits and is there: its size, 0 at the peer's goodbye, -EAGAIN when there is none."""
        cdef Py_ssize_t got = 0, n, most
        if self.early is not None:
            got = self._take_early(where, room)
        while got < room and self.holding:
            most = min(room - got, max(<Py_ssize_t>1, self.inside))
            try:
                n = self._read_record(where + got, most)
            except Error:
                if got:
                    return got          # what came before the failure; the next call raises it again
                raise
            if n > 0:
                got += n
                if n < most and not self.incoming.pending:
                    self.holding = False
            elif n == 0:
                break
            else:
                self.holding = False
        if got:
            return got
        return 0 if self.goodbye_received else -posix.EAGAIN

    cdef Py_ssize_t _read_record(self, char* where, Py_ssize_t room) except? -1:
        cdef Py_ssize_t n
        cdef bytes data
        if self.goodbye_received:
            return 0
        if self.fault is not None:
            raise self.fault.with_traceback(None)
        try:
            if room <= SMALL:
                data = self.read_call(room)
                n = PyBytes_GET_SIZE(data)
                memcpy(where, PyBytes_AS_STRING(data), n)
            else:
                n = self.read_call(room, PyMemoryView_FromMemory(where, room, PyBUF_WRITE))
        except BaseException as error:
            self.collect()
            return self._settle(error)
        self.goodbye_received = n == 0
        return n

    cdef Py_ssize_t _take_early(self, char* where, Py_ssize_t room) noexcept:
        cdef Py_ssize_t n = min(room, PyBytes_GET_SIZE(self.early) - self.early_taken)
        memcpy(where, PyBytes_AS_STRING(self.early) + self.early_taken, n)
        self.early_taken += n
        if self.early_taken == PyBytes_GET_SIZE(self.early):
            self.early = None
        return n

    cdef Py_ssize_t look(self) except? -1:
        """Whether there is plaintext, without losing any: 1, 0 at the peer's goodbye, -EAGAIN when there is none."""
        cdef char byte
        cdef Py_ssize_t n
        if self.early is not None:
            return 1
        n = self.read(&byte, 1)
        if n > 0:
            self.early = PyBytes_FromStringAndSize(&byte, 1)
            self.early_taken = 0
        return n

    cdef int take_out(self) except -1:
        """Takes all plaintext out that is there, because the next call would choke on it."""
        cdef char[RECORD] block
        cdef Py_ssize_t n
        while self.holding:
            n = self._read_record(block, RECORD)
            if n <= 0:
                self.holding = False
            else:
                self.early = (b"" if self.early is None else self.early[self.early_taken:]) + block[:n]
                self.early_taken = 0
        return 0

    cdef Py_ssize_t write(self, const char* data, Py_ssize_t n) except? -1:
        """Encrypts; answers how many bytes were taken, or -EAGAIN when records have to come first."""
        return self._write(PyMemoryView_FromMemory(<char*>data, n, PyBUF_READ))

    cdef Py_ssize_t _write(self, object data) except? -1:
        cdef Py_ssize_t n
        if self.fault is not None:
            raise self.fault.with_traceback(None)
        try:
            n = self.write_call(data)
        except BaseException as error:
            n = self._settle(error)
        finally:
            self.collect()
        return n

    cdef Py_ssize_t write_framed(self, Out* out) except? -1:
        """Encrypts what `out` has not sent, up to some records; the header goes into the first one."""
        cdef Py_ssize_t head = out.header_size - out.sent
        cdef Py_ssize_t n
        cdef bytes whole
        if head <= 0:
            return self.write(out.data - head, min(<Py_ssize_t>RECORDS, out.size + head))
        n = min(out.size, RECORD - head)
        whole = PyBytes_FromStringAndSize(NULL, head + n)
        memcpy(PyBytes_AS_STRING(whole), out.header + out.sent, head)
        memcpy(PyBytes_AS_STRING(whole) + head, out.data, n)
        return self._write(whole)

    # -- beginning and end; this needs the turn, too

    cdef Py_ssize_t handshake(self) except? -1:
        """0 when it is done, -EAGAIN when records are needed."""
        cdef Py_ssize_t n = 0
        try:
            self.handshake_call()
        except BaseException as error:
            n = self._settle(error)
        finally:
            self.collect()
        if n == 0 and self.goodbye_received:
            raise EOF()
        self.established = n == 0
        return n

    cdef int say_goodbye(self) except -1:
        """Puts a close_notify among the records to send."""
        if self.goodbye_sent:
            return 0
        self.take_out()
        self.goodbye_sent = True
        try:
            self.unwrap_call()
            self.goodbye_received = True
        except BaseException as error:
            self._settle(error)
        finally:
            self.collect()
        return 0

    cdef Py_ssize_t _settle(self, object error) except? -1:
        """A call of OpenSSL has raised: -EAGAIN when it needs records, 0 at the peer's goodbye; else raises."""
        error_or_none = self.translate(error)
        if error_or_none is None:
            return -posix.EAGAIN
        if type(error_or_none) is EOF:
            self.goodbye_received = True
            return 0
        if not isinstance(error_or_none, Error):
            # A signal handler's exception or the like: nobody knows what had been read or encrypted by then.
            self.fault = BrokenError("a call of TLS was interrupted")
            raise error_or_none
        self.fault = error_or_none
        raise error_or_none from None
