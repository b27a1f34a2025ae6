"""The shared pools, one for each address and way of TLS: what `PoolConn(addr)` uses."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from gtcp import _core, _reaper
from gtcp._address import Address, AddressLike, parse
from gtcp._pool import Pool

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gtcp._pooloptions import PoolOptions

Key = tuple[str, int, str | None, object, object]

# A pool that nobody asked for by `get_pool` is forgotten when it has had nothing to do for so long.
_FORGOTTEN_AFTER = 600.0

_shared: dict[Key, Pool] = {}
_unused: dict[Key, tuple[int, float]] = {}
"""Since when, and since how many leases, an implicit pool has been empty."""


def get_pool(addr: AddressLike | Address, **options: Unpack[PoolOptions]) -> Pool:
    """The shared pool of an address, made with `options` (those of Pool) when there is none yet.

    This is the pool that `PoolConn(addr)` uses. ValueError when the pool exists with other options, naming them.
    """
    pool = _get(parse(addr), dict(options))
    pool._implicit = False
    return pool


def pools() -> list[Pool]:
    """The shared pools that are open."""
    return [pool for pool in list(_shared.values()) if not pool.closed]


def _get(address: Address, options: dict[str, Any]) -> Pool:
    key = address.host.lower(), address.port, address.path, options.get("tls") or None, options.get("server_hostname")
    while (pool := _shared.get(key)) is None or pool.closed:
        made = Pool(address, **options)
        made._forget = partial(_forget, key, made)
        if pool is not None:
            _forget(key, pool)
        pool = _shared.setdefault(key, made)  # another thread may have been faster
        if pool is made:
            return pool
        made.close()
    if unknown := options.keys() - pool._options.keys():
        raise TypeError(f"a pool has no option {min(unknown)!r}")
    for name, value in options.items():
        if (known := pool._options[name]) != value:
            raise ValueError(f"the shared pool of {address} exists with {name}={known!r}, not {value!r}")
    return pool


def _forget(key: Key, pool: Pool) -> None:
    if _shared.get(key) is pool:
        del _shared[key]
        _unused.pop(key, None)
    for spelling in pool._spellings:
        _core.directory.forget(spelling, pool)


def _find(addr: AddressLike | Address, tls: object, server_hostname: str | None) -> Pool:
    """What PoolConn asks when it does not know the pool of an address yet."""
    named = {"tls": tls or None, "server_hostname": server_hostname}
    pool = _get(parse(addr), {name: value for name, value in named.items() if value is not None})
    if isinstance(addr, str) and not (tls or server_hostname):
        pool._spellings.append(addr)
        _core.directory.learn(addr, pool)
    return pool


def _forget_unused() -> None:
    """Lets go of implicit pools that have been empty for long: programs that talk to ever new addresses live long."""
    now = time.monotonic()
    for key, pool in list(_shared.items()):
        if not pool._implicit or not pool._is_unused():
            _unused.pop(key, None)
            continue
        acquired = pool.stats().acquired
        known, since = _unused.setdefault(key, (acquired, now))
        if known != acquired:
            _unused[key] = acquired, now
        elif now - since >= _FORGOTTEN_AFTER:
            _forget(key, pool)


_core.directory.serve(_find)
_reaper.chores.append(_forget_unused)
