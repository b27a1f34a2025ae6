# The one place that turns an errno into an exception.
import os

cimport gtcp._corelib.posix as posix

from gtcp._errors import (
    BY_ERRNO, BrokenError, ClosedError, ConcurrencyError, EOF, Error, LimitError, PoolClosed, PoolTimeout, SocketError,
    Timeout,
)


cdef object socket_error(Py_ssize_t error):
    """The exception for `-errno`, ready to be raised."""
    cdef int number = <int>-error
    return BY_ERRNO.get(number, SocketError)(number, os.strerror(number))


cdef inline bint passes(Py_ssize_t error) noexcept:
    """What a receive may get from a connection that is none the worse for it."""
    return error == -posix.EAGAIN or error == -posix.EINTR or error == -posix.ENOMEM or error == -posix.ENOBUFS


cdef bint is_clean(object eof) except -1:
    """The peer has closed between two units."""
    return not eof.partial and eof.expected is None


cdef int raise_closed() except -1:
    raise ClosedError("the connection is closed")


cdef int raise_forked() except -1:
    raise ClosedError("the process was forked while this call waited")


cdef int raise_pool_closed() except -1:
    raise PoolClosed("the pool is closed")
