"""How much a server bears: how many connections, and how long a client may keep its handler waiting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from gtcp import _core
from gtcp._options import check_count

TIMEOUTS = ("first_byte_timeout", "idle_timeout", "send_timeout")
# Looks within a time limit: a connection that is overdue is found at most an eighth of the limit later.
_LOOKS = 8
_SHORTEST_INTERVAL = 0.005


class Watched(Protocol):
    """What the connections of every server have."""

    def _activity(self) -> tuple[int, int, int]: ...


WatchedT = TypeVar("WatchedT", bound=Watched)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a server, in seconds and numbers; None is no limit. See `Server`."""

    max_connections: int | None = None
    handshake_timeout: float | None = 10.0
    first_byte_timeout: float | None = None
    idle_timeout: float | None = None
    send_timeout: float | None = None
    backlog: int = 1024

    def __post_init__(self) -> None:
        """TypeError or ValueError for what cannot be."""
        if self.max_connections is not None:
            check_count("max_connections", self.max_connections, 1)
        check_count("backlog", self.backlog, 0)
        for name in ("handshake_timeout", *TIMEOUTS):
            try:
                _core.to_deadline(getattr(self, name))
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}: {error}") from None


class Patience:
    """Looks now and then at what all connections do, and finds those that have done nothing else for too long.

    So a limit costs a connection nothing while it works, and no timer while it waits.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        given = [getattr(limits, name) for name in TIMEOUTS]
        shortest = min((limit for limit in given if limit is not None), default=None)
        self.interval = None if shortest is None else max(shortest / _LOOKS, _SHORTEST_INTERVAL)
        """Seconds between two looks; None when there is nothing to look for."""
        self._seen: dict[Watched, tuple[tuple[int, int, int], float]] = {}

    def overdue(self, connections: Iterable[tuple[WatchedT, float | None]], now: float) -> list[tuple[WatchedT, str]]:
        """Those that waited for too long, and by which limit. `connections`: with the moment of the handler's begin."""
        seen, late = self._seen, []
        self._seen = {}
        for conn, begun in connections:
            if begun is None:
                continue
            activity = conn._activity()
            known = seen.get(conn)
            if known is None or known[0] != activity:
                known = activity, now
            self._seen[conn] = known
            reason = self._judge(activity, now - known[1], now - begun)
            if reason is not None:
                late.append((conn, reason))
        return late

    def _judge(self, activity: tuple[int, int, int], unchanged: float, age: float) -> str | None:
        """Why a connection has to go that has been in this state for so many seconds."""
        waits_for, received, _ = activity
        limits = self._limits
        if waits_for & _core.POLLOUT and is_over(limits.send_timeout, unchanged):
            return "send_timeout"
        if not waits_for & _core.POLLIN:
            return None
        if received == 0 and is_over(limits.first_byte_timeout, age):
            return "first_byte_timeout"
        return "idle_timeout" if is_over(limits.idle_timeout, unchanged) else None


def is_over(limit: float | None, seconds: float) -> bool:
    return limit is not None and seconds >= limit
