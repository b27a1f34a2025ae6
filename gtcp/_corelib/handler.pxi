# A server's loop around a function, with nothing in between: as a handler like any other, or in a hub without a stack
# for each connection that waits.
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.contextvars cimport PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit
from cpython.exc cimport PyErr_CheckSignals
from libc.string cimport memset

cimport gtcp._corelib.posix as posix


@cython.final
cdef class PkgHandler:
    """A handler that answers each package with what `function` makes of it, or with nothing for None."""
    cdef object function
    cdef object retry
    cdef Unit unit

    def __cinit__(self, function, option):
        self.function = function
        self.retry = None if option is None else option.retry
        memset(&self.unit, 0, sizeof(Unit))
        self.unit.kind = PKG
        get_option(option, &self.unit)

    def __call__(self, BlockingConn conn not None):
        cdef Unit unit = self.unit
        cdef object request
        while True:
            request = conn.peel(&unit)
            if request is None:
                PyErr_CheckSignals()    # nobody else does when the function is no Python code and never waits
                request = conn._recv_unless_ended(&unit, conn.recv_deadline)
                if request is None:
                    return
            self.answer(conn, request)

    def serve(self, BlockingConn conn not None, ended):
        """The same for a greenlet, which can end now: `ended(error)` follows at the end, None for a clean one."""
        cdef Hub hub = <Hub?>current_way()
        cdef Served served = Served.__new__(Served)
        served.hub = hub
        served.handler = self
        served.conn = conn
        served.stream = conn.open_stream()
        served.unit = self.unit
        served.ended = ended
        served.context = PyContext_CopyCurrent()
        hub.alive.add(served)
        hub.wake(served)

    cdef inline int answer(self, BlockingConn conn, object request) except -1:
        cdef object reply = self.function(request)
        if reply is not None and not slip_pkg(conn, reply, &self.unit):
            conn._send_pkg(reply, &self.unit, self.retry, conn.send_deadline)
        return 0


cdef inline bint slip_pkg(BlockingConn conn, object data, Unit* unit) except -1:
    """`slip` for a package, if it is one that can be sent."""
    cdef Out out
    if not PyBytes_CheckExact(data) or PyBytes_GET_SIZE(data) > unit.limit:
        return False
    memset(&out, 0, sizeof(Out))
    out.data, out.size = PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
    frame(&out, unit)
    return conn.slip(&out)


@cython.final
cdef class Served(Stackless):
    """A connection whose packages a PkgHandler answers."""
    cdef Hub hub
    cdef PkgHandler handler
    cdef BlockingConn conn
    cdef Stream stream
    cdef object ended
    cdef object context             # the greenlet's that began it
    cdef Unit unit
    # A receive under way, which sleeping interrupts: what it wants, and where it waits.
    cdef bint receiving
    cdef Wait wait
    cdef Watch watch
    cdef object overtaken           # who waited before it for room in the kernel
    cdef bint busy

    cdef int go_on(self) except -1:
        cdef object error = None
        if self.busy or self.conn is None:
            return 0                    # the function waits, as a greenlet does; or the end has come
        self.busy = True
        PyContext_Enter(self.context)
        try:
            try:
                if not self.serve():
                    return 0
            except BaseException as raised:
                error = raised
            self.end(error)
        finally:
            self.busy = False
            PyContext_Exit(self.context)
        return 0

    cdef int end(self, object error) except -1:
        cdef object ended = self.ended
        self.hub.forget(self)
        self.handler = self.conn = self.stream = self.ended = None
        ended(error)
        return 0

    cdef bint serve(self) except -1:
        """Answers what has come: True at the peer's end, False when more has to come or others have their turn."""
        cdef object request
        while self.hub.credit > 0:
            try:
                request = self.receive()
            except EOF as end:
                if not is_clean(end):
                    raise
                return True
            if request is None:
                return False
            self.handler.answer(self.conn, request)
        self.hub.wake(self)
        return False

    cdef object receive(self):
        """The next package, or None when it has yet to come."""
        cdef Stream stream = self.stream
        cdef bint late = self.receiving and not self.woken
        cdef object request = None
        if not self.receiving:
            request = self.conn.peel(&self.unit)
            if request is not None:
                return request
            PyErr_CheckSignals()
            self.begin()
        self.wake_up()
        try:
            self.raise_thrown()
            while True:
                request = stream.recv_step(&self.unit, &self.wait)
                if request is not None:
                    return request
                if late:                # what arrived at the last moment counts
                    raise Timeout("timed out while receiving")
                if self.fall_asleep():
                    return None
                late = not stream.wait(&self.wait)
        except:
            stream._after_failed_receive(&self.unit)
            raise
        finally:
            if not self.asleep:
                self.receiving = False
                stream.receiver = 0
                stream.leave()

    cdef int begin(self) except -1:
        self.stream.enter()
        try:
            self.stream.claim_receiver()
        except:
            self.stream.leave()
            raise
        start_wait(&self.wait, self.conn.recv_deadline)
        self.receiving = True
        return 0

    cdef bint fall_asleep(self) except -1:
        """Has itself woken when the socket is ready; False if it has to wait in another way."""
        cdef Watch watch = self.stream.watch_by(self.hub) if self.wait.events else None
        if watch is None:
            return False
        if self.wait.events & posix.POLLIN:
            watch.reader = self
        if self.wait.events & posix.POLLOUT:
            self.overtaken = watch.writer
            watch.writer = self
        self.watch = watch
        self.hub.timers.set(self, self.wait.until)
        self.woken = self.ready         # woken since it began: whatever it was is looked at first
        self.asleep = True
        return True

    cdef int wake_up(self) except -1:
        cdef Watch watch = self.watch
        cdef object other = self.overtaken
        self.asleep = False
        self.deadline = NEVER
        if watch is None:
            return 0
        self.watch = self.overtaken = None
        if watch.reader is self:
            watch.reader = None
        if watch.writer is self:
            watch.writer = None
        if other is not None:
            self.hub.wake(<Timed>other)     # the room in the kernel was its event, too
        return 0
