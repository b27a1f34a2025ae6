"""Durations by name, scaled by one variable, so that a slow machine needs no other change.

GTCP_TEST_TIME_SCALE=5 makes every one of them five times as long; GTCP_TEST_TOLERANCE=5 only what a call may be late,
for code that is watched at every step.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

SCALE = float(os.environ.get("GTCP_TEST_TIME_SCALE", "1"))

SHORT = 0.1 * SCALE
"""Long enough that something which should not happen would have happened; what a test may cost."""

LONG = 10.0 * SCALE
"""Longer than anything that works; only a failing test ever waits this long."""

LATE = 0.1 * SCALE * float(os.environ.get("GTCP_TEST_TOLERANCE", "1"))
"""How much later than its deadline a call may end."""

EXCUSED = 4 * LATE
"""How much of its lateness may be the machine's."""


class Watch:
    """The seconds since it was made, or that its block took once it ended."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._end: float | None = None

    def stop(self) -> None:
        self._end = time.monotonic()

    @property
    def seconds(self) -> float:
        return (time.monotonic() if self._end is None else self._end) - self._start


class Queued:
    """Seconds since it was made for which this process was ready to run and the machine ran others.

    On a busy machine these are what a call is late without being wrong; elsewhere they are next to nothing. One thread
    wakes another and that tells the caller: the two that waited longest count, and no more than EXCUSED.
    """

    def __init__(self) -> None:
        self._before = self._now()

    @property
    def seconds(self) -> float:
        waits = sorted(queued - self._before.get(thread, 0) for thread, queued in self._now().items())
        return min(sum(waits[-2:]) / 1e9, EXCUSED)

    @staticmethod
    def _now() -> dict[str, int]:
        queued = {}
        for thread in Path("/proc/self/task").glob("*/schedstat"):
            with suppress(OSError):  # it has ended
                queued[thread.parent.name] = int(thread.read_text().split()[1])
        return queued


@contextmanager
def takes(at_least: float, late: float = LATE) -> Iterator[Watch]:
    """Assert that the block ends at `at_least` seconds: never earlier, at most `late` later on a machine of its own."""
    queued = Queued()
    watch = Watch()
    try:
        yield watch
    finally:
        watch.stop()
    assert watch.seconds >= at_least, f"{at_least - watch.seconds:.6f} s too early"
    if watch.seconds > at_least + late:
        late += queued.seconds
    assert watch.seconds <= at_least + late, f"{watch.seconds - at_least:.3f} s too late, of {late:.3f}"


def quick(within: float = LATE) -> AbstractContextManager[Watch]:
    """Assert that the block does not wait for anything."""
    return takes(0.0, within)


def eventually(condition: Callable[[], object], within: float = LONG, what: str = "") -> None:
    """Wait for a state of the kernel that no event tells of; everything else has events."""
    end = time.monotonic() + within
    pause = 0.0005
    while not condition():
        assert time.monotonic() < end, f"not within {within:g} s: {what or condition}"
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
