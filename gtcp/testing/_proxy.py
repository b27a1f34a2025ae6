"""A proxy on the loopback that does to a connection what networks do."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeVar

from gtcp.testing._faults import Bandwidth, Blackhole, Fault, Latency, LimitData, ResetPeer, Slicer, SlowClose
from gtcp.testing._peers import reset

if TYPE_CHECKING:
    from typing_extensions import Self

_F = TypeVar("_F", bound=Fault)

_MOST_QUEUED = 1 << 20
_NEVER = float("inf")


class FaultProxy:
    """Forwards connections to `upstream` ("host:port") and spoils them as it is told.

    Clients connect to `address`. `inject` adds a fault for one direction ("up" is from the client to the server,
    "down" back) or both, `heal` removes it; both hold at once, also for connections that are there. `freeze` stops
    everything without a word and `thaw` goes on; `refuse` closes the listener and resets all connections, `listen`
    takes the same address again; `cut` only resets. `seed` makes jitter and slices the same each time.

    All methods may be called from any thread.
    """

    def __init__(self, upstream: str | tuple[str, int], *, host: str = "127.0.0.1", seed: int | None = None) -> None:
        if isinstance(upstream, str):
            name, _, port = upstream.rpartition(":")
            upstream = (name.strip("[]"), int(port))
        self._upstream = upstream
        self._random = random.Random(seed)
        self._faults: dict[Literal["up", "down"], list[Fault]] = {"up": [], "down": []}
        self._links: list[_Link] = []
        self._frozen = False
        self._closed = False
        self.accepted = 0
        """Connections so far."""
        # Bound and never listening: while the proxy refuses, the port must not become an outgoing connection's.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform != "linux":  # elsewhere two sockets of one port need more than SO_REUSEADDR
            self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._holder.bind((host, 0))
        self.host: str = host
        self.port: int = self._holder.getsockname()[1]
        self._listener: socket.socket | None = None
        self._listen()
        self._changes: list[tuple[Callable[[], None], threading.Event]] = []
        self._lock = threading.Lock()
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where clients connect to, as "host:port"."""
        return f"{self.host}:{self.port}"

    @property
    def open(self) -> int:
        """How many connections are open now."""
        return len(self._links)

    # -- what is done

    def inject(self, fault: Fault, direction: Literal["up", "down"] | None = None) -> None:
        """Adds a fault for one direction, None: for both. One of the same kind is replaced."""
        ways = _ways(direction)
        self._between_turns(lambda: self._inject(fault, ways))

    def _inject(self, fault: Fault, ways: Iterable[Literal["up", "down"]]) -> None:
        now = time.monotonic()
        for way in ways:
            self._faults[way] = [*(f for f in self._faults[way] if type(f) is not type(fault)), fault]
            for link in self._links:
                link.pipe(way).begin(fault, now)

    def heal(self, kind: type[Fault] = Fault, direction: Literal["up", "down"] | None = None) -> None:
        """Removes the faults of a kind, or all. What is on its way already still comes as late as it would have."""
        ways = _ways(direction)
        self._between_turns(lambda: self._heal(kind, ways))

    def _heal(self, kind: type[Fault], ways: Iterable[Literal["up", "down"]]) -> None:
        for way in ways:
            self._faults[way] = [f for f in self._faults[way] if not isinstance(f, kind)]
            for link in self._links:
                link.pipe(way).end(kind)

    @contextlib.contextmanager
    def having(self, fault: Fault, direction: Literal["up", "down"] | None = None) -> Iterator[None]:
        """`inject`, and at the end of the block `heal` for this kind of fault."""
        self.inject(fault, direction)
        try:
            yield
        finally:
            self.heal(type(fault), direction)

    def freeze(self) -> None:
        """Nothing is accepted, read or forwarded any more; connections stay open, as when a host vanishes."""
        self._between_turns(lambda: self._set_frozen(True))

    def thaw(self) -> None:
        """Goes on where `freeze` stopped."""
        self._between_turns(lambda: self._set_frozen(False))

    def _set_frozen(self, frozen: bool) -> None:
        self._frozen = frozen

    def cut(self) -> None:
        """Resets all connections."""
        self._between_turns(self._cut)

    def _cut(self) -> None:
        for link in self._links:
            link.reset()
        self._links.clear()

    def refuse(self) -> None:
        """Resets all connections and refuses new ones."""
        self._between_turns(self._refuse)

    def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._cut()

    def listen(self) -> None:
        """Accepts connections again, on the same port."""
        self._between_turns(self._listen)

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(
                (self.host, self.port), backlog=128, reuse_port=sys.platform != "linux"
            )
            self._listener.setblocking(False)

    def close(self) -> None:
        """Ends the proxy and all connections. Idempotent."""
        self._between_turns(self._close)
        self._thread.join()

    def _close(self) -> None:
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _between_turns(self, change: Callable[[], None]) -> None:
        """Lets the proxy's thread do it, which then is in no system call that keeps closed sockets alive."""
        done = threading.Event()
        with self._lock:
            if self._closed:
                return
            self._changes.append((change, done))
            with contextlib.suppress(BlockingIOError):
                self._waker.send(b"!")
        done.wait()

    # -- the proxy's own thread

    def _run(self) -> None:
        try:
            while not self._closed:
                self._turn()
        finally:
            with self._lock:
                self._closed = True
                left, self._changes = self._changes, []
            self._cut()
            for sock in (self._listener, self._holder, self._wake, self._waker):
                if sock is not None:
                    sock.close()
            for _, done in left:
                done.set()

    def _turn(self) -> None:
        wanted, moment = self._wanted(time.monotonic())
        poll = select.poll()
        for fd, events in wanted.items():
            poll.register(fd, events)
        wait = None if moment == _NEVER else max(0.0, moment - time.monotonic()) * 1000
        ready = dict(poll.poll(wait))
        if self._wake.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._wake.recv(4096)
        if not self._frozen:
            self._go_on(ready)
        with self._lock:
            changes, self._changes = self._changes, []
        for change, done in changes:
            try:
                change()
            finally:
                done.set()

    def _wanted(self, now: float) -> tuple[dict[int, int], float]:
        """The descriptors to watch, and when something is due."""
        wanted = {self._wake.fileno(): select.POLLIN}
        moment = _NEVER
        if self._frozen:
            return wanted, moment
        if self._listener is not None:
            wanted[self._listener.fileno()] = select.POLLIN
        for link in self._links:
            for pipe in link.pipes:
                if pipe.reads():
                    wanted[pipe.source.fileno()] = wanted.get(pipe.source.fileno(), 0) | select.POLLIN
                due = pipe.due()
                if due <= now and pipe.queue:
                    wanted[pipe.sink.fileno()] = wanted.get(pipe.sink.fileno(), 0) | select.POLLOUT
                else:
                    moment = min(moment, due)
                moment = min(moment, pipe.doom, pipe.hangs_up)
        return wanted, moment

    def _go_on(self, ready: dict[int, int]) -> None:
        now = time.monotonic()
        if self._listener is not None and self._listener.fileno() in ready:
            self._accept(now)
        for link in list(self._links):
            if not link.go_on(ready, now):
                self._links.remove(link)

    def _accept(self, now: float) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        server = socket.socket(socket.AF_INET6 if ":" in self._upstream[0] else socket.AF_INET)
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.connect_ex(self._upstream)  # how it went is told by the first read or write
        self.accepted += 1
        link = _Link(client, server, self._random)
        for way in _ways(None):
            for fault in self._faults[way]:
                link.pipe(way).begin(fault, now)
        self._links.append(link)


