"""Pool and PoolConn: connections on loan, the shared pools, and who looks after idle ones."""

from __future__ import annotations

import logging
import os
import random
import socket
import sys
import threading
import warnings
import weakref
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from gtcp import _core
from gtcp._address import Address, AddressLike, parse
from gtcp._conn import Conn, tls_context
from gtcp._dial import earlier
from gtcp._options import check_count, check_number

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Self

logger = logging.getLogger("gtcp")


class PoolConn(Conn):
    """A connection on loan from the shared pool of `addr`; `close()` puts it back.

    `timeout`: seconds to wait for a free connection and to dial. Everything that Conn can do. A connection goes back
    only if it is healthy, empty and in step; else `close()` closes it, as does `with` when it is left by an exception.
    A send that finds a reused connection dead before a byte left is made on a new one.

    The object is dead after `close()`: its connection may be somebody else's by then. One thread should use a lease.
    """

    __slots__ = ()

    def __init__(
        self,
        addr: AddressLike | Address,
        timeout: float | None = 30.0,
        *,
        tls: ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
    ) -> None:
        self._check_new()
        get_pool(addr, **tls_options(tls, server_hostname))._lend_to(self, timeout)

    @classmethod
    def from_socket(cls, sock: socket.socket) -> NoReturn:  # noqa: ARG003
        """TypeError: a pool dials its own connections."""
        raise TypeError("a PoolConn comes from a pool; use Conn.from_socket")

    def discard(self) -> None:
        """Ends the lease and closes the connection instead of putting it back. Idempotent."""
        self._discard()

    def _dropped(self) -> None:
        try:
            if not sys.is_finalizing():
                warnings.warn(f"lease not closed: {self!r}", ResourceWarning, source=self, stacklevel=2)
        finally:
            self._leak()


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The books of a pool at one moment; counts since it was made, times in seconds."""

    idle: int
    in_use: int
    connecting: int
    waiting: int
    max_size: int | None
    acquired: int
    reused: int
    created: int
    failed: int
    closed: dict[str, int]
    wait_total: float
    wait_longest: float
    use_total: float
    use_longest: float


class Pool(_core.BasePool):
    """Connections to one address, kept for reuse. Safe for use by several threads.

    `max_size`: connections at most, None for no limit; more callers wait, first come first served. `max_idle`: idle
    ones kept at most. `timeout`: seconds that `acquire` waits and dials. `max_waiting`: callers that may wait.
    `ttl`: seconds that an idle connection is kept. `max_lifetime`: seconds after which a connection is replaced, less
    a random share of up to `lifetime_jitter`. `max_uses`: leases of one connection. `order`: "lifo" lends the one that
    came back last, so that a pool shrinks when less is needed, "fifo" the one that rested longest. `check`: look at
    the socket before lending it, without a round trip. `one_way`: a lease may end without a reply to its last send, or
    with fewer packages received than sent.
    `reconnect`: a send that finds its reused connection dead before a byte left is made on a new one.
    `connect_timeout`: seconds for one dial.
    """

    def __init__(
        self,
        addr: AddressLike | Address,
        *,
        max_size: int | None = None,
        max_idle: int | None = None,
        timeout: float | None = 30.0,
        max_waiting: int | None = None,
        ttl: float | None = 600.0,
        max_lifetime: float | None = None,
        lifetime_jitter: float = 0.05,
        max_uses: int | None = None,
        order: Literal["lifo", "fifo"] = "lifo",
        check: bool = True,
        one_way: bool = False,
        reconnect: bool = True,
        connect_timeout: float | None = 30.0,
        tls: ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
    ) -> None:
        self.addr = parse(addr)
        self._context = tls_context(tls, server_hostname)
        self._server_hostname = server_hostname
        if order not in ("lifo", "fifo"):
            raise ValueError(f"order must be 'lifo' or 'fifo', got {order!r}")
        for name, count, least in (
            ("max_size", max_size, 1),
            ("max_idle", max_idle, 0),
            ("max_waiting", max_waiting, 0),
            ("max_uses", max_uses, 1),
        ):
            if count is not None:
                check_count(name, count, least)
        for name, time in (("max_lifetime", max_lifetime), ("connect_timeout", connect_timeout)):
            if time is not None:
                check_number(name, time)
        check_number("lifetime_jitter", lifetime_jitter)
        if lifetime_jitter > 1:
            raise ValueError(f"lifetime_jitter must be at most 1, got {lifetime_jitter!r}")
        self._max_lifetime = max_lifetime
        self._lifetime_jitter = lifetime_jitter
        self._connect_timeout = connect_timeout
        self._configure(
            lease_type=PoolConn,
            max_size=max_size,
            max_idle=max_idle,
            max_waiting=max_waiting,
            max_uses=max_uses,
            ttl=ttl,
            timeout=timeout,
            fifo=order == "fifo",
            look=check,
            renews=reconnect,
            one_way=one_way,
        )
        _every_pool[id(self)] = weakref.ref(self, partial(_forget, id(self)))

    if TYPE_CHECKING:

        def acquire(self, timeout: float | None = ...) -> PoolConn: ...

    # -- what the core asks for

    def _dial(self, deadline: float | None) -> _core.BaseConn:
        conn = Conn.__new__(Conn)
        until = earlier(deadline, _core.to_deadline(self._connect_timeout))
        conn._open(self.addr, until, self._context, self._server_hostname)
        return conn

    def _lifetime(self) -> float | None:
        """Seconds that a new connection may live; the jitter keeps those of one burst from ending together."""
        if self._max_lifetime is None:
            return None
        return self._max_lifetime * (1.0 - self._lifetime_jitter * random.random())

    def _watch(self) -> None:
        """A connection has become idle and nobody is there to close it when its time is over."""
        if _core.alarm.attend():
            try:
                threading.Thread(target=_reap_forever, name="gtcp-reaper", daemon=True).start()
            except RuntimeError:
                # No more threads, as when the interpreter ends: `acquire` judges the time by itself.
                _core.alarm.resign()
            except BaseException:  # a signal handler's
                _core.alarm.resign()
                raise

    # -- for users

    def stats(self) -> PoolStats:
        """The pool's numbers, consistent with each other."""
        return PoolStats(**self._books())

    def clear(self) -> None:
        """Closes the idle connections now and those on loan when they come back."""
        self._expire()
        self._reap(everything=True)

    def close(self) -> None:
        """Closes the idle connections now and those on loan when they come back. Idempotent, from any thread.

        Callers that wait and later ones get PoolClosed.
        """
        self._shut()
        for key, pool in list(_shared.items()):
            if pool is self:
                del _shared[key]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<gtcp.Pool {self.addr} {self.numbers()}>"


