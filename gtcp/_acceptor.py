"""The thread, or greenlet, that accepts: the only one that touches the listening socket."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from gtcp import _core
from gtcp._accepting import AT_ONCE, Accepting
from gtcp._dial import earlier

if TYPE_CHECKING:
    from gtcp._listener import Listener
    from gtcp._serving import Serving

# For others to have their turn.
_TURN = 1e-6
# How long `stop` waits for the thread: it is quick, unless a handler holds it up that is a greenlet beside it.
_STOP_WITHIN = 0.05


class Acceptor(Accepting):
    """The acceptor of a blocking server."""

    def __init__(self, listener: Listener, serving: Serving[Any]) -> None:
        super().__init__(listener, serving)
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
        look_at = _core.to_deadline(self._serving.interval)
        while not self._stopping:
            ready = _core.wait_any(self._watched(), earlier(look_at, self._resume_at))
            if self._bell.fd in ready:
                self._bell.silence()
            if look_at is not None and time.monotonic() >= look_at:
                self._serving.look()
                look_at = _core.to_deadline(self._serving.interval)
            if self._listener.socket.fileno() in ready and not self._accept():
                return

    def _watched(self) -> dict[int, int]:
        """What it waits for now: always to be stopped, and for a connection unless there is no room or no memory."""
        watched = {self._bell.fd: _core.POLLIN}
        if self._resume_at is not None and time.monotonic() < self._resume_at:
            return watched
        self._resume_at = None
        self._waits_for_room = True  # said before it is looked at, so that nobody's end goes unnoticed
        if self._serving.has_room():
            self._waits_for_room = False
            watched[self._listener.socket.fileno()] = _core.POLLIN
        return watched

    def _accept(self) -> bool:
        """Takes on those that wait; False when there can be no more."""
        for _ in range(AT_ONCE):
            if self._stopping or not self._serving.has_room():
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
                self._accepted(sock, peer)
        _core.sleep(_TURN)
        return True

    def _survives(self, error: OSError) -> bool:
        """Most errors belong to the connection that was not accepted; others pass."""
        pause = None if self._stopping else self._pause_after(error)
        if pause:
            self._resume_at = _core.to_deadline(pause)
        return pause is not None


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
