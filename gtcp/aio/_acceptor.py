"""The listening socket of a server in its loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gtcp._accepting import AT_ONCE, Accepting

if TYPE_CHECKING:
    from gtcp._listener import Listener
    from gtcp._serving import Serving


class Acceptor(Accepting):
    """The acceptor of a server in a loop; `on_end` is called when there can be no more connections."""

    def __init__(self, listener: Listener, serving: Serving[Any], on_end: Callable[[], None]) -> None:
        super().__init__(listener, serving)
        self._on_end = on_end
        self._full = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._loop = asyncio.get_running_loop()
        self._listen()
        self._look_later()

    def made_room(self) -> None:
        """A connection has ended."""
        if self._full:
            self._full = False
            self._listen()

    def stop(self) -> None:
        """Ends the listening, also after the end of the loop."""
        self._full = False
        for timer in self._timers.values():
            timer.cancel()
        if not self._loop.is_closed():
            self._loop.remove_reader(self._listener.socket)
        self._listener.close()

    def _listen(self) -> None:
        self._loop.add_reader(self._listener.socket, self._accept)

    def _look_later(self) -> None:
        if (interval := self._serving.interval) is not None:
            self._timers["look"] = self._loop.call_later(interval, self._look_now)

    def _look_now(self) -> None:
        self._look_later()
        self._serving.look()

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            if self._serving.ending:  # an eager task has begun with its end
                return
            if not self._serving.has_room():
                self._full = True
                self._loop.remove_reader(self._listener.socket)
                return
            try:
                sock, peer = self._listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if not self._survives(error):
                    return
            else:
                self._accepted(sock, peer)

    def _survives(self, error: OSError) -> bool:
        """Whether to go on accepting at once: most errors belong to the connection that was not accepted."""
        pause = self._pause_after(error)
        if pause == 0:
            return True
        self._loop.remove_reader(self._listener.socket)
        if pause is None:
            self._on_end()
        else:
            self._timers["resume"] = self._loop.call_later(pause, self._listen)
        return False
