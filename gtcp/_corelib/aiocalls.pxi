# The calls of a connection: what a step of each is, and what a failure leaves behind.
cimport cython
from cpython.buffer cimport PyBuffer_Release
from libc.string cimport memset

from gtcp._corelib.limits cimport PY_SSIZE_T_MAX

# The calls that were over last, for the next ones: to make and to drop one costs more than its step.
cdef Receive spare_receive = None
cdef Send spare_send = None
cdef Exchange spare_exchange = None


@cython.final
cdef class Receive(Operation):
    """One unit."""
    cdef Unit unit
    # recv_into's buffer; a delimiter's bytes; the end of an iteration is no error.
    cdef bint exported
    cdef Py_buffer view
    cdef object needle
    cdef bint iterates

    def __dealloc__(self):
        if self.exported:
            PyBuffer_Release(&self.view)

    cdef bint step(self) except -1:
        self.value = self.stream.recv_step(&self.unit, &self.wait)
        return self.value is not None

    cdef void unit_is_final(self) noexcept:
        self.unit.final = True

    cdef str lateness(self):
        return "timed out while receiving"

    cdef int after_failure(self, object error) except -1:
        if self.held & RECEIVING:
            self.stream._after_failed_receive(&self.unit)
        return 0

    cdef int take_back(self) except -1:
        return self.stream.parser.unread(&self.unit, self.value)

    cdef int after_success(self) except -1:
        global spare_receive
        self.conn.heard(&self.unit, 1)
        spare_receive = self
        return 0

    cdef int let_go(self) except -1:
        if self.exported:
            self.exported = False
            PyBuffer_Release(&self.view)
        return Operation.let_go(self)

    cdef bint recovers(self, object error) except -1:
        if Operation.recovers(self, error):
            return True
        if self.iterates and isinstance(error, EOF) and is_clean(error):
            raise StopAsyncIteration
        return False


cdef Receive new_receive():
    global spare_receive
    cdef Receive call = spare_receive
    if not is_free(call):
        return Receive.__new__(Receive)
    spare_receive = None
    memset(&call.unit, 0, sizeof(Unit))
    call.iterates = False
    return call


@cython.final
cdef class Send(Operation):
    """Bytes, or a package."""
    cdef Out out
    cdef Data payload
    cdef object source

    def __dealloc__(self):
        drop_data(&self.payload)

    cdef bint step(self) except -1:
        return self.stream.send_step(&self.out, &self.wait)

    cdef str lateness(self):
        return "timed out while sending"

    cdef Out* outgoing(self) except? NULL:
        return &self.out

    cdef int after_failure(self, object error) except -1:
        if self.held & SENDING:
            self.stream._after_failed_send(&self.out, error)
        return 0

    cdef int after_success(self) except -1:
        global spare_send
        self.conn.told(self.out.size + self.out.header_size, self.out.header_size > 0)
        spare_send = self
        return 0

    cdef int let_go(self) except -1:
        drop_data(&self.payload)
        self.source = None
        return Operation.let_go(self)


cdef Send new_send():
    global spare_send
    cdef Send call = spare_send
    if not is_free(call):
        return Send.__new__(Send)
    spare_send = None
    return call


@cython.final
cdef class Exchange(Operation):
    """Something sent, and the unit that answers it."""
    cdef Out out
    cdef Unit unit
    cdef Data payload
    cdef object source

    def __dealloc__(self):
        drop_data(&self.payload)

    cdef bint step(self) except -1:
        if self.held & SENDING:
            if self.out.sent == 0:
                self.stream.parser.check_in_step()
            self.wait.deadline = self.send_deadline
            if not self.stream.send_step(&self.out, &self.wait):
                return False
            self.held &= ~SENDING
            self.stream.sending.give()
            self.wait.deadline = self.wait.until = self.recv_deadline
        self.value = self.stream.recv_step(&self.unit, &self.wait)
        return self.value is not None

    cdef void unit_is_final(self) noexcept:
        self.unit.final = not self.held & SENDING

    cdef str lateness(self):
        return "timed out while sending" if self.held & SENDING else "timed out while receiving"

    cdef Out* outgoing(self) except? NULL:
        return &self.out

    cdef int after_failure(self, object error) except -1:
        if self.held & EXCHANGING and self.out.sent:
            self.stream.parser.await_late(1)
        if self.held & SENDING:
            return self.stream._after_failed_send(&self.out, error)
        if self.held & RECEIVING and not self.wanted:
            self.stream._after_failed_receive(&self.unit)
        return 0

    cdef int take_back(self) except -1:
        return self.stream.parser.unread(&self.unit, self.value)

    cdef int after_success(self) except -1:
        global spare_exchange
        self.conn.heard(&self.unit, 0)
        spare_exchange = self
        return 0

    cdef int let_go(self) except -1:
        drop_data(&self.payload)
        self.source = None
        return Operation.let_go(self)


