"""The numbers of pools and servers."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The books of a pool at one moment, consistent with each other; times in seconds.

    Now: connections that are `idle`, `in_use` and `connecting`, callers that are `waiting` without a dial of their own,
    the limit `max_size` (None: no limit).

    Since the pool was made: leases (`acquired`, `reused` of them with a connection that had been lent or idle before),
    dials that succeeded (`created`) and `failed`, callers that got PoolTimeout (`timeouts`), connections `closed` by
    reason. `wait_total`, `wait_longest`: what callers waited that found no idle connection; `use_total` and
    `use_longest`: how long leases lasted.

    `idle + in_use == created - sum(closed.values())` at any moment.
    """

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
    closed: dict[str, int]
    wait_total: float
    wait_longest: float
    use_total: float
    use_longest: float


@dataclass(frozen=True, slots=True)
class ServerStats:
    """The numbers of a server at one moment: `connections` now, the others since it was made.

    Connections that were `accepted`, of them `refused` by on_connect, without an agreement on TLS
    (`handshakes_failed`), ended by a limit (`timeouts`, by its name) and `cut` by shutdown; handlers that `failed`.
    """

    connections: int
    accepted: int
    refused: int
    handshakes_failed: int
    failed: int
    timeouts: dict[str, int]
    cut: int


class Tally:
    """Numbers that many threads count up."""

    def __init__(self) -> None:
        # A signal handler may count in the middle of counting.
        self._lock = threading.RLock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str, number: int = 1) -> None:
        with self._lock:
            self._counts[name] += number

    def __getitem__(self, name: str) -> int:
        return self._counts[name]


PoolStats.__module__ = ServerStats.__module__ = "gtcp"
