"""Pool: connections to one address, kept for reuse by the tasks of one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from gtcp import _core
from gtcp._address import Address, AddressLike
from gtcp._conn import tls_context
from gtcp._connector import adopt_dialled, wrap
from gtcp._dial import SocketOption, earlier, is_over
from gtcp._errors import ClosedError, PoolClosed, Timeout
from gtcp._lending import UNSET, Lending
from gtcp._resolve import LOCALHOST
from gtcp.aio import _dial
from gtcp.aio._conn import Conn
from gtcp.aio._dial import whole_milliseconds
from gtcp.aio._lease import PoolConn, lease_of
from gtcp.aio._loops import enlist, home_of
from gtcp.aio._timeout import timeout

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Self

    from gtcp.aio._pooloptions import Check, Dial

logger = logging.getLogger("gtcp")

# How long the end of the loop waits for hooks that have no limit.
_FAREWELL = 5.0

_Follow = Callable[["asyncio.Task[Any]"], object]
_Tasks = dict["asyncio.Task[Any]", _Follow]


class Pool(_core.AsyncPool, Lending):
    """Connections to one address, kept for reuse by the tasks of one event loop. See docs/asyncio.md for advice.

    Options as those of `gtcp.Pool`, by the same rules. `check`, `dial` and the hooks may be plain functions, which must
    not block, or answer an awaitable. `dial` and `on_connect` run in a task of the pool; an awaitable `on_release` or
    `on_close` goes on in a task too, so that neither closing nor cancelling waits for it.

    A pool serves the loop of its first lease; in another one RuntimeError is raised. It ends with its loop: what is
    idle is closed when `asyncio.run` ends. Leases may be dropped in any thread; all else belongs to the loop's.
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
        # Dials and hooks under way, and what follows their ends; the loop itself holds tasks weakly.
        self._dials: _Tasks = {}
        self._hooks: _Tasks = {}
        # For the shared pools: made by PoolConn, not by get_pool; how it is forgotten.
        self._implicit = True
        self._forget: Callable[[], None] | None = None
        self._context = tls_context(tls, server_hostname)
        self._open(addr, locals(), PoolConn, Conn)
        enlist(self)
        self._call_if_needed()

    # -- for users

    def acquire(self, timeout: float | None = UNSET) -> PoolConn:
        """A lease, to be awaited or to be entered by `async with`; arguments and errors as those of `gtcp.Pool`."""
        if timeout is UNSET:
            timeout = self._options["timeout"]
        _core.to_deadline(timeout)
        return lease_of(self, timeout)

    async def prefill(self, n: int, timeout: float | None = UNSET) -> None:
        """Dials until `n` connections are idle, or as many as the limits allow; else as `gtcp.Pool.prefill`."""
        self._enter_loop()
        missing = self._missing(n)
        deadline = _core.to_deadline(self._options["timeout"] if timeout is UNSET else timeout)
        while missing > 0:
            dials: list[asyncio.Task[None]] = []
            claims = self._begin_some(missing, partial(self._bring_apart, dials))
            if not claims:
                if (pause := self._pause_to_dial(deadline)) is None:
                    return
                await asyncio.sleep(pause)
            if dials:
                _, late = await asyncio.wait(dials, timeout=_core.remaining(deadline))
                if late:
                    raise self._too_slow("waiting for connections")
            for claim in claims:
                if (error := self._outcome(claim, 0.0)) is not None:
                    raise error
            missing -= len(claims)

    async def close(self, timeout: float | None = UNSET) -> int:
        """Closes the idle connections now and those on loan when they come back. Idempotent.

        Tasks that wait and later ones get PoolClosed; dials under way are cancelled. With `timeout` it waits so many
        seconds (None: no limit) for the leases to come back, then closes the connections of the others under their
        users, who get ClosedError. Answers how many these were.

        It waits for dials and hooks under way too: until the same moment, or without `timeout` for `check_timeout`
        seconds; then they go on. RuntimeError in another loop.
        """
        deadline = _core.to_deadline(self._options["check_timeout"] if timeout is UNSET else timeout)
        self._check_loop()
        self._shut()
        if self._forget is not None:
            self._forget()
        await _ended(self._dials, deadline)
        cut = 0 if timeout is UNSET else await self._drain(deadline)
        await _ended(self._hooks, deadline)
        return cut

    def _shut(self) -> None:
        super()._shut()
        for dial in list(self._dials):
            if not dial.get_loop().is_closed():
                dial.cancel()
        for tasks in (self._dials, self._hooks):
            for task in [each for each in tasks if each.get_loop().is_closed()]:
                follow = tasks.pop(task)
                with contextlib.suppress(asyncio.CancelledError, StopIteration, RuntimeError):
                    task.get_coro().throw(asyncio.CancelledError())
                follow(task)

    async def _end(self) -> None:
        """Closes the pool because its loop ends: what goes on after that is cancelled."""
        if self._options["check_timeout"] is None:
            self._options["check_timeout"] = _FAREWELL
        await self.close()
        while tasks := [*self._dials, *self._hooks]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def clear(self) -> None:
        """Closes the idle connections now and those on loan when they come back. The pool goes on with new ones."""
        self._check_loop()
        super().clear()

    def expire(self) -> None:
        """Nothing that is open now is lent again; else as `gtcp.Pool.expire`."""
        self._check_loop()
        super().expire()

    def resize(self, max_size: int | None) -> None:
        """Changes the limit; else as `gtcp.Pool.resize`."""
        self._check_loop()
        super().resize(max_size)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- dialling, for the core

    def _begin(self, claim: _core.Claim, deadline: float | None) -> None:
        """Begins the dial of a claim."""
        self._start_dial(claim, self._dial_deadline(deadline))

    def _cancel(self, doing: _Doing) -> bool:
        """Nobody wants the result of a dial: True when that ends it, in the loop's next turn."""
        return doing.dial is not None and (doing.dial.get_loop().is_closed() or doing.dial.cancel())

    def _start_dial(self, claim: _core.Claim, until: float | None) -> asyncio.Task[None]:
        """Begins a dial in a task of its own: its caller may be served otherwise meanwhile."""
        doing = _Doing(self.addr)
        doing.dial = dial = self._keep(self._dials, self._bring(claim, until, doing), partial(self._dial_ended, claim))
        self._pass_on(claim, doing)
        return dial

    def _dial_ended(self, claim: _core.Claim, dial: asyncio.Task[None]) -> None:
        """The task of a dial has ended, perhaps before it began, or its loop has been closed."""
        if not dial.done() or dial.cancelled():
            error = PoolClosed("the pool is closed") if self.closed else ClosedError("the dial was cancelled")
            self._fail(claim, error, None)

    async def _bring(self, claim: _core.Claim, until: float | None, doing: _Doing) -> None:
        """Brings a dial to its end, whatever that is."""
        began = time.monotonic()
        try:
            conn = await self._connect(until, doing)
            try:
                self._settle(claim, conn)
            except BaseException:
                conn._discard()
                raise
        except asyncio.CancelledError:
            raise  # `_dial_ended` follows
        except BaseException as error:  # noqa: BLE001 (it reaches the one who began the dial)
            self._fail(claim, error, self._trouble(error, time.monotonic() - began))

    async def _redial(self, deadline: float | None) -> Conn:
        """A new connection for a lease whose old one is dead."""
        with self._noting():
            return await self._connect(self._dial_deadline(deadline), _Doing(self.addr))

    def _bring_apart(self, dials: list[asyncio.Task[None]], claim: _core.Claim) -> None:
        """Begins a dial that no caller waits for."""
        dials.append(self._start_dial(claim, self._dial_deadline(None)))

    async def _connect(self, until: float | None, doing: _Doing) -> Conn:
        """A connection that is ready for use."""
        with self._blaming(until, doing):
            conn = await self._dialled(until)
        try:
            if self._context is not None:
                doing.what = f"agreeing on TLS with {self.addr}"
                host = self._options["server_hostname"] or self.addr.host or LOCALHOST
                with self._blaming(until, doing):
                    await conn._tls_client(self._context, host, until)
            if (on_connect := self._options["on_connect"]) is not None:
                doing.what = f"setting up a connection to {self.addr}"
                conn.set_deadline(until)
                with self._blaming(until, doing):
                    await _finished(on_connect(conn), until)
        except BaseException:
            conn._discard()
            raise
        return conn

    async def _dialled(self, until: float | None) -> Conn:
        if self._options["dial"] is None:
            return wrap(await _dial.connect(self.addr, until, self._options["socket_options"]), Conn)
        made = self._options["dial"](self.addr, _core.remaining(until))
        if isinstance(made, Conn) and made.closed:
            made = made._opened()
        made = await _finished(made, until)
        return adopt_dialled(made, Conn, PoolConn)

    # -- what the user wants to be asked and told, for the core

    async def _greet(self, lease: PoolConn, reused: bool, deadline: float | None) -> bool:
        """A lease begins: False when the connection does not pass the check."""
        if reused and self._check is not None and not await self._passes(self._check, lease, deadline):
            return False
        if (on_acquire := self._options["on_acquire"]) is not None:
            lease.set_deadline(deadline)
            await _finished(on_acquire(lease), deadline)
        return True

    async def _passes(self, check: Check, lease: PoolConn, deadline: float | None) -> bool:
        until = earlier(deadline, _core.to_deadline(self._options["check_timeout"]))
        lease.set_deadline(until)
        try:
            return await _finished(check(lease), until) is not False
        except Exception as error:  # noqa: BLE001 (whatever it is, the connection did not pass)
            logger.debug("a connection to %s failed the check: %r", self.addr, error)
            return False

    def _part(self, lease: PoolConn) -> bool | Awaitable[bool]:
        """A lease ends and its connection is fit to go back: False when the hook fails."""
        until = _core.to_deadline(self._options["check_timeout"])
        lease.set_deadline(until)
        try:
            answer = self._options["on_release"](lease)
        except Exception:
            logger.exception("on_release of the pool of %s failed", self.addr)
            return False
        return self._succeeds("on_release", answer, until) if _is_awaitable(answer) else True

    def _mourn(self, conn: Conn, reason: str) -> None:
        """A connection has been closed."""
        try:
            answer = self._options["on_close"](conn, reason)
        except Exception:
            logger.exception("on_close of the pool of %s failed", self.addr)
            return
        if _is_awaitable(answer):
            try:
                self._spawn(self._succeeds("on_close", answer, None), lambda _: None)
            except RuntimeError as error:  # its loop has been closed, and no other runs
                logger.error("on_close of the pool of %s failed: %s", self.addr, error)

    async def _succeeds(self, name: str, hook: Awaitable[object], until: float | None) -> bool:
        try:
            await _finished(hook, until)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            logger.exception("%s of the pool of %s failed", name, self.addr)
            if not isinstance(error, Exception):
                raise
            return False
        return True

    def _spawn(self, hook: Coroutine[Any, Any, Any], follow: _Follow) -> asyncio.Task[Any]:
        return self._keep(self._hooks, hook, follow)

    def _keep(self, tasks: _Tasks, coroutine: Coroutine[Any, Any, Any], follow: _Follow) -> asyncio.Task[Any]:
        """A task that the pool holds until its end; then comes `follow(task)`."""
        try:
            task = self._loop_for_tasks().create_task(coroutine)
        except RuntimeError:
            coroutine.close()
            raise
        tasks[task] = follow
        task.add_done_callback(lambda task: tasks.pop(task)(task))
        return task

    # -- looking after, for the core

    def _bring_idle(self, claim: _core.Claim) -> None:
        dial = self._start_dial(claim, self._dial_deadline(None))
        self._filling.add(claim)
        dial.add_done_callback(lambda _: self._filled(claim))

    def _forked(self) -> None:
        """In a child: the tasks are the parent's, and would never end."""
        super()._forked()
        self._dials = {}
        self._hooks = {}

    def _bound(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop of the first lease is known."""
        home_of(loop).pools.add(self)


class _Doing:
    """A dial under way, and what it is at: a caller whose time is over says so."""

    def __init__(self, address: Address) -> None:
        self.dial: asyncio.Task[None] | None = None
        self.what = f"connecting to {address}"

    def __str__(self) -> str:
        return self.what


async def _ended(tasks: _Tasks, deadline: float | None) -> None:
    """Waits for the ends of tasks, also of those that begin meanwhile; one that asks does not wait for itself."""
    while going := tasks.keys() - {asyncio.current_task()}:
        await asyncio.wait(going, timeout=_core.remaining(deadline))
        if is_over(deadline):
            return


def _is_awaitable(answer: object) -> bool:
    """What a function of the user's answers is to be awaited: a hook's own connection is not."""
    return inspect.isawaitable(answer) and not isinstance(answer, Conn)


async def _finished(answer: Any, until: float | None) -> Any:
    """What a function of the user's answers, awaited if need be; Timeout at the moment `until`."""
    if not _is_awaitable(answer):
        return answer
    if until is None:
        return await answer
    # A loop may be early by a tick of its clock, a millisecond.
    seconds = whole_milliseconds(until) + 0.001
    try:
        async with timeout(seconds):
            return await answer
    except asyncio.TimeoutError as error:
        if isinstance(error, Timeout) or not is_over(until):
            raise
        raise Timeout("a function given to the pool did not end in time") from None


Pool.__module__ = "gtcp.aio"
