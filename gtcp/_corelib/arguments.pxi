# What callers hand in, checked before a byte moves.
from cpython.bool cimport PyBool_Check
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.long cimport PyLong_CheckExact
from cpython.number cimport PyIndex_Check, PyNumber_Index
from libc.stdint cimport uint32_t
from libc.string cimport memset

cimport gtcp._corelib.wire as wire
from gtcp._corelib.limits cimport PY_SSIZE_T_MAX

cdef enum:
    BURST_LIMIT = 16 << 20          # bytes that one recv(-1) returns at most
    LINE_LIMIT = 1 << 20            # default max_size of lines and delimited units
    FAREWELL = 100000000            # how long close() waits for the peer's TLS goodbye, 100 ms
    DEFAULT_GAP = 1000000           # buffer_wait_recv, 1 ms

cdef bytes NEWLINE = b"\n"
cdef Py_ssize_t[5] HEADER_MAX = [0, 0xFF, 0xFFFF, 0xFFFFFF, 0x7FFFFFFF]

# The PkgOption of the last call and what it says: options are immutable, and most callers have one.
cdef object known_option = None
cdef int known_header = 0
cdef Py_ssize_t known_limit = 0


cdef struct Data:
    # The bytes of a bytes-like object, which stay where they are until `drop_data`.
    const char* start
    Py_ssize_t size
    bint exported
    Py_buffer view


cdef int get_data(object source, Data* data) except -1:
    """The bytes of any buffer; a bytearray cannot be resized before `drop_data`."""
    data.exported = False
    if PyBytes_CheckExact(source):
        data.start = PyBytes_AS_STRING(source)
        data.size = PyBytes_GET_SIZE(source)
        return 0
    if not PyObject_CheckBuffer(source):
        raise TypeError(f"data must be bytes-like, not {type(source).__name__}")
    try:
        PyObject_GetBuffer(source, &data.view, PyBUF_SIMPLE)
    except BufferError:
        # Not contiguous: a copy has the bytes in their logical order, and the view keeps it alive.
        PyObject_GetBuffer(memoryview(source).tobytes(), &data.view, PyBUF_SIMPLE)
    data.exported = True
    data.start = <const char*>data.view.buf
    data.size = data.view.len
    return 0


cdef inline void drop_data(Data* data) noexcept:
    if data.exported:
        PyBuffer_Release(&data.view)


cdef Py_ssize_t get_size(object value, str name, Py_ssize_t least) except -2:
    """An int >= least that fits the machine, or TypeError or ValueError."""
    cdef Py_ssize_t n
    if not PyLong_CheckExact(value) and (PyBool_Check(value) or not PyIndex_Check(value)):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    value = PyNumber_Index(value)
    if value < least or value > PY_SSIZE_T_MAX:
        raise ValueError(f"{name} must be from {least} to {PY_SSIZE_T_MAX}, got {value}")
    n = value
    return n


cdef int get_option(object option, Unit* unit) except -1:
    """Header size and limit of a PkgOption, or of the default one."""
    global known_option, known_header, known_limit
    cdef Py_ssize_t header_size, size_limit
    if option is None:
        unit.header_size = 2
        unit.limit = HEADER_MAX[2]
        return 0
    if option is not known_option:
        try:
            header, limit = option.header_size, option.max_data_size
        except AttributeError:
            raise TypeError(f"option must be a PkgOption, not {type(option).__name__}") from None
        header_size = get_size(header, "header_size", 1)
        if header_size > 4:
            raise ValueError(f"header_size must be from 1 to 4, got {header}")
        size_limit = HEADER_MAX[header_size] if limit is None else get_size(limit, "max_data_size", 0)
        if size_limit > HEADER_MAX[header_size]:
            raise ValueError(f"a header of {header_size} bytes cannot say max_data_size {limit}")
        known_header, known_limit, known_option = <int>header_size, size_limit, option
    unit.header_size = known_header
    unit.limit = known_limit
    return 0


cdef int check_retry(object retry) except -1:
    """A Retry or None, before it is needed."""
    if retry is not None and not hasattr(retry, "delay"):
        raise TypeError(f"retry must be a Retry, not {type(retry).__name__}")
    return 0


cdef inline void load(Out* out, Data* data) noexcept:
    """Makes the bytes the payload of `out`."""
    memset(out, 0, sizeof(Out))
    out.data = data.start
    out.size = data.size


cdef int frame(Out* out, Unit* unit) except -1:
    """Puts the header of a package in front of out's payload, or LimitError."""
    if out.size > unit.limit:
        raise LimitError(f"package of {out.size} bytes exceeds max_data_size {unit.limit}")
    out.header_size = unit.header_size
    wire.put_length(out.header, unit.header_size, <uint32_t>out.size)
    return 0


cdef int get_needle(bytes needle, object max_size, Unit* unit) except -1:
    unit.needle = PyBytes_AS_STRING(needle)
    unit.needle_size = PyBytes_GET_SIZE(needle)
    unit.limit = LINE_LIMIT if max_size is None else get_size(max_size, "max_size", 0)
    if unit.needle_size == 0:
        raise ValueError("the delimiter must not be empty")
    if unit.kind == TILL and unit.needle_size > unit.limit:
        raise ValueError(f"the delimiter has {unit.needle_size} bytes, more than max_size {unit.limit}")
    return 0


cdef int get_length_wanted(object length, Unit* unit) except -1:
    """recv's length: n exactly, 0 what one read gives, -1 what comes until silence."""
    cdef Py_ssize_t n = get_size(length, "length", -1)
    if n > 0:
        unit.kind = EXACT
        unit.size = n
    else:
        unit.kind = SOME if n == 0 else BURST
        unit.limit = BURST_LIMIT
    return 0
