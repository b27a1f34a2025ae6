"""Signals for the main thread, sent when it sleeps. For child processes only: handlers are the process's."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from support.crew import Worker, asleep
from support.timing import LATE, LONG, Queued


def shoot(number: int, after: threading.Event | None = None) -> Worker[float]:
    """Sends the signal as soon as `after` is set and the main thread sleeps; answers when it did."""

    def send() -> float:
        assert after is None or after.wait(LONG)
        asleep(threading.main_thread())
        now = time.monotonic()
        os.kill(os.getpid(), number)
        return now

    return Worker(send)


def interrupt(
    call: Callable[[], object], number: int = signal.SIGINT, after: threading.Event | None = None
) -> BaseException:
    """What `call` raises when the signal finds it asleep; it has to do so at once."""
    queued = Queued()
    shot = shoot(number, after)
    try:
        value = call()
    except BaseException as error:  # noqa: BLE001 (KeyboardInterrupt is what is waited for)
        now = time.monotonic()
        late = now - shot.result()
        assert late <= LATE + queued.seconds, f"{late:.3f} s after the signal"
        return error
    raise AssertionError(f"not interrupted: {value!r:.200}")


class Alarm(Exception):
    """What a signal handler of a user may raise."""


def raise_alarm(number: int, frame: FrameType | None) -> None:
    raise Alarm


def on(number: int, action: Callable[[], object]) -> None:
    """Calls `action` when the signal comes."""
    signal.signal(number, lambda number, frame: action() and None)
