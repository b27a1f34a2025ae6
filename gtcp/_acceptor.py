"""The thread, or greenlet, that accepts: the only one that touches the listening socket."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable

from gtcp import _core
from gtcp._dial import earlier
from gtcp._listener import CAPACITY, FATAL, Listener, longer

logger = logging.getLogger("gtcp")

# Connections accepted in a row before others have their turn.
_AT_ONCE = 64
_TURN = 1e-6
# How long `stop` waits for the thread: it is quick, unless a handler holds it up that is a greenlet beside it.
_STOP_WITHIN = 0.05


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
    ) -> None:
        self.address = listener.address
        self._listener = listener
        self._serve = serve
        self._has_room = has_room
        self._look = look
        self._interval = interval
        self._on_error = on_error
        self._back_off = 0.0
        self._resume_at: float | None = None
        self._waits_for_room = False
        self._stopping = False
        self._process = os.getpid()
        self._bell = Bell()
        self.ended = _core.Signal()

    def run(self) -> None:
        """Until `stop`, or until the socket is none that connections come from."""
        try:
            self._run()
        finally:
            self.close()
            self.ended.set()

    def close(self) -> None:
        """The end of `run`, or without it."""
        self._listener.close()
        self._bell.close()

    def stop(self) -> None:
        """Nobody is accepted any more when it returns. From any thread, and from a signal handler."""
        self._stopping = True
        if self._process != os.getpid():  # a forked child has only a copy of the sockets
            self.close()
            return
        self._listener.refuse()
        self._bell.ring()
        self.ended.wait(_core.to_deadline(_STOP_WITHIN))

    def made_room(self) -> None:
        """A connection has ended."""
        if self._waits_for_room:
            self._bell.ring()

    def _run(self) -> None:
        look_at = _core.to_deadline(self._interval)
        while not self._stopping:
            ready = _core.wait_any(self._watched(), earlier(look_at, self._resume_at))
            if self._bell.fd in ready:
                self._bell.silence()
            if look_at is not None and time.monotonic() >= look_at:
                self._look()
                look_at = _core.to_deadline(self._interval)
            if self._listener.socket.fileno() in ready and not self._accept():
                return

    def _watched(self) -> dict[int, int]:
        """What it waits for now: always to be stopped, and for a connection unless there is no room or no memory."""
        watched = {self._bell.fd: _core.POLLIN}
        if self._resume_at is not None and time.monotonic() < self._resume_at:
            return watched
        self._resume_at = None
        self._waits_for_room = True  # said before it is looked at, so that nobody's end goes unnoticed
        if self._has_room():
            self._waits_for_room = False
            watched[self._listener.socket.fileno()] = _core.POLLIN
        return watched

    def _accept(self) -> bool:
        """Takes on those that wait; False when there can be no more."""
        for _ in range(_AT_ONCE):
            if self._stopping or not self._has_room():
                return True
            try:
                sock, peer = self._listener.socket.accept()
            except BlockingIOError:
                return True
            except OSError as error:
                if not self._survives(error):
                    return False
                if self._resume_at is not None:
                    return True
            else:
                self._back_off = 0.0
                self._serve(sock, peer)
        _core.sleep(_TURN)
        return True

    def _survives(self, error: OSError) -> bool:
        """Most errors belong to the connection that was not accepted; others pass."""
        if self._stopping:
            return False
        if error.errno in FATAL:
            logger.error("listening on %s ended: %s", self.address, error)
            self._on_error(error)
            return False
        if error.errno in CAPACITY:
            if self._back_off == 0.0:
                logger.error("cannot accept connections on %s for now: %s", self.address, error)
                self._on_error(error)
            self._back_off = longer(self._back_off)
            self._resume_at = _core.to_deadline(self._back_off)
        return True


class Bell:
    """Wakes the acceptor from elsewhere."""

    def __init__(self) -> None:
        self._ear, self._clapper = socket.socketpair()
        self._ear.setblocking(False)
        self._clapper.setblocking(False)
        self.fd = self._ear.fileno()

    def ring(self) -> None:
        with contextlib.suppress(OSError):  # it is ringing already, or nobody listens any more
            self._clapper.send(b"\0")

    def silence(self) -> None:
        with contextlib.suppress(OSError):
            self._ear.recv(4096)

    def close(self) -> None:
        self._ear.close()
        self._clapper.close()
