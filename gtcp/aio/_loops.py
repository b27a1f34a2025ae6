"""What the pools of one event loop have in common: they end with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from collections.abc import AsyncGenerator
from typing import Any, Protocol


class Guest(Protocol):
    """A pool, as far as its loop's end concerns it."""

    async def _end(self) -> object: ...
    def _shut(self) -> None: ...
    def _reap(self) -> object: ...


class Home:
    """The pools of one loop.

    An asynchronous generator is what a loop tells of its end: `asyncio.run` closes those that are open.
    """

    def __init__(self) -> None:
        self.pools: weakref.WeakSet[Guest] = weakref.WeakSet()
        self.shared: Any = None
        """What `get_pool` knows in this loop."""
        self._end = self._until_the_end()
        with contextlib.suppress(StopIteration):
            self._end.__anext__().send(None)

    async def _until_the_end(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            for pool in list(self.pools):
                await pool._end()


_homes: dict[asyncio.AbstractEventLoop, Home] = {}
_guests: weakref.WeakSet[Guest] = weakref.WeakSet()


def home_of(loop: asyncio.AbstractEventLoop) -> Home:
    """What is known in the running loop."""
    home = _homes.get(loop)
    if home is None:
        for other in list(_homes):  # loops of other threads come and go meanwhile
            if other.is_closed() and (ended := _homes.pop(other, None)) is not None:
                for pool in list(ended.pools):
                    pool._shut()  # that loop told nobody of its end, and nobody can use these any more
        home = _homes[loop] = Home()
    return home


def enlist(pool: Guest) -> None:
    """The pool lets the parent's connections go when the process forks."""
    _guests.add(pool)


def _after_fork() -> None:
    for pool in list(_guests):
        pool._reap()


os.register_at_fork(after_in_child=_after_fork)
