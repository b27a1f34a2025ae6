# Bytes in, units out: packages, lines, exact counts. Knows no socket and no clock.
#
# `take` answers a whole unit or None for "more is needed"; nothing is consumed until a unit is whole,
# so a caller that gave up in the middle just asks again. `room` says where the next bytes belong:
# into the block, or, for a unit too large for it, straight into the result.
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE, _PyBytes_Resize
from cpython.object cimport PyObject
from cpython.ref cimport Py_CLEAR, Py_INCREF
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

cimport gtcp._corelib.wire as wire
from gtcp._corelib.limits cimport PY_SSIZE_T_MAX

cdef enum:
    # Memory reserved on the word of a header alone; more only as bytes arrive.
    TRUSTED = 65536
    # Below this much room behind the tail, unread bytes move to the front first.
    CRAMPED = 4096


cdef class Framing:
    """The receive side of a connection without the connection: it is fed bytes, units are taken out of it."""
    cdef ByteBuffer buf

    # A large unit on its way into its result: the bytes object (owned, known to nobody else) and its
    # size, how many bytes are there, how many there will be, and what kind of unit asked for it.
    cdef PyObject* body
    cdef Py_ssize_t allocated
    cdef Py_ssize_t filled
    cdef Py_ssize_t expected
    cdef UnitKind body_kind
    cdef int body_header

    # The size of the last large package: the next one is received into a result of this size, its header aside,
    # in the hope that it is as large. Then one read takes all of it and nothing is copied.
    cdef Py_ssize_t forecast
    cdef bint guessing
    cdef char[4] header

    # buf's first `scanned` bytes hold no `scanned_for`.
    cdef Py_ssize_t scanned
    cdef bytes scanned_for

    # How many units have been taken, and will have been when no reply to a failed exchange is awaited any more.
    cdef int64_t units
    cdef int64_t in_step_at
    # The last read left room: the kernel had no more.
    cdef bint short_read
    # Memory ran out while a result was resized and its bytes went with it: the stream has a hole.
    cdef bint lost
    # A package was announced above its limit: nobody knows where the next one begins.
    cdef bint oversized

    def __cinit__(self):
        self.buf = ByteBuffer()

    def __dealloc__(self):
        Py_CLEAR(self.body)

    # -- taking units

    cdef inline object peel(self, Unit* unit):
        """The next package or line if it lies whole in the buffer; else None, whatever the reason: `take` knows."""
        cdef ByteBuffer buf = self.buf
        cdef const char* start = buf.block + buf.head
        cdef Py_ssize_t unread = buf.tail - buf.head, skip = 0, size = -1
        cdef bytes result
        if unit.kind == PKG and unread >= unit.header_size and self.body == NULL:
            skip = unit.header_size
            size = wire.get_length(start, unit.header_size)
        elif unit.kind == LINE and unread and not self.scanned and self.body == NULL:
            size = wire.find(start, unread if unread <= unit.limit else unit.limit + 1, unit.needle, 1)
        if size < 0 or size > unit.limit or size > unread - skip:
            return None
        result = PyBytes_FromStringAndSize(start + skip, size)
        self.scanned = 0
        buf.consume(skip + size + (unit.kind == LINE))
        self.units += 1
        return result

    cdef object take(self, Unit* unit):
        """The unit, or None when bytes are missing. Raises LimitError and consumes nothing."""
        cdef object value
        if self.body == NULL:
            if self.buf.head == self.buf.tail and (unit.kind == PKG or unit.kind == LINE):
                return None
        elif not self._continues(unit):
            self.unwind()
        value = self.peel(unit)
        if value is not None:
            return value
        if unit.kind == PKG:
            value = self._take_pkg(unit)
        elif unit.kind == EXACT:
            value = self._take_exact(unit)
        elif unit.kind == LINE or unit.kind == TILL:
            value = self._take_delimited(unit)
        elif unit.kind == INTO:
            value = self._take_into(unit)
        else:
            value = self._take_loose(unit)
        self.units += value is not None
        return value

    cdef object _take_pkg(self, Unit* unit):
        cdef ByteBuffer buf = self.buf
        cdef Py_ssize_t size
        if self.guessing:
            return None
        if self.body != NULL:
            self._check_pkg(self.expected, unit.limit)
            return self._finish() if self.filled == self.expected else None
        if buf.unread() < unit.header_size:
            return None
        size = wire.get_length(buf.block + buf.head, unit.header_size)
        self._check_pkg(size, unit.limit)
        if size > BLOCK - unit.header_size:
            self._begin(unit, size, unit.header_size)
            self.forecast = size
        return None

    cdef int _check_pkg(self, Py_ssize_t size, Py_ssize_t limit) except -1:
        if size > limit:
            self.oversized = True
            raise LimitError(f"package of {size} bytes exceeds max_data_size {limit}")
        return 0

    cdef object _take_exact(self, Unit* unit):
        if self.body != NULL:
            return self._finish() if self.filled == self.expected else None
        if self.buf.unread() >= unit.size:
            self.scanned = 0
            return self.buf.take(unit.size)
        if unit.size > BLOCK:
            self._begin(unit, unit.size, 0)
        return None

    cdef object _take_delimited(self, Unit* unit):
        cdef ByteBuffer buf = self.buf
        cdef Py_ssize_t unread = buf.unread()
        cdef bint line = unit.kind == LINE
        # The result may have `limit` bytes; a line's newline is not among them.
        cdef Py_ssize_t reach = unread
        cdef Py_ssize_t start, at
        cdef bytes result
        if unread > unit.limit:
            reach = unit.limit + 1 if line else unit.limit
        start = self._searched(unit)
        at = wire.find(buf.data() + start, reach - start, unit.needle, unit.needle_size) if start < reach else -1
        if at >= 0:
            at += start
            result = PyBytes_FromStringAndSize(buf.data(), at if line else at + unit.needle_size)
            self.scanned = 0
            buf.consume(at + unit.needle_size)
            return result
        self.scanned = max(self.scanned, reach)
        if unread > unit.limit or (not line and unread == unit.limit):
            raise LimitError(f"no delimiter within max_size {unit.limit} bytes")
        return None

    cdef Py_ssize_t _searched(self, Unit* unit) except -1:
        """How many leading bytes need no second look. A delimiter may be split: its length - 1 are looked at again."""
        cdef bytes known = self.scanned_for
        if known is None or PyBytes_GET_SIZE(known) != unit.needle_size \
                or memcmp(PyBytes_AS_STRING(known), unit.needle, unit.needle_size) != 0:
            self.scanned_for = PyBytes_FromStringAndSize(unit.needle, unit.needle_size)
            self.scanned = 0
        return max(<Py_ssize_t>0, self.scanned - (unit.needle_size - 1))

    cdef object _take_into(self, Unit* unit):
        cdef Py_ssize_t n = min(self.buf.unread(), unit.size - unit.got)
        if n:
            memcpy(unit.target + unit.got, self.buf.data(), n)
            self.scanned = 0
            self.buf.consume(n)
            unit.got += n
        return unit.got if unit.got == unit.size or (unit.one_read and unit.got) else None

    cdef object _take_loose(self, Unit* unit):
        cdef Py_ssize_t unread = self.buf.unread()
        if self.body == NULL:
            if unread == 0:
                return None
            if not unit.patient or unit.final or unread >= unit.limit:
                self.scanned = 0
                return self.buf.take(min(unread, unit.limit))
            self._begin(unit, unit.limit, 0)
            return None
        if self.filled == 0:
            return None
        if unit.kind == SOME or unit.final or self.filled == self.expected:
            return self._finish()
        return self._finish() if self.short_read and not unit.patient else None

    cdef Py_ssize_t take_all(self, Unit* unit, list into, Py_ssize_t n) except -1:
        """Appends up to n whole packages (below 0: all there are) to `into`; answers how many."""
        cdef Py_ssize_t count = 0
        cdef object value
        while True:
            count += self._peel_pkgs(unit, into, n - count)
            value = self.take(unit) if count != n else None
            if value is None:
                return count
            into.append(value)
            count += 1

    cdef Py_ssize_t _peel_pkgs(self, Unit* unit, list into, Py_ssize_t n) except -1:
        """The same for those that lie whole in the buffer."""
        cdef ByteBuffer buf = self.buf
        cdef const char* start
        cdef Py_ssize_t header_size = unit.header_size, left = buf.tail - buf.head, size, count = 0
        if self.body != NULL:
            return 0
        self.scanned = 0
        while count != n and left >= header_size:
            start = buf.block + buf.head
            size = wire.get_length(start, header_size)
            if size > unit.limit or size > left - header_size:
                break
            into.append(PyBytes_FromStringAndSize(start + header_size, size))
            buf.head += header_size + size      # one by one: what was taken when memory runs out is in the list
            left -= header_size + size
            self.units += 1
            count += 1
        buf.consume(0)
        return count

    cdef inline void await_late(self, Py_ssize_t replies) noexcept:
        """An exchange has failed, and so many replies to it may still come."""
        self.in_step_at = max(self.in_step_at, self.units + replies)

    cdef inline int check_in_step(self) except -1:
        """BrokenError when an exchange that begins now would take such a reply for its own."""
        if self.units < self.in_step_at:
            raise BrokenError("an earlier exchange is owed its reply: receive that, or close the connection")
        return 0

    # -- a large unit on its way

    cdef bint _continues(self, Unit* unit) noexcept:
        """The unit asked for is the one that is on its way."""
        if self.body_kind != unit.kind:
            return False
        if unit.kind == PKG:
            return self.body_header == unit.header_size
        return unit.kind != EXACT or self.expected == unit.size

    cdef int _begin(self, Unit* unit, Py_ssize_t size, int header_size) except -1:
        """Moves what is buffered of a unit of `size` bytes into the beginnings of its result."""
        cdef ByteBuffer buf = self.buf
        cdef Py_ssize_t there = buf.unread() - header_size
        cdef Py_ssize_t allocated = max(there, min(size, <Py_ssize_t>TRUSTED))
        cdef bytes body = PyBytes_FromStringAndSize(NULL, allocated)
        if there:
            memcpy(PyBytes_AS_STRING(body), buf.data() + header_size, there)
        self.scanned = 0
        buf.consume(header_size + there)
        Py_INCREF(body)
        self.body = <PyObject*>body
        self.allocated = allocated
        self.filled = there
        self.expected = size
        self.body_kind = unit.kind
        self.body_header = header_size
        self.short_read = False
        return 0

    cdef object _finish(self):
        cdef object result
        if self.filled != self.allocated:
            self._resize(self.filled)
        result = <object>self.body
        Py_CLEAR(self.body)
        return result

    cdef int _resize(self, Py_ssize_t size) except -1:
        if _PyBytes_Resize(&self.body, size) < 0:       # which then has freed the body
            self.lost = True            # pragma: no cover (memory ran out, as in tests/fault/test_memory.py)
            raise MemoryError(f"no memory for {size} received bytes")
        self.allocated = size
        return 0

    cdef int unwind(self) except -1:
        """Puts a unit on its way back in front of the unread bytes, to be taken differently."""
        cdef char[8] header
        cdef bytes body
        if self.guessing:
            Py_CLEAR(self.body)
            self.guessing = False
        if self.body == NULL:
            return 0
        body = <bytes>self.body
        self.buf.reserve(self.filled + self.body_header)
        self.buf.prepend(PyBytes_AS_STRING(body), self.filled)
        if self.body_header:
            wire.put_length(header, self.body_header, <uint32_t>self.expected)
            self.buf.prepend(header, self.body_header)
        self.scanned = 0
        Py_CLEAR(self.body)
        return 0

    cdef int put_back(self, const char* data, Py_ssize_t n) except -1:
        """Unreads bytes that a failed operation had already handed over."""
        self.unwind()
        self.buf.prepend(data, n)
        self.scanned = 0
        return 0

    cdef int unread(self, Unit* unit, object value) except -1:
        """Unreads a unit that was taken and then not wanted."""
        cdef char[4] header
        self.units -= 1
        if unit.kind == INTO:
            unit.got = self.put_back(unit.target, unit.got)     # 0: what fails next puts nothing back again
            return 0
        if unit.kind == LINE:
            self.put_back(unit.needle, unit.needle_size)
        self.put_back(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        if unit.kind == PKG:
            wire.put_length(header, unit.header_size, <uint32_t>PyBytes_GET_SIZE(value))
            self.put_back(header, unit.header_size)
        return 0

    # -- receiving bytes

    cdef int make_room(self, Unit* unit, Room* room) except -1:
        """Where the next bytes of the stream go, and how many may."""
        cdef ByteBuffer buf = self.buf
        room.more = 0
        if self.body == NULL:
            if unit.kind == SOME or unit.kind == BURST:
                self._begin(unit, unit.limit, 0)
            elif unit.kind == PKG and self.forecast and buf.tail == buf.head and self.forecast <= unit.limit:
                self._guess(unit)
        if self.guessing:
            room.where, room.size = self.header, unit.header_size
            room.then, room.more = PyBytes_AS_STRING(<object>self.body), self.allocated
        elif self.body != NULL:
            if self.filled == self.allocated:
                # Doubling costs as much memory again as has really arrived.
                self._resize(min(self.expected, 2 * self.allocated))
            room.where = PyBytes_AS_STRING(<object>self.body) + self.filled
            room.size = min(self.allocated, self.expected) - self.filled
        elif unit.kind == INTO:
            room.where, room.size = unit.target + unit.got, unit.size - unit.got
        else:
            if buf.size - buf.tail < CRAMPED and (buf.tail - buf.head <= buf.head or buf.size == buf.tail):
                # A line needs one byte more than its limit to be too long; those of other kinds fit the block.
                buf.reserve(CRAMPED if buf.size - buf.tail else 1, min(unit.limit, PY_SSIZE_T_MAX - CRAMPED) + CRAMPED)
            room.where, room.size = buf.block + buf.tail, buf.size - buf.tail
        return 0

    cdef int fill(self, Unit* unit, Py_ssize_t n, Room* room) except -1:
        """n bytes have been stored where `make_room` said."""
        if self.guessing:
            self._settle(unit.header_size, unit.limit, n)
        elif self.body != NULL:
            self.filled += n
            self.short_read = n < room.size
        elif unit.kind == INTO:
            unit.got += n
        else:
            self.buf.tail += n
        return 0

    cdef int _guess(self, Unit* unit) except -1:
        """Begins the result of a package whose header has yet to come."""
        cdef Py_ssize_t size = min(self.forecast, <Py_ssize_t>TRUSTED)
        cdef bytes body = PyBytes_FromStringAndSize(NULL, size)
        Py_INCREF(body)
        self.body = <PyObject*>body
        self.allocated = self.expected = size
        self.filled = 0
        self.body_kind = PKG
        self.body_header = unit.header_size
        self.guessing = True
        return 0

    cdef int _settle(self, int header_size, Py_ssize_t limit, Py_ssize_t n) except -1:
        """The guess has met its header, or some of it: right or wrong, the bytes end up where they belong."""
        cdef Py_ssize_t got = n - header_size
        cdef Py_ssize_t size = wire.get_length(self.header, header_size) if got >= 0 else 0
        self.guessing = False
        if got >= 0 and BLOCK - header_size < size <= limit and got <= size:
            self.forecast = self.expected = size
            self.filled = got
            return 0
        self.forecast = 0
        self.filled = self.body_header = 0
        try:
            self.buf.append(self.header, min(n, <Py_ssize_t>header_size))
            if got > 0:
                self.buf.append(PyBytes_AS_STRING(<object>self.body), got)
        except:                         # pragma: no cover (memory ran out, as in tests/fault/test_memory.py)
            self.lost = True            # pragma: no cover
            raise                       # pragma: no cover
        finally:
            Py_CLEAR(self.body)
        return 0

    cdef void relax(self) noexcept:
        """Called before a wait: an idle connection holds no large buffer."""
        if self.body != NULL and self.filled == 0 and (self.body_header == 0 or self.guessing):
            Py_CLEAR(self.body)
            self.guessing = False
        self.buf.relax()

    # -- the end of the stream

    cdef tuple cut_off(self, Unit* unit):
        """(the bytes of the unit that are there, its size or None); (b"", None) at a clean end."""
        cdef ByteBuffer buf = self.buf
        cdef Py_ssize_t unread = buf.unread()
        if unit.kind == SOME or unit.kind == BURST:
            return b"", None
        if self.body != NULL and self.filled + self.body_header and not self.guessing:
            return PyBytes_FromStringAndSize(PyBytes_AS_STRING(<object>self.body), self.filled), self.expected
        if unit.kind == INTO:
            if unit.got == 0:
                return b"", None
            return PyBytes_FromStringAndSize(unit.target, unit.got), unit.size
        if unread == 0:
            return b"", None
        if unit.kind == PKG and unread >= unit.header_size:
            return (PyBytes_FromStringAndSize(buf.data() + unit.header_size, unread - unit.header_size),
                    wire.get_length(buf.data(), unit.header_size))
        return (PyBytes_FromStringAndSize(buf.data(), unread),
                unit.header_size if unit.kind == PKG else unit.size if unit.kind == EXACT else None)

    cdef inline bint bursting(self) noexcept:
        """A BURST has its first bytes."""
        return self.body != NULL and self.body_kind == BURST and self.filled > 0

    cdef inline Py_ssize_t pending(self) noexcept:
        """Bytes that arrived and were not taken."""
        cdef Py_ssize_t n = self.buf.unread()
        if self.body != NULL and not self.guessing:
            n += self.filled + self.body_header
        return n
