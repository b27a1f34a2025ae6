"""A place in a pool is never lost, whatever interrupts whoever has it (E15, E17, E20, E21, E22)."""

import gc
import os
import select
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import FrameType

import pytest

import gtcp
from conftest import MakePeer
from net.ends import Host
from support import child
from support.crew import Worker
from support.forks import join
from support.interrupts import Alarm, on, shoot
from support.peers import Peer, echo, read, reset, silent
from support.timing import LONG, SHORT, eventually


@pytest.fixture
def address(peer: MakePeer) -> str:
    return peer(echo).address


def nothing_held(pool: gtcp.Pool) -> bool:
    stats = pool.stats()
    assert (stats.in_use, stats.connecting, stats.waiting) == (0, 0, 0)
    return stats.idle == stats.created - sum(stats.closed.values())


@contextmanager
def one_thread() -> Iterator[None]:
    """Nobody else gets the interpreter, unless the block makes a system call that waits."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(100.0)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def test_E17_a_waiter_whose_gift_went_bad_while_the_pool_was_closed(address: str) -> None:
    pool = gtcp.Pool(address, max_size=1)
    holder = pool.acquire()
    waiter = Worker(lambda: pool.acquire(LONG))
    eventually(lambda: pool.stats().waiting == 1)
    with one_thread():
        holder.close()  # the waiter's from now on, who has not woken yet
        pool._expire()
        pool._shut()
    assert isinstance(waiter.error(), gtcp.PoolClosed)
    assert nothing_held(pool)
    assert pool.close(timeout=0) == 0


def test_E15_a_waiter_whose_gift_went_bad_keeps_its_place_in_the_queue(address: str) -> None:
    with gtcp.Pool(address, max_size=1) as pool:
        holder = pool.acquire()
        first = Worker(lambda: pool.acquire(LONG))
        eventually(lambda: pool.stats().waiting == 1)
        second = Worker(lambda: pool.acquire(LONG))
        eventually(lambda: pool.stats().waiting == 2)
        with one_thread():
            holder.close()
            pool._expire()
        lease = first.result()
        assert pool.stats().waiting == 1
        lease.close()
        second.result().close()
        assert pool.stats().created == 2
        assert nothing_held(pool)


def test_E15_a_waiter_whose_gift_went_bad_gets_what_rests_meanwhile() -> None:
    with closing(Host()) as host, gtcp.Pool(host.address, max_size=2) as pool:
        bad, good = pool.acquire(), pool.acquire()
        port = good.local_addr().port
        waiter = Worker(lambda: pool.acquire(LONG))
        eventually(lambda: pool.stats().waiting == 1)
        host.accept().sendall(b"junk")
        select.select([bad.fileno()], [], [], LONG)
        with one_thread():
            bad.close()  # the waiter's from now on, who has not woken yet
            good.close()  # nobody's
        with waiter.result() as lease:
            assert lease.local_addr().port == port
        assert (pool.stats().created, pool.stats().closed["dirty"]) == (2, 1)
        assert nothing_held(pool)


def new_one_whose_caller_is_interrupted(address: str) -> None:
    """The dial ends in the moment in which a signal ends the wait: nobody lends it, and it must not rest for ever."""
    go_on = threading.Event()

    def dial(address: gtcp.Address, seconds: float | None) -> socket.socket:
        assert go_on.wait(LONG)
        return gtcp.dial(address, LONG)

    def interrupt() -> None:
        go_on.set()
        eventually(lambda: pool.stats().created == 1)
        raise Alarm

    pool = gtcp.Pool(address, ttl=SHORT, dial=dial)
    on(signal.SIGUSR1, interrupt)
    shot = shoot(signal.SIGUSR1)
    with pytest.raises(Alarm):
        pool.acquire(LONG)
    shot.result()
    eventually(lambda: pool.stats().closed["ttl"] == 1)


def test_E11_a_new_connection_whose_caller_is_interrupted_rests_for_its_time(address: str) -> None:
    child.run(new_one_whose_caller_is_interrupted, address)


def test_E21_a_lease_that_was_dropped_after_its_connection_had_died(peer: MakePeer) -> None:
    """A failed reconnect has closed the connection already; the place is the lease's all the same."""

    def once(sock: socket.socket) -> None:
        read(sock, 1)
        sock.sendall(b"y")
        assert died.wait(LONG)
        reset(sock)
        dead.set()

    died, dead = threading.Event(), threading.Event()
    listening = peer(once)
    with gtcp.Pool(listening.address, max_size=1, check=False) as pool:
        with pool.acquire() as lease:
            assert lease.send_recv(b"x", 1) == b"y"
        held = [pool.acquire()]
        listening.stop_listening()
        died.set()
        assert dead.wait(LONG)
        eventually(lambda: not held[0].is_alive())
        with pytest.raises(gtcp.Error):
            held[0].send(b"z")
        assert held[0].closed
        with pytest.warns(ResourceWarning, match="lease not closed"):
            held.clear()
        assert nothing_held(pool)


