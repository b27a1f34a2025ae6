"""Finalizers run wherever the collector does, also in the middle of a call of ours.

Row ids are those of the project's table of faults.
"""

import gc
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import gtcp
from conftest import MakePeer
from gtcp import _core
from support.collector import PATIENCE, at_collection
from support.crew import Worker, results, together
from support.peers import echo, read, socket_pair
from support.timing import LONG, quick

HUGE = bytes(8 << 20)
# The collections inside one call: at least as many as it begins before it sleeps.
COLLECTIONS = range(1, 7)


def drop(held: list[Any]) -> None:
    """Forget what only this list knows."""
    held.clear()
    gc.collect()


@pytest.fixture
def address(peer: MakePeer) -> str:
    return peer(echo).address


@pytest.mark.parametrize("end", [gtcp.PoolConn.close, gtcp.PoolConn.discard])
@pytest.mark.parametrize("number", COLLECTIONS)
def test_E22_a_lease_that_ends_inside_acquire_is_not_waited_for(
    address: str, number: int, end: Callable[[gtcp.PoolConn], None]
) -> None:
    with gtcp.Pool(address, max_size=1) as pool:
        holder = pool.acquire()
        with at_collection(number, lambda: end(holder)) as interruption:
            try:
                pool.acquire(PATIENCE).close()
                lent = True
            except gtcp.PoolTimeout:
                lent = False
        assert lent or not interruption.done_before_the_wait()
        holder.close()
        assert (pool.stats().in_use, pool.stats().waiting) == (0, 0)


@pytest.mark.parametrize("number", COLLECTIONS)
def test_E22_a_turn_that_ends_inside_send_is_not_waited_for(number: int) -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        first = Worker(lambda: conn.send(HUGE, timeout=LONG))
        first.asleep()

        def let_the_first_finish() -> None:
            assert read(theirs, len(HUGE)) == HUGE
            first.wait()

        with at_collection(number, let_the_first_finish) as interruption:
            try:
                conn.send(b"next", timeout=PATIENCE)
                sent = True
            except gtcp.Timeout:
                sent = False
        assert sent or not interruption.done_before_the_wait()
        if interruption.seconds is None:
            let_the_first_finish()


@pytest.mark.parametrize("number", COLLECTIONS)
def test_E22_a_signal_that_is_set_inside_wait_is_not_waited_for(number: int) -> None:
    signal = _core.Signal()
    with at_collection(number, signal.set) as interruption:
        signal.wait(_core.to_deadline(PATIENCE))
        seconds = time.monotonic() - interruption.start
    assert seconds < PATIENCE or not interruption.done_before_the_wait()


def test_E22_leases_dropped_in_cycles_come_back_under_a_busy_collector(address: str) -> None:
    class Holder:
        def __init__(self, lease: gtcp.PoolConn) -> None:
            self.me = self
            self.lease = lease

    def leak() -> None:
        for _ in range(15):
            lease = pool.acquire(LONG)
            assert lease.send_recv(b"x", 1, timeout=LONG) == b"x"
            Holder(lease)

    def behave() -> None:
        for _ in range(50):
            with pool.acquire(LONG) as lease:
                assert lease.send_recv(b"y", 1, timeout=LONG) == b"y"

    def collect() -> None:
        # Also when all the others wait for what is in a cycle.
        while pool.stats().closed["leaked"] < 30 and not over.is_set():
            gc.collect()

    over = threading.Event()
    threshold = gc.get_threshold()
    with gtcp.Pool(address, max_size=3) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.set_threshold(1)
        try:
            results(together([leak, leak, behave, behave, collect]))
        finally:
            over.set()
            gc.set_threshold(*threshold)
        stats = pool.stats()
        assert (stats.in_use, stats.waiting, stats.connecting) == (0, 0, 0)
        assert stats.closed["leaked"] == 30
        assert stats.idle == stats.created - sum(stats.closed.values())


def test_E21_a_lease_that_is_dropped_warns_and_frees_its_place(address: str) -> None:
    with gtcp.Pool(address, max_size=1) as pool:
        held = [pool.acquire()]
        with pytest.warns(ResourceWarning, match=r"lease not closed: <gtcp.PoolConn 127.0.0.1:\d+ -> ") as caught:
            drop(held)
        assert len(caught) == 1
        with quick():
            pool.acquire(0).close()
        assert pool.stats().closed["leaked"] == 1


def test_E21_the_place_is_free_also_when_warnings_are_errors(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr("sys.unraisablehook", lambda what: told.append(what.exc_type))
    with gtcp.Pool(address, max_size=1) as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        drop([pool.acquire()])
        assert told == [ResourceWarning]
        assert pool.stats().in_use == 0


def test_E21_a_waiter_gets_the_place_of_a_dropped_lease(address: str) -> None:
    with gtcp.Pool(address, max_size=1) as pool:
        held = [pool.acquire()]
        waiting = threading.Event()

        def wait() -> None:
            waiting.set()
            pool.acquire(LONG).close()

        waiter = Worker(wait)
        assert waiting.wait(LONG)
        waiter.asleep()
        with pytest.warns(ResourceWarning):
            drop(held)
        waiter.result()


def test_E21_a_connection_that_is_dropped_warns_and_closes(address: str) -> None:
    held = [gtcp.Conn(address)]
    with pytest.warns(ResourceWarning, match=r"unclosed <gtcp.Conn 127.0.0.1:\d+ -> "):
        drop(held)


def test_H6_a_dropped_connection_in_a_cycle_is_collected_by_any_thread(address: str) -> None:
    class Node:
        def __init__(self) -> None:
            self.me = self
            self.conn = gtcp.Conn(address)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.disable()
        try:
            for _ in range(10):
                Node()
            results(together([gc.collect] * 4))
        finally:
            gc.enable()
