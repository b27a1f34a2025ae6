"""What gtcp raises.

Every exception is an `Error` and also the builtin that a Python user expects::

    Error
    +-- Timeout                 TimeoutError        the deadline passed
    |   +-- PoolTimeout                             no connection became free in time
    +-- EOF                     EOFError, ConnectionError   the peer closed
    +-- ClosedError             OSError             closed by this side
    |   +-- PoolClosed                              the pool was closed
    +-- BrokenError             ConnectionError     out of step since an earlier failure
    +-- ConcurrencyError        RuntimeError        two users where one is allowed
    +-- LimitError              ValueError          a size above its limit
    +-- ResolveError            socket.gaierror     the host name has no address
    +-- SocketError             OSError             any other errno of the kernel
        +-- RefusedError        ConnectionRefusedError
        +-- ResetError          ConnectionResetError
        +-- AbortedError        ConnectionAbortedError
        +-- PipeError           BrokenPipeError
        +-- TimedOutError       TimeoutError        the kernel gave up on the peer
        +-- DeniedError         PermissionError     the kernel forbids it

"You closed it" (`ClosedError`) and "the peer broke it" (`EOF`, `ResetError`) differ; so do
misuse (`ValueError`, `TypeError`, `ConcurrencyError`: the connection is as before) and failure.
"""

from __future__ import annotations

import errno
from _socket import gaierror

TYPE_CHECKING = False  # see _address
if TYPE_CHECKING:
    from gtcp._stats import PoolStats


class Error(Exception):
    """The root of everything gtcp raises.

    `sent` is the number of payload bytes the kernel took before a send failed, headers not counted; with TLS those
    that are in records, which leave before the next send does. None where nothing was being sent. `replies` holds
    the replies that a failed `send_recv_pkgs` did get.
    """

    sent: int | None = None
    replies: list[bytes] | None = None


class Timeout(Error, TimeoutError):
    """The deadline passed; bytes that arrived stay in the connection, so a receive can be repeated."""


class PoolTimeout(Timeout):
    """No connection of the pool was there in time, or too many callers were waiting already.

    `stats` holds the pool's numbers of that moment.
    """

    stats: PoolStats | None = None


class EOF(Error, EOFError, ConnectionError):
    """The peer closed the connection.

    `partial` holds the bytes of the unit that the close cut off and `expected` its size (None when
    unknown); at a clean end `partial` is empty. The bytes also stay readable by `recv(0)`.
    """

    def __init__(self, message: str = "EOF", partial: bytes = b"", expected: int | None = None) -> None:
        super().__init__(message)
        self.partial = partial
        self.expected = expected
        self._stream: int | None = None  # whose end it is, when a connection has told it


class ClosedError(Error, OSError):
    """This side closed the connection, lease or server before or during the call."""


class PoolClosed(ClosedError):
    """The pool was closed."""


class BrokenError(Error, ConnectionError):
    """The connection lost step with its peer in an earlier call and can only be closed.

    Exchanges are refused with it as long as one that failed is owed its reply, which they would take for their own;
    receiving that reply puts the connection in step again.
    """


class ConcurrencyError(Error, RuntimeError):
    """A second receiver, or a call from a signal handler into the call it interrupted."""


class LimitError(Error, ValueError):
    """A size is above its limit: the text names both."""


class ResolveError(Error, gaierror):
    """The host name could not be turned into an address."""


class SocketError(Error, OSError):
    """The kernel reported an error; `errno` tells which."""


class RefusedError(SocketError, ConnectionRefusedError):
    """Nobody listens at the address."""


class ResetError(SocketError, ConnectionResetError):
    """The peer reset the connection."""


class AbortedError(SocketError, ConnectionAbortedError):
    """The connection was aborted by the local network stack."""


class PipeError(SocketError, BrokenPipeError):
    """The peer no longer takes bytes."""


class TimedOutError(SocketError, TimeoutError):
    """The kernel gave the peer up (keepalive or retransmission ran out)."""


class DeniedError(SocketError, PermissionError):
    """The kernel forbids it: a privileged port, a firewall rule."""


BY_ERRNO: dict[int, type[SocketError]] = {
    errno.ECONNREFUSED: RefusedError,
    errno.ECONNRESET: ResetError,
    errno.ECONNABORTED: AbortedError,
    errno.EPIPE: PipeError,
    errno.ESHUTDOWN: PipeError,
    errno.ETIMEDOUT: TimedOutError,
    errno.EACCES: DeniedError,
    errno.EPERM: DeniedError,
}

for _class in [c for c in globals().values() if isinstance(c, type) and issubclass(c, Error)]:
    _class.__module__ = "gtcp"
