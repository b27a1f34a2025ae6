"""asyncio.timeout, which Python 3.10 lacks. Unlike `wait_for` it runs what it limits in the caller's task."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:

    class _Timeout:
        """Cancels the task when its time is over, and makes a TimeoutError of that."""

        def __init__(self, delay: float) -> None:
            self._delay = delay
            self._late = False

        async def __aenter__(self) -> None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._delay, self._cancel, asyncio.current_task())

        def _cancel(self, task: Any) -> None:
            self._late = True
            task.cancel()

        async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
            self._timer.cancel()
            if self._late and kind is asyncio.CancelledError:
                raise asyncio.TimeoutError

    def timeout(delay: float | None) -> _Timeout:
        """For `async with`; in this project there is always a delay."""
        assert delay is not None
        return _Timeout(delay)


__all__ = ["timeout"]
