"""asyncio.timeout, which Python 3.10 lacks. Unlike `wait_for` it runs what it limits in the caller's task."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:

    class timeout:  # noqa: N801
        """Cancels the task when its time is over, and makes a TimeoutError of that."""

        def __init__(self, seconds: float) -> None:
            self._seconds = seconds
            self._late = False

        async def __aenter__(self) -> None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._seconds, self._cancel, asyncio.current_task())

        def _cancel(self, task: Any) -> None:
            self._late = True
            task.cancel()

        async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
            self._timer.cancel()
            if self._late and kind is asyncio.CancelledError:
                raise asyncio.TimeoutError


__all__ = ["timeout"]
