# Deadlines of many sleepers: a binary heap by moment. A later deadline leaves the entry where it is; when its
# moment comes, it is moved to the deadline of then. So a call with a timeout seldom touches the heap.
cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t
from libc.stdlib cimport free, realloc

cimport gtcp._corelib.posix as posix


cdef class Timed:
    """One who sleeps until a deadline, NEVER for none."""
    cdef int64_t deadline
    # Its place among the timers, -1 for none. The moment there may be earlier than the deadline, never later.
    cdef Py_ssize_t place
    cdef int64_t moment

    def __cinit__(self):
        self.place = -1
        self.deadline = NEVER


@cython.final
cdef class Timers:
    cdef PyObject** heap
    cdef Py_ssize_t count
    cdef Py_ssize_t room

    def __dealloc__(self):
        while self.count:
            self.cancel(<Timed>self.heap[0])
        free(self.heap)

    cdef int set(self, Timed sleeper, int64_t deadline) except -1:
        cdef PyObject** heap
        cdef Py_ssize_t room
        sleeper.deadline = deadline
        if deadline == NEVER:
            return 0
        if sleeper.place < 0:
            if self.count == self.room:
                room = max(<Py_ssize_t>64, 2 * self.room)
                heap = <PyObject**>realloc(self.heap, room * sizeof(PyObject*))
                if heap == NULL:
                    raise MemoryError("no memory for timers")
                self.heap = heap
                self.room = room
            Py_INCREF(sleeper)
            sleeper.place = self.count
            self.heap[self.count] = <PyObject*>sleeper
            self.count += 1
        elif deadline >= sleeper.moment:
            return 0
        sleeper.moment = deadline
        self._sift_up(sleeper.place)
        return 0

    cdef void cancel(self, Timed sleeper) noexcept:
        cdef Py_ssize_t at = sleeper.place
        cdef Timed last
        if at < 0:
            return
        sleeper.place = -1
        self.count -= 1
        if at < self.count:
            last = <Timed>self.heap[self.count]
            self.heap[at] = <PyObject*>last
            last.place = at
            self._sift_up(at)
            self._sift_down(last.place)
        Py_DECREF(sleeper)

    cdef int64_t left(self) noexcept:
        """Nanoseconds until the first moment, -1 when there is none."""
        return left((<Timed>self.heap[0]).moment) if self.count else -1

    cdef Timed pop_due(self):
        """The next whose deadline has passed, taken out; None when there is none."""
        cdef Timed sleeper
        cdef int64_t now
        if self.count == 0:
            return None
        now = posix.now()
        while self.count:
            sleeper = <Timed>self.heap[0]
            if sleeper.moment > now:
                return None
            if now < sleeper.deadline < NEVER:
                sleeper.moment = sleeper.deadline
                self._sift_down(0)
                continue
            self.cancel(sleeper)
            if sleeper.deadline != NEVER:
                return sleeper
        return None

    cdef void _sift_up(self, Py_ssize_t at) noexcept:
        cdef PyObject* moving = self.heap[at]
        cdef int64_t moment = (<Timed>moving).moment
        cdef Py_ssize_t above
        while at:
            above = (at - 1) // 2
            if (<Timed>self.heap[above]).moment <= moment:
                break
            self.heap[at] = self.heap[above]
            (<Timed>self.heap[at]).place = at
            at = above
        self.heap[at] = moving
        (<Timed>moving).place = at

    cdef void _sift_down(self, Py_ssize_t at) noexcept:
        cdef PyObject* moving = self.heap[at]
        cdef int64_t moment = (<Timed>moving).moment
        cdef Py_ssize_t below
        while True:
            below = 2 * at + 1
            if below >= self.count:
                break
            if below + 1 < self.count and (<Timed>self.heap[below + 1]).moment < (<Timed>self.heap[below]).moment:
                below += 1
            if (<Timed>self.heap[below]).moment >= moment:
                break
            self.heap[at] = self.heap[below]
            (<Timed>self.heap[at]).place = at
            at = below
        self.heap[at] = moving
        (<Timed>moving).place = at
