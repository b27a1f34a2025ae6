# What one call wants: how long it may wait, and what it sends. Lives on the caller's stack.
from cpython.object cimport PyObject
from libc.stdint cimport int64_t
from libc.string cimport memset

cimport gtcp._corelib.posix as posix
cimport gtcp._corelib.way as way

cdef enum:
    # How long a call that is late may go on while bytes keep flowing, so that all that was there in time
    # counts: 20 ms.
    GRACE = 20000000
    # So many bytes, as a power of two, cost as much as a small unit: 8 KiB.
    WEIGHT = 13


cdef struct Wait:
    int64_t deadline
    # Until when this step wants to wait: the deadline, or the end of the silence that ends a BURST.
    int64_t until
    # The caller's way to wait, NULL for a thread that sleeps.
    PyObject* way
    # Whose call it is, where one who() makes several: 0 for who().
    size_t caller
    # The process in which the call began, as a count of forks.
    unsigned long generation
    # The calling thread may sleep inside the system call, which saves the poll before it: at all, and now.
    bint blocking
    bint sleep
    # What a step that is not done needs before it can go on: POLLIN, POLLOUT or both; 0: some time, until `until`.
    int events
    # What it may spend before others have to be served.
    int64_t credit
    # The call has read before; when it has to stop, 0 while it is not late.
    bint going
    int64_t stop


cdef struct Out:
    # What is to be sent: a header of up to 4 bytes and the payload, which the caller keeps alive.
    char[4] header
    int header_size
    const char* data
    Py_ssize_t size
    # How many of these bytes the kernel has taken, header included.
    Py_ssize_t sent
    # The caller's Retry, NULL for none.
    PyObject* retry


cdef inline void start_wait(Wait* wait, int64_t deadline) noexcept:
    wait.deadline = wait.until = deadline
    wait.way = way.get()
    wait.caller = 0
    wait.generation = posix.generation
    wait.blocking = wait.sleep = wait.way == NULL
    wait.events = 0
    wait.going = False
    wait.stop = 0
    wait.credit = NEVER


cdef inline void load_buffered(Out* out, ByteBuffer buffer) noexcept:
    """All that waits in the buffer is to be sent."""
    memset(out, 0, sizeof(Out))
    out.data = buffer.data()
    out.size = buffer.unread()


cdef inline bint spend(Wait* wait) noexcept:
    """Pays for a system call; False when others have to be served first."""
    if not solvent(wait):
        return False
    wait.credit -= CALL
    return True


cdef inline bint solvent(Wait* wait) noexcept:
    """False when others have to be served first."""
    if wait.credit > 0:
        return True
    wait.events = 0
    wait.until = wait.deadline
    return False


cdef inline bint late(Wait* wait) noexcept:
    """The deadline has passed, and so has the grace: a peer that never pauses does not extend them."""
    cdef int64_t now
    if wait.deadline == NEVER:
        return False
    now = posix.now()
    if now < wait.deadline:
        return False
    if wait.stop == 0:
        wait.stop = now + GRACE
    return now >= wait.stop
