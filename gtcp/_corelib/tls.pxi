# TLS between the parser and the socket. OpenSSL works on memory here, never on the descriptor: plaintext
# on one side, records on the other, so there is nothing that could block, and no SIGPIPE.
cimport cython
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cimport gtcp._corelib.posix as posix

cdef enum:
    RECORD = 16384              # plaintext of one record at most
    RECORDS = 65536             # plaintext that is encrypted at once
    CIPHERTEXT = 32768          # bytes read from the socket at once


cdef class Tls:
    """One end of a TLS session over memory.

    `session` is an ssl.SSLObject over the two ssl.MemoryBIOs. `translate` turns an ssl.SSLError into the exception to
    raise, or answers None for "more records are needed".
    """
    cdef readonly object session
    cdef object incoming
    cdef object outgoing
    cdef object translate
    cdef bint established
    # OpenSSL's object bears one caller at a time, and its calls let go of the GIL.
    cdef Turn turn
    # Records on their way out: `leaving[left:]` has yet to be sent.
    cdef bytes leaving
    cdef Py_ssize_t left
    # Where records are received; kept only while they come.
    cdef char* block
    # The peer said goodbye properly; we did.
    cdef bint goodbye_received
    cdef bint goodbye_sent
    # The error that ended the session, raised again by every later read.
    cdef object fault

    def __cinit__(self, session, incoming, outgoing, translate):
        self.session = session
        self.incoming = incoming
        self.outgoing = outgoing
        self.translate = translate
        self.turn = Turn()

    def __dealloc__(self):
        free(self.block)

    # -- the socket's side

    cdef Py_ssize_t flush(self, int fd) except? -1:
        """Sends waiting records: 0 when all have left, else -errno. The GIL is kept, so records keep their order."""
        cdef Py_ssize_t n
        while True:
            if self.leaving is None:
                if not self.outgoing.pending:
                    return 0
                self.leaving = self.outgoing.read()
                self.left = 0
            while self.left < len(self.leaving):
                n = posix.send(fd, <const char*>self.leaving + self.left, len(self.leaving) - self.left,
                               posix.MSG_DONTWAIT)
                if n < 0:
                    return n
                self.left += n
            self.leaving = None

    cdef char* room(self) except NULL:
        if self.block == NULL:
            self.block = <char*>malloc(CIPHERTEXT)
            if self.block == NULL:
                raise MemoryError("no memory to receive TLS records")
        return self.block

    cdef int feed(self, char* block, Py_ssize_t n) except -1:
        """n bytes have been received; 0 means that the peer closed the socket."""
        if n:
            self.incoming.write(PyMemoryView_FromMemory(block, n, PyBUF_READ))
        else:
            self.incoming.write_eof()
        return 0

    cdef void relax(self) noexcept:
        free(self.block)
        self.block = NULL

    # -- the plaintext's side

    cdef Py_ssize_t read(self, char* where, Py_ssize_t room) except? -1:
        """Plaintext bytes, 0 at the peer's goodbye, -EAGAIN when more records are needed."""
        cdef Py_ssize_t n
        if self.goodbye_received:
            return 0
        if self.fault is not None:
            raise self.fault
        if not self.incoming.pending and not self.incoming.eof and not self.session.pending():
            return -posix.EAGAIN        # without the price of an exception
        self.turn.take(NEVER)
        try:
            n = self.session.read(room, PyMemoryView_FromMemory(where, room, PyBUF_WRITE))
        except Exception as error:
            return self._wants(error)
        finally:
            self.turn.give()
        self.goodbye_received = n == 0
        return n

    cdef Py_ssize_t write(self, const char* data, Py_ssize_t n) except? -1:
        """Encrypts; answers how many bytes were taken, or -EAGAIN when records have to come first."""
        self.turn.take(NEVER)
        try:
            return self.session.write(PyMemoryView_FromMemory(<char*>data, n, PyBUF_READ))
        except Exception as error:
            return self._wants(error)
        finally:
            self.turn.give()

    cdef Py_ssize_t write_framed(self, Out* out) except? -1:
        """Encrypts what `out` has not sent, up to some records; the header goes into the first one."""
        cdef char[RECORD] whole
        cdef Py_ssize_t head = out.header_size - out.sent
        cdef Py_ssize_t n
        if head <= 0:
            return self.write(out.data - head, min(<Py_ssize_t>RECORDS, out.size + head))
        n = min(out.size, RECORD - head)
        memcpy(whole, out.header + out.sent, head)
        memcpy(whole + head, out.data, n)
        return self.write(whole, head + n)

    cdef Py_ssize_t handshake(self) except? -1:
        """0 when it is done, -EAGAIN when records are needed."""
        self.turn.take(NEVER)
        try:
            self.session.do_handshake()
        except Exception as error:
            return self._wants(error)
        finally:
            self.turn.give()
        self.established = True
        return 0

    cdef Py_ssize_t say_goodbye(self) except? -1:
        """Puts a close_notify among the outgoing records; 0 when the peer's has come too, else -EAGAIN."""
        self.goodbye_sent = True
        self.turn.take(NEVER)
        try:
            self.session.unwrap()
        except Exception as error:
            return self._wants(error)
        finally:
            self.turn.give()
        return 0

    cdef Py_ssize_t _wants(self, object error) except? -1:
        translated = self.translate(error)
        if translated is None:
            return -posix.EAGAIN
        self.fault = translated
        raise translated from None
