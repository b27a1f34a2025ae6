# Many sockets watched by one thread: epoll tells which of them became ready since they were last looked at.
from cpython.ref cimport Py_DECREF, Py_INCREF

cimport gtcp._corelib.epoll as epoll
cimport gtcp._corelib.posix as posix


cdef class Poller(Way):
    cdef int poller                 # the epoll descriptor
    cdef int bell                   # wakes it from other threads
    cdef unsigned long generation
    # Watches whose sockets are gone; events of the batch at hand may still name them.
    cdef list gone

    def __cinit__(self):
        self.poller = self.bell = -1
        self.gone = []

    cdef int open(self) except -1:
        cdef int error
        if self.poller >= 0:
            raise RuntimeError("the hub has been made already")
        self.generation = posix.generation
        self.poller = epoll.create()
        if self.poller == -posix.ENOSYS:
            raise NotImplementedError("greenlets need epoll, which only Linux has; use threads or asyncio here")
        if self.poller < 0:
            raise socket_error(self.poller)
        self.bell = epoll.bell_create()
        if self.bell < 0:
            raise socket_error(self.bell)
        error = epoll.add(self.poller, self.bell, NULL)
        if error < 0:
            raise socket_error(error)
        return 0

    def __dealloc__(self):
        self._close()

    cdef void _close(self) noexcept:
        if self.poller >= 0:
            posix.close(self.poller)
        if self.bell >= 0:
            posix.close(self.bell)
        self.poller = self.bell = -1

    cdef int wake(self, Timed sleeper) except -1:
        """Lets one go on who waits for a watched socket. From any thread."""
        raise NotImplementedError

    cdef int dispatch(self, epoll.Event* event) except -1:
        cdef void* data = epoll.data(event)
        cdef Watch watch
        if data == NULL:
            epoll.bell_silence(self.bell)
            return 0
        watch = <Watch>data
        if epoll.says_end(event):
            watch.ended = True
        if epoll.says_in(event):
            watch.drained = False
            if watch.reader is not None:
                self.wake(<Timed>watch.reader)
        if epoll.says_out(event) and watch.writer is not None:
            self.wake(<Timed>watch.writer)
        return 0

    cdef Watch watch(self, int fd):
        cdef Watch watch = Watch()
        cdef int error
        watch.fd = fd
        error = epoll.add(self.poller, fd, <void*>watch)
        if error == -posix.EEXIST:      # it is watched for another wait already: epoll tells entries apart by number
            watch.fd = error = epoll.copy(fd)
            watch.copied = True
            if error >= 0:
                error = epoll.add(self.poller, watch.fd, <void*>watch)
        if error < 0:
            if watch.copied and watch.fd >= 0:
                posix.close(watch.fd)
            raise socket_error(error)
        Py_INCREF(watch)                # epoll names it until `unwatch`
        return watch

    cdef bint unwatch(self, Watch watch) except -1:
        """From any thread, as closing is."""
        if watch.fd >= 0:
            if self.generation == posix.generation:     # a child shares the epoll instance of its parent
                epoll.remove(self.poller, watch.fd)
            if watch.copied:
                posix.close(watch.fd)
            watch.fd = -1
            self.gone.append(watch)
            Py_DECREF(watch)
            if watch.reader is not None:
                self.wake(<Timed>watch.reader)
            if watch.writer is not None:
                self.wake(<Timed>watch.writer)
        return False
