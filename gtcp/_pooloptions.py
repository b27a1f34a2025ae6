"""What a pool can be told, and whether that makes sense."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from gtcp._options import check_count, check_number, is_async

if TYPE_CHECKING:
    import socket
    import ssl

    from gtcp._address import Address
    from gtcp._conn import Conn
    from gtcp._dial import SocketOption
    from gtcp._lease import PoolConn

Check = Callable[["PoolConn"], object]
Dial = Callable[["Address", "float | None"], "socket.socket | Conn"]


class CommonOptions(TypedDict, total=False):
    """What every Pool takes beside the address."""

    max_size: int | None
    max_idle: int | None
    min_idle: int
    timeout: float | None
    max_waiting: int | None
    ttl: float | None
    max_lifetime: float | None
    lifetime_jitter: float
    max_uses: int | None
    order: Literal["lifo", "fifo"]
    check_timeout: float | None
    one_way: bool
    reconnect: bool
    leak_threshold: float | None
    connect_timeout: float | None
    socket_options: Sequence[SocketOption]
    tls: ssl.SSLContext | bool | None
    server_hostname: str | None


class PoolOptions(CommonOptions, total=False):
    """What Pool takes beside the address."""

    check: bool | Check
    dial: Dial | None
    on_connect: Callable[[Conn], object] | None
    on_acquire: Callable[[PoolConn], object] | None
    on_release: Callable[[PoolConn], object] | None
    on_close: Callable[[Conn, str], object] | None


def given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The options among the arguments of a Pool."""
    return {name: arguments[name] for name in PoolOptions.__annotations__}


def check_options(options: dict[str, Any]) -> None:
    """TypeError or ValueError for the first option of a pool that cannot be; copies what the caller could change."""
    for name, least in (("max_size", 1), ("max_idle", 0), ("min_idle", 0), ("max_waiting", 0), ("max_uses", 1)):
        if options[name] is not None or name == "min_idle":
            check_count(name, options[name], least, sys.maxsize)
    for name in ("max_lifetime", "check_timeout", "leak_threshold", "connect_timeout"):
        if options[name] is not None:
            check_number(name, options[name])
    check_number("lifetime_jitter", options["lifetime_jitter"])
    if options["lifetime_jitter"] > 1:
        raise ValueError(f"lifetime_jitter must be at most 1, got {options['lifetime_jitter']!r}")
    if options["order"] not in ("lifo", "fifo"):
        raise ValueError(f"order must be 'lifo' or 'fifo', got {options['order']!r}")
    for limit in ("max_size", "max_idle"):
        if options[limit] is not None and options["min_idle"] > options[limit]:
            raise ValueError(f"min_idle must be at most {limit}={options[limit]}, got {options['min_idle']}")
    for name in ("dial", "on_connect", "on_acquire", "on_release", "on_close"):
        if options[name] is not None and not callable(options[name]):
            raise TypeError(f"{name} must be a function, not {type(options[name]).__name__}")
    try:
        options["socket_options"] = tuple(options["socket_options"])
    except TypeError:
        raise TypeError(f"socket_options must be a sequence, not {type(options['socket_options']).__name__}") from None
    for option in options["socket_options"]:
        match option:
            case (int(), int(), int() | bytes()):
                if any(isinstance(word, int) and not -(2**31) <= word < 2**31 for word in option):
                    raise ValueError(
                        f"the numbers of socket_options must fit 32 bits, got {options['socket_options']!r}"
                    )
            case _:
                raise TypeError(f"socket_options must be (level, name, int or bytes) each, got {option!r}")
    if options["dial"] is not None and options["socket_options"]:
        raise ValueError("socket_options are for the dial of the pool, but dial is given, too: let it set them")
    for name, kinds in (("check", "a bool or a function"), ("one_way", "a bool"), ("reconnect", "a bool")):
        if not isinstance(options[name], bool) and not (name == "check" and callable(options[name])):
            raise TypeError(f"{name} must be {kinds}, not {type(options[name]).__name__}")


def check_plain(arguments: Mapping[str, Any]) -> None:
    """TypeError for a hook among the arguments of a blocking Pool that would have to be awaited."""
    for name in ("check", "dial", "on_connect", "on_acquire", "on_release", "on_close"):
        if callable(hook := arguments[name]) and is_async(hook):
            raise TypeError(f"{name} must be a plain function, nobody would await {hook!r}")
