"""Dials whose callers are gone: of use as long as somebody may be served by them (E13, E14, E15)."""

import socket
import threading
import time
from collections.abc import Callable

import pytest

import gtcp
from gtcp._attempt import Attempt
from net.ends import Host, MakePool
from support.calls import Call
from support.crew import results
from support.peers import listen
from support.timing import LONG, SHORT, eventually, quick

PATIENCE = 0.25
"""What the pool waits for a dial whose caller is gone, in seconds."""


def balanced(pool: gtcp.Pool) -> bool:
    """The books of a pool that nobody uses."""
    stats = pool.stats()
    assert (stats.in_use, stats.connecting, stats.waiting) == (0, 0, 0)
    return stats.idle == stats.created - sum(stats.closed.values())


class Hanging:
    """A dial of which some hang until they are told to go on, by number."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers
        self.began: list[float] = []
        self.go_on = threading.Event()

    def __call__(self, address: gtcp.Address, seconds: float | None) -> socket.socket:
        self.began.append(time.monotonic())
        if len(self.began) in self.numbers:
            assert self.go_on.wait(LONG)
        return gtcp.dial(address, LONG)


def test_E15_a_dial_that_has_ended_before_its_caller_looks_again(host: Host) -> None:
    """What it brought was cleared, so the caller is allowed another one, which nobody else has begun."""
    dials: list[gtcp.Conn] = []

    def dial(address: gtcp.Address, seconds: float | None) -> gtcp.Conn:
        dials.append(gtcp.Conn(address, seconds))
        if len(dials) == 1:
            pool.expire()
        return dials[-1]

    class Prompt(gtcp.Pool):
        def _submit(self, job: Callable[[], None]) -> None:
            job()

    with Prompt(host.address, dial=dial) as pool:
        with quick():
            pool.acquire(LONG).close()
        assert (pool.stats().created, pool.stats().closed["cleared"]) == (2, 1)


def leave_a_dial_behind(pool: gtcp.Pool) -> gtcp.PoolConn:
    """A second dial hangs and its caller is served otherwise: the one lease of the pool."""
    first = pool.acquire(LONG)
    connecting = pool.stats().connecting
    second = Call(pool.acquire, LONG)
    eventually(lambda: pool.stats().connecting == connecting + 1)
    first.close()
    lease: gtcp.PoolConn = second.result()
    assert (pool.stats().in_use, pool.stats().connecting) == (1, connecting + 1)
    return lease


def test_E14_who_has_little_time_does_not_count_on_a_dial_that_hangs(host: Host, make_pool: MakePool) -> None:
    dial = Hanging(2)
    pool = make_pool(host.address, dial=dial)
    lease = leave_a_dial_behind(pool)
    with pool.acquire(0.6 * PATIENCE):
        assert len(dial.began) == 3
    lease.close()
    dial.go_on.set()
    eventually(lambda: pool.stats().connecting == 0)
    assert balanced(pool)


def test_E13_a_busy_pool_does_not_dial_for_each_lease(host: Host, make_pool: MakePool) -> None:
    dial = Hanging(*range(2, 1000))
    pool = make_pool(host.address, dial=dial)
    leave_a_dial_behind(pool).close()
    ending = threading.Event()

    def use() -> int:
        count = 0
        while not ending.is_set():
            with pool.acquire(LONG):
                count += 1
        return count

    crew = [Call(use) for _ in range(4)]
    ending.wait(3 * PATIENCE)
    ending.set()
    assert sum(results(crew)) > 100
    spent = time.monotonic() - dial.began[0]
    dial.go_on.set()
    # While enough of them are young nobody begins another one, and there are four who may wait.
    assert len(dial.began) <= 2 + 4 * (spent / PATIENCE + 1)
    eventually(lambda: pool.stats().connecting == 0)
    assert balanced(pool)


def test_E14_a_black_hole_that_nobody_waits_for_makes_room(make_pool: MakePool) -> None:
    """The address answers again, but the kernel repeats the old SYN only after a second."""
    with listen(backlog=0) as listener:
        pool = make_pool("{}:{}".format(*listener.getsockname()), max_size=2)
        first = pool.acquire(LONG)
        accepted = [listener.accept()[0]]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        began = time.monotonic()
        second = Call(pool.acquire, LONG)
        eventually(lambda: pool.stats().connecting == 1)
        first.close()
        held = second.result()
        eventually(lambda: time.monotonic() > began + 1.2 * PATIENCE)
        accepted.append(listener.accept()[0])
        with quick(2 * SHORT), pool.acquire(LONG) as lease:
            assert lease.is_alive()
            assert time.monotonic() < began + 1
            assert pool.stats().connecting == 0
        held.close()
        assert (pool.stats().created, pool.stats().failed) == (2, 1)
        assert balanced(pool)
        for sock in [*fillers, *accepted]:
            sock.close()


def test_E14_a_set_up_that_hangs_makes_room(host: Host, make_pool: MakePool) -> None:
    """The second connection is never greeted; when somebody else needs its place it is closed."""

    def greet(conn: gtcp.Conn) -> None:
        assert conn.recv(1) == b"!"

    def accept() -> socket.socket:
        far = host.accept()
        far.sendall(b"!")
        return far

    pool = make_pool(host.address, max_size=2, on_connect=greet)
    accepting = Call(accept)
    first = pool.acquire(LONG)
    accepting.result()
    second = Call(pool.acquire, LONG)
    silent = host.accept()
    first.close()
    held = second.result()
    third = Call(pool.acquire, LONG)
    assert silent.recv(1) == b""
    accept()
    third.result().close()
    held.close()
    assert (pool.stats().created, pool.stats().failed) == (2, 1)
    eventually(lambda: pool.stats().connecting == 0)
    assert balanced(pool)


def test_E14_a_dial_of_the_users_keeps_its_place(host: Host, make_pool: MakePool) -> None:
    """No thread can be ended from outside, and max_size holds for what they may bring."""
    dial = Hanging(2)
    pool = make_pool(host.address, dial=dial, max_size=2)
    held = leave_a_dial_behind(pool)
    with pytest.raises(gtcp.PoolTimeout, match="in use 1, idle 0, connecting 1"):
        pool.acquire(2 * PATIENCE)
    assert len(dial.began) == 2
    waiting = Call(pool.acquire, LONG).sleeping()
    dial.go_on.set()
    waiting.result().close()
    held.close()
    assert pool.stats().created == 2
    assert balanced(pool)


@pytest.mark.parametrize("ahead", ["prefill", "min_idle"])
def test_E14_a_dial_ahead_of_need_makes_room_too(make_pool: MakePool, ahead: str) -> None:
    with listen(backlog=0) as listener:
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        options = {"min_idle": 1} if ahead == "min_idle" else {}
        pool = make_pool("{}:{}".format(*listener.getsockname()), max_size=1, **options)
        filling = Call(pool.prefill, 1, LONG) if ahead == "prefill" else None
        eventually(lambda: pool.stats().connecting == 1)
        began = time.monotonic()
        eventually(lambda: time.monotonic() > began + 1.2 * PATIENCE)
        accepted = [listener.accept()[0]]
        with pool.acquire(LONG):
            assert time.monotonic() < began + 0.9
        if filling is not None:
            filling.result()
        assert (pool.stats().created, pool.stats().failed) == (1, 1)
        for sock in [*fillers, *accepted]:
            sock.close()


def test_E14_a_dial_that_made_room_tells_nobody_of_an_error(
    host: Host, make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread notices that its connection is closed before the one who closed it has told the books."""
    cancel = Attempt.cancel

    def cancel_and_pause(attempt: Attempt) -> None:
        cancel(attempt)
        eventually(lambda: pool.stats().failed == 1)

    monkeypatch.setattr(Attempt, "cancel", cancel_and_pause)
    pool = make_pool(host.address, max_size=1, on_connect=lambda conn: conn.recv(1))
    filling = Call(pool.prefill, 1, LONG)
    silent = host.accept()
    acquiring = Call(pool.acquire, LONG)
    assert silent.recv(1) == b""
    host.accept().sendall(b"!")
    acquiring.result().close()
    filling.result()
    assert (pool.stats().created, pool.stats().failed) == (1, 1)
    assert balanced(pool)
