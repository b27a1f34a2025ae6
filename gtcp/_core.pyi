"""What the rest of gtcp and its tests may use of the core; everything else in there is its own affair.

Moments are `time.monotonic()` seconds, durations are seconds; None means no limit for both.
"""

from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractContextManager
from socket import socket
from ssl import MemoryBIO, SSLObject
from types import GenericAlias, TracebackType
from typing import Any, Final, Generic, NoReturn, TypedDict, TypeVar, final, overload, type_check_only

from typing_extensions import Buffer, Self, TypeVarTuple, Unpack, disjoint_base

from gtcp._errors import EOF
from gtcp._options import PkgOption, Retry

_T_co = TypeVar("_T_co", covariant=True)
_T = TypeVar("_T")
_C = TypeVar("_C", bound=AsyncConn)
_Ts = TypeVarTuple("_Ts")

__all__ = [
    "POLLIN",
    "POLLOUT",
    "REASON_NAMES",
    "Alarm",
    "AsyncConn",
    "AsyncPool",
    "AsyncUnitIterator",
    "BaseConn",
    "BasePool",
    "BlockingConn",
    "BlockingPool",
    "Claim",
    "Directory",
    "Fiber",
    "Hub",
    "Parser",
    "PkgHandler",
    "Signal",
    "Tls",
    "UnitIterator",
    "alarm",
    "current_hub",
    "directory",
    "greenlet_exit",
    "open_lease",
    "remaining",
    "set_wait_function",
    "sleep",
    "to_deadline",
    "wait_any",
]

# -- time and waiting

POLLIN: Final[int]
POLLOUT: Final[int]

@overload
def to_deadline(timeout: None) -> None: ...
@overload
def to_deadline(timeout: float | None) -> float | None:
    """The moment `timeout` seconds from now."""

@overload
def remaining(deadline: None) -> None: ...
@overload
def remaining(deadline: float) -> float: ...
@overload
def remaining(deadline: float | None) -> float | None:
    """Seconds until the moment, not below 0."""

def set_wait_function(
    function: Callable[[int, int, float | None], object] | None, event: Callable[[], object] | None
) -> None:
    """Threads wait by `function` for a descriptor and by the events that `event` makes for others; None: they sleep."""

def sleep(seconds: float, /) -> None:
    """Sleeps, letting others run."""

def wait_any(fds: dict[int, int], deadline: float | None = None) -> list[int]:
    """Waits for sockets, each with POLLIN, POLLOUT or both; answers those that are ready, none at the deadline."""

@final
class Signal:
    """Tells any number of waiting callers, now and later, that something has happened."""

    @property
    def is_set(self) -> bool: ...
    def set(self) -> None: ...
    def wait(self, deadline: float | None = None) -> bool:
        """True when it has happened, False when the deadline came first."""

@final
class Alarm:
    """When somebody has to look after the pools. One thread attends it."""

    def attend(self) -> int:
        """Somebody will sleep, under the number that this answers; 0 when there is one already."""

    def resign(self, shift: int = 0, /) -> None:
        """Nobody sleeps any more."""

    def wait(self, shift: int) -> bool:
        """Sleeps until the alarm's moment; False when somebody else has taken over."""

UNSET: Any
alarm: Alarm

# -- greenlets

@final
class Fiber(Generic[_T_co]):
    """A function that runs as a greenlet of a hub, which makes it."""

    def __class_getitem__(cls, item: object) -> GenericAlias: ...
    def __init__(self, *args: object, **kwargs: object) -> NoReturn:
        """TypeError: `Hub.spawn` makes them."""

    @property
    def dead(self) -> bool:
        """The function has returned or raised."""

    def join(self, timeout: float | None = None) -> bool:
        """True when the function has ended, False when `timeout` seconds passed first."""

    def get(self, timeout: float | None = None) -> _T_co:
        """The function's value, or its exception."""

    def kill(self) -> None:
        """Raises GreenletExit in the function."""

@final
class Hub:
    """The greenlets of one thread and what they wait for. `log` is told the errors of those that nobody waits for."""

    def __init__(self, log: Callable[[BaseException], object] | None = None) -> None: ...
    def spawn(self, function: Callable[[Unpack[_Ts]], _T], *arguments: Unpack[_Ts]) -> Fiber[_T]:
        """Runs `function(*arguments)` as a greenlet."""

    def run(self, root: Fiber[object] | None = None) -> None:
        """Runs greenlets until `root` has ended, or without one until `stop`."""

    def stop(self) -> None: ...

def current_hub() -> Hub | None:
    """The hub that runs the calling greenlet."""

