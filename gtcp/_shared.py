"""The shared pools, one for each address and way of TLS: what `PoolConn(addr)` uses."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from gtcp import _core, _reaper
from gtcp._address import Address, AddressLike, parse
from gtcp._pool import Pool
from gtcp._pooloptions import check_options
from gtcp._stats import PoolStats

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gtcp._pooloptions import PoolOptions

Key = tuple[str, int, str | None, object, object]

# A pool that nobody asked for by `get_pool` is forgotten when it has had nothing to do for so long.
_FORGOTTEN_AFTER = 600.0


class SharedPool(Protocol):
    """A pool, as far as those who share it know it."""

    _options: Any
    _implicit: bool
    _forget: Callable[[], None] | None

    @property
    def closed(self) -> bool: ...
    def stats(self) -> PoolStats: ...
    def _shut(self) -> None: ...
    def _is_unused(self) -> bool: ...


P = TypeVar("P", bound=SharedPool)


class Shared(Generic[P]):
    """Pools by address and way of TLS, made by `make(address, **options)` when they are first asked for."""

    def __init__(self, make: Callable[..., P], forgotten: Callable[[P], None] | None = None) -> None:
        self._make = make
        self._forgotten = forgotten
        self._pools: dict[Key, P] = {}
        # Since when, and since how many leases, an implicit pool has been empty.
        self._unused: dict[Key, tuple[int, float]] = {}

    def get(self, address: Address, options: dict[str, Any]) -> P:
        """The pool of the address. ValueError when it exists with other options."""
        tls = options.get("tls") or None
        if "tls" in options:
            options = options | {"tls": tls}
        key = address.host.lower(), address.port, address.path, tls, options.get("server_hostname")
        while (pool := self._pools.get(key)) is None or pool.closed:
            made = self._make(address, **options)
            made._forget = partial(self._forget, key, made)
            if pool is not None:
                self._forget(key, pool)
            pool = self._pools.setdefault(key, made)  # another thread may have been faster
            if pool is made:
                return pool
            made._shut()
        if unknown := options.keys() - pool._options.keys():
            raise TypeError(f"a pool has no option {min(unknown)!r}")
        asked = {**pool._options, **options}
        check_options(asked)
        for name in options:
            if (known := pool._options[name]) != asked[name]:
                raise ValueError(f"the shared pool of {address} exists with {name}={known!r}, not {asked[name]!r}")
        return pool

    def open(self) -> list[P]:
        """Those that are open."""
        return [pool for pool in list(self._pools.values()) if not pool.closed]

    def forget_unused(self) -> None:
        """Lets go of implicit pools that have been empty for long: some programs talk to ever new addresses."""
        now = time.monotonic()
        for key, pool in list(self._pools.items()):
            if not pool._implicit or not pool._is_unused():
                self._unused.pop(key, None)
                continue
            acquired = pool.stats().acquired
            known, since = self._unused.setdefault(key, (acquired, now))
            if known != acquired:
                self._unused[key] = acquired, now
            elif now - since >= _FORGOTTEN_AFTER:
                self._forget(key, pool)

    def _forget(self, key: Key, pool: P) -> None:
        if self._pools.get(key) is pool:
            del self._pools[key]
            self._unused.pop(key, None)
        if self._forgotten is not None:
            self._forgotten(pool)


def _forget_spellings(pool: Pool) -> None:
    for spelling in pool._spellings:
        _core.directory.forget(spelling, pool)


_shared: Shared[Pool] = Shared(Pool, _forget_spellings)


def get_pool(addr: AddressLike | Address, **options: Unpack[PoolOptions]) -> Pool:
    """The shared pool of an address, made with `options` (those of Pool) when there is none yet.

    This is the pool that `PoolConn(addr)` uses. ValueError when the pool exists with other options, naming them.
    """
    pool = _shared.get(parse(addr), dict(options))
    pool._implicit = False
    return pool


def pools() -> list[Pool]:
    """The shared pools that are open."""
    return _shared.open()


def _find(addr: AddressLike | Address, tls: object, server_hostname: str | None) -> Pool:
    """What PoolConn asks when it does not know the pool of an address yet."""
    named = {"tls": tls or None, "server_hostname": server_hostname}
    pool = _shared.get(parse(addr), {name: value for name, value in named.items() if value is not None})
    if pool._implicit:
        pool._call_in(_FORGOTTEN_AFTER)
    if type(addr) is str and not (tls or server_hostname):
        pool._spellings.add(addr)
        _core.directory.learn(addr, pool)
    return pool


class _Lookout:
    """Has unused pools forgotten now and then: each round of the reaper would be too often."""

    def __init__(self) -> None:
        self._next = 0.0
        # Somebody to call the reaper for the next look; None when there is nobody to be forgotten.
        self._caller: Pool | None = None

    def __call__(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _FORGOTTEN_AFTER / 10
            _shared.forget_unused()
            self._caller = next((pool for pool in _shared.open() if pool._implicit), None)
        if self._caller is not None:
            self._caller._call_in(_FORGOTTEN_AFTER)


_core.directory.serve(_find)
_reaper.chores.append(_Lookout())
