"""A far end of TLS that scripts for plain sockets can use: it ends as a TCP socket does."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from typing import Any

from support.peers import Script
from support.timing import LONG


class SecureEnd(ssl.SSLSocket):
    """A TLS socket that behaves as a TCP socket does.

    `shutdown` and `close` say goodbye first, a reset does not. b"" means the other side's goodbye; an end without one
    is a ConnectionResetError, as it stands for bytes that are lost.
    """

    def read(self, len: int = 1024, buffer: bytearray | None = None) -> Any:  # noqa: A002 (the name of the base)
        try:
            return super().read(len, buffer)
        except ssl.SSLZeroReturnError:
            return 0 if buffer is not None else b""
        except ssl.SSLWantReadError as error:
            raise BlockingIOError(*error.args) from None
        except ssl.SSLEOFError as error:
            raise ConnectionResetError(*error.args) from None

    def send(self, data: Any, flags: int = 0) -> int:
        try:
            return super().send(data, flags)
        except ssl.SSLEOFError as error:
            raise BrokenPipeError(*error.args) from None

    def shutdown(self, how: int) -> None:
        self._say_goodbye()
        try:
            socket.socket.shutdown(self, how)
        except OSError as error:  # the other side has closed already, and the goodbye made it reset
            raise ConnectionResetError(*error.args) from None

    def close(self) -> None:
        if self.fileno() >= 0:
            linger, _ = struct.unpack("ii", self.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
            if not linger:
                self._say_goodbye()
        super().close()

    def _say_goodbye(self) -> None:
        """Without waiting for the other side's."""
        session = self._sslobj
        if session is not None:
            timeout = self.gettimeout()
            self.settimeout(0)
            with contextlib.suppress(OSError):
                session.shutdown()
            self.settimeout(timeout)


def wrap(sock: socket.socket, context: ssl.SSLContext) -> SecureEnd:
    """The server's side of a handshake on `sock`, which is taken over. The context makes SecureEnds from now on."""
    context.sslsocket_class = SecureEnd
    sock.settimeout(LONG)
    end = context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
    assert isinstance(end, SecureEnd)
    return end


def over_tls(script: Script, context: ssl.SSLContext) -> Script:
    """A script for a `Peer` that runs `script` on TLS."""

    def secured(sock: socket.socket) -> None:
        with wrap(sock, context) as end:
            script(end)

    return secured