def greenlet_exit() -> type[BaseException]:
    """What ends a greenlet quietly."""

# -- framing

@final
class Parser:
    """Bytes in, units out; None is "more is needed". Not for several threads at once."""

    @property
    def buffered(self) -> int: ...
    def feed(self, data: Buffer) -> None: ...
    def take_exact(self, n: int) -> bytes | None: ...
    def take_pkg(self, header_size: int, limit: int) -> bytes | None: ...
    def take_pkgs(self, header_size: int, limit: int, into: list[bytes], n: int) -> int:
        """Appends up to n packages to `into` (n < 0: all); answers how many."""

    def take_till(self, needle: bytes, limit: int, *, line: bool = False) -> bytes | None: ...

# -- connections

@disjoint_base
class BaseConn:
    """What every Conn and PoolConn shares; calls `_dropped()` of its subclass when an open connection was forgotten."""

    _dialled: str | None
    """The host that was asked for; None when somebody else has dialled."""

    def __new__(cls, *args: object, **kwargs: object) -> Self: ...
    def set_deadline(self, when: float | None) -> None: ...
    def set_deadline_recv(self, when: float | None) -> None: ...
    def set_deadline_send(self, when: float | None) -> None: ...
    def set_buffer_wait_recv(self, seconds: float, /) -> None:
        """The silence that ends `recv(-1)`."""

    @property
    def buffered(self) -> int:
        """Bytes that have been received and not yet been taken."""

    @property
    def closed(self) -> bool: ...
    def fileno(self) -> int:
        """The descriptor, for looking only; -1 when closed."""

    def is_alive(self) -> bool:
        """Neither side has closed or broken the connection, as far as the kernel knows."""

    def close_write(self) -> None:
        """Tells the peer that nothing more comes."""

    def abort(self) -> None:
        """Closes with a reset."""

    def __del__(self) -> None: ...
    def __reduce__(self) -> NoReturn: ...

    # For the layer above.

    def _check_new(self) -> None:
        """RuntimeError when the handle has had a connection."""

    def _adopt(self, sock: socket, local: object, remote: object) -> None:
        """Takes a connected socket over, also when this fails; `sock` is detached."""

    def _names(self) -> tuple[object, object]:
        """(local, remote) address as the socket module gives them."""

    def _detach(self) -> int:
        """Gives the descriptor away."""

    def _gather_sends(self) -> None:
        """Gathers from now on until the end of the connection."""

    def _discard(self) -> None:
        """Closes without a way back into the pool."""

    def _drain(self) -> None:
        """Ends the connection where it waits for the peer's next unit, now or later."""

    def _cut(self, reason: str) -> bool:
        """Closes at once; who waits gets ClosedError with the reason. False when it is closed already."""

    def _arriving(self) -> bool:
        """What was sent has yet to arrive, and would be lost if the connection was closed now."""

    @property
    def _reason(self) -> str | None:
        """Why a server cut it."""

    @property
    def _detached(self) -> bool:
        """The descriptor was given away."""

    def _has_raised(self, error: EOF) -> bool:
        """Whether the EOF is this connection's, and not of another one that its handler uses."""

    def _activity(self) -> tuple[int, int, int]:
        """What it waits for (POLLIN, POLLOUT, both or 0), how many units it has received, how many sends have ended."""

    def _leak(self) -> None:
        """Ends a lease that nobody holds any more."""

    def _ask_tls(self, question: Callable[[SSLObject], _T]) -> _T | None:
        """`question(session)`, None for plain TCP."""

