"""Pool: connections to one address, kept for reuse."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from gtcp import _core, _reaper
from gtcp._address import Address, AddressLike
from gtcp._attempt import Attempt
from gtcp._conn import Conn
from gtcp._connector import Connector, wrap
from gtcp._dial import SocketOption, earlier
from gtcp._errors import Error, PoolClosed
from gtcp._lease import PoolConn
from gtcp._lending import UNSET, Lending
from gtcp._pooloptions import check_plain
from gtcp._threads import workers

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Self

    from gtcp._pooloptions import Check, Dial

logger = logging.getLogger("gtcp")

# How long a caller drives its own dial; what takes longer goes on in a thread, and the caller waits for whatever
# connection is there first.
_HANDS_ON = 0.005
# When on_close has not come to its end, the next news waits so long at least.
_PATIENCE = 0.5


class Pool(_core.BlockingPool, Lending):
    """Connections to one address, kept for reuse. Safe for use by several threads. See docs/pool.md for advice.

    How many: `max_size` connections at most (None: no limit), `max_idle` idle ones at most, `min_idle` idle ones kept
    ready by a thread. More callers wait, first come first served, up to `max_waiting` of them, for `timeout` seconds.

    How long: `ttl` seconds idle, `max_lifetime` seconds in all, less a random share of up to `lifetime_jitter`,
    `max_uses` leases. `order`: "lifo" lends the one that came back last, so that a pool shrinks when less is needed,
    "fifo" the one that rested longest.

    How good: `check=True` looks at the socket before lending it, without a round trip; False does not; a function of
    the lease may talk, within `check_timeout` seconds, and answers False or raises when the connection is to be
    replaced. `one_way`: a lease may end without a reply to its last send, or with fewer packages received than sent.
    `reconnect`: a send that finds its reused connection dead before a byte left is made on a new one, unless
    `on_acquire` has set the old one up.
    `leak_threshold`: seconds after which a lease is reported in the log, with the stack that took it.

    Dialling: `connect_timeout` seconds for one; `socket_options` for setsockopt before it; `tls` and `server_hostname`
    as for Conn; `dial(address, seconds)` instead of it, answering a connected socket or Conn.

    Hooks: `on_connect(conn)` sets a new connection up and may talk; its failure closes the connection and reaches the
    caller. `on_acquire(conn)` may talk; its failure ends the lease and reaches the caller. `on_release(conn)` when a
    lease ends and its connection is fit to go back; it may talk, within `check_timeout` seconds; its failure is logged
    and closes the connection.
    `on_close(conn, reason)` after a connection was closed; its failure is logged. `dial` and `on_connect` run in a
    thread of the pool.
    """

    def __init__(
        self,
        addr: AddressLike | Address,
        *,
        max_size: int | None = None,
        max_idle: int | None = None,
        min_idle: int = 0,
        timeout: float | None = 30.0,
        max_waiting: int | None = None,
        ttl: float | None = 600.0,
        max_lifetime: float | None = None,
        lifetime_jitter: float = 0.05,
        max_uses: int | None = None,
        order: Literal["lifo", "fifo"] = "lifo",
        check: bool | Check = True,
        check_timeout: float | None = 5.0,
        one_way: bool = False,
        reconnect: bool = True,
        leak_threshold: float | None = None,
        connect_timeout: float | None = 30.0,
        socket_options: Sequence[SocketOption] = (),
        tls: ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        dial: Dial | None = None,
        on_connect: Callable[[Conn], object] | None = None,
        on_acquire: Callable[[PoolConn], object] | None = None,
        on_release: Callable[[PoolConn], object] | None = None,
        on_close: Callable[[Conn, str], object] | None = None,
    ) -> None:
        check_plain(locals())
        self._open(addr, locals(), PoolConn, Conn)
        self._connector = Connector(self.addr, self._options)
        # For the shared pools: made by PoolConn, not by get_pool; strings it is known by; how it is forgotten.
        self._implicit = True
        self._spellings: set[str] = set()
        self._forget: Callable[[], None] | None = None
        self._telling = False
        _reaper.enlist(self)
        self._call_if_needed()

    if TYPE_CHECKING:

        def acquire(self, timeout: float | None = ...) -> PoolConn: ...

    # -- for users

    def prefill(self, n: int, timeout: float | None = UNSET) -> None:
        """Dials until `n` connections are idle, or as many as the limits allow.

        `timeout`: seconds for all of them, by default the pool's. Raises what dialling raises; those that succeeded
        stay.
        """
        missing = self._missing(n)
        deadline = _core.to_deadline(self._options["timeout"] if timeout is UNSET else timeout)
        while missing > 0:
            claims = self._begin_some(missing, self._bring_apart)
            if not claims:
                if (pause := self._pause_to_dial(deadline)) is None:
                    return
                _core.sleep(pause)
            for error in [self._outcome(claim, deadline) for claim in claims]:
                if error is not None:
                    raise error
            missing -= len(claims)

    def close(self, timeout: float | None = UNSET) -> int:
        """Closes the idle connections now and those on loan when they come back. Idempotent, from any thread.

        Callers that wait and later ones get PoolClosed. With `timeout` it waits so many seconds (None: no limit) for
        the leases to come back, then closes the connections of the others under their users, who get ClosedError.
        Answers how many these were.
        """
        deadline = None if timeout is UNSET else _core.to_deadline(timeout)
        self._shut()
        if self._forget is not None:
            self._forget()
        return 0 if timeout is UNSET else self._cut(deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- dialling, for the core

    def _begin(self, claim: _core.Claim, deadline: float | None) -> None:
        """Begins the dial of a claim; it may end in a thread."""
        until = self._dial_deadline(deadline)
        attempt = self._connector.attempt()
        try:
            if not self._connector.is_plain or not self._drive(claim, attempt, until):
                self._submit(partial(self._bring, claim, attempt, until))
                self._pass_on(claim, attempt)
        except Error as error:
            self._fail(claim, error, self._trouble(error, 0.0))
        except BaseException:  # a signal handler's: no failure of the dial
            attempt.cancel()
            raise

    def _drive(self, claim: _core.Claim, attempt: Attempt, until: float | None) -> bool:
        """Drives a dial for a moment: False when it takes longer."""
        sock = attempt.drive(earlier(_core.to_deadline(_HANDS_ON), until))
        if sock is not None:
            self._settle_or_close(claim, wrap(sock, Conn))
            return True
        if _core.remaining(until) == 0:
            attempt.close()
            raise self._too_slow(attempt)
        return False

    def _cancel(self, attempt: Attempt) -> bool:
        """Nobody wants the result of a dial: True when that ends it, which a `dial` of the user's does not notice."""
        if self._options["dial"] is not None and not attempt.is_connected():
            return False
        attempt.cancel()
        return True

    def _settle_or_close(self, claim: _core.Claim, conn: Conn) -> None:
        try:
            self._settle(claim, conn)
        except BaseException:
            conn.close()
            raise

    def _submit(self, job: Callable[[], None]) -> None:
        try:
            workers.submit(job)
        except RuntimeError:
            job()  # no more threads, as when the interpreter ends

    def _bring(self, claim: _core.Claim, attempt: Attempt, until: float | None) -> None:
        """Brings a dial to its end, whatever that is."""
        began = time.monotonic()
        try:
            self._settle_or_close(claim, self._connect(attempt, until))
        except BaseException as error:  # noqa: BLE001 (it reaches the one who began the dial)
            if attempt.is_cancelled():  # by the pool, of which the error knows nothing
                self._fail(claim, None, None)
            else:
                self._fail(claim, error, self._trouble(error, time.monotonic() - began))

    def _bring_apart(self, claim: _core.Claim) -> None:
        """Begins a dial that no caller drives."""
        attempt = self._connector.attempt()
        self._pass_on(claim, attempt)
        self._submit(partial(self._bring, claim, attempt, self._dial_deadline(None)))

    def _redial(self, deadline: float | None) -> Conn:
        """A new connection for a lease whose old one is dead."""
        with self._noting():
            return self._connect(self._connector.attempt(), self._dial_deadline(deadline))

    def _connect(self, attempt: Attempt, until: float | None) -> Conn:
        conn = self._connector.open(attempt, until, lambda: not self.closed, self._blaming)
        if conn is None:
            raise PoolClosed("the pool is closed") if self.closed else self._too_slow(attempt)
        return conn

    # -- what the user wants to be asked and told, for the core

    def _greet(self, lease: PoolConn, reused: bool, deadline: float | None) -> bool:
        """A lease begins: False when the connection does not pass the check."""
        if reused and self._check is not None and not self._passes(self._check, lease, deadline):
            return False
        if (on_acquire := self._options["on_acquire"]) is not None:
            lease.set_deadline(deadline)
            on_acquire(lease)
        return True

    def _passes(self, check: Check, lease: PoolConn, deadline: float | None) -> bool:
        lease.set_deadline(earlier(deadline, _core.to_deadline(self._options["check_timeout"])))
        try:
            return check(lease) is not False
        except Exception as error:  # noqa: BLE001 (whatever it is, the connection did not pass)
            logger.debug("a connection to %s failed the check: %r", self.addr, error)
            return False

    def _part(self, lease: PoolConn) -> bool:
        """A lease ends and its connection is fit to go back: False when the hook fails."""
        lease.set_deadline(_core.to_deadline(self._options["check_timeout"]))
        try:
            self._options["on_release"](lease)
        except Exception:
            logger.exception("on_release of the pool of %s failed", self.addr)
            return False
        return True

    def _mourn(self, conn: Conn, reason: str) -> None:
        """A connection has been closed."""
        try:
            self._options["on_close"](conn, reason)
        except Exception:
            logger.exception("on_close of the pool of %s failed", self.addr)

    # -- looking after, for the reaper and the core

    def _watch(self) -> None:
        _reaper.watch()

    def _clean(self) -> None:
        """What on_close has to hear it hears in another thread: it may take its time, and other pools wait here."""
        if not self._reap(apart=True):
            return
        if self._telling:
            self._call_in(_PATIENCE)
            return
        self._telling = True
        try:
            workers.submit(self._tell_all)
        except BaseException:
            self._telling = False
            raise

    def _tell_all(self) -> None:
        try:
            self._tell()
        except BaseException:  # whatever it is, a thread of gtcp's own has nobody to hand it to
            logger.exception("on_close of the pool of %s failed", self.addr)
        finally:
            self._telling = False

    def _forked(self) -> None:
        self._telling = False
        super()._forked()

    def _bring_idle(self, claim: _core.Claim) -> None:
        attempt = self._connector.attempt()
        self._pass_on(claim, attempt)
        self._filling.add(claim)
        try:
            workers.submit(partial(self._add_idle, claim, attempt))
        except RuntimeError as error:  # no more threads: it counts as a failed dial
            self._fail(claim, error, None)
            self._filled(claim)
        except BaseException:
            self._filling.discard(claim)
            raise

    def _add_idle(self, claim: _core.Claim, attempt: Attempt) -> None:
        try:
            self._bring(claim, attempt, self._dial_deadline(None))
        finally:
            self._filling.discard(claim)
        self._filled(claim)


Pool.__module__ = "gtcp"
