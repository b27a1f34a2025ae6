"""Worker processes that are started again when they die, and end together."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from gtcp import _core
from gtcp._dial import earlier

logger = logging.getLogger("gtcp")

Work = Callable[[int], None]
"""A worker's job; the descriptor becomes readable when the supervisor is gone."""

# The pause before a worker starts again, in seconds, while it dies within STEADY seconds of its start.
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 10.0
_STEADY = 10.0
# What a worker may take to end beyond its own drain timeout.
_GRACE = 2.0


class Worker:
    """One place among the processes."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.pid = 0
        self.started = 0.0
        self.pause = 0.0
        self.start_at: float | None = 0.0

    def died(self, status: int) -> None:
        lived = time.monotonic() - self.started
        self.pause = 0.0 if lived >= _STEADY else min(max(2 * self.pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        logger.error("worker %d ended with %s; starting again in %g s", self.pid, _told(status), self.pause)
        self.pid, self.start_at = 0, time.monotonic() + self.pause


class Processes:
    """The supervisor, in the main thread of its process."""

    def __init__(self, jobs: Sequence[Work], drain_timeout: float | None, on_stop: Callable[[], None]) -> None:
        self._on_stop = on_stop
        self._workers = [Worker(job) for job in jobs]
        self._drain_timeout = drain_timeout
        self._news = _core.Signal()
        self._stops = 0
        self._lifeline, self._holder = -1, -1

    def stop(self) -> None:
        """Tells every worker to drain, and a second time to end at once; from a signal handler."""
        self._stops += 1
        self._news.set()

    @contextlib.contextmanager
    def children(self) -> Iterator[None]:
        """Hears of the ends of children."""
        before = signal.signal(signal.SIGCHLD, lambda *_: self._news.set())
        try:
            yield
        finally:
            signal.signal(signal.SIGCHLD, before)

    def run(self) -> None:
        """Until all have ended, which they do after `stop`."""
        self._lifeline, self._holder = os.pipe()
        told = 0
        deadline: float | None = None
        try:
            while True:
                self._news = _core.Signal()  # before the look, so that nothing is missed
                self._reap()
                while told < self._stops:  # one by one: the next can come at any line
                    if told:
                        self._tell(signal.SIGTERM)
                    else:
                        self._on_stop()
                        self._let_go()
                        if self._drain_timeout is not None:
                            deadline = _core.to_deadline(self._drain_timeout + _GRACE)
                    told += 1
                if not told:
                    self._start_due()
                elif not any(worker.pid for worker in self._workers):
                    return
                if deadline is not None and time.monotonic() >= deadline:
                    self._tell(signal.SIGKILL)
                    deadline = None
                self._news.wait(deadline if told else self._next_start())
        finally:
            self._tell(signal.SIGKILL)
            for worker in self._workers:
                if worker.pid:
                    os.waitpid(worker.pid, 0)
            self._let_go()
            os.close(self._lifeline)

    def _let_go(self) -> None:
        """Lets the workers see the end of their lifeline."""
        if self._holder >= 0:
            os.close(self._holder)
            self._holder = -1

    def _tell(self, number: int) -> None:
        for worker in self._workers:
            if worker.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, number)

    def _reap(self) -> None:
        for worker in self._workers:
            if worker.pid:
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
                if pid and self._stops:
                    worker.pid, worker.start_at = 0, None
                elif pid:
                    worker.died(status)

    def _next_start(self) -> float | None:
        moment: float | None = None
        for worker in self._workers:
            moment = earlier(moment, worker.start_at)
        return moment

    def _start_due(self) -> None:
        for worker in self._workers:
            if worker.start_at is not None and worker.start_at <= time.monotonic():
                self._start(worker)

    def _start(self, worker: Worker) -> None:
        worker.started, worker.start_at = time.monotonic(), None
        # A signal that comes before the child has handlers of its own waits for them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            worker.pid = os.fork()
            if worker.pid == 0:
                self._live(worker)
        except OSError as error:
            logger.error("cannot start a worker: %s", error)
            worker.start_at = time.monotonic() + _LONGEST_PAUSE
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _live(self, worker: Worker) -> None:
        """The child's life, which ends here. Its work unblocks SIGTERM when it can be told to stop."""
        code = 1
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the supervisor tells
            os.close(self._holder)
            worker.work(self._lifeline)
            code = 0
        except BaseException:
            logger.exception("worker %d failed", os.getpid())
        finally:
            with contextlib.suppress(Exception):
                logging.shutdown()
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def _told(status: int) -> str:
    """What waitpid said, in words."""
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