class BlockingConn(BaseConn):
    """A handle whose calls block."""

    def send(self, data: Buffer, retry: Retry | None = None, *, timeout: float | None = None) -> None:
        """Sends all of `data`."""

    def send_pkg(self, data: Buffer, option: PkgOption | None = None, *, timeout: float | None = None) -> None:
        """Sends one package."""

    def send_pkgs(
        self, packages: Iterable[Buffer], option: PkgOption | None = None, *, timeout: float | None = None
    ) -> None:
        """Sends many packages in as few system calls as possible."""

    def gathered(self) -> AbstractContextManager[Self, None]:
        """For `with`: inside, small sends wait to leave together."""

    def flush(self, *, timeout: float | None = None) -> None:
        """Makes gathered sends leave now."""

    def recv(self, length: int = -1, retry: Retry | None = None, *, timeout: float | None = None) -> bytes:
        """Exactly `length` bytes; with 0 what one read gives; with -1 what comes until a pause."""

    def recv_into(self, buffer: Buffer, n: int = 0, *, timeout: float | None = None) -> int:
        """Receives exactly `n` bytes into the buffer, or with 0 what one read gives; answers how many."""

    def recv_line(
        self, retry: Retry | None = None, *, timeout: float | None = None, max_size: int | None = None
    ) -> bytes:
        """Receives up to a newline, which is dropped."""

    def recv_till(
        self, til: bytes, retry: Retry | None = None, *, timeout: float | None = None, max_size: int | None = None
    ) -> bytes:
        """Receives up to and with the delimiter."""

    def recv_pkg(self, option: PkgOption | None = None, *, timeout: float | None = None) -> bytes:
        """Receives the payload of one package."""

    def recv_pkgs(self, n: int = -1, option: PkgOption | None = None, *, timeout: float | None = None) -> list[bytes]:
        """Receives `n` packages; with -1 at least one, and all that have arrived with it."""

    def send_recv(
        self, data: Buffer, length: int = -1, retry: Retry | None = None, *, timeout: float | None = None
    ) -> bytes:
        """`send` and `recv` as one exchange."""

    def send_recv_pkg(self, data: Buffer, option: PkgOption | None = None, *, timeout: float | None = None) -> bytes:
        """`send_pkg` and `recv_pkg` as one exchange."""

    def send_recv_pkgs(
        self,
        packages: Iterable[Buffer],
        option: PkgOption | None = None,
        *,
        timeout: float | None = None,
        window: int = 64,
    ) -> list[bytes]:
        """Sends many packages and receives the one reply of each, with up to `window` under way."""

    def packages(self, option: PkgOption | None = None, *, timeout: float | None = None) -> Iterator[bytes]:
        """The packages that come, until a clean EOF; `timeout` is for each."""

    def lines(self, *, timeout: float | None = None, max_size: int | None = None) -> Iterator[bytes]:
        """The lines that come, until a clean EOF; `timeout` is for each."""

    def close(self) -> None:
        """Closes the connection, or puts a leased one back."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    # For the layer above.

    def _start_tls(
        self,
        session: SSLObject,
        calls: tuple[Callable[..., Any], Callable[..., Any], Callable[[], object], Callable[[], object]],
        incoming: MemoryBIO,
        outgoing: MemoryBIO,
        translate: Callable[[BaseException], BaseException | None],
        deadline: float | None,
    ) -> Tls:
        """TLS from the next byte on.

        `calls` are the session's read, write, do_handshake and unwrap. `translate` answers None for "more records are
        needed" and EOF for the peer's goodbye.
        """

@final
class PkgHandler:
    """A handler that answers each package with what `function` makes of it."""

    def __new__(cls, function: Callable[[bytes], Buffer | None], option: object) -> Self: ...
    def __call__(self, conn: BlockingConn) -> None: ...
    def serve(self, conn: BlockingConn, ended: Callable[[BaseException | None], object]) -> None:
        """The same for a greenlet, which can end now: `ended(error)` follows at the end, None for a clean one."""

@final
class Tls:
    """One end of a TLS session."""

    def ask(self, question: Callable[[SSLObject], _T]) -> _T:
        """`question(session)`, while nobody else uses the session."""

@disjoint_base
class AsyncConn(BaseConn):
    """A handle whose calls are awaited; what they answer is a coroutine."""

    _opening: bool
    """A task is at it."""

    def send(
        self, data: Buffer, retry: Retry | None = None, *, timeout: float | None = None
    ) -> Coroutine[object, None, None]:
        """Sends all of `data`."""

    def send_pkg(
        self, data: Buffer, option: PkgOption | None = None, *, timeout: float | None = None
    ) -> Coroutine[object, None, None]:
        """Sends one package."""

    def send_pkgs(
        self, packages: Iterable[Buffer], option: PkgOption | None = None, *, timeout: float | None = None
    ) -> Coroutine[object, None, None]:
        """Sends many packages in as few system calls as possible."""

    def recv(
        self, length: int = -1, retry: Retry | None = None, *, timeout: float | None = None
    ) -> Coroutine[object, None, bytes]:
        """Exactly `length` bytes; with 0 what one read gives; with -1 what comes until a pause."""

    def recv_into(self, buffer: Buffer, n: int = 0, *, timeout: float | None = None) -> Coroutine[object, None, int]:
        """Receives exactly `n` bytes into the buffer, or with 0 what one read gives; answers how many."""

    def recv_line(
        self, retry: Retry | None = None, *, timeout: float | None = None, max_size: int | None = None
    ) -> Coroutine[object, None, bytes]:
        """Receives up to a newline, which is dropped."""

    def recv_till(
        self, til: bytes, retry: Retry | None = None, *, timeout: float | None = None, max_size: int | None = None
    ) -> Coroutine[object, None, bytes]:
        """Receives up to and with the delimiter."""

    def recv_pkg(
        self, option: PkgOption | None = None, *, timeout: float | None = None
    ) -> Coroutine[object, None, bytes]:
        """Receives the payload of one package."""

    def recv_pkgs(
        self, n: int = -1, option: PkgOption | None = None, *, timeout: float | None = None
    ) -> Coroutine[object, None, list[bytes]]:
        """Receives `n` packages; with -1 at least one, and all that have arrived with it."""

    def send_recv(
        self, data: Buffer, length: int = -1, retry: Retry | None = None, *, timeout: float | None = None
    ) -> Coroutine[object, None, bytes]:
        """`send` and `recv` as one exchange."""

    def send_recv_pkg(
        self, data: Buffer, option: PkgOption | None = None, *, timeout: float | None = None
    ) -> Coroutine[object, None, bytes]:
        """`send_pkg` and `recv_pkg` as one exchange."""

    def send_recv_pkgs(
        self,
        packages: Iterable[Buffer],
        option: PkgOption | None = None,
        *,
        timeout: float | None = None,
        window: int = 64,
    ) -> Coroutine[object, None, list[bytes]]:
        """Sends many packages and receives the one reply of each, with up to `window` under way."""

    def packages(self, option: PkgOption | None = None, *, timeout: float | None = None) -> AsyncUnitIterator:
        """The packages that come, until a clean EOF; `timeout` is for each."""

    def lines(self, *, timeout: float | None = None, max_size: int | None = None) -> AsyncUnitIterator:
        """The lines that come, until a clean EOF; `timeout` is for each."""

    def close(self) -> Coroutine[object, None, None]:
        """Closes the connection, or puts a leased one back."""

    def __aenter__(self) -> Coroutine[object, object, Self]: ...
    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Coroutine[object, None, None]: ...

    # For the layer above.

    def _opened(self) -> Coroutine[object, object, Self]: ...
    def _start_tls(
        self,
        session: SSLObject,
        calls: tuple[Callable[..., Any], Callable[..., Any], Callable[[], object], Callable[[], object]],
        incoming: MemoryBIO,
        outgoing: MemoryBIO,
        translate: Callable[[BaseException], BaseException | None],
        deadline: float | None,
    ) -> Coroutine[object, None, Tls]:
        """TLS from the next byte on; arguments as those of BlockingConn's."""