def _ways(direction: Literal["up", "down"] | None) -> tuple[Literal["up", "down"], ...]:
    if direction not in (None, "up", "down"):
        raise ValueError(f"direction must be 'up', 'down' or None, got {direction!r}")
    return ("up", "down") if direction is None else (direction,)


class _Link:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, client: socket.socket, server: socket.socket, chance: random.Random) -> None:
        self._up = _Pipe(client, server, chance)
        self._down = _Pipe(server, client, chance)
        self.pipes = (self._up, self._down)

    def pipe(self, way: Literal["up", "down"]) -> _Pipe:
        return self._up if way == "up" else self._down

    def go_on(self, ready: dict[int, int], now: float) -> bool:
        """Moves what can be moved; False when the connection is over."""
        if any(now >= pipe.doom for pipe in self.pipes):
            self.reset()
            return False
        try:
            for pipe in self.pipes:
                if ready.get(pipe.source.fileno(), 0) & ~select.POLLOUT and pipe.reads():
                    pipe.read(now)
            for pipe in self.pipes:
                pipe.write(now)
        except OSError:
            self.reset()
            return False
        if any(now >= pipe.hangs_up or pipe.exhausted for pipe in self.pipes) or all(pipe.over for pipe in self.pipes):
            self.close()
            return False
        return True

    def close(self) -> None:
        self._up.source.close()
        self._up.sink.close()

    def reset(self) -> None:
        reset(self._up.source)
        reset(self._up.sink)


