# Seconds, as people write them, to an absolute moment in nanoseconds of CLOCK_MONOTONIC.
from cpython.bool cimport PyBool_Check
from cpython.float cimport PyFloat_AsDouble, PyFloat_CheckExact
from libc.math cimport ceil, isnan
from libc.stdint cimport INT64_MAX, int64_t

cimport gtcp._corelib.posix as posix

cdef enum:
    # 34 years: what is later than this counts as never.
    FAR_SECONDS = 1 << 30

cdef int64_t NEVER = INT64_MAX


cdef double seconds(object value, str name) except? -1:
    """A number of seconds, or ValueError or TypeError in the caller's words."""
    cdef double x
    if PyFloat_CheckExact(value):
        x = <double>value
    elif PyBool_Check(value) or isinstance(value, (str, bytes)):
        raise TypeError(f"{name} must be a number of seconds or None, not {type(value).__name__}")
    else:
        try:
            x = PyFloat_AsDouble(value)
        except TypeError:
            raise TypeError(
                f"{name} must be a number of seconds or None, not {type(value).__name__}") from None
        except OverflowError:
            x = FAR_SECONDS if value > 0 else -1.0
    if isnan(x):
        raise ValueError(f"{name} must be a number of seconds, not nan")
    return x


cdef int64_t nanoseconds(object value, str name) except -1:
    """A duration: >= 0, rounded up; NEVER for None and for what lasts longer than anyone waits."""
    cdef double x
    if value is None:
        return NEVER
    x = seconds(value, name)
    if x < 0:
        raise ValueError(f"{name} must not be negative, got {value!r}")
    return NEVER if x >= FAR_SECONDS else <int64_t>ceil(x * 1e9)


cdef inline int64_t after(int64_t moment, int64_t duration) noexcept:
    """The moment so much later; NEVER is later than any."""
    return moment + duration if duration < NEVER - moment else NEVER


cdef int64_t deadline_of(object timeout, int64_t limit) except -1:
    """The moment `timeout` seconds from now, or `limit` if that is earlier."""
    cdef int64_t wait, moment
    if timeout is None:
        return limit
    wait = nanoseconds(timeout, "timeout")
    if wait == NEVER:
        return limit
    moment = posix.now() + wait
    return moment if moment < limit else limit


cdef int64_t moment_of(object when) except -1:
    """A moment in `time.monotonic()` seconds; NEVER for None."""
    cdef double x
    if when is None:
        return NEVER
    x = seconds(when, "when")
    if x >= FAR_SECONDS:
        return NEVER
    return <int64_t>ceil(x * 1e9) if x > 0 else 0


cdef inline int64_t left(int64_t deadline) noexcept:
    """Nanoseconds until then: 0 when it has passed, -1 for never, as poll(2) wants it."""
    cdef int64_t wait
    if deadline == NEVER:
        return -1
    wait = deadline - posix.now()
    return wait if wait > 0 else 0


def to_deadline(timeout):
    """The `time.monotonic()` moment `timeout` seconds from now; None for no limit."""
    cdef int64_t moment = deadline_of(timeout, NEVER)
    return None if moment == NEVER else moment / 1e9


def remaining(deadline):
    """Seconds until the `time.monotonic()` moment, not below 0; None for no limit."""
    cdef int64_t moment = moment_of(deadline)
    return None if moment == NEVER else left(moment) / 1e9
