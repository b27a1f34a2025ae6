"""Where handlers run: each in a thread, or all as greenlets of one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Literal, Protocol

from gtcp import _core
from gtcp._conn import Conn
from gtcp._greenlets import log_failure
from gtcp._threads import Workers

Job = Callable[[], None]

# A thread that served a connection waits so many seconds for the next one.
_LINGER = 5.0
_one_at_a_time = threading.Lock()


class Crew(Protocol):
    """What runs the handlers of one run of a server."""

    killed: tuple[type[BaseException], ...]
    """What a handler may get that is ended without being asked."""
    stackless: bool
    """Handlers that can do without a stack while they wait shall."""

    def host(self, accept: Job, part: Job) -> None:
        """Runs `accept`, in the acceptor's thread. `part` waits until the handlers have ended, but not for long."""

    def run(self, job: Callable[[Conn], None], conn: Conn) -> None:
        """Runs `job(conn)` beside the others. RuntimeError when the system has no means for that."""

    def close(self) -> None:
        """Nothing more will come. From any thread, and from a signal handler."""


def make_crew(concurrency: Literal["threads", "greenlets"], stack_size: int | None) -> Crew:
    """ValueError for a wrong argument; ImportError or NotImplementedError where greenlets cannot run."""
    if concurrency == "threads":
        return Threads(stack_size)
    if concurrency == "greenlets":
        return Greenlets()
    raise ValueError(f"concurrency must be 'threads' or 'greenlets', got {concurrency!r}")


class Threads:
    """A thread for each handler; one that is done waits for the next for a while."""

    killed: tuple[type[BaseException], ...] = ()
    stackless = False

    def __init__(self, stack_size: int | None) -> None:
        self._stack_size = stack_size
        self._workers = Workers("gtcp-handler", _LINGER, self._start)
        self.close = self._workers.close

    def host(self, accept: Job, part: Job) -> None:  # noqa: ARG002 (threads end by themselves)
        accept()

    def run(self, job: Callable[[Conn], None], conn: Conn) -> None:
        self._workers.submit(partial(job, conn))

    def _start(self, work: Job, name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        if self._stack_size is None:
            thread.start()
            return
        with _one_at_a_time:  # the size is the interpreter's, for every thread that is made meanwhile
            before = threading.stack_size(self._stack_size)
            try:
                thread.start()
            finally:
                threading.stack_size(before)


class Greenlets:
    """Greenlets of one hub, which runs in the acceptor's thread."""

    stackless = True

    def __init__(self) -> None:
        self._hub: _core.Hub | None = None
        _core.Hub()  # what is missing is said when the server is made, not in its thread
        self.killed: tuple[type[BaseException], ...] = (_core.greenlet_exit(),)

    def host(self, accept: Job, part: Job) -> None:
        def root() -> None:
            accept()
            part()

        self._hub = hub = _core.Hub(log_failure)
        try:
            hub.run(hub.spawn(root))
        finally:
            self._hub = None

    def run(self, job: Callable[[Conn], None], conn: Conn) -> None:
        assert self._hub is not None
        self._hub.spawn(job, conn)

    def close(self) -> None:
        pass  # `part` ends the hub
