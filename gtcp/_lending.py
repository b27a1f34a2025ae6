"""What the pools have in common, however their callers wait: options, numbers, limits, idle connections kept ready."""

from __future__ import annotations

import logging
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gtcp import _core
from gtcp._address import Address, AddressLike, parse
from gtcp._dial import earlier, is_over
from gtcp._errors import PoolClosed, PoolTimeout
from gtcp._options import check_count
from gtcp._pooloptions import check_options, given
from gtcp._stats import PoolStats
from gtcp._watchlist import Watchlist

logger = logging.getLogger("gtcp")

# A dial that its caller's own timeout ended says something about the address only after a lost SYN was sent again;
# several in a row do so together.
_TELLING = 1.0
# Of the words of a failure, which may be a user's, every error of the pool and its repr carry so many characters.
_WORDS = 200
# Pauses after failures to keep min_idle connections, in seconds: doubled each time; also the least time between dials
# for connections that nobody uses.
_FILL_PAUSE = 0.1
_FILL_PAUSE_LAST = 10.0
# Dials of one `prefill`, or for min_idle, at the same time.
_PARALLEL = 16
UNSET = _core.UNSET


class Lending(_core.BasePool):
    """What every Pool shares in the Python layer.

    A subclass names the class of the core first: objects are made as the first base makes them.
    """

    addr: Address

    def _open(
        self,
        addr: AddressLike | Address,
        arguments: Mapping[str, Any],
        lease_type: type[_core.BaseConn],
        conn_type: type[_core.BaseConn],
    ) -> None:
        """`arguments`: the options, and what else a constructor knows."""
        if hasattr(self, "_options"):
            raise RuntimeError("this Pool has been opened already")
        options = given(arguments)
        check_options(options)
        self.addr = parse(addr)
        check, threshold = options["check"], options["leak_threshold"]
        self._check: Any = check if callable(check) else None
        self._watchlist = None if threshold is None else Watchlist(self.addr, threshold)
        # Dials for min_idle: under way, failures in a row, leases until the last success, not before.
        self._filling: set[_core.Claim] = set()
        self._fill_failures = 0
        self._fill_acquired = 0
        self._fill_after = 0.0
        # Dials given up without an answer, since the so many connections that were made: from when to when.
        self._heard = 0
        self._silent_since = self._silent_until = 0.0
        self._configure(
            lease_type=lease_type,
            conn_type=conn_type,
            max_size=options["max_size"],
            max_idle=options["max_idle"],
            min_idle=options["min_idle"],
            max_waiting=options["max_waiting"],
            max_uses=options["max_uses"],
            ttl=options["ttl"],
            timeout=options["timeout"],
            fifo=options["order"] == "fifo",
            look=check is not False,
            # A new connection would lack what on_acquire has set up on the old one.
            renews=options["reconnect"] and options["on_acquire"] is None,
            one_way=options["one_way"],
            greeters=" or ".join(name for name in ("check", "on_acquire") if callable(options[name])),
            parts=options["on_release"] is not None,
            mourns=options["on_close"] is not None,
            held=None if self._watchlist is None else self._watchlist.held,
        )
        self._options: Any = options  # now it is open: no argument was refused

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
            check_count("max_size", max_size, 1, sys.maxsize)
        self._resize(max_size)

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.Pool {f'{self.addr} closed' if self.closed else self.numbers()}>"

    # -- dialling, for subclasses and the core

    def _dial_deadline(self, deadline: float | None) -> float | None:
        return earlier(deadline, _core.to_deadline(self._options["connect_timeout"]))

    @contextmanager
    def _blaming(self, until: float | None, doing: object) -> Iterator[None]:
        """What has not ended by `until` is a PoolTimeout; a limit that a user's function has set is its own affair."""
        try:
            yield
        except TimeoutError as error:  # a `dial` may raise the builtin one
            if not is_over(until):
                raise
            raise self._too_slow(doing) from error

    def _too_slow(self, doing: object) -> PoolTimeout:
        error = PoolTimeout(f"timed out while {doing} ({self.numbers()})")
        error.stats = self.stats()
        return error

    def _trouble(self, error: BaseException, lasted: float) -> str | None:
        """What a failed dial says against the address, or None."""
        if isinstance(error, PoolClosed) or not isinstance(error, Exception):
            return None
        if isinstance(error, TimeoutError) and lasted < min(_TELLING, self._options["connect_timeout"] or _TELLING):
            self._unanswered(lasted)
            return None
        if isinstance(error, PoolTimeout):  # it tells the numbers of its moment, and the trouble before this one
            return str(error.__cause__ or "timed out")[:_WORDS]
        try:
            return f"{type(error).__name__}: {error}"[:_WORDS]
        except Exception:  # noqa: BLE001 (the words of a user's exception)
            return type(error).__name__

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Notes what a dial that is no claim's says about the address."""
        began = time.monotonic()
        try:
            yield
        except Exception as error:
            if (trouble := self._trouble(error, time.monotonic() - began)) is not None:
                self._note_dial(trouble)
            raise
        self._note_dial(None)

    def _unanswered(self, lasted: float) -> None:
        """A dial was given up after so many seconds, which says nothing to those who have more time for theirs.

        But a second full of such dials is trouble, as a single one is that lasted as long.
        """
        now, created = time.monotonic(), self.stats().created
        if created != self._heard or now - lasted > self._silent_until + _TELLING:
            self._heard, self._silent_since = created, now - lasted
        self._silent_until = now
        if now - self._silent_since >= _TELLING:
            self._note_dial("no answer")

    def _lifetime(self) -> float | None:
        """Seconds that a new connection may live; the jitter keeps those of one burst from ending together."""
        if self._options["max_lifetime"] is None:
            return None
        lifetime: float = self._options["max_lifetime"] * (1.0 - self._options["lifetime_jitter"] * random.random())
        return lifetime

    # -- dialling ahead

    def _missing(self, n: int) -> int:
        """How many dials `prefill(n)` needs."""
        check_count("n", n, 0)
        max_idle = self._options["max_idle"]
        return (n if max_idle is None else min(n, max_idle)) - self.stats().idle

    def _begin_some(self, missing: int, bring: Callable[[_core.Claim], object]) -> list[_core.Claim]:
        """Begins as many of them as may be under way at the same time, and as limits and address permit."""
        return [claim for _ in range(min(missing, _PARALLEL)) if (claim := self._begin_apart(bring))]

    def _pause_to_dial(self, deadline: float | None) -> float | None:
        """Seconds until the address may be dialled again; None when there are no places."""
        if self.closed:
            raise PoolClosed("the pool is closed")
        pause = self._next_try()
        if pause is not None and (left := _core.remaining(deadline)) is not None and left < pause:
            raise self._too_slow(f"waiting to dial {self.addr} again")
        return pause

    # -- leases, for the core

    def _hold(self, lease: Any) -> None:
        """A lease has begun."""
        if self._watchlist is not None:
            self._watchlist.add(lease)
            self._call_in(self._watchlist.threshold)

    # -- looking after

    def _tend(self) -> None:
        self._clean()
        if self._watchlist is not None and (pause := self._watchlist.report()) is not None:
            self._call_in(pause)
        if self._options["min_idle"] and not self.closed:
            self._fill()

    def _clean(self) -> None:
        self._reap()

    def _fill(self) -> None:
        """Dials until min_idle connections are idle; after failures with longer and longer pauses."""
        # What comes between these two counts twice, not never: `_filled` finds out.
        coming = len(self._filling)
        stats = self.stats()
        missing = self._options["min_idle"] - stats.idle - coming
        pause = self._fill_after - time.monotonic()
        if missing > 0 and pause > 0 and (self._fill_failures or stats.acquired == self._fill_acquired):
            self._call_in(pause)
            return
        failures = self._fill_failures
        for _ in range(min(missing, _PARALLEL - coming)):
            if self._begin_apart(self._bring_idle) is None:
                if (next_try := self._next_try()) is not None:
                    self._call_in(next_try)
                return
            if self._fill_failures > failures:
                return

    def _bring_idle(self, claim: _core.Claim) -> None:
        """Begins the dial of a claim for min_idle, without waiting; `_filled` follows its end."""
        raise NotImplementedError

    def _filled(self, claim: _core.Claim) -> None:
        """A dial for min_idle has ended."""
        self._filling.discard(claim)
        error = self._outcome(claim, 0.0)
        if error is None:
            stats = self.stats()
            self._fill_failures = 0
            self._fill_acquired = stats.acquired
            self._fill_after = time.monotonic() + _FILL_PAUSE  # should it end without having been lent
            if stats.idle < self._options["min_idle"] and not self.closed:
                self._call_in(0.0)  # it has been lent already, when it still counted as one to come
            return
        failures = self._fill_failures
        self._fill_failures = failures + 1  # before the log, where others run who have failed, too
        if failures == 0 and not self.closed:
            logger.warning("cannot keep %d connections to %s ready: %r", self._options["min_idle"], self.addr, error)
        pause = min(_FILL_PAUSE * 2 ** min(failures, 10), _FILL_PAUSE_LAST) * (1.0 - random.random() / 2)
        self._fill_after = time.monotonic() + pause
        self._call_in(pause)

    def _forked(self) -> None:
        if self._watchlist is not None:
            self._watchlist.forget()
        self._filling = set()

    def _call_if_needed(self) -> None:
        """Some pools are looked after from the beginning, in a child from its first lease on.

        They have to dial, or a finalizer may have news for hooks.
        """
        if self._options["min_idle"] or self._options["on_close"] is not None:
            self._call_in(0.0)