# -- the shared pools

_shared: dict[tuple[Any, ...], Pool] = {}
_options: weakref.WeakKeyDictionary[Pool, dict[str, Any]] = weakref.WeakKeyDictionary()
_every_pool: dict[int, weakref.ref[Pool]] = {}


def get_pool(addr: AddressLike | Address, **options: Any) -> Pool:
    """The shared pool of an address, made with `options` (those of Pool) when there is none yet.

    This is the pool that `PoolConn(addr)` uses. ValueError when the pool exists with other options, naming them.
    """
    address = parse(addr)
    key = (address.host.lower(), address.port, options.get("tls") or None, options.get("server_hostname"))
    pool = _shared.get(key)
    if pool is None:
        made = Pool(address, **options)
        pool = _shared.setdefault(key, made)  # another thread may have been faster
        if pool is made:
            _options[pool] = options
    known = _options.get(pool, {})
    for name, value in options.items():
        if name not in known or known[name] != value:
            existing = repr(known[name]) if name in known else "its default"
            raise ValueError(f"the pool of {address} exists with {name}={existing}, not {value!r}")
    return pool


def tls_options(tls: object, server_hostname: str | None) -> dict[str, Any]:
    """The options that tell a TLS pool from a plain one; none for a plain one."""
    named = {"tls": tls or None, "server_hostname": server_hostname}
    return {name: value for name, value in named.items() if value is not None}


def _forget(key: int, _: weakref.ref[Pool]) -> None:
    _every_pool.pop(key, None)


def _living_pools() -> list[Pool]:
    return [pool for ref in list(_every_pool.values()) if (pool := ref()) is not None]


def _reap_forever() -> None:
    """The one reaper: sleeps until the earliest moment at which an idle connection's time is over."""
    while True:
        _core.alarm.wait()
        _reap_all()


def _reap_all() -> None:
    for pool in _living_pools():
        try:
            pool._reap()
        except Exception:
            logger.exception("looking after the idle connections of %s failed", pool.addr)


def _after_fork() -> None:
    _core.alarm.resign()  # the reaper is a thread of the parent
    for pool in _living_pools():
        pool._reap()


os.register_at_fork(after_in_child=_after_fork)

for _class in (PoolConn, Pool, PoolStats):
    _class.__module__ = "gtcp"
