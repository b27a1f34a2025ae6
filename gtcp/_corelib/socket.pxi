# A connected socket: one read, one send, waiting for it, and who uses it.
cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t

cimport gtcp._corelib.posix as posix
cimport gtcp._corelib.thread as thread

cdef enum:
    # Sends at least this large are worth the GIL's release: other threads run while the kernel copies.
    LONG_SEND = 32768
    # The main thread's longest sleep in a recv, a power of two: 67 ms (see FIRST_LOOK).
    MAIN_NAP = 1 << 26


cdef class Socket(Gatherer):
    # The socket; -1 once it is closed or detached.
    cdef int fd
    # Closed by this side. The descriptor itself lives until the last call in progress has left, so its
    # number cannot become somebody else's under a sleeping thread.
    cdef bint closed
    # The calls in progress, and the process they are of, as a count of forks: in another one they never end.
    cdef int users
    cdef unsigned long used_in
    # This side has shut the direction in which bytes come.
    cdef bint shut
    # A server ends: whoever would wait for the peer's next unit finds the connection closed.
    cdef bint draining
    # The process that opened it, as a count of forks: another one never shuts it down.
    cdef unsigned long generation
    # Why the stream lost step, and why a server closed it, or None.
    cdef str broken
    cdef str reason

    cdef Turn sending
    cdef size_t receiver            # who() receives, or which of his calls; 0 for nobody
    # What the last read gave, also while the thread that read has yet to get the GIL.
    cdef Py_ssize_t just_read
    # The SO_RCVTIMEO in force, 0 for none; `shared`: others may use the socket and rely on there being none.
    cdef int64_t receive_timeout
    cdef bint shared
    # Tells those who pause between two attempts that it is closed; None until one does.
    cdef Signal ending
    # Who keeps an eye on the socket between waits, and what was seen; None while nobody does.
    cdef Way watcher
    cdef Watch watch

    def __cinit__(self):
        self.fd = -1
        self.generation = posix.generation
        self.sending = Turn()

    def __del__(self):
        if self.watcher is not None:
            self.release()

    def __dealloc__(self):
        if self.fd >= 0:
            posix.close(self.fd)

    # -- who uses it

    cdef inline int enter(self) except -1:
        """Begins a call: the descriptor stays valid until `leave`."""
        if self.closed or self.fd < 0 or self.broken is not None:
            self.raise_unusable()
        return self.join_users()

    cdef inline int join_users(self) except -1:
        if self.users == 0:
            self.used_in = posix.generation
        elif self.used_in != posix.generation:
            raise ClosedError("another call used the connection when this process was forked")
        self.users += 1
        return 0

    cdef int raise_unusable(self) except -1:
        if self.closed or self.fd < 0:
            self.raise_closed()
        raise BrokenError(f"the connection is out of step: {self.broken}")

    cdef inline void leave(self) noexcept:
        self.users -= 1
        if self.closed and self.users == 0:
            self.release()

    cdef inline int claim_receiver(self) except -1:
        return self.claim_receiver_for(who())       # asked first, as it can run others

    cdef inline int claim_receiver_for(self, size_t me) except -1:
        if self.receiver:
            raise ConcurrencyError("another call is receiving on this connection")
        self.receiver = me
        self.just_read = 0
        return 0

    cdef int claim_turn(self, Turn turn, int64_t deadline) except -1:
        if not turn.try_take():
            if not turn.take(deadline):
                raise Timeout("timed out waiting for another call on this connection")
            if self.closed or self.broken is not None:      # since the wait began
                turn.give()
                self.raise_unusable()
        return 0

    cdef int raise_error(self, Py_ssize_t error) except -1:
        """A system call has failed."""
        if self.closed:
            self.raise_closed()
        raise socket_error(error)

    cdef int raise_closed(self) except -1:
        if self.reason is not None:
            raise ClosedError(f"the connection is closed: {self.reason}")
        raise_closed()

    # -- one read, one send

    cdef inline bint is_drained(self, Wait* wait) noexcept:
        """Nothing has come, that it was told of, since the last read found no more: there is no need to ask."""
        return self.watch is not None and self.watch.drained and wait.way == <PyObject*>self.watcher \
            and not self.draining

    cdef Py_ssize_t _recv(self, Room* room, Wait* wait) except? -1:
        """One successful read: > 0 bytes, 0 at the peer's end, or -errno."""
        cdef int fd = self.fd
        cdef Py_ssize_t* just_read = &self.just_read
        cdef Py_ssize_t n
        self.just_read = 0
        if self.is_drained(wait):
            return -posix.EAGAIN
        while True:
            if wait.sleep and self._arm(wait.deadline):
                with nogil:
                    if room.more:
                        n = posix.recv_two(fd, room.where, room.size, room.then, room.more, 0)
                    else:
                        n = posix.recv(fd, room.where, room.size, 0)
                    just_read[0] = n
                if n == -posix.EAGAIN:
                    wait.sleep = False
            else:
                if room.more:
                    n = posix.recv_two(fd, room.where, room.size, room.then, room.more, posix.MSG_DONTWAIT)
                else:
                    n = posix.recv(fd, room.where, room.size, posix.MSG_DONTWAIT)
            if n != -posix.EINTR:
                break
            heed_signals(wait.generation)
        # A thread lets go of the GIL as it reads: what came meanwhile may have been told to the watch already.
        if self.watch is not None and wait.way != NULL and (n == -posix.EAGAIN or 0 < n < room.size + room.more):
            self.watch.drained = not self.watch.ended
        return n

    cdef bint _arm(self, int64_t deadline) noexcept:
        """Lets a blocking recv sleep for most of the time left; False when it must not sleep at all.

        The kernel's limit is the largest power of two below the time left, so it is seldom set anew;
        what remains is waited for by poll, which is exact. It is the socket's, not the descriptor's.
        """
        cdef int64_t limit = 0
        if self.shared or self.generation != posix.generation:
            return False
        if deadline != NEVER:
            limit = posix.floor_power(deadline - posix.now() - 10 * posix.MILLISECOND)
            if limit < 10 * posix.MILLISECOND:
                return False
        if thread.is_main() and (limit == 0 or limit > MAIN_NAP):
            limit = MAIN_NAP
        if limit != self.receive_timeout:
            if posix.set_timeout(self.fd, posix.SO_RCVTIMEO, limit) < 0:
                return False
            self.receive_timeout = limit
        return True

    cdef int share(self) noexcept:
        """The descriptor's number, to be known outside: others who read there find no time limit, now and later."""
        self.shared = True
        if self.receive_timeout and self.generation == posix.generation:
            posix.set_timeout(self.fd, posix.SO_RCVTIMEO, 0)
            self.receive_timeout = 0
        return self.fd

    cdef bint _send_plain(self, Out* out, Wait* wait) except -1:
        """True when all is with the kernel, or False with wait.events set."""
        cdef int fd = self.fd
        cdef Py_ssize_t total = out.header_size + out.size
        cdef Py_ssize_t n
        while out.sent < total:
            if not spend(wait):
                return False
            if total - out.sent >= LONG_SEND:
                with nogil:
                    n = posix.send_framed(
                        fd, out.header, out.header_size, out.data, out.size, out.sent, posix.MSG_DONTWAIT)
            else:
                n = posix.send_framed(
                    fd, out.header, out.header_size, out.data, out.size, out.sent, posix.MSG_DONTWAIT)
            if n >= 0:
                out.sent += n
                if out.sent == total:
                    break
                heed_signals(wait.generation)
                self.pay(n, wait)
                n = -posix.EAGAIN if late(wait) else 0
            if n == 0:
                continue
            if n == -posix.EAGAIN:
                wait.events = posix.POLLOUT
                wait.until = wait.deadline
                return False
            if n == -posix.EINTR:
                heed_signals(wait.generation)
            else:
                self.raise_error(n)
        return True

    cdef int pay(self, Py_ssize_t n, Wait* wait) except -1:
        """So many bytes of a send are on their way, and there are more."""
        wait.credit -= n >> WEIGHT
        if wait.way != NULL:
            (<Way>wait.way).pay(CALL + (n >> WEIGHT))
        return 0

    # -- waiting

    cdef Signal until_closed(self):
        """What tells that this side has closed the connection."""
        cdef Signal ending
        if self.ending is None:
            ending = Signal()
            if self.ending is None:     # the allocation can run others
                self.ending = ending
        if self.closed:
            self.raise_closed()
        return self.ending

    cdef bint pause(self, int64_t duration, int64_t deadline) except -1:
        """`pause_within`; ClosedError as soon as the connection is closed."""
        if not pause_within(duration, deadline, self.until_closed()):
            return False
        if self.closed:
            self.raise_closed()
        return True

    cdef int wait(self, Wait* wait) except -1:
        """Waits for what a step needs: 1 when it has come, 0 at the time limit."""
        if wait.events == 0:
            new_parker().park(wait.until)
            return wait.until < wait.deadline
        if wait.way == NULL:
            return sleep_until_ready(self.fd, wait.events, wait.until)
        if self.watch_by(<Way>wait.way) is None:
            return (<Way>wait.way).wait_ready(self.fd, wait.events, wait.until)
        return self.watcher.wait_watched(self.watch, wait.events, wait.until)

    cdef Watch watch_by(self, Way way):
        """Has the way keep an eye on the socket; None while somebody waits in another way.

        Those are greenlets of another thread: each taking the watch from the other would never end.
        """
        cdef Watch watch
        while self.watcher is not way:
            if self.watch is not None and (self.watch.reader is not None or self.watch.writer is not None):
                return None
            self.unwatch()
            watch = way.watch(self.fd)
            if self.watcher is None:
                self.watch, self.watcher = watch, way
            else:
                way.unwatch(watch)      # making it has run others, and they have one
        return self.watch

    cdef bint unwatch(self) except -1:
        """Nobody keeps an eye on the socket any more. True when who did will close it."""
        cdef Way watcher = self.watcher
        cdef Watch watch = self.watch
        if watcher is None:
            return False
        self.watcher = self.watch = None
        return watcher.unwatch(watch)

    cdef void release(self) noexcept:
        """The last user has left: the descriptor goes."""
        cdef int fd = self.fd
        self.fd = -1
        if self.watcher is not None:
            try:
                if self.unwatch():
                    fd = -1
            except Exception:
                pass
        if fd >= 0:
            posix.close(fd)
