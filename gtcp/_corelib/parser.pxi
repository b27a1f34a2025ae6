# The framing for those who have bytes and no socket: tests and fuzzers.
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy, memset


cdef int set_package(Unit* unit, int header_size, Py_ssize_t limit) except -1:
    """A package with a header of so many bytes, or ValueError."""
    if not 1 <= header_size <= 4:
        raise ValueError(f"header_size must be from 1 to 4, got {header_size}")
    memset(unit, 0, sizeof(Unit))
    unit.kind = PKG
    unit.header_size = header_size
    unit.limit = limit
    return 0


@cython.final
cdef class Parser(Framing):
    """The receive side of a connection without the connection: feed it bytes, take units.

    Not safe for use by several threads at once.
    """
    # The packages that were asked for last, which the next bytes may belong to.
    cdef int header_size
    cdef Py_ssize_t limit

    def feed(self, data):
        """Adds bytes as if they had been received."""
        cdef Py_buffer view     # a typed memoryview would bring all of Cython's own into the module
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self._feed(<const char*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef int _feed(self, const char* data, Py_ssize_t size) except -1:
        cdef Unit unit
        cdef Room room
        cdef Py_ssize_t n, done = 0
        memset(&unit, 0, sizeof(Unit))
        unit.kind = self.body_kind if self.body != NULL else PKG if self.header_size else EXACT
        unit.header_size = self.header_size
        unit.limit = self.limit
        while done < size:
            if self.body == NULL and self.buf.unread():
                # Who feeds does not stop at a limit, so the buffer cannot grow towards one.
                self.buf.reserve(size - done)
            self.make_room(&unit, &room)
            n = min(size - done, room.size)
            if n == 0:
                self.unwind()
                continue
            memcpy(room.where, data + done, n)
            done += n
            if room.more and done < size:
                room.more = min(size - done, room.more)
                memcpy(room.then, data + done, room.more)
                done += room.more
                n += room.more
            self.fill(&unit, n, &room)
        return 0

    @property
    def buffered(self):
        """The number of bytes that were fed and not taken."""
        return self.pending()

    def take_exact(self, Py_ssize_t n):
        """n bytes, or None while fewer are there."""
        cdef Unit unit
        if n < 0:
            raise ValueError(f"n must not be negative, got {n}")
        memset(&unit, 0, sizeof(Unit))
        unit.kind = EXACT
        unit.size = n
        return self.take(&unit)

    def take_pkg(self, int header_size, Py_ssize_t limit):
        """The payload of the next package, or None while it is not whole; LimitError above `limit`."""
        cdef Unit unit
        set_package(&unit, header_size, limit)
        self.header_size, self.limit = header_size, limit
        return self.take(&unit)

    def take_till(self, bytes needle not None, Py_ssize_t limit, *, bint line=False):
        """The bytes up to and with the delimiter (`line`: without), or None; LimitError above `limit`."""
        cdef Unit unit
        if not needle:
            raise ValueError("the delimiter must not be empty")
        memset(&unit, 0, sizeof(Unit))
        unit.kind = LINE if line else TILL
        unit.needle = PyBytes_AS_STRING(needle)
        unit.needle_size = PyBytes_GET_SIZE(needle)
        unit.limit = limit
        return self.take(&unit)

    def take_pkgs(self, int header_size, Py_ssize_t limit, list into not None, Py_ssize_t n):
        """Appends up to n whole packages to `into` (n < 0: all there are); answers how many."""
        cdef Unit unit
        set_package(&unit, header_size, limit)
        self.header_size, self.limit = header_size, limit
        return self.take_all(&unit, into, n)