cdef Exchange new_exchange():
    global spare_exchange
    cdef Exchange call = spare_exchange
    if not is_free(call):
        return Exchange.__new__(Exchange)
    spare_exchange = None
    memset(&call.unit, 0, sizeof(Unit))
    return call


@cython.final
cdef class SendBatch(Operation):
    """Many packages."""
    cdef Outbox outbox

    cdef bint step(self) except -1:
        # A step that is not done goes on with what is in `out`, also when TLS has all of that in its records.
        while self.stream.send_step(&self.outbox.out, &self.wait):
            if not self.outbox.refill(PY_SSIZE_T_MAX):
                return True
        return False

    cdef str lateness(self):
        return "timed out while sending"

    cdef Out* outgoing(self) except? NULL:
        return self.outbox.untouched()

    cdef int after_failure(self, object error) except -1:
        if self.held & SENDING:
            self.stream._after_failed_send(&self.outbox.out, error)
            self.outbox.after_failure(self.stream, error)
        return 0

    cdef int after_success(self) except -1:
        self.conn.told(len(self.outbox.packages), len(self.outbox.packages))
        return 0


@cython.final
cdef class ReceiveBatch(Operation):
    """Several packages: `count` of them, or with -1 at least one and what arrived with it."""
    cdef Unit unit
    cdef Py_ssize_t count
    cdef list packages

    cdef bint step(self) except -1:
        if not self.stream.settle(&self.wait):
            return False
        while not batch_is_full(self.stream, &self.unit, self.packages, self.count):
            value = self.stream.recv_step(&self.unit, &self.wait)
            if value is None:
                return False
            self.packages.append(value)
        self.value = self.packages
        return True

    cdef str lateness(self):
        return "timed out while receiving"

    cdef int after_failure(self, object error) except -1:
        if self.held & RECEIVING:
            self.take_back()
            self.stream._after_failed_receive(&self.unit)
        return 0

    cdef int take_back(self) except -1:
        cdef list packages = self.packages
        self.packages = []
        return put_back_packages(self.stream.parser, self.unit.header_size, packages)

    cdef int after_success(self) except -1:
        self.conn.heard(&self.unit, len(self.packages))
        return 0


@cython.final
cdef class ExchangeBatch(Operation):
    """Many packages, and the reply to each."""
    cdef Pipeline pipeline
    cdef Unit unit

    cdef bint step(self) except -1:
        self.value = self.pipeline.replies
        return self.pipeline.step(self.stream, &self.unit, &self.wait)

    cdef str lateness(self):
        return f"timed out after {len(self.pipeline.replies)} replies"

    cdef Out* outgoing(self) except? NULL:
        return self.pipeline.outbox.untouched()

    cdef int after_failure(self, object error) except -1:
        if self.held & SENDING:
            self.pipeline.after_failure(self.stream, &self.unit, error)
        return 0

    cdef int after_success(self) except -1:
        if self.value:
            self.conn.heard(&self.unit, 0)
        return 0


@cython.final
cdef class Handshake(Operation):
    """Both sides agree on TLS."""

    cdef bint step(self) except -1:
        self.value = self.stream.tls
        return self.stream.handshake_step(&self.wait)

    cdef str lateness(self):
        return "timed out during the TLS handshake"

    cdef int after_failure(self, object error) except -1:
        if self.held & SENDING:
            self.stream.after_failed_handshake(error)
        return 0


@cython.final
cdef class Farewell(Operation):
    """Both sides say goodbye, after the connection was marked as closed. Failing is no error: the end is near."""

    cdef int enter(self) except -1:
        if not self.stream.owes_farewell():
            self.stage = FINISHED
        return 0

    cdef bint step(self) except -1:
        try:
            return self.stream.farewell_step(&self.wait, True)
        except Exception:
            return True

    cdef bint last_step(self) except -1:
        return True

    cdef int release(self) except -1:
        cdef Stream stream = self.stream
        self.stream = None
        return 0 if stream is None else stream.finish_close()

    def __del__(self):
        self.stage = OVER
        if self.stream is not None:
            self.stream.farewell(0)
            self.release()
