"""The listening socket of a server in its loop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from gtcp._listener import CAPACITY, FATAL, Listener, longer

logger = logging.getLogger("gtcp")

# Connections accepted in a row before the loop serves those that are there.
_AT_ONCE = 64


class Acceptor:
    """Accepts while there is room, looks after the connections every `interval` seconds, until it is stopped."""

    def __init__(
        self,
        listener: Listener,
        serve: Callable[[socket.socket, object], None],
        has_room: Callable[[], bool],
        look: Callable[[], None],
        interval: float | None,
        on_error: Callable[[BaseException], None],
        on_end: Callable[[], None],
    ) -> None:
        self.address = listener.address
        self._listener = listener
        self._serve = serve
        self._has_room = has_room
        self._look = look
        self._interval = interval
        self._on_error = on_error
        self._on_end = on_end
        self._full = False
        self._back_off = 0.0
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
        if self._interval is not None:
            self._timers["look"] = self._loop.call_later(self._interval, self._look_now)

    def _look_now(self) -> None:
        self._look_later()
        self._look()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if not self._has_room():
                self._full = True
                self._loop.remove_reader(self._listener.socket)
                return
            try:
                sock, peer = self._listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if not self._survives(error):
                    self._loop.remove_reader(self._listener.socket)
                    return
            else:
                self._back_off = 0.0
                self._serve(sock, peer)

    def _survives(self, error: OSError) -> bool:
        """Whether to go on accepting at once: most errors belong to the connection that was not accepted."""
        if error.errno in FATAL:
            logger.error("listening on %s ended: %s", self.address, error)
            self._on_error(error)
            self._on_end()
        elif error.errno in CAPACITY:
            if self._back_off == 0.0:
                logger.error("cannot accept connections on %s for now: %s", self.address, error)
                self._on_error(error)
            self._back_off = longer(self._back_off)
            self._timers["resume"] = self._loop.call_later(self._back_off, self._listen)
        else:
            return True
        return False
