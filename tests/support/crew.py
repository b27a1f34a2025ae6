"""Calls in threads of their own: started together, waited for with a limit, failures not lost."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

from support.timing import LONG, SHORT

T = TypeVar("T")


class Worker(Generic[T]):
    """One call, running in a thread from the moment this is made."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._value: list[T] = []
        self._error: BaseException | None = None
        # A daemon: a test that failed must not keep the run from ending.
        self.thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._value.append(self._call())
        except BaseException as error:  # noqa: BLE001 (the one who asks for the result gets it)
            self._error = error

    def wait(self, within: float = LONG) -> None:
        self.thread.join(within)
        assert not self.thread.is_alive(), f"no end after {within:g} s: {self._call}"

    def result(self, within: float = LONG) -> T:
        """What the call answered; raises what it raised."""
        self.wait(within)
        if self._error is not None:
            raise self._error
        return self._value[0]

    def error(self, within: float = LONG) -> BaseException:
        """What the call raised."""
        self.wait(within)
        assert self._error is not None, f"no error, but {self._value[0]!r:.200}"
        return self._error

    def asleep(self) -> None:
        """Return when the call sleeps in the kernel."""
        asleep(self.thread)


def asleep(thread: threading.Thread) -> None:
    """Return when the thread sleeps in the kernel, other than for a thread that it starts or a barrier."""
    if sys.platform != "linux":
        threading.Event().wait(SHORT)
        return
    naps = 0
    # Once is not enough: it also naps while it waits for the interpreter, which it gets when we nap.
    while naps < 3:
        assert thread.is_alive(), "the thread has ended already"
        status = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
        sleeps = status.rpartition(")")[2].split()[0] == "S"
        frame = sys._current_frames().get(thread.ident or 0)
        naps = naps + 1 if sleeps and frame and frame.f_code.co_filename != threading.__file__ else 0
        threading.Event().wait(0.002)


def together(calls: Iterable[Callable[[], T]], within: float = LONG) -> list[Worker[T]]:
    """Start all calls at the same moment and wait until all have ended."""
    todo = list(calls)
    gate = threading.Barrier(len(todo))

    def at_once(call: Callable[[], T]) -> T:
        gate.wait(within)
        return call()

    crew = [Worker(lambda call=call: at_once(call)) for call in todo]  # type: ignore[misc]
    for worker in crew:
        worker.wait(within)
    return crew


def results(crew: Iterable[Worker[T]]) -> list[T]:
    return [worker.result() for worker in crew]
