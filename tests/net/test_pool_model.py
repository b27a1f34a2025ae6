"""A random life of a pool against a model of its books (E26).

`make test-long` lives 2 000 of them with threads, in four processes, and 500 on each loop.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import gtcp
import gtcp.aio
from gtcp import _lending
from net.ends import Host
from support.crew import Worker
from support.faces import PoolFacade, pool_maker
from support.forks import join
from support.peers import frame, read_frame
from support.poolmodel import Link, Loan, PoolModel
from support.timing import LONG, eventually

if sys.platform == "linux":
    import fcntl
    import termios

COUNT = st.integers(0, 7)
SIZES = st.integers(1, 4)

Deed = Literal["nothing", "raises", "discards"]
DEEDS = st.sampled_from(["nothing", "nothing", "raises", "discards"])
"""What a hook does when it is called the next time."""


class Hooks:
    """What the pool calls, and what it has said by that."""

    def __init__(self) -> None:
        self.deeds: dict[str, Deed] = {}
        self.called: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()

    def options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("on_connect", "on_acquire", "on_release", "on_close")}

    def call(self, name: str, conn: gtcp.Conn) -> None:
        self.called[name] += 1
        assert not conn.closed
        match self.deeds.pop(name, "nothing"):
            case "raises":
                raise LookupError(name)
            case "discards":
                assert isinstance(conn, (gtcp.PoolConn, gtcp.aio.PoolConn))
                conn.discard()

    def on_connect(self, conn: gtcp.Conn) -> None:
        self.call("on_connect", conn)

    def on_acquire(self, lease: gtcp.PoolConn) -> None:
        self.call("on_acquire", lease)

    def on_release(self, lease: gtcp.PoolConn) -> None:
        self.call("on_release", lease)

    def on_close(self, conn: gtcp.Conn, reason: str) -> None:
        assert conn.closed
        self.closed[reason] += 1


ENDS: dict[str, tuple[Callable[[gtcp.PoolConn], object], str | None]] = {
    "close": (lambda lease: lease.close(), None),
    "discard": (lambda lease: lease.discard(), "discarded"),
    "abort": (lambda lease: lease.abort(), "discarded"),
    "exception": (lambda lease: lease.__exit__(LookupError, LookupError(), None), "discarded"),
    "detach": (lambda lease: lease.detach().close(), "discarded"),
    "drop": (lambda lease: None, "leaked"),
}


def arrived(far: socket.socket, *, end: bool) -> bool:
    """What the peer did has reached this side."""
    if sys.platform != "linux":
        return True
    if end:
        return far.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 5  # FIN_WAIT2
    return fcntl.ioctl(far, termios.TIOCOUTQ, bytes(4)) == bytes(4)


class PoolLife(RuleBasedStateMachine):
    face = "threads"

    @initialize(
        max_size=SIZES,
        max_idle=st.none() | st.integers(0, 2),
        max_uses=st.none() | st.integers(1, 4),
        min_idle=st.sampled_from([0, 0, 1]),
        fifo=st.booleans(),
        look=st.booleans(),
        hooked=st.booleans(),
        mortal=st.booleans(),
    )
    def open(
        self,
        max_size: int,
        max_idle: int | None,
        max_uses: int | None,
        min_idle: int,
        *,
        fifo: bool,
        look: bool,
        hooked: bool,
        mortal: bool,
    ) -> None:
        # Where the pool dials by itself no borrower does: what several dials bring comes in any order, and a borrower
        # may get what was meant to be idle. Pauses have tests of their own.
        min_idle = min_idle if max_idle is None else min(min_idle, max_idle)
        _lending._FILL_PAUSE = 0.001
        self.host = Host()
        self.model = PoolModel(max_size, max_idle, max_uses, min_idle, fifo, look)
        self.hooks = Hooks() if hooked else None
        self.fresh: dict[int, Link] = {}  # connections that have come and that nobody is known to have, by port
        self.stack = contextlib.ExitStack()
        self.pool = pool_maker(self.face, self.stack)(
            self.host.address,
            max_size=max_size,
            max_idle=max_idle,
            max_uses=max_uses,
            min_idle=min_idle,
            order="fifo" if fifo else "lifo",
            check=look,
            reconnect=False,
            **(self.hooks.options() if self.hooks else {}),
        )
        self.pool.prefill(0)  # that of a loop begins its life with its first use
        if not min_idle:
            self.age(mortal=mortal)
        self.far: dict[Link, socket.socket] = {}
        self.leases: dict[Loan, gtcp.PoolConn] = {}
        self.waiters: list[Worker[gtcp.PoolConn]] = []

    # -- what model and pool do together

    def arrive(self) -> None:
        """The next connection comes."""
        far = self.host.accept()
        link = self.fresh[far.getpeername()[1]] = self.model.make()
        self.far[link] = far

    def dialled(self, lease: gtcp.PoolConn | None = None) -> Link:
        """The connection of this lease, which is a new one; or one that nobody has."""
        if lease is None:
            if not self.fresh:
                self.arrive()
            return self.fresh.popitem()[1]
        while (port := lease.local_addr().port) not in self.fresh:
            self.arrive()
        return self.fresh.pop(port)

    def lend(self, lease: gtcp.PoolConn, link: Link) -> None:
        assert lease.local_addr().port == self.far[link].getpeername()[1]
        self.leases[self.model.lend(link)] = lease

    def serve_waiters(self, link: Link | None = None) -> None:
        """The first in the queue gets this connection, those behind it what there is room for."""
        if link is not None and (reason := self.model.unfit(link)) is not None:
            self.model.retire(link, reason)
            link = None
        if link is not None:
            self.model.waiting -= 1
            self.lend(self.waiters.pop(0).result(), link)
        served = min(len(self.waiters), self.model.max_size - self.model.total)
        if served <= 0:
            return
        # They dial at the same time, so who gets which is open.
        for lease in [self.waiters.pop(0).result() for _ in range(served)]:
            self.model.waiting -= 1
            self.lend(lease, self.dialled(lease))

    def pick(self, number: int) -> tuple[Loan, gtcp.PoolConn]:
        loan = self.model.lent[number % len(self.model.lent)]
        return loan, self.leases[loan]

    # -- borrowers

    @rule(on_acquire=DEEDS)
    def get(self, on_acquire: Deed) -> None:
        link = self.model.take()
        if link is None and not self.model.has_room():
            with pytest.raises(gtcp.PoolTimeout):
                self.pool.acquire(0)
            self.model.timeouts += 1
            return
        if self.hooks is None or on_acquire == "nothing" or self.model.min_idle:
            lease = self.pool.acquire(LONG)
            self.lend(lease, link or self.dialled(lease))
            return
        self.hooks.deeds["on_acquire"] = on_acquire
        if on_acquire == "raises":
            with pytest.raises(LookupError):
                self.pool.acquire(LONG)
            self.model.reject(link or self.dialled(), "error")
        else:
            lease = self.pool.acquire(LONG)
            self.model.reject(link or self.one_that_ended(lease), "discarded")
            link = self.model.take()
            self.lend(lease, link or self.dialled(lease))
        assert not self.hooks.deeds

    def one_that_ended(self, other: gtcp.PoolConn) -> Link:
        """A new connection that was closed before anybody had it, unlike this lease's."""
        port = other.local_addr().port
        while not (ended := [number for number in self.fresh if number != port]):
            self.arrive()
        return self.fresh.pop(ended[0])

    @precondition(lambda self: self.hooks and not self.model.idle and self.model.has_room() and not self.model.min_idle)
    @rule()
    def get_without_success(self) -> None:
        """The dial fails, for a reason that says nothing about the next one."""
        self.hooks.deeds["on_connect"] = "raises"
        with pytest.raises(LookupError):
            self.pool.acquire(LONG)
        self.model.failed += 1
        assert self.host.accept().recv(1) == b""

    @precondition(lambda self: self.model.lent and not self.model.idle and not self.model.has_room())
    @precondition(lambda self: not self.model.min_idle)
    @rule()
    def wait(self) -> None:
        if len(self.waiters) == 3:
            return
        self.waiters.append(Worker(lambda: self.pool.acquire(LONG)))
        self.model.waiting += 1
        eventually(lambda: self.pool.stats().waiting == self.model.waiting)

    @precondition(lambda self: self.model.lent)
    @rule(number=COUNT)
    def exchange(self, number: int) -> None:
        loan, lease = self.pick(number)
        if (loan.state, loan.link.said) != ("nothing", "nothing"):
            return
        self.far[loan.link].sendall(frame(b"reply"))
        assert lease.send_recv_pkg(b"request", timeout=LONG) == b"reply"
        assert read_frame(self.far[loan.link]) == b"request"

    @precondition(lambda self: self.model.lent)
    @rule(number=COUNT)
    def ask_only(self, number: int) -> None:
        loan, lease = self.pick(number)
        if loan.state == "nothing":
            lease.send_pkg(b"request")
            loan.state = "owed"

    @precondition(lambda self: self.model.lent)
    @rule(number=COUNT)
    def listen_only(self, number: int) -> None:
        loan, lease = self.pick(number)
        if loan.state != "nothing":
            return
        match loan.link.said:
            case "a byte":
                assert lease.recv(1, timeout=LONG) == b"!"
                loan.link.said = "nothing"
            case "end":
                with pytest.raises(gtcp.EOF):
                    lease.recv(1, timeout=LONG)
                loan.state = "peer_closed"
            case _:
                with pytest.raises(gtcp.Timeout):
                    lease.recv(1, timeout=0)
                loan.state = "error"

    @precondition(lambda self: self.model.lent)
    @rule(number=COUNT, how=st.just("close") | st.sampled_from(sorted(ENDS)), on_release=DEEDS)
    def put(self, number: int, how: str, on_release: Deed) -> None:
        loan, lease = self.pick(number)
        end, reason = ENDS[how]
        del self.leases[loan]
        if self.hooks is not None and reason is None and loan.state == "nothing" and on_release != "nothing":
            self.hooks.deeds["on_release"] = on_release
            reason = "error"
        link = self.model.end(loan, reason)
        end(lease)
        if how == "drop":
            with pytest.warns(ResourceWarning, match="lease not closed"):
                del lease
        else:
            lease.close()  # once more changes nothing
        self.serve_waiters(link)

    # -- the peer

    @precondition(lambda self: not self.model.min_idle)
    @rule(number=COUNT, what=st.sampled_from(["a byte", "end"]))
    def kill(self, number: int, what: str) -> None:
        links = [*self.model.idle, *(loan.link for loan in self.model.lent)]
        if not links or (link := links[number % len(links)]).said != "nothing":
            return
        link.said = what
        far = self.far[link]
        if what == "end":
            far.shutdown(socket.SHUT_WR)
        else:
            far.sendall(b"!")
        eventually(lambda: arrived(far, end=what == "end"))

    # -- the owner

    @rule()
    def expire(self) -> None:
        self.pool.expire()
        self.model.expire()
        eventually(lambda: self.pool.stats().closed["cleared"] == self.model.closed["cleared"])
        self.serve_waiters()

    @rule()
    def clear(self) -> None:
        self.pool.clear()
        self.model.expire()
        assert self.pool.stats().closed["cleared"] == self.model.closed["cleared"]
        self.serve_waiters()

    @precondition(lambda self: not self.model.min_idle)
    @rule(mortal=st.booleans())
    def age(self, *, mortal: bool) -> None:
        """Those that are made from now on do not live beyond their first lease, or as long as they like."""
        self.model.mortal = mortal
        self.pool._options["max_lifetime"] = 0.0 if mortal else None

    @rule(max_size=SIZES)
    def resize(self, max_size: int) -> None:
        self.pool.resize(max_size)
        self.model.resize(max_size)
        self.serve_waiters()

    @rule()
    def prefill(self) -> None:
        idle = len(self.model.idle)
        self.pool.prefill(idle + 1)
        if self.model.has_room() and (self.model.max_idle is None or idle < self.model.max_idle):
            self.model.rest(self.dialled())

    @precondition(lambda self: not self.model.min_idle)  # a child would dial by itself, too
    @rule()
    def fork(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self.be_a_child()
                code = 0
            except BaseException:  # noqa: BLE001 (the exit code tells)
                traceback.print_exc()
            finally:
                os._exit(code)
        join(pid)

    def be_a_child(self) -> None:
        """A child has the numbers of the past and no connections."""
        if isinstance(self.pool, gtcp.aio.Pool):
            PoolFacade.begin_anew(self.pool)
        stats = self.pool.stats()
        assert (stats.idle, stats.in_use, stats.connecting, stats.waiting) == (0, 0, 0, 0)
        assert stats.closed["forked"] == self.model.total
        for lease in self.leases.values():
            with pytest.raises(gtcp.ClosedError):
                lease.send(b"x")
            lease.close()
        leases = [self.pool.acquire(LONG) for _ in range(self.model.max_size)]
        with pytest.raises(gtcp.PoolTimeout):
            self.pool.acquire(0)
        for lease in leases:
            far = self.host.accept()
            far.sendall(frame(b"reply"))
            assert lease.send_recv_pkg(b"request", timeout=LONG) == b"reply"
            lease.close()

    @rule()
    def close(self) -> None:
        """All ends, and a new life begins."""
        self.pool.close()
        self.model.expire()
        for waiter in self.waiters:
            assert isinstance(waiter.error(), gtcp.PoolClosed)
        self.waiters.clear()
        self.model.waiting = 0
        for loan in list(self.model.lent):
            self.model.end(loan, None)
            self.leases.pop(loan).close()
        self.model.open = False
        self.agrees()
        assert self.pool.close(timeout=0) == 0
        self.stack.close()
        model = self.model
        self.host.close()
        limits = model.max_size, model.max_idle, model.max_uses, model.min_idle
        self.open(*limits, fifo=model.fifo, look=model.look, hooked=self.hooks is not None, mortal=model.mortal)

    # -- what is true after each step

    @invariant()
    def agrees(self) -> None:
        model = self.model
        for _ in range(model.missing()):
            model.rest(self.dialled())
        assert not self.fresh
        # What the reaper's thread does comes soon after the connection.
        eventually(lambda: (now := self.pool.stats()).connecting == 0 and now.idle == len(model.idle))
        stats = self.pool.stats()
        assert (stats.idle, stats.in_use, stats.waiting) == (len(model.idle), len(model.lent), model.waiting)
        assert (stats.created, stats.acquired, stats.failed) == (model.created, model.acquired, model.failed)
        assert (stats.reused, stats.timeouts) == (model.reused, model.timeouts)
        assert {reason: count for reason, count in stats.closed.items() if count} == dict(model.closed)
        assert stats.idle + stats.in_use == stats.created - sum(stats.closed.values())
        while model.closing:
            far = self.far.pop(model.closing.pop())
            try:
                while far.recv(100):
                    pass  # what the borrower sent
            except ConnectionResetError:
                pass  # closed with something unread
            far.close()
        assert self.host.nobody_came()
        if self.hooks is not None:
            told = self.hooks
            eventually(lambda: told.closed == +model.closed)
            assert told.called["on_connect"] == model.created + model.failed
            assert told.called["on_acquire"] >= model.acquired

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            self.pool.close()
            for lease in self.leases.values():
                lease.close()
            for waiter in self.waiters:
                waiter.wait()
            self.stack.close()
            self.host.close()
        _lending._FILL_PAUSE = FILL_PAUSE


FILL_PAUSE = _lending._FILL_PAUSE


class AsyncioPoolLife(PoolLife):
    face = "asyncio"


class UvloopPoolLife(PoolLife):
    face = "uvloop"


Test_E26_a_pool_and_its_model: Any = PoolLife.TestCase
Test_E26_a_pool_of_asyncio_and_its_model: Any = AsyncioPoolLife.TestCase
Test_E26_a_pool_of_uvloop_and_its_model: Any = UvloopPoolLife.TestCase
FULL = os.environ.get("HYPOTHESIS_PROFILE") == "long"
for life in (PoolLife, AsyncioPoolLife, UvloopPoolLife):
    life.TestCase.settings = settings(
        max_examples=500 if FULL else 60 if life is PoolLife else 25,
        stateful_step_count=100 if FULL else 40,
        deadline=None,
    )
