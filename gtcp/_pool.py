"""Pool: connections to one address, kept for reuse."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from gtcp import _core, _reaper
from gtcp._address import Address, AddressLike, parse
from gtcp._attempt import Attempt
from gtcp._conn import Conn
from gtcp._connector import Connector, wrap
from gtcp._dial import SocketOption, earlier
from gtcp._errors import Error, PoolClosed, PoolTimeout, Timeout
from gtcp._lease import PoolConn
from gtcp._options import check_count
from gtcp._pooloptions import check_options
from gtcp._stats import PoolStats
from gtcp._threads import workers
from gtcp._watchlist import Watchlist

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Self

    from gtcp._pooloptions import Check, Dial

logger = logging.getLogger("gtcp")

# How long a caller drives its own dial; what takes longer goes on in a thread, and the caller waits for whatever
# connection is there first.
_HANDS_ON = 0.005
# A dial that its caller's own timeout ended says something about the address only after a lost SYN was sent again.
_TELLING = 1.0
# Dials of one `prefill` at the same time.
_PARALLEL = 16
# Pauses after failures to keep min_idle connections, in seconds: doubled each time.
_FILL_PAUSE = 0.1
_FILL_PAUSE_LAST = 10.0
_UNSET: Any = object()


class Pool(_core.BasePool):
    """Connections to one address, kept for reuse. Safe for use by several threads. See docs/pool.md for advice.

    How many: `max_size` connections at most (None: no limit), `max_idle` idle ones at most, `min_idle` idle ones kept
    ready by a thread. More callers wait, first come first served, up to `max_waiting` of them, for `timeout` seconds.

    How long: `ttl` seconds idle, `max_lifetime` seconds in all, less a random share of up to `lifetime_jitter`,
    `max_uses` leases. `order`: "lifo" lends the one that came back last, so that a pool shrinks when less is needed,
    "fifo" the one that rested longest.

    How good: `check=True` looks at the socket before lending it, without a round trip; False does not; a function of
    the lease may talk, within `check_timeout` seconds, and answers False or raises when the connection is to be
    replaced. `one_way`: a lease may end without a reply to its last send, or with fewer packages received than sent.
    `reconnect`: a send that finds its reused connection dead before a byte left is made on a new one.
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
        names = Pool.__init__.__kwdefaults__ or {}
        self._options: Any = {name: value for name, value in locals().items() if name in names}
        check_options(self._options)
        self.addr = parse(addr)
        self._connector = Connector(self.addr, self._options)
        self._check = check if callable(check) else None
        self._watchlist = None if leak_threshold is None else Watchlist(self.addr, leak_threshold)
        # Dials for min_idle: under way, failures in a row, not before.
        self._filling: set[_core.Claim] = set()
        self._fill_failures = 0
        self._fill_after = 0.0
        # For the shared pools: made by PoolConn, not by get_pool; strings it is known by; how it is forgotten.
        self._implicit = True
        self._spellings: list[str] = []
        self._forget: Callable[[], None] | None = None
        self._configure(
            lease_type=PoolConn,
            conn_type=Conn,
            max_size=max_size,
            max_idle=max_idle,
            min_idle=min_idle,
            max_waiting=max_waiting,
            max_uses=max_uses,
            ttl=ttl,
            timeout=timeout,
            fifo=order == "fifo",
            look=check is not False,
            renews=reconnect,
            one_way=one_way,
            greets=self._check is not None or on_acquire is not None,
            parts=on_release is not None,
            mourns=on_close is not None,
            held=None if self._watchlist is None else self._watchlist.held,
        )
        _reaper.enlist(self)
        self._call_if_needed()

    if TYPE_CHECKING:

        def acquire(self, timeout: float | None = ...) -> PoolConn: ...

    # -- for users

    def stats(self) -> PoolStats:
        """The pool's numbers, consistent with each other."""
        return PoolStats(**self._books())

    def clear(self) -> None:
        """Closes the idle connections now and those on loan when they come back. The pool goes on with new ones."""
        self._expire()
        self._reap()

    def expire(self) -> None:
        """Nothing that is open now is lent again: what is on loan is closed when it comes back, the rest soon.

        Unlike `clear` it closes nothing by itself, so it takes no time.
        """
        self._expire()
        self._call_in(0.0)

    def resize(self, max_size: int | None) -> None:
        """Changes the limit. Above a smaller one, idle connections are closed now, others when they come back."""
        if max_size is not None:
            check_count("max_size", max_size, 1)
        self._options["max_size"] = max_size
        self._resize(max_size)

    def prefill(self, n: int, timeout: float | None = _UNSET) -> None:
        """Dials until `n` connections are idle, or as many as the limits allow.

        `timeout`: seconds for all of them, by default the pool's. Raises what dialling raises; those that succeeded
        stay.
        """
        check_count("n", n, 0)
        deadline = _core.to_deadline(self._options["timeout"] if timeout is _UNSET else timeout)
        if (max_idle := self._options["max_idle"]) is not None:
            n = min(n, max_idle)
        missing = n - self.stats().idle
        while missing > 0:
            claims = [claim for _ in range(min(missing, _PARALLEL)) if (claim := self._begin_apart(self._bring_apart))]
            if not claims and not self._wait_for_gate(deadline):
                return
            for error in [self._outcome(claim, deadline) for claim in claims]:
                if error is not None:
                    raise error
            missing -= len(claims)

    def _wait_for_gate(self, deadline: float | None) -> bool:
        """No place for a dial: False when that is the pool's limit, else waits until the address may be tried again."""
        if self.closed:
            raise PoolClosed("the pool is closed")
        pause = self._next_try()
        if pause is None:
            return False
        if (left := _core.remaining(deadline)) is not None and left < pause:
            raise self._too_slow(f"waiting to dial {self.addr} again")
        _core.sleep(pause)
        return True

    def close(self, timeout: float | None = _UNSET) -> int:
        """Closes the idle connections now and those on loan when they come back. Idempotent, from any thread.

        Callers that wait and later ones get PoolClosed. With `timeout` it waits so many seconds (None: no limit) for
        the leases to come back, then closes the connections of the others under their users, who get ClosedError.
        Answers how many these were.
        """
        deadline = None if timeout is _UNSET else _core.to_deadline(timeout)
        self._shut()
        if self._forget is not None:
            self._forget()
        return 0 if timeout is _UNSET else self._cut(deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<gtcp.Pool {self.addr} {'closed' if self.closed else self.numbers()}>"

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
            self._settle_or_close(claim, wrap(sock))
            return True
        if _core.remaining(until) == 0:
            attempt.close()
            raise self._too_slow(attempt)
        return False

    def _cancel(self, attempt: Attempt) -> bool:
        """Nobody wants the result of a dial: True when it has ended by that."""
        return self._options["dial"] is None and attempt.cancel()

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
            self._settle_or_close(claim, self._open(attempt, until))
        except BaseException as error:  # noqa: BLE001 (it reaches the one who began the dial)
            self._fail(claim, error, self._trouble(error, time.monotonic() - began))

    def _bring_apart(self, claim: _core.Claim) -> None:
        """Begins a dial that no caller drives."""
        self._submit(partial(self._bring, claim, self._connector.attempt(), self._dial_deadline(None)))

    def _redial(self, deadline: float | None) -> Conn:
        """A new connection for a lease whose old one is dead."""
        began = time.monotonic()
        try:
            conn = self._open(self._connector.attempt(), self._dial_deadline(deadline))
        except Exception as error:
            if (trouble := self._trouble(error, time.monotonic() - began)) is not None:
                self._note_dial(trouble)
            raise
        self._note_dial(None)
        return conn

    def _open(self, attempt: Attempt, until: float | None) -> Conn:
        conn = self._connector.open(attempt, until, lambda: not self.closed)
        if conn is None:
            raise PoolClosed("the pool is closed") if self.closed else self._too_slow(attempt)
        return conn

    def _dial_deadline(self, deadline: float | None) -> float | None:
        return earlier(deadline, _core.to_deadline(self._options["connect_timeout"]))

    def _too_slow(self, doing: object) -> PoolTimeout:
        error = PoolTimeout(f"timed out while {doing} ({self.numbers()})")
        error.stats = self.stats()
        return error

    def _trouble(self, error: BaseException, lasted: float) -> str | None:
        """What a failed dial says against the address, or None."""
        if isinstance(error, PoolClosed) or not isinstance(error, Exception):
            return None
        if isinstance(error, Timeout) and lasted < min(_TELLING, self._options["connect_timeout"] or _TELLING):
            return None
        try:
            return f"{type(error).__name__}: {error}"
        except Exception:  # noqa: BLE001 (the words of a user's exception)
            return type(error).__name__

    def _lifetime(self) -> float | None:
        """Seconds that a new connection may live; the jitter keeps those of one burst from ending together."""
        if self._options["max_lifetime"] is None:
            return None
        lifetime: float = self._options["max_lifetime"] * (1.0 - self._options["lifetime_jitter"] * random.random())
        return lifetime

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

    def _hold(self, lease: PoolConn) -> None:
        """A lease has begun."""
        if self._watchlist is not None:
            self._watchlist.add(lease)
            self._call_in(self._watchlist.threshold)

    # -- looking after, for the reaper and the core

    def _watch(self) -> None:
        _reaper.watch()

    def _tend(self) -> None:
        self._reap()
        if self._watchlist is not None and (pause := self._watchlist.report()) is not None:
            self._call_in(pause)
        if self._options["min_idle"] and not self.closed:
            self._fill()

    def _fill(self) -> None:
        """Dials until min_idle connections are idle; after failures with longer and longer pauses."""
        missing = self._options["min_idle"] - self.stats().idle - len(self._filling)
        pause = self._fill_after - time.monotonic()
        if missing > 0 and pause > 0:
            self._call_in(pause)
            return
        for _ in range(missing):
            if self._begin_apart(self._bring_idle) is None:
                if (next_try := self._next_try()) is not None:
                    self._call_in(next_try)
                return

    def _bring_idle(self, claim: _core.Claim) -> None:
        self._filling.add(claim)
        try:
            workers.submit(partial(self._add_idle, claim))
        except BaseException:
            self._filling.discard(claim)
            raise

    def _add_idle(self, claim: _core.Claim) -> None:
        try:
            self._bring(claim, self._connector.attempt(), self._dial_deadline(None))
        finally:
            self._filling.discard(claim)
        error = self._outcome(claim, 0.0)
        if error is None:
            self._fill_failures = 0
            return
        if self._fill_failures == 0 and not self.closed:
            logger.warning("cannot keep %d connections to %s ready: %r", self._options["min_idle"], self.addr, error)
        pause = min(_FILL_PAUSE * 2 ** min(self._fill_failures, 10), _FILL_PAUSE_LAST) * (1.0 - random.random() / 2)
        self._fill_failures += 1
        self._fill_after = time.monotonic() + pause
        self._call_in(pause)

    def _forked(self) -> None:
        if self._watchlist is not None:
            self._watchlist.forget()
        self._filling = set()
        if not self.closed:
            self._call_if_needed()

    def _call_if_needed(self) -> None:
        """Some pools are looked after from their beginning: to dial, or because a finalizer may have news for hooks."""
        if self._options["min_idle"] or self._options["on_close"] is not None:
            self._call_in(0.0)


Pool.__module__ = "gtcp"
