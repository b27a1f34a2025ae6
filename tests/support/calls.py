"""Calls that wait, made in a thread of their own so that the test can go on."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.timing import LONG, SHORT, eventually

_TASKS = Path("/proc/self/task")


class Call:
    """`function(*args, **kwargs)` in a thread: `result()` is what it answers or raises."""

    def __init__(self, function: Callable[..., Any], *args: object, **kwargs: object) -> None:
        self._function = function
        self._arguments = args, kwargs
        self._value: Any = None
        self._error: BaseException | None = None
        # A call that never ends fails its test, not the whole run.
        self._thread = threading.Thread(target=self._run, name="call", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        args, kwargs = self._arguments
        try:
            self._value = self._function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 (it is raised again by `result`)
            self._error = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def sleeping(self) -> "Call":
        """Wait until the call waits for something."""
        if _TASKS.exists():
            # A thread that waits for the interpreter's lock looks the same, but not for long.
            in_a_row = 0
            while in_a_row < 3:
                eventually(self._sleeps, what="the call should wait")
                time.sleep(0.0005)
                in_a_row = in_a_row + 1 if self._sleeps() else 0
        else:
            self._thread.join(SHORT)
        assert self.running, f"the call has ended: {self._error or self._value!r}"
        return self

    def _sleeps(self) -> bool:
        try:
            stat = (_TASKS / str(self._thread.native_id) / "stat").read_text()
        except OSError:
            return True  # it has ended, as `sleeping` will tell
        return stat.rpartition(")")[2].split()[0] == "S"

    def result(self, within: float = LONG) -> Any:
        self._thread.join(within)
        assert not self.running, f"the call still waits after {within:g} s"
        if self._error is not None:
            raise self._error
        return self._value
