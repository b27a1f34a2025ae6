"""What every acceptor shares: whom it gives connections to, and what an error of accept(2) means."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, Any

from gtcp._listener import Listener
from gtcp._serving import Serving

if TYPE_CHECKING:
    import socket

logger = logging.getLogger("gtcp")

# Connections accepted in a row before others have their turn.
AT_ONCE = 64
# Errors that end the listening; all others belong to the connection that was not accepted (so does EOPNOTSUPP, says
# accept(2)), or pass when descriptors or memory become free.
_FATAL = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EFAULT}
_CAPACITY = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_BACK_OFF_FIRST = 0.005
_BACK_OFF_MOST = 0.5


class Accepting:
    """Accepts while there is room, has the connections looked after now and then, until it is stopped."""

    def __init__(self, listener: Listener, serving: Serving[Any]) -> None:
        self.address = listener.address
        self._listener = listener
        self._serving = serving
        self._back_off = 0.0

    def _accepted(self, sock: socket.socket, peer: object) -> None:
        self._back_off = 0.0
        self._serving.serve(sock, peer)

    def _pause_after(self, error: OSError) -> float | None:
        """Seconds to wait before the next try, 0 for most errors; None when there can be no more connections."""
        if error.errno in _FATAL:
            logger.error("listening on %s ended: %s", self.address, error)
            self._serving.accept_failed(error)
            return None
        if error.errno not in _CAPACITY:
            return 0.0
        if self._back_off == 0.0:
            logger.error("cannot accept connections on %s for now: %s", self.address, error)
            self._serving.accept_failed(error)
        self._back_off = min(max(2 * self._back_off, _BACK_OFF_FIRST), _BACK_OFF_MOST)
        return self._back_off
