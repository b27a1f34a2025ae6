"""Leases that are held too long, and who took them."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gtcp._address import Address
    from gtcp._lease import PoolConn

logger = logging.getLogger("gtcp")

# Frames that a report shows.
_DEPTH = 24


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that has not come back yet."""

    since: float
    thread: str
    stack: list[tuple[CodeType, int]]

    def __str__(self) -> str:
        frames = [(code.co_filename, line, code.co_name, None) for code, line in reversed(self.stack)]
        return "".join(traceback.StackSummary.from_list(frames).format())


class Watchlist:
    """Notes each lease when it begins, and reports it once when it is older than `threshold` seconds.

    Costs some microseconds for each lease: the source lines are looked up only for the report.
    """

    def __init__(self, addr: Address, threshold: float) -> None:
        self.addr = addr
        self.threshold = threshold
        self.held: dict[int, Held] = {}
        """By the id of the lease. The core takes out what has ended."""

    def add(self, lease: PoolConn) -> None:
        """A lease begins, taken by the caller of the caller."""
        frame: FrameType | None = sys._getframe(1).f_back  # None in a thread that does nothing else
        stack: list[tuple[CodeType, int]] = []
        while frame is not None and len(stack) < _DEPTH:
            stack.append((frame.f_code, frame.f_lineno))
            frame = frame.f_back
        self.held[id(lease)] = Held(time.monotonic(), threading.current_thread().name, stack)

    def forget(self) -> None:
        """In a child: the leases are the parent's."""
        self.held.clear()

    def report(self) -> float | None:
        """Reports what is due; answers in how many seconds the next may be, None if nothing is held."""
        # A finalizer may end leases meanwhile, but not while a list of the keys is made, which makes nothing else.
        for key in list(self.held):
            held = self.held.get(key)
            if held is None:
                continue
            age = time.monotonic() - held.since
            if age < self.threshold:
                return self.threshold - age  # the others are younger
            if self.held.pop(key, None) is held:
                logger.warning(
                    "a connection to %s has been on loan for %.3g s; thread %s took it here:\n%s",
                    self.addr,
                    age,
                    held.thread,
                    held,
                )
        return None
