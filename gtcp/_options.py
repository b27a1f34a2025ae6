"""Immutable options: when to try again, how packages are framed."""

from __future__ import annotations

import errno
import math
import random
from dataclasses import dataclass

from gtcp._errors import Error

# What passes by itself: the connection is as before, the kernel just could not take or give bytes now.
TRANSIENT = frozenset(
    {errno.ENOBUFS, errno.ENOMEM, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH}
)


def check_number(name: str, value: float, least: float = 0.0) -> None:
    """A finite number >= least, or TypeError or ValueError naming it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    try:
        valid = math.isfinite(value) and value >= least
    except OverflowError:
        raise ValueError(f"{name} must be a finite number, got an int beyond all floats") from None
    if not valid:
        raise ValueError(f"{name} must be a finite number from {least:g} on, got {value!r}")


def check_count(name: str, value: int | None, least: int, most: int | None = None) -> None:
    """An int within the limits, or TypeError or ValueError naming it."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{name} must be from {least} to {'any' if most is None else most}, got {value}")


def is_async(function: object) -> bool:
    """Calling it answers a coroutine, which does nothing unless it is awaited."""
    from inspect import iscoroutinefunction  # slow to load, and most programs have no hooks

    return iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__)


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and when an operation is tried again after an error that passes by itself.

    `count`: further attempts. `interval`: seconds before the first of them; each later one waits `backoff` times as
    long, up to `max_interval`; `jitter` (0 to 1) is the random share taken off each wait. A wait that would pass the
    call's deadline is not begun: the error is raised instead.
    """

    count: int = 0
    interval: float = 0.1
    backoff: float = 1.0
    max_interval: float = 10.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        check_count("count", self.count, 0)
        check_number("interval", self.interval)
        check_number("backoff", self.backoff, 1.0)
        check_number("max_interval", self.max_interval)
        check_number("jitter", self.jitter)
        if self.jitter > 1:
            raise ValueError(f"jitter must be at most 1, got {self.jitter!r}")

    def wait(self, attempt: int) -> float:
        """Seconds before the retry that follows attempt number `attempt`, counted from 0."""
        try:
            wait = min(self.interval * float(self.backoff) ** attempt, self.max_interval)
        except OverflowError:
            wait = self.max_interval if self.interval else 0.0
        return min(wait * (1.0 - self.jitter * random.random()), self.max_interval)

    def delay(self, attempt: int, error: BaseException) -> float | None:
        """The same, or None when `error` does not pass by itself or the attempts are used up."""
        if attempt >= self.count or not isinstance(error, Error) or getattr(error, "errno", None) not in TRANSIENT:
            return None
        return self.wait(attempt)


@dataclass(frozen=True, slots=True)
class PkgOption:
    """How packages are framed: a big-endian length of `header_size` bytes (1 to 4), then that many bytes.

    `max_data_size`: bytes of a payload at most; None for what the header can say (4 bytes: 0x7FFFFFFF).
    `retry`: a Retry for errors that pass by themselves.
    """

    header_size: int = 2
    max_data_size: int | None = None
    retry: Retry | None = None

    def __post_init__(self) -> None:
        check_count("header_size", self.header_size, 1, 4)
        if self.max_data_size is not None:
            most = min(256**self.header_size - 1, 0x7FFFFFFF)
            try:
                check_count("max_data_size", self.max_data_size, 0, most)
            except ValueError as error:
                raise ValueError(f"{error}: a header of {self.header_size} bytes cannot say more") from None
        if self.retry is not None and not isinstance(self.retry, Retry):
            raise TypeError(f"retry must be a Retry, not {type(self.retry).__name__}")


for _class in (Retry, PkgOption):
    _class.__module__ = "gtcp"
