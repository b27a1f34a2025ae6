"""Waiting by a function of the user's, as psycopg2's wait callback does."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from gtcp import _core

WaitFunction = Callable[[int, int, "float | None"], object]
"""fd, events (`select.POLLIN`, `select.POLLOUT` or both), seconds or None for no limit."""


class Event(Protocol):
    """What one caller sleeps on: `threading.Event`, as far as it is needed."""

    def set(self) -> object: ...
    def wait(self, timeout: float | None) -> object: ...


def set_wait_function(function: WaitFunction | None, *, event: Callable[[], Event] | None = None) -> None:
    """Has `function(fd, events, timeout)` called wherever gtcp would block the thread; None lets threads sleep again.

    It returns when the descriptor is ready or after `timeout` seconds (None: no limit); returning early does no harm,
    an exception leaves the call as a signal handler's does. `event()` makes what a caller sleeps on that waits for its
    turn on a connection, for a connection of a pool, or for time: `set()` may come from any thread. By default that is
    a descriptor which `function` waits for, one for each caller that sleeps so.

    For the whole process; threads that run `gtcp.run` or a greenlet server keep their way. Set it before the first
    connection, and not while calls wait.
    """
    if function is None:
        if event is not None:
            raise ValueError("event needs a wait function")
        _core.set_wait_function(None, None)
        return
    for name, value in (("function", function), ("event", event)):
        if not callable(value) and not (name == "event" and value is None):
            raise TypeError(f"{name} must be callable, not {type(value).__name__}")
    wait = function
    _core.set_wait_function(wait, (lambda: Bell(wait)) if event is None else event)


class Bell:
    """An event that is a descriptor."""

    def __init__(self, wait: WaitFunction) -> None:
        self._wait = wait
        if hasattr(os, "eventfd"):
            self._reader = self._writer = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)

    def set(self) -> None:
        os.write(self._writer, b"\1\0\0\0\0\0\0\0")

    def wait(self, timeout: float | None) -> None:
        self._wait(self._reader, _core.POLLIN, timeout)

    def __del__(self) -> None:
        for fd in {getattr(self, "_reader", -1), getattr(self, "_writer", -1)} - {-1}:
            os.close(fd)
