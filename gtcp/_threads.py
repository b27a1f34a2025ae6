"""Threads of gtcp's own, for handlers and for what may take long and somebody else waits for."""

from __future__ import annotations

import _thread
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable

from gtcp import _core

logger = logging.getLogger("gtcp")

# How long a thread without work stays: work comes in bursts, and idle threads are nobody's friends.
_LINGER = 0.2


def spawn(work: Callable[[], None], name: str) -> None:
    """Runs `work` in a daemon thread. RuntimeError when there can be no more threads; it does not run then.

    A signal handler's exception in the middle of `Thread.start` would leave half a thread; handlers run in the main
    thread only, so another thread does it. Where gevent has made threads greenlets it is a thread all the same: a
    greenlet would hold up the others with each wait of gtcp's that does not yield.
    """
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        gevent.get_original("_thread", "start_new_thread")(work, ())
        return

    def start() -> None:
        try:
            threading.Thread(target=work, name=name, daemon=True).start()
        except Exception:  # noqa: BLE001 (no thread or no memory for one: then this one has to do)
            work()

    _thread.start_new_thread(start, ())


class Workers:
    """As many daemon threads as there are jobs, reused while jobs come: the one that rested last works first.

    Takes no lock, so a signal handler may submit a job or close while its thread is about to: every job is in the queue
    before somebody is woken or made for it. `start`: makes a thread of this name. `linger`: seconds that a thread
    without work stays.
    """

    def __init__(
        self, name: str, linger: float = _LINGER, start: Callable[[Callable[[], None], str], None] = spawn
    ) -> None:
        self._name = name
        self._linger = linger
        self._start = start
        self._closed = False
        self._jobs: deque[Callable[[], None]] = deque()
        self._resting: list[_core.Signal] = []

    def submit(self, job: Callable[[], None]) -> None:
        """Runs `job` soon, in another thread. RuntimeError when there can be no more threads; it does not run then."""
        self._jobs.append(job)
        try:
            wake = self._resting.pop()
        except IndexError:
            try:
                self._start(self._work, self._name)
            except RuntimeError:
                self._jobs.remove(job)
                raise
        else:
            wake.set()

    def close(self) -> None:
        """Threads end when there is no more work; those at rest end now. Idempotent."""
        self._closed = True
        while self._resting:
            try:
                self._resting.pop().set()
            except IndexError:
                return  # it found work, or has rested long enough

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.popleft()
            except IndexError:
                if self._rest():
                    continue
                return
            try:
                job()
            except Exception:
                logger.exception("a job of gtcp's threads failed")
            del job  # it holds a pool or a connection

    def _rest(self) -> bool:
        """Waits for work: False when none has come for a while."""
        wake = _core.Signal()
        self._resting.append(wake)
        try:
            if wake.wait(_core.to_deadline(0 if self._closed else self._linger)):
                return not self._closed or bool(self._jobs)
        except BaseException:
            # Of the user's wait function. This thread may end, but not with somebody counting on it.
            logger.exception("waiting for work failed")
        try:
            self._resting.remove(wake)
        except ValueError:
            return True  # woken at the last moment
        return False

    def forget(self) -> None:
        """In a child: the threads are the parent's."""
        self._jobs = deque()
        self._resting = []


workers = Workers("gtcp-dialer")
os.register_at_fork(after_in_child=workers.forget)
