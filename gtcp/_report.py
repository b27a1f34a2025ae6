"""What a server tells its user: the log, callbacks and numbers."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from gtcp._conn import Handle
from gtcp._errors import EOF, ClosedError
from gtcp._limits import TIMEOUTS
from gtcp._options import is_async
from gtcp._stats import ServerStats, Tally

ConnT = TypeVar("ConnT", bound=Handle)

logger = logging.getLogger("gtcp")

_Group: Any = getattr(builtins, "BaseExceptionGroup", ())  # from Python 3.11 on


class Report(Generic[ConnT]):
    """The callbacks of a server and its numbers since it was made. TypeError for what is no function.

    What a callback raises is logged, but for the kinds that are `fatal`.
    """

    def __init__(
        self,
        on_connect: Callable[[ConnT], object] | None,
        on_close: Callable[[ConnT, BaseException | None], object] | None,
        on_error: Callable[[ConnT | None, BaseException], object] | None,
        fatal: tuple[type[BaseException], ...] = (),
    ) -> None:
        hooks = {"on_connect": on_connect, "on_close": on_close, "on_error": on_error}
        for name, hook in hooks.items():
            if not (hook is None or callable(hook)):
                raise TypeError(f"{name} must be a function, not {type(hook).__name__}")
            if is_async(hook):
                raise TypeError(f"{name} must be a plain function, nobody would await {hook!r}")
        self._on_connect = on_connect
        self._on_close = on_close
        self._on_error = on_error
        self._fatal = fatal
        self.tally = Tally()

    def refuses(self, conn: ConnT) -> bool:
        """The user does not want the connection."""
        if self._on_connect is None or self._on_connect(conn) is not False:
            return False
        self.tally.add("refused")
        return True

    def judge(self, conn: ConnT, error: BaseException, *, ending: bool) -> BaseException | None:
        """What the exception that left a handler means; a failure is logged. None for a normal end."""
        cut = ending or conn._reason is not None
        if all(_is_normal(conn, leaf) or (cut and isinstance(leaf, ClosedError)) for leaf in _leaves(error)):
            first = next(_leaves(error))
            return None if _is_normal(conn, first) else first
        if isinstance(error, EOF) and conn._has_raised(error):
            logger.error("the peer of %r closed in the middle", conn, exc_info=error)
        else:
            logger.error("the handler of %r failed", conn, exc_info=error)
        self.tally.add("failed")
        self.tell_error(conn, error)
        return error

    def no_handshake(self, conn: ConnT, error: BaseException, *, ending: bool) -> None:
        """The client and the server have not agreed on TLS."""
        self.tally.add("handshakes_failed")
        if not ending:
            logger.warning("TLS handshake of %r failed: %s", conn, error)

    def tell_error(self, conn: ConnT | None, error: BaseException) -> None:
        """Something was logged; `conn` is None when accepting failed."""
        if self._on_error is not None:
            self._call("on_error", self._on_error, conn, error)

    def tell_close(self, conn: ConnT, error: BaseException | None) -> None:
        """The connection has been closed."""
        if self._on_close is not None:
            self._call("on_close", self._on_close, conn, error)

    def _call(self, name: str, function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except self._fatal:
            raise
        except BaseException:
            logger.exception("%s failed", name)

    def stats(self, connections: int) -> ServerStats:
        """The numbers, with that of the connections that are open."""
        tally = self.tally
        return ServerStats(
            connections=connections,
            accepted=tally["accepted"],
            refused=tally["refused"],
            handshakes_failed=tally["handshakes_failed"],
            failed=tally["failed"],
            timeouts={name: tally[name] for name in TIMEOUTS},
            cut=tally["cut"],
        )


def _is_normal(conn: Handle, error: BaseException) -> bool:
    """The peer of this connection, and of no other, has closed between two units; or it was detached."""
    if isinstance(error, EOF):
        return conn._has_raised(error) and not error.partial and error.expected is None
    return isinstance(error, ClosedError) and conn._detached


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions of a group, as a TaskGroup raises it; of anything else itself."""
    if isinstance(error, _Group):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
