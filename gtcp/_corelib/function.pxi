# Waiting by a function of the user's: whoever schedules greenlets in some way can have gtcp's waits yield too.
cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t

cimport gtcp._corelib.epoll as epoll
cimport gtcp._corelib.greenlet as greenlet
cimport gtcp._corelib.posix as posix
cimport gtcp._corelib.pythread as pythread
cimport gtcp._corelib.way as way

cdef enum:
    # Where no descriptor stands for several, one of them is waited for and the others are looked at: every 5 ms.
    GLANCE = 5000000


@cython.final
cdef class FunctionParker(Parker):
    cdef object event

    cdef int park(self, int64_t deadline) except -1:
        cdef int64_t wait
        while not self.woken:
            wait = left(deadline)
            if wait == 0:
                return 0
            self.event.wait(None if wait < 0 else wait / 1e9)
        return 1

    cdef int unpark(self) except -1:
        if not self.woken:
            self.woken = True
            try:
                self.event.set()
            except:
                self.event.set()        # a signal's exception: nobody else would wake the sleeper
                raise
        return 0


@cython.final
cdef class FunctionWay(Way):
    """`function(fd, events, timeout)` waits for a descriptor, `event()` makes what a caller sleeps on in a queue."""
    cdef object function
    cdef object event
    cdef bint greenlets             # they exist: each of them is somebody

    cdef size_t who(self) noexcept:
        cdef object me
        if self.greenlets:
            me = greenlet.current()     # which lives while it runs
            return <size_t><PyObject*>me
        return <size_t>pythread.PyThread_get_thread_ident()

    cdef Parker parker(self):
        cdef FunctionParker parker = FunctionParker()
        parker.event = self.event()
        return parker

    cdef Watch watch(self, int fd):
        cdef Watch watch = Watch()
        watch.fd = fd
        watch.ended = True              # nobody watches between the waits: every read has to ask
        return watch

    cdef int wait_ready(self, int fd, int events, int64_t deadline) except -1:
        """1 may be too early, as the function may return early: the step that follows finds out."""
        cdef int64_t wait = left(deadline)
        if wait == 0:
            return 0
        self.function(fd, events, None if wait < 0 else wait / 1e9)
        return left(deadline) != 0

    cdef list wait_any(self, dict fds, int64_t deadline):
        cdef list ready
        cdef epoll.Event[8] events
        cdef int poller = -posix.ENOSYS
        cdef int error
        try:
            while True:
                if poller >= 0:
                    epoll.wait(poller, events, 8, 0)    # what the look that follows will find is no news
                ready = sleep_until_any(fds, 0)
                if ready or left(deadline) == 0:
                    return ready
                if len(fds) == 1:
                    for fd in fds:
                        self.wait_ready(fd, fds[fd], deadline)
                elif poller >= 0:
                    self.wait_ready(poller, posix.POLLIN, deadline)
                else:
                    poller = epoll.create()
                    if poller == -posix.ENOSYS:
                        fd = next(iter(fds))
                        self.wait_ready(fd, fds[fd], min(deadline, posix.now() + GLANCE))
                    elif poller < 0:
                        raise socket_error(poller)
                    else:
                        for fd in fds:
                            error = epoll.add(poller, fd, NULL)
                            if error < 0:
                                raise socket_error(error)
        finally:
            if poller >= 0:
                posix.close(poller)


cdef FunctionWay the_function_way = None


def set_wait_function(function, event):
    """From now on threads wait by `function` and `event`; they sleep again when both are None."""
    global the_function_way
    cdef FunctionWay chosen = None
    if function is not None:
        chosen = FunctionWay()
        chosen.function = function
        chosen.event = event
        try:
            greenlet.load()
            chosen.greenlets = True
        except (ImportError, AttributeError):
            pass                        # then only threads can call
    way.set_common(<PyObject*>chosen if chosen is not None else NULL)
    the_function_way = chosen