@final
class AsyncUnitIterator:
    """Units one after the other until a clean end; what the `packages` and `lines` of an AsyncConn give."""

    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Coroutine[object, None, bytes]: ...

@final
class UnitIterator:
    """Units one after the other until a clean end; what `packages` and `lines` give."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> bytes: ...

# -- the pool

REASON_NAMES: Final[tuple[str, ...]]

@type_check_only
class _Books(TypedDict):
    idle: int
    in_use: int
    connecting: int
    waiting: int
    max_size: int | None
    acquired: int
    reused: int
    created: int
    failed: int
    timeouts: int
    closed: dict[str, int]  # by REASON_NAMES
    wait_total: float
    wait_longest: float
    use_total: float
    use_longest: float

@final
class Claim:
    """A caller's claim to a connection, for which a dial may be under way."""

class BasePool:
    """What every Pool shares. It calls methods of its subclass, those with a flag in `_configure` only if that is set.

    `_begin(claim, deadline)`: begins the dial of a claim, which ends in `_settle` or `_fail`, or goes on elsewhere
    after `_pass_on`. `_cancel(doing) -> bool`: nobody wants the result of a dial that goes on elsewhere; True when that
    ends it. `_unanswered(seconds)`: a dial has ended by that, after so many seconds.
    `_redial(deadline) -> BaseConn`: a new connection for a lease whose old one is dead. `_lifetime() -> float | None`:
    seconds that a new connection may live.

    `_greet(lease, reused, deadline) -> bool` (greeters): whether a lease may begin. `_part(lease) -> bool` (parts):
    whether its connection may go back. `_mourn(conn, reason)` (mourns): a connection has been closed.

    `_hold(lease)` (if there is a `held`): a lease has begun. What it puts into that dict under the lease's id goes when
    the lease ends.

    `_watch()`: makes sure that somebody attends the alarm. `_forked()`: this is a child.
    """

    def __new__(cls, *args: object, **kwargs: object) -> Self: ...
    @property
    def closed(self) -> bool:
        """The pool lends nothing any more."""

    def numbers(self) -> str:
        """The books in a few words."""

    # For the layer above.

    def _configure(
        self,
        *,
        lease_type: type[BaseConn],
        conn_type: type[BaseConn],
        max_size: int | None,
        max_idle: int | None,
        min_idle: int,
        max_waiting: int | None,
        max_uses: int | None,
        ttl: float | None,
        timeout: float | None,
        fifo: bool,
        look: bool,
        renews: bool,
        one_way: bool,
        greeters: str,
        parts: bool,
        mourns: bool,
        held: dict[int, Any] | None,
    ) -> None:
        """Options that have been checked; None for no limit. The pool is open from now on."""

    def _begin_apart(self, bring: Callable[[Claim], object]) -> Claim | None:
        """Begins a dial that nobody waits for, by `bring`; None when limits or the address forbid it."""

    def _pass_on(self, claim: Claim, doing: object) -> None:
        """The dial of a claim goes on in another thread; `str(doing)` tells how far it is."""

    def _settle(self, claim: Claim, conn: BaseConn) -> None:
        """The dial has succeeded, unless this raises: the pool takes the connection over."""

    def _fail(self, claim: Claim, error: BaseException | None, trouble: str | None) -> None:
        """The dial has failed; `trouble` tells what is wrong with the address, if it is the address."""

    def _outcome(self, claim: Claim, deadline: float | None) -> BaseException | None:
        """Waits for the end of a reserved dial; answers its error. Timeout at the deadline."""

    def _call_in(self, seconds_: float) -> None:
        """Has the pool looked after in so many seconds."""

    def _next_try(self) -> float | None:
        """Seconds until the address may be dialled again; None when the limits forbid it."""

    def _note_dial(self, trouble: str | None) -> None:
        """What a dial that is no claim's alone says; `trouble` as for `_fail`, None for success."""

    def _reap(self, apart: bool = False) -> bool:
        """Closes what is idle for too long and sets the alarm. The hook hears of it, or `apart`: True if it has to."""

    def _tell(self) -> None:
        """Tells the hook what it has not heard."""

    def _expire(self) -> None:
        """What has been opened until now is not lent again."""

    def _resize(self, max_size: int | None) -> None:
        """Changes the limit."""

    def _shut(self) -> None:
        """No more leases."""

    def _cut(self, deadline: float | None) -> int:
        """Waits for the leases of a closed pool, closes the connections of the others and answers how many."""

    def _is_unused(self) -> bool:
        """Nothing is idle, on loan, under way or waited for."""

    def _books(self) -> _Books: ...