def test_E21_a_lease_that_was_dropped_after_the_pool_had_cut_it(address: str) -> None:
    pool = gtcp.Pool(address)
    held = [pool.acquire()]
    assert pool.close(timeout=0) == 1
    assert held[0].closed
    with pytest.warns(ResourceWarning, match="lease not closed"):
        held.clear()
    assert nothing_held(pool)


def test_E8_a_lease_that_another_thread_ends_while_its_gathered_sends_leave(peer: MakePeer) -> None:
    """The last send lets other threads run; what it finds afterwards is an ended lease."""
    with gtcp.Pool(peer(silent).address) as pool:
        for _ in range(200):
            lease = pool.acquire()
            closers = []
            with lease.gathered():
                lease.send(bytes(65_000))
                closers = [Worker(lease.close) for _ in range(3)]
                lease.close()
            for closer in closers:
                closer.result()
        assert nothing_held(pool)


# -- signals


def alarm_at_call(number: int, names: set[str], action: Callable[[], object]) -> bool:
    """Runs `action` and raises Alarm, as a signal handler would, at the so-manieth event in one of these functions."""
    count = 0
    raised = False

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal count, raised
        if frame.f_code.co_name not in names or "gtcp" not in frame.f_code.co_filename:
            return None
        if event != "exception":
            count += 1
        if count == number and not raised:
            raised = True
            raise Alarm
        return trace

    sys.settrace(trace)
    try:
        action()
    except Alarm:
        pass
    finally:
        sys.settrace(None)
    return raised


STEPS: dict[str, tuple[set[str], Callable[[gtcp.Pool], object]]] = {
    "begin": ({"_begin", "_drive", "_settle_or_close", "_pass_on"}, lambda pool: pool.acquire(LONG).close()),
    "hold": ({"_hold", "add", "_watch"}, lambda pool: pool.acquire(LONG).close()),
    "greet": ({"_greet", "_passes"}, lambda pool: pool.acquire(LONG).close()),
    "part": ({"_part"}, lambda pool: pool.acquire(LONG).close()),
    "prefill": ({"prefill", "_bring_apart", "_submit", "submit", "attempt"}, lambda pool: pool.prefill(3, LONG)),
    "tend": ({"_tend", "_fill", "_bring_idle", "submit"}, lambda pool: pool._tend()),
}


# A socket that is on its way from one line to the next is the collector's.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.timeout(240)  # hundreds of rounds under a tracer
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", ["new", "idle"])
def test_E6_E15_a_signal_between_any_two_lines_costs_no_place(address: str, step: str, kind: str) -> None:
    names, action = STEPS[step]
    number = 0
    interrupted = True
    while interrupted:
        number += 1
        pool = gtcp.Pool(
            address,
            max_size=4,
            min_idle=3 if step == "tend" else 0,
            leak_threshold=LONG,
            check=lambda lease: True,
            on_acquire=lambda lease: None,
            on_release=lambda lease: None,
        )
        with pool:
            if kind == "idle":
                pool.prefill(1)
            interrupted = alarm_at_call(number, names, lambda: action(pool))  # noqa: B023
            gc.collect()
            eventually(lambda: pool.stats().connecting == 0)  # noqa: B023
            assert nothing_held(pool), (number, pool.stats())
            assert pool.stats().closed["leaked"] == 0, number
            assert pool._watchlist is not None
            assert not pool._watchlist.held, number
            leases = [pool.acquire(LONG) for _ in range(4)]
            for lease in leases:
                lease.close()
    assert number > 1 or kind == "idle"


# -- forks in the middle


def fork_in_hook(hook: str) -> None:
    """A function that the pool calls forks; parent and child both go on from there."""

    def forks(*_: object) -> None:
        if armed:
            armed.clear()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                pids.append(os.fork())
            if not pids[0] and hook == "check":
                raise LookupError

    def use_all() -> None:
        stats = pool.stats()
        assert (stats.in_use, stats.connecting, stats.waiting) == (0, 0, 0), stats
        leases = [pool.acquire(LONG) for _ in range(2)]
        for lease in leases:
            assert lease.send_recv(b"x", 1, timeout=LONG) == b"x"
            lease.close()
        assert pool.stats().idle == 2

    armed: list[bool] = []
    pids: list[int] = []
    with Peer(echo) as peer, gtcp.Pool(peer.address, max_size=2, **{hook: forks}) as pool:  # type: ignore[arg-type]
        pool.acquire().close()
        armed.append(True)
        code = 1
        try:
            pool.acquire().close()
            if not pids[0]:
                use_all()
                code = 0
        finally:
            if not pids[0]:
                os._exit(code)
        join(pids[0])
        use_all()
        assert pool.stats().created == 2


@pytest.mark.parametrize("hook", ["check", "on_acquire", "on_release"])
def test_E19_a_fork_in_a_function_of_the_user(hook: str) -> None:
    child.run(fork_in_hook, hook)
