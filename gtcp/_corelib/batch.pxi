# Many packages in few system calls: small ones are gathered in one block, large ones leave from where
# they are.
cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.tuple cimport PyTuple_GET_SIZE
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

cimport gtcp._corelib.posix as posix
cimport gtcp._corelib.wire as wire
from gtcp._corelib.limits cimport PY_SSIZE_T_MAX

cdef enum:
    GATHER = 65536              # the block in which small packages are gathered
    LARGE = 16384               # packages from this size on are not copied


@cython.final
cdef class Outbox:
    """Packages on their way out: `out` holds what leaves next, `refill` puts the following ones there."""
    cdef tuple packages
    cdef Py_ssize_t following       # index of the first package that is not in `out`
    cdef int header_size
    cdef Out out
    cdef char* block

    def __cinit__(self, packages):
        cdef list own = list(packages)
        for i, package in enumerate(own):
            if not PyBytes_CheckExact(package):
                own[i] = self._copy(package)
        self.packages = tuple(own)
        self.block = <char*>malloc(GATHER)
        if self.block == NULL:
            raise MemoryError("no memory to gather packages")

    def __dealloc__(self):
        free(self.block)

    @staticmethod
    def _copy(package):
        cdef Data data
        get_data(package, &data)
        try:
            return PyBytes_FromStringAndSize(data.start, data.size)
        finally:
            drop_data(&data)

    cdef int check(self, Unit* unit) except -1:
        """LimitError for the first package that is too long."""
        cdef object package
        for package in self.packages:
            if PyBytes_GET_SIZE(package) > unit.limit:
                raise LimitError(f"package of {len(package)} bytes exceeds max_data_size {unit.limit}")
        self.header_size = unit.header_size
        return 0

    cdef Py_ssize_t refill(self, Py_ssize_t most) noexcept:
        """Puts up to `most` packages into the empty `out`; answers how many."""
        cdef Py_ssize_t left = PyTuple_GET_SIZE(self.packages) - self.following
        cdef Py_ssize_t count = 0, size, filled = 0
        cdef object package
        memset(&self.out, 0, sizeof(Out))
        self.out.data = self.block
        most = min(most, left)
        while count < most:
            package = self.packages[self.following]
            size = PyBytes_GET_SIZE(package)
            if size >= LARGE:
                if count == 0:
                    self.out.header_size = self.header_size
                    wire.put_length(self.out.header, self.header_size, <uint32_t>size)
                    self.out.data = PyBytes_AS_STRING(package)
                    self.out.size = size
                    self.following += 1
                    return 1
                break
            if size > GATHER - filled - self.header_size:
                break
            wire.put_length(self.block + filled, self.header_size, <uint32_t>size)
            memcpy(self.block + filled + self.header_size, PyBytes_AS_STRING(package), size)
            filled += self.header_size + size
            self.following += 1
            count += 1
        self.out.size = filled
        return count

    cdef inline bint leaving(self) noexcept:
        """Some of `out` has yet to leave."""
        return self.out.sent < self.out.header_size + self.out.size

    cdef tuple progress(self):
        """(how many packages have left whole, whether one is cut in two)."""
        cdef Py_ssize_t at = 0, boundary = 0, inside = 0, whole = 0
        if self.out.header_size:
            return self.following - self.leaving(), self.leaving() and self.out.sent > 0
        while at < self.out.size:
            at += self.header_size + wire.get_length(self.block + at, self.header_size)
            inside += 1
            if at <= self.out.sent:
                boundary = at
                whole += 1
        return self.following - inside + whole, self.out.sent > boundary

    cdef Out* untouched(self) except? NULL:
        """`out` as long as not a byte of any package has left, else NULL."""
        return &self.out if self.progress() == (0, False) else NULL

    cdef int after_failure(self, Stream stream, object error) except -1:
        whole, cut = self.progress()
        if isinstance(error, Error):
            error.sent = whole
        if cut:
            stream.broken = "an earlier send stopped in the middle"
        return 0


cdef int send_batch(Stream stream, Outbox outbox, int64_t deadline) except -1:
    """Sends all packages of the outbox."""
    cdef Wait wait
    start_wait(&wait, deadline)
    stream.enter()
    try:
        stream.claim_turn(stream.sending, deadline)
        try:
            stream._flush(deadline)
            while outbox.leaving() or outbox.refill(PY_SSIZE_T_MAX):
                if late(&wait):
                    raise Timeout("timed out while sending")
                stream._transmit(&outbox.out, deadline)
        except BaseException as error:
            outbox.after_failure(stream, error)
            raise
        finally:
            stream.sending.give()
    finally:
        stream.leave()
    return 0


