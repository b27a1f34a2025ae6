"""Event loops for tests: which kinds there are, and one in a thread with blocking calls into it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import queue
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from support.timing import LONG

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

LOOPS = ["asyncio", "uvloop"]

with contextlib.suppress(ImportError):
    # The first one opens a pipe that the process keeps: no test shall have leaked it.
    importlib.import_module("uvloop").new_event_loop().close()


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """A loop in debug mode; skips the test where uvloop is not installed."""
    if kind == "uvloop":
        loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = LONG  # what a busy machine makes slow is not to be complained of
    return loop


def run(kind: str, main: Coroutine[Any, Any, T], within: float = LONG) -> T:
    """What asyncio.run does, on a loop of this kind; what the loop complains about fails the test."""
    complaints: list[dict[str, Any]] = []
    try:
        loop = new_loop(kind)
    except BaseException:
        main.close()  # a test that is skipped has nothing left to await
        raise
    try:
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        return loop.run_until_complete(asyncio.wait_for(main, within))
    finally:
        _close(loop)
        assert complaints == []


def _close(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


class LoopThread:
    """A loop that runs in a thread of its own; `call` uses it from outside."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def begin(self) -> None:
        self.loop = new_loop(self._kind)
        self._thread = threading.Thread(target=self.loop.run_forever, name=f"loop-{self._kind}")
        self._thread.start()

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        _close(self.loop)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls the function in the loop and awaits what it answers, if that can be awaited."""

        # A queue in C: the caller sleeps in this very frame, as it would in a blocking call.
        done: queue.SimpleQueue[asyncio.Task[Any]] = queue.SimpleQueue()
        # Until the call itself waits, its caller counts as busy: `asleep` knows the waits of threading.
        begun = threading.Event()

        async def there() -> Any:
            value = function(*args, **kwargs)
            if not inspect.isawaitable(value):
                return value
            begun.set()
            return await value

        def begin() -> None:
            task = self.loop.create_task(there())
            task.add_done_callback(done.put)
            task.add_done_callback(lambda _: begun.set())

        self.loop.call_soon_threadsafe(begin)
        begun.wait()
        return done.get().result()


class Facade:
    """An object of the loop whose methods block, so that tests of the blocking one run on it."""

    _thread: LoopThread
    _target: Any

    @classmethod
    def of(cls, thread: LoopThread, target: Any) -> Self:
        facade = cls.__new__(cls)
        facade.__dict__.update(_thread=thread, _target=target)
        return facade

    @property
    def __class__(self) -> Any:
        return type(self._target)

    def __getattr__(self, name: str) -> Any:
        is_method = callable(getattr(type(self._target), name, None))
        value = getattr(self._target, name) if is_method else self._thread.call(getattr, self._target, name)
        if not callable(value):
            return value

        def method(*args: Any, **kwargs: Any) -> Any:
            answer = self._thread.call(value, *args, **kwargs)
            return FacadeIterator(self._thread, answer) if hasattr(answer, "__anext__") else answer

        return method

    def __setattr__(self, name: str, value: Any) -> None:
        self._thread.call(setattr, self._target, name, value)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._thread.call(self._target.__init__, *args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._thread.call(self._target.__reduce_ex__, protocol)

    def __repr__(self) -> str:
        return str(self._thread.call(repr, self._target))

    def __enter__(self) -> Self:
        self._thread.call(self._target.__aenter__)
        return self

    def __exit__(self, *how: object) -> None:
        self._thread.call(self._target.__aexit__, *how)


class FacadeIterator:
    def __init__(self, thread: LoopThread, target: AsyncIterator[Any]) -> None:
        self._thread = thread
        self._target = target

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return self._thread.call(self._target.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None