class BlockingPool(BasePool):
    """A pool whose callers block."""

    def acquire(self, timeout: float | None = ...) -> BaseConn:
        """Lends a connection, an object of `lease_type`; by default within the pool's `timeout`."""

@disjoint_base
class AsyncPool(BasePool):
    """A pool whose callers are tasks of one event loop.

    `_greet` and `_redial` of its subclass answer awaitables here, and `_part` may: `_spawn(coroutine, follow) -> Task`
    makes a task of that, whose end `follow(task)` follows. `_bound(loop)`: the pool belongs to this loop from now on.
    `_tend()`: it wants to be looked after.
    """

    def _enter_loop(self) -> None:
        """The pool serves the running loop, or RuntimeError."""

    def _check_loop(self) -> None:
        """The pool's loop runs here, or RuntimeError. Before it has one and after the end of that, no error."""

    def _loop_for_tasks(self) -> AbstractEventLoop:
        """The pool's own, running or not; after the end of that, and before it has one, the running one."""

    def _lend(self, lease: _C, timeout: float | None = ...) -> Coroutine[object, object, _C]:
        """Fills a new handle with a connection on loan and answers it."""

    async def _drain(self, deadline: float | None) -> int:
        """`_cut` for a loop."""

@final
class Directory:
    """The shared pools by what users write as an address."""

    def serve(self, find: Callable[[Any, Any, str | None], BasePool]) -> None:
        """`find(addr, tls, server_hostname)` answers the pool of an address that is not written here."""

    def learn(self, addr: str, pool: BasePool) -> None:
        """Users who write `addr` get this pool."""

    def forget(self, addr: str, pool: BasePool) -> None:
        """They no longer get it."""

directory: Directory

def open_lease(
    self: BaseConn,
    addr: object,
    timeout: float | None = ...,
    *,
    tls: object = None,
    server_hostname: str | None = None,
) -> None:
    """PoolConn.__init__: fills the handle with a connection of the shared pool of `addr`."""