cdef bint batch_is_full(Stream stream, Unit* unit, list packages, Py_ssize_t n) except -1:
    """Takes the packages that have arrived: True when there are n, or with n < 0 any."""
    try:
        stream.parser.take_all(unit, packages, n - len(packages) if n > 0 else -1)
    except LimitError:
        if n > 0 or not packages:
            raise
        stream.parser.oversized = False     # the next call meets the one that is too long
    return len(packages) == n or (n < 0 and len(packages) > 0)


cdef list recv_batch(Stream stream, Unit* unit, Py_ssize_t n, int64_t deadline):
    """n packages, or with n < 0 at least one and what arrived with it. On failure all stay in the stream."""
    cdef list packages = []
    cdef Wait wait
    start_wait(&wait, deadline)
    stream.enter()
    try:
        stream.claim_receiver()
        try:
            stream.settle(&wait)
            while not batch_is_full(stream, unit, packages, n):
                if late(&wait):
                    raise Timeout("timed out while receiving")
                packages.append(stream._receive(unit, deadline))
            return packages
        except:
            put_back_packages(stream.parser, unit.header_size, packages)
            stream._after_failed_receive(unit)
            raise
        finally:
            stream.receiver = 0
    finally:
        stream.leave()


cdef int put_back_packages(Framing parser, int header_size, list packages) except -1:
    cdef bytearray data = bytearray()
    for package in packages:
        data += len(package).to_bytes(header_size, "big")
        data += package
    parser.units -= len(packages)
    return parser.put_back(PyByteArray_AS_STRING(data), PyByteArray_GET_SIZE(data))


@cython.final
cdef class Pipeline:
    """Requests that leave while the replies to earlier ones come in, a bounded number under way."""
    cdef Outbox outbox
    cdef list replies
    cdef Py_ssize_t window
    cdef Py_ssize_t under_way

    cdef bint step(self, Stream stream, Unit* unit, Wait* wait) except -1:
        """True when every request has its reply, or False with wait.events set."""
        cdef Outbox outbox = self.outbox
        cdef bint sent
        cdef int wanted                 # what sending waits for
        if outbox.following == 0:
            stream.parser.check_in_step()
        while True:
            self.under_way -= stream.parser.take_all(unit, self.replies, self.under_way)
            if not outbox.leaving():
                self.under_way += outbox.refill(self.window - self.under_way)
            if self.under_way == 0:
                return True
            sent = stream.send_step(&outbox.out, wait)
            wanted = 0 if sent else wait.events
            if sent and self.under_way <= self.window // 2 and outbox.following < PyTuple_GET_SIZE(outbox.packages):
                continue            # room for more requests: they leave before the replies are waited for
            if stream.end != OPEN:
                stream._raise_end(unit)
            # A thread may sleep in the read only while it has nothing to send.
            wait.sleep = wait.blocking and sent
            if not stream.read_step(unit, wait):
                wait.events |= wanted
                return False

    cdef int after_failure(self, Stream stream, Unit* unit, object error) except -1:
        whole, cut = self.outbox.progress()
        self.outbox.after_failure(stream, error)
        stream._after_failed_receive(unit)
        stream.parser.await_late(whole + cut - len(self.replies))
        if isinstance(error, Error):
            error.replies = self.replies
        return 0


cdef list send_recv_batch(Stream stream, Outbox outbox, Unit* unit, Py_ssize_t window, int64_t deadline):
    """The replies to all packages of the outbox; sends and receives as the socket allows."""
    cdef Pipeline pipeline = Pipeline()
    cdef Wait wait
    pipeline.outbox = outbox
    pipeline.replies = []
    pipeline.window = window
    pipeline.under_way = outbox.following       # those in `out`, when this goes on on a new connection
    start_wait(&wait, deadline)
    stream.enter()
    try:
        stream.claim_exchange(deadline)
        try:
            stream.claim_turn(stream.sending, deadline)
            try:
                stream._flush(deadline)
                while not pipeline.step(stream, unit, &wait):
                    if not stream.wait(&wait):
                        wait.blocking = False
                        if pipeline.step(stream, unit, &wait):
                            break
                        raise Timeout(f"timed out after {len(pipeline.replies)} replies")
                return pipeline.replies
            except BaseException as error:
                pipeline.after_failure(stream, unit, error)
                raise
            finally:
                stream.sending.give()
        finally:
            stream.give_exchange()
    finally:
        stream.leave()
