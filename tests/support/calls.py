"""`Call(conn.recv, 5)`: a worker for one call with its arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from support.crew import Worker

if TYPE_CHECKING:
    from typing_extensions import Self


class Call(Worker[Any]):
    """`function(*args, **kwargs)` in a thread: `result()` is what it answers or raises."""

    def __init__(self, function: Callable[..., Any], *args: object, **kwargs: object) -> None:
        super().__init__(lambda: function(*args, **kwargs))

    @property
    def running(self) -> bool:
        return self.thread.is_alive()

    def sleeping(self) -> Self:
        """The same call, once it waits for something."""
        self.asleep()
        return self
