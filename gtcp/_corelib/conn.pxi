# The handle a user holds: its settings, its state, its end; and for leases the marks that decide whether
# the connection may go back into its pool. The calls are in blocking.pxi and aioconn.pxi.
cimport cython
from libc.stdint cimport int64_t

cimport gtcp._corelib.posix as posix


cdef class BaseConn:
    """What every Conn and PoolConn shares, however its calls wait."""
    cdef Stream stream              # None before a connection is there, and after a lease ended
    cdef FreeList home              # the pool of a lease, None for a connection of its own
    # Moments, NEVER for none; the earlier of a call's own timeout and these applies.
    cdef int64_t recv_deadline
    cdef int64_t send_deadline
    # The silence that ends recv(-1); patient once the user has chosen it.
    cdef int64_t gap
    cdef bint patient
    # For the pool: the connection is not the first lease's; something failed; a reply is owed; a reply came.
    cdef bint reused
    cdef bint failed
    cdef bint owed
    cdef bint answered
    # Packages that were sent and that no received one has answered.
    cdef Py_ssize_t ahead
    cdef bint parting               # the hook for the end of the lease is at work
    cdef int64_t lent_at
    cdef public object _dialled     # the host that was asked for, which a later TLS certificate has to name
    cdef readonly bint _detached    # the descriptor was given away

    cdef object __weakref__

    def __cinit__(self, *args, **kwargs):
        self.recv_deadline = self.send_deadline = NEVER
        self.gap = DEFAULT_GAP

    @cython.final
    cdef inline Stream open_stream(self):
        """The stream, or ClosedError."""
        cdef Stream stream = self.stream
        if stream is None:
            raise_closed()
        if self.home is not None and stream.generation != posix.generation:
            raise ClosedError("the lease belongs to the process that forked this one")
        return stream

    cdef inline bint is_parents(self) noexcept:
        """The connection was opened by the process that forked this one."""
        return self.stream is not None and self.stream.generation != posix.generation

    cdef inline void told(self, Py_ssize_t size, Py_ssize_t packages) noexcept:
        """So many bytes have been sent, and so many of them as packages."""
        self.owed = self.owed or size > 0
        self.ahead += packages

    cdef inline void heard(self, Unit* unit, Py_ssize_t packages) noexcept:
        """Something was received: packages answer so many sent ones, other bytes may have answered all."""
        self.owed = False
        self.answered = True
        self.ahead = max(<Py_ssize_t>0, self.ahead - packages) if unit.kind == PKG else 0

    cdef inline object peel(self, Unit* unit):
        """A package or line that is here already, which needs no system call and concerns nobody else; else None."""
        cdef Stream stream = self.stream
        cdef object value
        if stream is None or stream.receiver or stream.closed or stream.broken is not None \
                or stream.parser.units >= stream.due_at \
                or (self.home is not None and stream.generation != posix.generation):
            return None
        value = stream.parser.peel(unit)
        if value is not None:
            self.heard(unit, 1)
        return value

    cdef inline bint slip(self, Out* out) except -1:
        """Puts a send behind gathered ones, which takes no system call and concerns nobody else; False if it cannot."""
        cdef Stream stream = self.stream
        if stream is None or not stream.gathers_now(out) \
                or (self.home is not None and stream.generation != posix.generation):
            return False
        stream.gather(out)
        self.told(out.size + out.header_size, out.header_size > 0)
        return True

    cdef bint is_stale(self, Out* out, object error) noexcept:
        """A lease whose connection died in the pool: not a byte of its first message left."""
        return out != NULL and out.sent == 0 and out.size + out.header_size and self.reused and not self.answered \
            and not self.owed and not self.failed and isinstance(error, SocketError) \
            and self.home.renews and self.home.gate.is_open()

    # -- settings

    def set_deadline(self, when):
        """From now on every call ends at `when` (`time.monotonic()` seconds; None: no limit) at the latest.

        The earlier of this and a call's own timeout holds. ValueError or TypeError for a moment that is none.
        """
        self.recv_deadline = self.send_deadline = moment_of(when)

    def set_deadline_recv(self, when):
        """`set_deadline` for receiving only."""
        self.recv_deadline = moment_of(when)

    def set_deadline_send(self, when):
        """`set_deadline` for sending only."""
        self.send_deadline = moment_of(when)

    def set_buffer_wait_recv(self, seconds_, /):
        """The silence in seconds that ends `recv(-1)`; once set, waited for after every read. ValueError below 0."""
        cdef int64_t gap = nanoseconds(seconds_, "buffer_wait_recv")
        self.gap = min(gap, NEVER // 2)
        self.patient = True

    # -- state

    def fileno(self):
        """The descriptor, for looking only: reading from it bypasses what gtcp has buffered. -1 when closed."""
        return -1 if self.stream is None or self.stream.closed else self.stream.share()

    @property
    def closed(self):
        """This side has closed the connection, or the lease is over; in a child, a lease of the parent."""
        return self.stream is None or self.stream.closed or (self.home is not None and self.is_parents())

    def is_alive(self):
        """The connection is open as far as the kernel knows: neither side closed or broke it. No round trip."""
        cdef int said
        if self.closed or self.stream.broken is not None:
            return False
        said = self.stream.says()
        return said > 0 or said == -posix.EAGAIN

    @property
    def buffered(self):
        """Bytes that have been received and not yet been taken."""
        return 0 if self.stream is None else self.stream.unread()

    # -- the end

    def abort(self):
        """Closes at once with a reset: bytes under way are dropped, the peer gets an error. Idempotent."""
        if self.stream is not None:
            self.stream.close(reset=True)
        self._end(True)

    cdef int _end(self, bint discard) except -1:
        if self.stream is None:
            return 0
        if self.stream.gathering:
            self._stop_gathering(discard)
        if self.home is None:
            return self.stream.close()
        return self.home.take_back(self, discard)

    def close_write(self):
        """Tells the peer that nothing more comes; receiving goes on. ClosedError after close.

        With TLS the peer is told so in a record. Timeout when not even that can leave within 100 ms; the call can be
        repeated.
        """
        self._close_write(FAREWELL)

    cdef int _close_write(self, int64_t patience) except -1:
        cdef Stream stream = self.open_stream()
        cdef int error
        self.failed = True              # a lease cannot go back with half a connection
        stream.enter()
        try:
            stream.farewell_half(patience)
            error = posix.shutdown(stream.fd, posix.SHUT_WR)
        finally:
            stream.leave()
        if error < 0:
            raise socket_error(error)
        return 0

    # -- gathered sends

    cdef int _gather(self, int change) except -1:
        cdef Stream stream = self.open_stream()
        if stream.gathered is None:
            stream.gathered = ByteBuffer()
        stream.gathering = max(0, stream.gathering + change)
        return 0

    cdef int _stop_gathering(self, bint discard) except -1:
        """What waits leaves if it can leave at once; closing does not wait. What a parent gathered it sends itself."""
        cdef Stream stream = self.stream
        stream.gathering = 0
        if not discard and not stream.closed and not stream.users and stream.generation == posix.generation:
            self._flush_now()
        if not stream.sending.owner:
            stream.gathered.release()   # else it is being sent from, and goes with the descriptor
        return 0

    cdef int _flush_now(self) except -1:
        """Sends of what waits what can leave without waiting."""
        try:
            self.stream.flush(0)
        except Exception:
            self.failed = True
        return 0

    def _gather_sends(self):
        """Gathers from now on until the end of the connection."""
        self._gather(1)

    def _discard(self):
        self._end(True)

    # -- for servers

    def _drain(self):
        """Ends the connection where it waits for the peer's next unit, now or later."""
        if self.stream is not None:
            self.stream.drain()

    def _cut(self, reason):
        """Closes at once; who waits gets ClosedError with the reason."""
        if self.stream is None or self.stream.closed:
            return False
        self.stream.reason = reason
        self._end(True)
        return True

    def _arriving(self):
        """What was sent has yet to arrive, and would be lost if the connection was closed now."""
        cdef Stream stream = self.stream
        return stream is not None and isinstance(stream.remote, tuple) and stream.arriving()    # else it is no TCP

    @property
    def _reason(self):
        """Why a server cut it, or None."""
        return None if self.stream is None else self.stream.reason

    def _activity(self):
        """What it waits for (POLLIN, POLLOUT, both or 0), how many units it has received, how many sends have ended."""
        cdef Stream stream = self.stream
        cdef int events = 0
        if stream is None:
            return 0, 0, 0
        if stream.receiver and not stream.sending.owner:
            events = posix.POLLIN
        if stream.sending.owner or (stream.receiver and stream.has_gathered()):
            events |= posix.POLLOUT
        return events, stream.parser.units, stream.sending.rounds

    def _has_raised(self, error):
        """Whether the EOF is this connection's, and not of another one that its handler uses."""
        return self.stream is not None and getattr(error, "_stream", None) == self.stream.number

    # -- for the layer above

    def _leak(self):
        if self.stream is not None and self.home is not None:
            self.home.drop(self)

    def _adopt(self, sock, local, remote):
        """Takes a connected socket over."""
        self._check_new()
        self.stream = adopt(sock, local, remote)

    cdef Stream _wrap_tls(self, object session, object calls, object incoming, object outgoing, object translate):
        """TLS from the next byte on; the handshake comes next."""
        cdef Tls tls = Tls(session, calls, incoming, outgoing, translate)      # first, as it can run others
        cdef Stream stream = self.open_stream()
        if stream.tls is not None:
            raise RuntimeError("the connection speaks TLS already")
        if stream.users:
            raise ConcurrencyError("the connection is in use")
        if stream.parser.pending():
            raise BrokenError(f"{stream.parser.pending()} plain bytes have arrived already")
        self.failed = self.failed or self.home is not None      # a plain pool does not get it back
        stream.tls = tls
        return stream

    def _ask_tls(self, question):
        """`question(session)` of the ssl.SSLObject; None for plain TCP."""
        cdef Stream stream = self.open_stream()
        if stream.tls is None:
            return None
        stream.check_process()
        if not stream.tls.established:
            if stream.closed or stream.broken is not None:
                stream.raise_unusable()
            raise ConcurrencyError("the TLS handshake is not over")
        return stream.tls.ask(question)

    def _names(self):
        """(local, remote) address as the socket module gives them."""
        cdef Stream stream = self.open_stream()
        return stream.local, stream.remote

    def _detach(self):
        """Gives the descriptor away; refused while a call is in progress or bytes are buffered."""
        cdef Stream stream = self.open_stream()
        cdef int fd = stream.fd
        if stream.closed:
            raise_closed()
        if stream.users:
            raise ConcurrencyError("the connection is in use")
        if stream.parser.pending():
            raise BrokenError(f"{stream.parser.pending()} received bytes would be lost")
        if stream.tls is not None:
            raise TypeError("a TLS connection cannot be detached: its keys would be lost")
        stream.unwatch()
        stream.share()
        stream.fd = -1
        stream.closed = self._detached = True
        self._end(True)
        return fd

    def _check_new(self):
        """The handle has never had a connection."""
        if self.stream is not None or self.home is not None:
            raise RuntimeError(f"this {type(self).__name__} has been opened already")

    def __del__(self):
        # A lease has a place in its pool until it ends, also when its connection is closed already.
        if self.stream is not None and self.stream.generation == posix.generation \
                and (self.home is not None or not self.stream.closed):
            self._dropped()

    def __reduce__(self):
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied")
