"""gevent: gtcp's blocking calls let other greenlets run. `install()` once, after `monkey.patch_all()`."""

from __future__ import annotations

import select

from gevent import get_hub
from gevent.event import Event as GeventEvent
from gevent.hub import _get_hub as hub_of_thread
from gevent.monkey import get_original
from gevent.timeout import Timeout

from gtcp._waiting import Event, set_wait_function

_READ, _WRITE = 1, 2  # libev's

_poll = get_original("select", "poll")
_allocate_lock = get_original("_thread", "allocate_lock")


def install() -> None:
    """Has every wait of gtcp in this process yield to gevent's hub.

    Threads without a hub, which have no greenlets that could run meanwhile, sleep as before.
    """
    set_wait_function(wait, event=make_event)


def wait(fd: int, events: int, timeout: float | None) -> None:
    """Lets other greenlets run until the descriptor is ready, for `timeout` seconds at most."""
    if hub_of_thread() is None:
        poll = _poll()
        poll.register(fd, events)
        poll.poll(None if timeout is None else timeout * 1000)
        return
    kinds = (_READ if events & select.POLLIN else 0) | (_WRITE if events & select.POLLOUT else 0)
    hub = get_hub()
    watcher = hub.loop.io(fd, kinds)
    try:
        with Timeout(timeout, False):
            hub.wait(watcher)
    finally:
        watcher.close()


def make_event() -> Event:
    """What a caller sleeps on."""
    return ThreadEvent() if hub_of_thread() is None else GeventEvent()


class ThreadEvent:
    """An event for a thread that really sleeps, whatever has been patched. `set` once."""

    def __init__(self) -> None:
        self._lock = _allocate_lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wakes the one who waits."""
        self._lock.release()

    def wait(self, timeout: float | None) -> None:
        """Sleeps until `set`, for `timeout` seconds at most."""
        if self._lock.acquire(True, -1 if timeout is None else min(timeout, 1e6)):
            self._lock.release()
