"""Client code on greenlets: one thread drives many connections with calls that look blocking."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from gtcp import _core

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack

    _Ts = TypeVarTuple("_Ts")

_T = TypeVar("_T")

logger = logging.getLogger("gtcp")


def run(function: Callable[[Unpack[_Ts]], _T], *args: Unpack[_Ts]) -> _T:
    """Calls `function(*args)` as a greenlet in this thread; answers its value when it returns.

    Every wait of gtcp inside it lets other greenlets run: those that `spawn` started are ended with GreenletExit when
    the function returns. ImportError without the greenlet package (`pip install gtcp[greenlets]`), NotImplementedError
    without epoll, RuntimeError inside another `run`.
    """
    hub = _core.Hub(log_failure)
    root = hub.spawn(function, *args)
    hub.run(root)
    return root.get()


def sleep(seconds: float, /) -> None:
    """Sleeps for so many seconds: as a greenlet while others run, else as `time.sleep` does.

    0 lets those greenlets run that can. ValueError for a negative number.
    """
    _core.sleep(seconds)


def spawn(function: Callable[[Unpack[_Ts]], _T], *args: Unpack[_Ts]) -> _core.Fiber[_T]:
    """Calls `function(*args)` as another greenlet of the running hub; `get()` of the result waits for its value.

    What the function raises is logged when nobody has asked for it by `get()` before the last reference is gone.
    RuntimeError outside of `run` and of a greenlet server's handlers.
    """
    hub = _core.current_hub()
    if hub is None:
        raise RuntimeError("spawn is for code that gtcp.run or a greenlet server runs")
    return hub.spawn(function, *args)


def log_failure(error: BaseException) -> None:
    """A greenlet has raised the error, and nobody asks for it any more."""
    logger.error("a greenlet failed", exc_info=error)
