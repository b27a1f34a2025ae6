"""The numbers of a pool."""

from __future__ import annotations

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


PoolStats.__module__ = "gtcp"
