# The calls of a handle that are awaited in an event loop of asyncio.
cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyObject_GetBuffer
from libc.stdint cimport int64_t
from libc.string cimport memset

cimport gtcp._corelib.posix as posix


@cython.final
cdef class EndOf(Awaitable):
    """The end of a task, for who wants to wait for it; being cancelled in that does the task no harm."""
    cdef object task
    cdef object waiting

    cdef bint proceed(self) except -1:
        if self.waiting is None:
            import asyncio
            self.waiting = asyncio.wait([self.task])
        try:
            self.awaited = self.waiting.send(None)
        except StopIteration:
            return True
        return False

    def throw(self, kind, value=None, trace=None, /):
        cdef object error = exception_of(kind, value, trace)
        if self.waiting is None:
            raise error
        self.awaited = self.waiting.throw(error)
        return self.awaited

    def close(self):
        if self.waiting is not None:
            self.waiting.close()


cdef EndOf end_of(object task):
    cdef EndOf end = EndOf()
    end.task = task
    return end


cdef class AsyncConn(BaseConn):
    """A handle whose calls are awaited. It belongs to the loop that opened it, and to that loop's thread."""
    cdef public bint _opening       # a task is at it
    cdef object last_words          # the task that brings a lease to its end, when the hook for that takes its time

    cdef Operation ready(self, Operation call, int roles, object timeout, object retry):
        """The call, whose arguments have been checked, ready to be awaited."""
        check_retry(retry)
        call.timeout = nanoseconds(timeout, "timeout")
        call.conn = self
        call.wanted = roles
        call.retry = retry
        call.attempt = 0
        call.rung = False
        call.stage = NEW
        return call

    # -- sending

    def send(self, data, retry=None, *, timeout=None):
        """Sends all of `data` (bytes-like); arguments and errors as in the blocking `send`.

        `data` must not change before the call is over. Several tasks that send queue up. When the task is cancelled,
        some, all or none of the bytes have left; some of them break the connection.
        """
        cdef Send call = new_send()
        get_data(data, &call.payload)
        call.source = data
        load(&call.out, &call.payload)
        return self.ready(call, SENDING, timeout, retry)

    def send_pkg(self, data, option=None, *, timeout=None):
        """Sends one package; arguments and errors as in the blocking `send_pkg`.

        Packages of several tasks never interleave. A package that cancelling cut in two breaks the connection.
        """
        cdef Send call = new_send()
        cdef Unit unit
        get_option(option, &unit)
        get_data(data, &call.payload)
        call.source = data
        load(&call.out, &call.payload)
        frame(&call.out, &unit)
        return self.ready(call, SENDING, timeout, None if option is None else option.retry)

    # -- receiving

    def recv(self, length=-1, retry=None, *, timeout=None):
        """Receives bytes; arguments and errors as in the blocking `recv`.

        One task may receive at a time. When it is cancelled, what has arrived stays in the connection.
        """
        cdef Receive call = new_receive()
        get_length_wanted(length, &call.unit)
        call.unit.gap = self.gap
        call.unit.patient = self.patient
        return self.ready(call, RECEIVING, timeout, retry)

    def recv_into(self, buffer, n=0, *, timeout=None):
        """Receives into a writable buffer; arguments and errors as in the blocking `recv_into`, else as `recv`."""
        cdef Receive call = new_receive()
        call.unit.kind = INTO
        call.unit.size = get_size(n, "n", 0)
        call.unit.one_read = call.unit.size == 0
        PyObject_GetBuffer(buffer, &call.view, PyBUF_WRITABLE)
        call.exported = True
        if call.view.len == 0 or call.unit.size > call.view.len:
            raise ValueError(f"a buffer of {call.view.len} bytes cannot take {call.unit.size or 'any'} bytes")
        if call.unit.one_read:
            call.unit.size = call.view.len
        call.unit.target = <char*>call.view.buf
        return self.ready(call, RECEIVING, timeout, None)

    def recv_line(self, retry=None, *, timeout=None, max_size=None):
        """Receives up to a newline, which is dropped; arguments and errors as in the blocking `recv_line`."""
        cdef Receive call = new_receive()
        call.unit.kind = LINE
        get_needle(NEWLINE, max_size, &call.unit)
        return self.ready(call, RECEIVING, timeout, retry)

    def recv_till(self, bytes til not None, retry=None, *, timeout=None, max_size=None):
        """Receives up to and with the delimiter `til`; arguments and errors as in the blocking `recv_till`."""
        cdef Receive call = new_receive()
        call.unit.kind = TILL
        call.needle = til
        get_needle(til, max_size, &call.unit)
        return self.ready(call, RECEIVING, timeout, retry)

    def recv_pkg(self, option=None, *, timeout=None):
        """Receives the payload of one package; arguments and errors as in the blocking `recv_pkg`."""
        cdef Receive call = new_receive()
        call.unit.kind = PKG
        get_option(option, &call.unit)
        return self.ready(call, RECEIVING, timeout, None if option is None else option.retry)

    # -- exchanges

    def send_recv(self, data, length=-1, retry=None, *, timeout=None):
        """Sends `data`, then receives as `recv(length)` does; no other exchange gets in between.

        When the task is cancelled, the reply may still come, as after any failure: see the blocking `send_recv`.
        """
        cdef Exchange call = new_exchange()
        get_length_wanted(length, &call.unit)
        call.unit.gap = self.gap
        call.unit.patient = self.patient
        get_data(data, &call.payload)
        call.source = data
        load(&call.out, &call.payload)
        return self.ready(call, EXCHANGING | RECEIVING | SENDING, timeout, retry)

    def send_recv_pkg(self, data, option=None, *, timeout=None):
        """Sends a package and receives the package that answers it; else as `send_recv`."""
        cdef Exchange call = new_exchange()
        call.unit.kind = PKG
        get_option(option, &call.unit)
        get_data(data, &call.payload)
        call.source = data
        load(&call.out, &call.payload)
        frame(&call.out, &call.unit)
        return self.ready(call, EXCHANGING | RECEIVING | SENDING, timeout, None if option is None else option.retry)

    # -- batches

    def send_pkgs(self, packages, option=None, *, timeout=None):
        """Sends many packages; arguments and errors as in the blocking `send_pkgs`."""
        cdef SendBatch call = SendBatch()
        cdef Unit unit
        get_option(option, &unit)
        call.outbox = Outbox(packages)
        call.outbox.check(&unit)
        return self.ready(call, SENDING, timeout, None)

    def recv_pkgs(self, n=-1, option=None, *, timeout=None):
        """Receives `n` packages, or with -1 at least one; arguments and errors as in the blocking `recv_pkgs`."""
        cdef ReceiveBatch call = ReceiveBatch()
        call.count = get_size(n, "n", -1)
        call.unit.kind = PKG
        get_option(option, &call.unit)
        call.packages = []
        return done([]) if call.count == 0 else self.ready(call, RECEIVING, timeout, None)

    def send_recv_pkgs(self, packages, option=None, *, timeout=None, window=64):
        """Sends many packages and receives the reply of each; arguments and errors as in the blocking one."""
        cdef ExchangeBatch call = ExchangeBatch()
        call.unit.kind = PKG
        get_option(option, &call.unit)
        call.pipeline = Pipeline()
        call.pipeline.outbox = Outbox(packages)
        call.pipeline.outbox.check(&call.unit)
        call.pipeline.replies = []
        call.pipeline.window = get_size(window, "window", 1)
        return self.ready(call, EXCHANGING | RECEIVING | SENDING, timeout, None)

    def packages(self, option=None, *, timeout=None):
        """An asynchronous iterator over the packages that come; it ends at a clean EOF. `timeout` is for each."""
        cdef AsyncUnitIterator iterator = AsyncUnitIterator()
        iterator.unit.kind = PKG
        get_option(option, &iterator.unit)
        return iterator.over(self, timeout)

    def lines(self, *, timeout=None, max_size=None):
        """An asynchronous iterator over the lines that come, as `recv_line` gives them, until a clean EOF."""
        cdef AsyncUnitIterator iterator = AsyncUnitIterator()
        iterator.unit.kind = LINE
        get_needle(NEWLINE, max_size, &iterator.unit)
        return iterator.over(self, timeout)

    # -- the end

    def close(self):
        """Closes the connection, or puts a leased one back into its pool. Idempotent.

        All is done when this returns, awaited or not; only with TLS, awaiting it first waits for the peer's goodbye
        for a moment. Calls that other tasks wait in raise ClosedError.
        """
        cdef Stream stream = self.stream
        cdef Farewell call
        if self.home is not None:
            self._end(False)
            return done(None) if self.last_words is None else end_of(self.last_words)
        self.check_thread()
        if stream is None or stream.users or stream.tls is None or stream.closed:
            self._end(False)
            return done(None)
        if stream.gathering:
            self._stop_gathering(False)
        stream.begin_close()
        call = Farewell()
        call.stream = stream
        return self.ready(call, 0, FAREWELL / 1e9, None)

    def close_write(self):
        """Tells the peer that nothing more comes; receiving goes on. ClosedError after close.

        With TLS it raises Timeout when that cannot leave at once: while another task sends, or while the kernel's
        buffer is full. The call can be repeated.
        """
        self.check_thread()
        self._close_write(0)

    def abort(self):
        """Closes at once with a reset; else as the blocking `abort`."""
        self.check_thread()
        BaseConn.abort(self)

    def _detach(self):
        cdef LoopWatch watch = None if self.stream is None else <LoopWatch>self.stream.watch
        if watch is not None and self.stream.generation == posix.generation and not watch.is_here():
            raise RuntimeError("a connection is detached in the thread of its event loop, which may still watch it")
        return BaseConn._detach(self)

    cdef int check_thread(self) except -1:
        """RuntimeError while the loop runs in another thread. Without it anybody may close what it has left open."""
        cdef LoopWatch watch
        if self.stream is None or self.stream.watch is None or self.stream.generation != posix.generation:
            return 0
        watch = <LoopWatch>self.stream.watch
        return watch.check_loop() if watch.loop.is_running() else 0

    def __aenter__(self):
        return self._opened() if self._opening or (self.stream is None and self.home is None) else done(self)

    def __aexit__(self, kind, error, trace):
        if kind is None:
            return self.close()
        self._end(True)
        return done(None)

    # -- for the layer above

    def _opened(self):
        """Opens the connection; answers it. A subclass that knows an address does."""
        raise_closed()

    def _adopt(self, sock, local, remote):
        """Takes a connected socket over, for the running loop."""
        self._check_new()
        running_loop()                  # first: without a loop the socket stays the caller's
        self.stream = adopt(sock, local, remote)
        watch_in_loop(self.stream)

    def _start_tls(self, session, calls, incoming, outgoing, translate, deadline):
        """TLS from the next byte on: awaits the agreement with the peer. The connection is broken if that fails."""
        cdef Handshake call = Handshake()
        self._wrap_tls(session, calls, incoming, outgoing, translate)
        return self.ready(
            call, EXCHANGING | RECEIVING | SENDING, None if deadline is None else remaining(deadline), None)


@cython.final
cdef class AsyncUnitIterator:
    """Units one after the other until a clean end."""
    cdef AsyncConn conn
    cdef Unit unit
    cdef object timeout

    cdef AsyncUnitIterator over(self, AsyncConn conn, object timeout):
        self.conn = conn
        self.timeout = timeout
        nanoseconds(timeout, "timeout")
        return self

    def __aiter__(self):
        return self

    def __anext__(self):
        if self.conn is None:
            raise_closed()
        cdef Receive call = new_receive()
        call.unit = self.unit
        call.iterates = True
        return self.conn.ready(call, RECEIVING, self.timeout, None)