class _Pipe:
    """One direction of a connection: what was read and is not written yet, and what is wrong with it."""

    def __init__(self, source: socket.socket, sink: socket.socket, chance: random.Random) -> None:
        self.source = source
        self.sink = sink
        self.queue: deque[tuple[float, bytes]] = deque()
        self.queued = 0
        self._chance = chance
        self._faults: dict[type[Fault], Fault] = {}
        self._last_due = 0.0
        self._end = _NEVER  # when the source's end is passed on
        self._left: int | None = None  # bytes that may still pass
        self.over = False  # it has been passed on
        self.doom = _NEVER  # when both ends are reset
        self.hangs_up = _NEVER  # when the connection is closed

    def get(self, kind: type[_F]) -> _F | None:
        fault = self._faults.get(kind)
        return fault if isinstance(fault, kind) else None

    def begin(self, fault: Fault, now: float) -> None:
        self._faults[type(fault)] = fault
        if isinstance(fault, ResetPeer):
            self.doom = now + fault.after
        elif isinstance(fault, LimitData):
            self._left = fault.size
        elif isinstance(fault, Blackhole):
            self.hangs_up = _NEVER if fault.timeout is None else now + fault.timeout

    def end(self, kind: type[Fault]) -> None:
        self._faults = {each: fault for each, fault in self._faults.items() if not issubclass(each, kind)}
        if ResetPeer not in self._faults:
            self.doom = _NEVER
        if LimitData not in self._faults:
            self._left = None
        if Blackhole not in self._faults:
            self.hangs_up = _NEVER

    @property
    def exhausted(self) -> bool:
        return self._left is not None and self._left <= 0 and not self.queue

    def reads(self) -> bool:
        return self._end == _NEVER and self.queued < _MOST_QUEUED

    def due(self) -> float:
        """When something is to be done at the sink."""
        if self.queue:
            return self.queue[0][0]
        return _NEVER if self.over else self._end

    def read(self, now: float) -> None:
        try:
            data = self.source.recv(65536)
        except BlockingIOError:
            return
        if not data:
            slow = self.get(SlowClose)
            self._end = max(now, self._last_due) + (slow.delay if slow else 0.0)
            return
        if self.get(Blackhole) is not None:
            return
        if self._left is not None:
            data = data[: max(0, self._left)]
            self._left -= len(data)
        for piece in self._sliced(data):
            self._enqueue(piece, now)

    def _sliced(self, data: bytes) -> Iterator[bytes]:
        slicer, bandwidth = self.get(Slicer), self.get(Bandwidth)
        at = 0
        while at < len(data):
            size = len(data)
            if slicer is not None:
                size = slicer.size + self._chance.randint(-slicer.variation, slicer.variation)
            if bandwidth is not None:
                size = min(size, max(1, int(bandwidth.rate / 100)))
            yield data[at : at + size]
            at += size

    def _enqueue(self, piece: bytes, now: float) -> None:
        latency, bandwidth, slicer = self.get(Latency), self.get(Bandwidth), self.get(Slicer)
        arrives = now
        if latency is not None:
            arrives += latency.delay + self._chance.uniform(0.0, latency.jitter)
        due = max(arrives, self._last_due)
        if bandwidth is not None:
            due += len(piece) / bandwidth.rate
        if slicer is not None and self._last_due:
            due = max(due, self._last_due + slicer.pause)
        self._last_due = due
        self.queue.append((due, piece))
        self.queued += len(piece)

    def write(self, now: float) -> None:
        while self.queue and self.queue[0][0] <= now:
            due, piece = self.queue[0]
            try:
                sent = self.sink.send(piece)
            except (BlockingIOError, InterruptedError):
                return
            self.queued -= sent
            if sent < len(piece):
                self.queue[0] = due, piece[sent:]
                return
            self.queue.popleft()
        if not self.queue and not self.over and self._end <= now:
            self.over = True
            self.sink.shutdown(socket.SHUT_WR)
