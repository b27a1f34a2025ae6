"""Things done in the middle of a call: where the collector runs, and with it finalizers and other threads.

Up to Python 3.11 a collection can begin with any allocation, which this uses; later ones collect between two
steps of Python code only.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.timing import SHORT

PATIENCE = 2 * SHORT
"""How long a call of such a test may wait."""


class Interruption:
    """An action done in the middle of a call, and whether the call had begun its wait by then."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.seconds: float | None = None

    def done_before_the_wait(self) -> bool:
        return self.seconds is not None and self.seconds < PATIENCE / 2


def sweep() -> None:
    """Collects, and takes what is left out of the collector's sight: late in a long run a look at it takes long."""
    gc.collect()
    gc.freeze()


@contextmanager
def at_collection(number: int, action: Callable[[], object]) -> Iterator[Interruption]:
    """Collects at every allocation in the block, and does `action` in one of this thread's collections."""
    count = 0
    thread = threading.get_ident()

    def collected(phase: str, info: dict[str, int]) -> None:
        nonlocal count
        if phase != "stop" or threading.get_ident() != thread:
            return
        count += 1
        if count == number:
            action()
            interruption.seconds = time.monotonic() - interruption.start

    threshold = gc.get_threshold()
    sweep()
    interruption = Interruption()
    gc.callbacks.append(collected)
    gc.set_threshold(1)
    try:
        yield interruption
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(collected)
