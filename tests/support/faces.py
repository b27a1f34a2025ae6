"""The pool and the server of an event loop behind facades that block, so that tests of the others hold for them too."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import gtcp
import gtcp.aio
from support.loops import LOOPS, Facade, LoopThread
from support.timing import LONG

FACES = ["threads", *LOOPS]

everywhere = pytest.mark.parametrize("face", FACES)
"""For tests of pools that hold for those of loops too."""


def pool_maker(face: str, stack: contextlib.ExitStack) -> Callable[..., gtcp.Pool]:
    """What makes pools of this face, closed with the stack."""
    if face == "threads":
        return lambda address, **options: stack.enter_context(gtcp.Pool(address, **options))
    thread = stack.enter_context(LoopThread(face))

    def make(address: Any, **options: Any) -> Any:
        return stack.enter_context(PoolFacade.of(thread, thread.call(gtcp.aio.Pool, address, **options)))

    return make


class PoolFacade(Facade):
    """Its leases are facades too."""

    def acquire(self, *args: Any, **kwargs: Any) -> Any:
        return Facade.of(self._thread, self._thread.call(self._target.acquire, *args, **kwargs))

    def begin_anew(self) -> None:
        """In a forked child, which has no thread for a loop."""
        self._thread.begin()


def server_maker(kind: str, stack: contextlib.ExitStack) -> Callable[..., gtcp.Server]:
    """What starts servers in a loop of this kind, closed with the stack. Their handlers block, in threads."""
    thread = stack.enter_context(LoopThread(kind))
    handlers = Handlers(thread)
    stack.callback(handlers.join)

    def make(address: Any, handler: Callable[[Any], object], **options: Any) -> Any:
        server = thread.call(gtcp.aio.Server, address, partial(handlers.run, handler), **options)
        return stack.enter_context(Facade.of(thread, server))

    return make


class Handlers:
    """Runs blocking handlers for a server of the loop, each in a thread."""

    def __init__(self, thread: LoopThread) -> None:
        self._thread = thread
        self._workers: list[threading.Thread] = []

    async def run(self, handler: Callable[[Any], object], conn: gtcp.aio.Conn) -> None:
        done = self._thread.loop.create_future()

        def settle(error: BaseException | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        def work() -> None:
            error = None
            try:
                handler(Facade.of(self._thread, conn))
            except BaseException as raised:  # noqa: BLE001 (the server hears of it)
                error = raised
            self._thread.loop.call_soon_threadsafe(settle, error)

        worker = threading.Thread(target=work, name="handler", daemon=True)
        self._workers.append(worker)
        worker.start()
        await done

    def join(self) -> None:
        for worker in self._workers:
            worker.join(LONG)
