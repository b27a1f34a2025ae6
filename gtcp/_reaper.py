"""Who looks after the pools when nobody calls: one daemon thread for all of them, begun when the first one needs it.

Nothing depends on it but time: what is overdue is not lent, whether or not somebody has closed it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Protocol

from gtcp import _core
from gtcp._threads import spawn

logger = logging.getLogger("gtcp")

# A round visits every pool. With thousands of them it pauses, so that rounds take 5 % of a processor at most.
_SHARE = 20
_LONGEST_PAUSE = 0.5


class Tended(Protocol):
    """A pool, as far as the reaper knows it."""

    def _tend(self) -> None: ...
    def _reap(self) -> object: ...
    def _call_in(self, seconds_: float, /) -> None: ...


_pools: dict[int, weakref.ref[Tended]] = {}
chores: list[Callable[[], None]] = []
"""What is to be done in every round, besides the pools."""


def enlist(pool: Tended) -> None:
    """From now on the pool is looked after, while it lives."""
    _pools[id(pool)] = weakref.ref(pool, partial(_dismiss, id(pool)))


def _dismiss(key: int, _: weakref.ref[Tended]) -> None:
    _pools.pop(key, None)


def watch() -> None:
    """Somebody shall hear the alarm."""
    shift = _core.alarm.attend()
    if shift:
        try:
            spawn(partial(_work, shift), "gtcp-reaper")
        except RuntimeError:
            # No more threads, as when the interpreter ends: `acquire` judges the time by itself.
            _core.alarm.resign(shift)
        except BaseException:  # a signal handler's
            _core.alarm.resign(shift)
            raise


def _living() -> list[Tended]:
    return [pool for ref in list(_pools.values()) if (pool := ref()) is not None]


def _work(shift: int) -> None:
    """Looks after the pools for a shift; if something ends it, the next pool that calls begins another one."""
    try:
        _round()  # what a shift that ended has left undone
        while _wait(shift):
            began = time.monotonic()
            _round()
            pause = (time.monotonic() - began) * _SHARE
            if pause > 0.01:
                time.sleep(min(pause, _LONGEST_PAUSE))
    finally:
        _core.alarm.resign(shift)


def _wait(shift: int) -> bool:
    """Until the alarm rings: False when somebody else has taken over."""
    try:
        return _core.alarm.wait(shift)
    except Exception:
        logger.exception("the wait function failed in gtcp's thread")
        time.sleep(_LONGEST_PAUSE)
        return True


def _round() -> None:
    for pool in _living():
        try:
            pool._tend()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # where greenlets share it
            logger.exception("looking after %r failed", pool)
            pool._call_in(_LONGEST_PAUSE)
    for chore in chores:
        try:
            chore()
        except Exception:
            logger.exception("looking after the shared pools failed")


def _after_fork() -> None:
    _core.alarm.resign()  # the thread is the parent's
    for pool in _living():
        pool._reap()


os.register_at_fork(after_in_child=_after_fork)
