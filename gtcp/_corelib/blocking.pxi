# The calls of a handle that block: arguments in, an operation of the stream, a value out.
cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.object cimport PyObject
from libc.stdint cimport int64_t
from libc.string cimport memset


cdef class BlockingConn(BaseConn):
    """A handle whose calls block.

    One thread at a time may receive, another one may send; further senders queue up. `close` may be
    called from any thread.
    """

    # -- sending

    def send(self, data, retry=None, *, timeout=None):
        """Sends all of `data` (bytes-like).

        `retry`: a Retry for errors of the kernel that pass, such as full network queues; it goes on at the first
        unsent byte. `timeout`: seconds for the whole call, None for no limit but `set_deadline`'s.

        Raises Timeout, ResetError, PipeError, ClosedError ...; their `sent` is the number of bytes the kernel took, or
        with TLS of those in records, which leave before the next send does.
        After a failure in the middle the caller decides how to go on. Senders in several threads queue up.
        """
        cdef Out out
        cdef Data payload
        check_retry(retry)
        get_data(data, &payload)
        try:
            load(&out, &payload)
            self._send(&out, retry, deadline_of(timeout, self.send_deadline))
        finally:
            drop_data(&payload)

    def send_pkg(self, data, option=None, *, timeout=None):
        """Sends one package: the length of `data` (bytes-like), then `data`.

        `option`: a PkgOption, None for a 2-byte length. `timeout`: seconds for the whole call.

        Raises LimitError before a byte moves when `data` is too long, else as `send` does. A package that was cut
        in two breaks the connection for good. Packages of several threads never interleave.
        """
        cdef Unit unit
        get_option(option, &unit)
        self._send_pkg(
            data, &unit, None if option is None else option.retry, deadline_of(timeout, self.send_deadline))

    cdef int _send_pkg(self, object data, Unit* unit, object retry, int64_t deadline) except -1:
        cdef Out out
        cdef Data payload
        get_data(data, &payload)
        try:
            load(&out, &payload)
            frame(&out, unit)
            self._send(&out, retry, deadline)
        finally:
            drop_data(&payload)
        return 0

    cdef int _send(self, Out* out, object retry, int64_t deadline) except -1:
        if self.slip(out):
            return 0
        out.retry = NULL if retry is None else <PyObject*>retry
        while True:
            try:
                self.open_stream().transmit(out, deadline)
                self.told(out.size + out.header_size, out.header_size > 0)
                return 0
            except BaseException as error:
                self._recover(error, out, None, 0, deadline)

    cdef int _recover(self, object error, Out* out, object retry, int attempt, int64_t deadline) except -1:
        """Prepares another attempt, or raises the error.

        A lease whose connection went stale in the pool gets another one, if not a byte of the message left; what
        passes by itself is tried again as the retry policy says.
        """
        cdef bint unsent = out != NULL and out.sent < out.header_size + out.size
        cdef bint failed = self.failed
        if self.is_stale(out, error):
            self.failed = True
            self.home.renew(self, deadline)
            self.failed = self.reused = False
            return 0
        self.failed = True              # also when the pause is interrupted
        # A send that failed has been tried again already, with nobody sending in between.
        delay = None if retry is None or unsent else retry.delay(attempt, error)
        if delay is None or not self.open_stream().pause(nanoseconds(delay, "delay"), deadline):
            raise error
        self.failed = failed
        return 0

    def gathered(self):
        """For `with`: inside, small sends wait to leave together, in order.

        They leave in one system call when a receive on this connection is about to wait, when there are more than
        64 KiB of them, and at the end. An error of the connection is raised by the call that makes them leave. Those of
        a greenlet leave before it waits for anything; the next call raises the error then.
        """
        return Gathering(self)

    def flush(self, *, timeout=None):
        """Makes gathered sends leave now. Errors as for `send`; after a timeout the rest leaves with the next call."""
        try:
            self.open_stream().flush(deadline_of(timeout, self.send_deadline))
        except:
            self.failed = True
            raise

    # -- receiving

    def recv(self, length=-1, retry=None, *, timeout=None):
        """Receives bytes: exactly `length`; with 0 what one read gives; with -1 what comes until a pause.

        -1 blocks for the first bytes and goes on while reads come back full; a full one is followed by a wait of
        `set_buffer_wait_recv` seconds for more. It returns 16 MiB at most. `timeout`: seconds for the whole call.

        Raises Timeout (what has arrived stays in the connection, the call can be repeated), EOF (with `partial`
        and `expected` when the peer closed in the middle), ResetError ... One thread may receive at a time.
        """
        cdef Unit unit
        memset(&unit, 0, sizeof(Unit))
        check_retry(retry)
        get_length_wanted(length, &unit)
        unit.gap = self.gap
        unit.patient = self.patient
        return self._recv(&unit, retry, deadline_of(timeout, self.recv_deadline))

    def recv_into(self, buffer, n=0, *, timeout=None):
        """Receives into a writable buffer: exactly `n` bytes, or with 0 what one read gives. Answers how many.

        Errors and timeouts as for `recv`; bytes that arrived before a failure stay in the connection.
        """
        cdef Unit unit
        cdef Py_buffer view
        memset(&unit, 0, sizeof(Unit))
        unit.kind = INTO
        unit.size = get_size(n, "n", 0)
        unit.one_read = unit.size == 0
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        try:
            if view.len == 0 or unit.size > view.len:
                raise ValueError(f"a buffer of {view.len} bytes cannot take {unit.size or 'any'} bytes")
            if unit.one_read:
                unit.size = view.len
            unit.target = <char*>view.buf
            return self._recv(&unit, None, deadline_of(timeout, self.recv_deadline))
        finally:
            PyBuffer_Release(&view)

    def recv_line(self, retry=None, *, timeout=None, max_size=None):
        """Receives up to a newline, which is dropped (a carriage return before it is kept).

        `max_size`: bytes of a line at most (1 MiB); a longer one raises LimitError and stays in the connection.
        Else as `recv`.
        """
        cdef Unit unit
        memset(&unit, 0, sizeof(Unit))
        unit.kind = LINE
        check_retry(retry)
        get_needle(NEWLINE, max_size, &unit)
        return self._recv(&unit, retry, deadline_of(timeout, self.recv_deadline))

    def recv_till(self, bytes til not None, retry=None, *, timeout=None, max_size=None):
        """Receives up to and with the delimiter `til`, compared byte by byte.

        `max_size`: bytes of the result at most (1 MiB); more raises LimitError and stays in the connection.
        Else as `recv`.
        """
        cdef Unit unit
        memset(&unit, 0, sizeof(Unit))
        unit.kind = TILL
        check_retry(retry)
        get_needle(til, max_size, &unit)
        return self._recv(&unit, retry, deadline_of(timeout, self.recv_deadline))

    def recv_pkg(self, option=None, *, timeout=None):
        """Receives the payload of one package.

        `option`: a PkgOption, None for a 2-byte length. `timeout`: seconds for the whole call.

        Raises LimitError for a package above `max_data_size`, which breaks the connection for good: nobody knows
        where the next one begins. Else as `recv`; a package is received whole or stays in the connection.
        """
        cdef Unit unit
        memset(&unit, 0, sizeof(Unit))
        unit.kind = PKG
        get_option(option, &unit)
        return self._recv(&unit, None if option is None else option.retry, deadline_of(timeout, self.recv_deadline))

    cdef object _recv(self, Unit* unit, object retry, int64_t deadline):
        cdef object value = self.peel(unit)
        cdef int attempt = 0
        if value is not None:
            return value
        while True:
            try:
                value = self.open_stream().receive(unit, deadline)
                self.heard(unit, 1)
                return value
            except BaseException as error:
                self._recover(error, NULL, retry, attempt, deadline)
                attempt += 1

    cdef object _recv_unless_ended(self, Unit* unit, int64_t deadline):
        """The next unit; None when the peer has closed between two."""
        try:
            return self._recv(unit, None, deadline)
        except EOF as end:
            if not is_clean(end):
                raise
            return None

    # -- exchanges

    def send_recv(self, data, length=-1, retry=None, *, timeout=None):
        """Sends `data`, then receives as `recv(length)` does; no other exchange gets in between.

        `timeout`: seconds for both together. Errors as for `send` and `recv`. After a failure the reply may still come:
        later exchanges raise BrokenError, before a byte moves, until a receive has taken it.
        """
        cdef Out out
        cdef Unit unit
        cdef Data payload
        memset(&unit, 0, sizeof(Unit))
        check_retry(retry)
        get_length_wanted(length, &unit)
        unit.gap = self.gap
        unit.patient = self.patient
        get_data(data, &payload)
        try:
            load(&out, &payload)
            return self._exchange(&out, &unit, retry, timeout)
        finally:
            drop_data(&payload)

    def send_recv_pkg(self, data, option=None, *, timeout=None):
        """Sends a package and receives the package that answers it; no other exchange gets in between.

        `option` holds for both directions. `timeout`: seconds for both together. Errors as for `send_pkg` and
        `recv_pkg`; a failure leaves what one of `send_recv` does.
        """
        cdef Out out
        cdef Unit unit
        cdef Data payload
        memset(&unit, 0, sizeof(Unit))
        unit.kind = PKG
        get_option(option, &unit)
        get_data(data, &payload)
        try:
            load(&out, &payload)
            frame(&out, &unit)
            return self._exchange(&out, &unit, None if option is None else option.retry, timeout)
        finally:
            drop_data(&payload)

    cdef object _exchange(self, Out* out, Unit* unit, object retry, object timeout):
        cdef int64_t send_deadline = deadline_of(timeout, NEVER)
        cdef int64_t recv_deadline = min(send_deadline, self.recv_deadline)
        cdef object value
        cdef int attempt = 0
        send_deadline = min(send_deadline, self.send_deadline)
        out.retry = NULL if retry is None else <PyObject*>retry
        while True:
            try:
                value = self.open_stream().exchange(out, send_deadline, unit, recv_deadline)
                self.heard(unit, 0)
                return value
            except BaseException as error:
                self._recover(error, out, retry, attempt, min(send_deadline, recv_deadline))
                attempt += 1

    # -- batches

    def send_pkgs(self, packages, option=None, *, timeout=None):
        """Sends many packages (an iterable of bytes-like) in as few system calls as possible.

        All are checked before the first byte leaves: LimitError names the first that is too long. Errors as for
        `send_pkg`, but `sent` counts the packages that left whole.
        """
        cdef Outbox outbox = Outbox(packages)
        cdef Unit unit
        cdef int64_t deadline = deadline_of(timeout, self.send_deadline)
        get_option(option, &unit)
        outbox.check(&unit)
        while True:
            try:
                send_batch(self.open_stream(), outbox, deadline)
                self.told(len(outbox.packages), len(outbox.packages))
                return
            except BaseException as error:
                self._recover(error, outbox.untouched(), None, 0, deadline)

    def recv_pkgs(self, n=-1, option=None, *, timeout=None):
        """Receives `n` packages as a list; with -1 at least one, and all that have arrived with it.

        After a timeout or another failure the packages that had arrived stay in the connection. Else as `recv_pkg`.
        """
        cdef Unit unit
        cdef Py_ssize_t count = get_size(n, "n", -1)
        cdef int64_t deadline = deadline_of(timeout, self.recv_deadline)
        cdef list packages
        memset(&unit, 0, sizeof(Unit))
        unit.kind = PKG
        get_option(option, &unit)
        if count == 0:
            return []
        try:
            packages = recv_batch(self.open_stream(), &unit, count, deadline)
            self.heard(&unit, len(packages))
            return packages
        except:
            self.failed = True
            raise

    def send_recv_pkgs(self, packages, option=None, *, timeout=None, window=64):
        """Sends many packages and receives the one reply of each, in order, with up to `window` under way.

        Sending and receiving take turns as the socket allows, so full buffers on both sides cannot block each other.
        `timeout`: seconds for all together. Raises as `send_pkg` and `recv_pkg` do; `replies` of the error holds
        those that came, `sent` counts the requests that left. A failure leaves what one of `send_recv` does, until
        as many packages have been received as replies were missing.
        """
        cdef Outbox outbox = Outbox(packages)
        cdef Unit unit
        cdef Py_ssize_t most = get_size(window, "window", 1)
        cdef int64_t deadline = deadline_of(timeout, min(self.send_deadline, self.recv_deadline))
        cdef list replies
        memset(&unit, 0, sizeof(Unit))
        unit.kind = PKG
        get_option(option, &unit)
        outbox.check(&unit)
        while True:
            try:
                replies = send_recv_batch(self.open_stream(), outbox, &unit, most, deadline)
                if replies:
                    self.heard(&unit, 0)
                return replies
            except BaseException as error:
                self._recover(error, outbox.untouched(), None, 0, deadline)

    def packages(self, option=None, *, timeout=None):
        """An iterator over the packages that come; it ends at a clean EOF.

        `timeout`: seconds for each package. Raises as `recv_pkg` does, EOF only when a package was cut off.
        """
        cdef UnitIterator iterator = UnitIterator()
        iterator.unit.kind = PKG
        get_option(option, &iterator.unit)
        return iterator.over(self, timeout)

    def lines(self, *, timeout=None, max_size=None):
        """An iterator over the lines that come, as `recv_line` gives them; it ends at a clean EOF.

        `timeout`: seconds for each line; `max_size`: bytes of one at most (1 MiB). Raises as `recv_line` does.
        """
        cdef UnitIterator iterator = UnitIterator()
        iterator.unit.kind = LINE
        get_needle(NEWLINE, max_size, &iterator.unit)
        return iterator.over(self, timeout)

    # -- the end

    def close(self):
        """Closes the connection, or puts a leased one back into its pool. Idempotent, from any thread.

        Calls that wait on the connection in other threads raise ClosedError at once. Received bytes that nobody took
        make the kernel send a reset, which can cost the peer our last bytes: to be sure they arrive, `close_write()`
        and receive until EOF first.
        """
        self._close()

    cdef int _close(self) except -1:
        if self.stream is None or self.home is not None:
            return self._end(False)
        if self.stream.gathering:
            self._stop_gathering(False)
        return self.stream.close(False, FAREWELL)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            self._close()
        else:
            self._end(True)

    # -- for the layer above

    def _start_tls(self, session, calls, incoming, outgoing, translate, deadline):
        """TLS from the next byte on: agrees with the peer until `deadline`. The connection is broken if that fails."""
        cdef Stream stream
        self.open_stream().flush(moment_of(deadline))       # gathered in plain: not to be overtaken
        stream = self._wrap_tls(session, calls, incoming, outgoing, translate)
        stream.handshake(moment_of(deadline))
        return stream.tls


@cython.final
cdef class Gathering:
    """What `with conn.gathered()` enters."""
    cdef BlockingConn conn

    def __cinit__(self, BlockingConn conn not None):
        self.conn = conn

    def __enter__(self):
        self.conn._gather(1)
        return self.conn

    def __exit__(self, kind, error, trace):
        if self.conn.closed or self.conn.is_parents():
            return                      # in a child: what waits is the parent's to send
        self.conn._gather(-1)
        if kind is None:
            self.conn.flush()
        else:
            self.conn._flush_now()      # the exception has priority over waiting


@cython.final
cdef class UnitIterator:
    """Units one after the other until a clean end."""
    cdef BlockingConn conn
    cdef Unit unit
    cdef object timeout

    cdef UnitIterator over(self, BlockingConn conn, object timeout):
        self.conn = conn
        self.timeout = timeout
        deadline_of(timeout, NEVER)
        return self

    def __iter__(self):
        return self

    def __next__(self):
        cdef object value
        if self.conn is None:
            raise_closed()
        value = self.conn.peel(&self.unit)
        if value is None:
            value = self.conn._recv_unless_ended(&self.unit, deadline_of(self.timeout, self.conn.recv_deadline))
        if value is None:
            raise StopIteration
        return value
