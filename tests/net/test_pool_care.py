"""What a pool does by itself and what its owner asks for: readiness, age, size, the end, numbers."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gtcp
from gtcp._threads import workers
from gtcp._watchlist import Held, Watchlist
from net.ends import Host, MakePool, Serve
from net.handlers import address_of, echo, echo_packages
from support.calls import Call
from support.collector import at_collection
from support.crew import results, together
from support.faces import everywhere
from support.peers import closed_address
from support.timing import LONG, SHORT, eventually, quick, takes
from support.tls import Authority


def balanced(pool: gtcp.Pool) -> bool:
    """The books of a pool that nobody uses."""
    stats = pool.stats()
    assert (stats.in_use, stats.connecting, stats.waiting) == (0, 0, 0)
    return stats.idle == stats.created - sum(stats.closed.values())


@pytest.mark.parametrize("name", ["max_lifetime", "ttl", "leak_threshold"])
def test_durations_that_nobody_lives_to_see(host: Host, make_pool: MakePool, name: str) -> None:
    pool = make_pool(host.address, **{name: 1e12})
    for _ in range(3):
        pool.acquire().close()
    assert pool.stats().created == 1


@pytest.mark.parametrize("number", range(2, 8))
def test_E22_leases_that_a_collection_ends_while_they_are_looked_at(number: int) -> None:
    watchlist = Watchlist(gtcp.Address("h", 80), LONG)
    for key in range(10):
        watchlist.held[key] = Held(time.monotonic(), "", [])
    with at_collection(number, lambda: watchlist.held.pop(9)):
        assert watchlist.report() is not None


# -- connections that are ready


def test_min_idle_connections_are_ready(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, min_idle=3)
    eventually(lambda: pool.stats().idle == 3)
    leases = [pool.acquire(0) for _ in range(3)]
    eventually(lambda: pool.stats().idle == 3)
    for lease in leases:
        lease.close()
    assert pool.stats().created == 6
    pool.clear()
    eventually(lambda: pool.stats().idle == 3)
    assert balanced(pool)


def test_min_idle_is_no_storm_of_dials(host: Host, make_pool: MakePool) -> None:
    gate = threading.Event()

    def welcome(_: gtcp.Conn) -> None:
        assert gate.wait(LONG)

    pool = make_pool(host.address, min_idle=40, on_connect=welcome)
    eventually(lambda: pool.stats().connecting == 16)
    pool._tend()
    assert pool.stats().connecting == 16
    gate.set()
    eventually(lambda: pool.stats().idle == 40)
    assert pool.stats().created == 40


def test_min_idle_counts_what_went_after_the_pool_was_looked_after(host: Host, make_pool: MakePool) -> None:
    """Leases in quick succession: the last of them has to be noticed too."""
    pool = make_pool(host.address, min_idle=4)
    for _ in range(20):
        eventually(lambda: pool.stats().idle >= 4)
        leases = [pool.acquire(LONG) for _ in range(4)]
        for lease in leases:
            lease.discard()
    eventually(lambda: pool.stats().idle >= 4)


def test_min_idle_replaces_what_was_lent_before_its_dial_was_over(host: Host) -> None:
    """The new connection goes on loan, and the pool is looked after, while the thread that made it is still at it."""
    taken: list[gtcp.PoolConn] = []
    looked = threading.Event()

    class Slow(gtcp.Pool):
        def _settle_or_close(self, claim: Any, conn: gtcp.Conn) -> None:
            super()._settle_or_close(claim, conn)
            if not taken:
                taken.append(self.acquire(0))
                assert looked.wait(LONG)

        def _tend(self) -> None:
            super()._tend()
            if taken:
                looked.set()

    with Slow(host.address, min_idle=1) as pool:
        eventually(lambda: pool.stats().idle == 1)
        assert pool.stats().created == 2
        taken[0].close()


def test_min_idle_dials_none_too_many_when_one_comes_meanwhile(host: Host) -> None:
    """While the pool is looked after, a dial for it ends, a caller takes what it brought and gives that back."""
    go_on, taken = threading.Event(), threading.Event()

    def dial(address: gtcp.Address, seconds: float | None) -> socket.socket:
        assert go_on.wait(LONG)
        return gtcp.dial(address, seconds)

    class Watched(gtcp.Pool):
        def _tend(self) -> None:
            if threading.current_thread() is threading.main_thread():
                super()._tend()

        def stats(self) -> gtcp.PoolStats:
            if threading.current_thread() is not threading.main_thread():
                assert taken.wait(LONG)
            stats = super().stats()
            if self._filling and not go_on.is_set():
                go_on.set()
                with self.acquire(LONG):
                    taken.set()
                    eventually(lambda: not self._filling)
            return stats

    with Watched(host.address, min_idle=1, dial=dial) as pool:
        pool._tend()
        assert len(pool._filling) == 1
        pool._tend()
        assert go_on.is_set()
        stats = pool.stats()
        assert (stats.idle, stats.created, stats.connecting) == (1, 1, 0)


def test_min_idle_respects_the_limit(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, min_idle=2, max_size=3)
    eventually(lambda: pool.stats().idle == 2)
    leases = [pool.acquire(LONG) for _ in range(3)]
    assert pool.stats().created == 3
    for lease in leases:
        lease.discard()
    eventually(lambda: pool.stats().idle == 2)
    pool.resize(1)
    assert pool.stats().idle == 1
    assert balanced(pool)


def test_min_idle_replaces_what_is_too_old(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, min_idle=2, ttl=SHORT)
    eventually(lambda: pool.stats().closed["ttl"] >= 2 and pool.stats().idle == 2)


@pytest.mark.parametrize("option", ["ttl", "max_lifetime"])
def test_min_idle_of_what_does_not_last_is_no_storm(serve: Serve, make_pool: MakePool, option: str) -> None:
    options = {"min_idle": 2, option: 0.0}
    pool = make_pool(address_of(serve(echo)), **options)
    eventually(lambda: pool.stats().created >= 2)
    before = pool.stats().created
    with takes(5 * SHORT, LONG) as watch:
        threading.Event().wait(5 * SHORT)
    dials = pool.stats().created - before
    assert 2 <= dials <= 2 * (watch.seconds / 0.1 + 2)


def test_E18_min_idle_while_nobody_listens(make_pool: MakePool, caplog: pytest.LogCaptureFixture) -> None:
    """One line in the log, tries with pauses, and they are back soon after the server is."""
    with closed_address() as address:
        pool = make_pool(address, min_idle=2, max_size=4)
        eventually(lambda: pool.stats().failed >= 3)
        assert pool.stats().failed < 20
    assert len(caplog.records) == 1
    assert "cannot keep 2 connections" in caplog.text
    with gtcp.Server(address, echo):
        eventually(lambda: pool.stats().idle == 2)
    pool.close()
    assert balanced(pool)


def test_min_idle_where_no_thread_can_begin(
    host: Host, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with any other dial that fails: one line in the log, and longer and longer pauses."""

    def none_left(job: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(workers, "submit", none_left)
    with gtcp.Pool(host.address, min_idle=3) as pool:
        eventually(lambda: pool.stats().failed >= 3)
        assert [record.getMessage()[:24] for record in caplog.records] == ["cannot keep 3 connections"[:24]]
        assert pool.stats().connecting == 0
        monkeypatch.undo()
        eventually(lambda: pool.stats().idle == 3)


def test_prefill(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, max_size=30)
    pool.prefill(20)
    assert pool.stats().idle == 20
    pool.prefill(10)
    assert pool.stats().created == 20
    pool.prefill(100)
    assert pool.stats().idle == pool.stats().created == 30
    with quick():
        leases = [pool.acquire(0) for _ in range(30)]
    assert pool.stats().reused == 30  # nobody had to wait for a dial
    for lease in leases:
        lease.close()


def test_prefill_dials_nothing_that_would_not_be_kept(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, max_idle=2)
    pool.prefill(5)
    assert (pool.stats().idle, pool.stats().created) == (2, 2)


def test_prefill_fails_like_a_dial(make_pool: MakePool) -> None:
    with closed_address() as address:
        pool = make_pool(address)
        with quick(2 * SHORT), pytest.raises(gtcp.RefusedError):
            pool.prefill(3)
        with pytest.raises(gtcp.PoolTimeout):
            pool.prefill(3, timeout=0)
        with pytest.raises(gtcp.RefusedError):
            pool.prefill(3, timeout=LONG)
        pool.close()
        with pytest.raises(gtcp.PoolClosed):
            pool.prefill(1)
        assert balanced(pool)


@pytest.mark.parametrize("n", [-1, True, 1.5])
def test_prefill_of_nonsense(make_pool: MakePool, n: int) -> None:
    with pytest.raises((ValueError, TypeError)):
        make_pool("127.0.0.1:80").prefill(n)


# -- age


def test_ages_are_spread_at_birth(serve: Serve, make_pool: MakePool) -> None:
    """Connections that were opened together do not end together."""
    pool = make_pool(address_of(serve(echo)), max_lifetime=2 * SHORT, lifetime_jitter=0.9)
    pool.prefill(20)
    seen = set()

    def some_have_gone() -> bool:
        seen.add(pool.stats().idle)
        return pool.stats().idle == 0

    eventually(some_have_gone, within=20 * SHORT)
    assert len(seen) > 3
    assert pool.stats().closed["lifetime"] == 20


def test_a_lease_outlives_its_connections_age(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, max_lifetime=SHORT, lifetime_jitter=0.0)
    lease = pool.acquire()
    far = host.accept()
    far.settimeout(1.5 * SHORT)
    with pytest.raises(TimeoutError):
        far.recv(1)
    far.sendall(b"x")
    assert lease.recv(1, timeout=LONG) == b"x"
    lease.close()
    assert pool.stats().closed["lifetime"] == 1


@pytest.mark.parametrize("options", [{"ttl": 0}, {"max_uses": 1}, {"max_idle": 0}, {"max_lifetime": 0}])
def test_a_pool_that_keeps_nothing(host: Host, make_pool: MakePool, options: dict[str, float]) -> None:
    pool = make_pool(host.address, **options)
    for _ in range(2):
        pool.acquire(LONG).close()
    reason = {"ttl": "ttl", "max_uses": "uses", "max_idle": "full", "max_lifetime": "lifetime"}[next(iter(options))]
    assert pool.stats().closed[reason] == 2


# -- what the owner asks for


def test_expire_ends_what_is_open_without_haste(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    lease, idle = pool.acquire(), pool.acquire()
    lent, resting = host.accept(), host.accept()
    idle.close()
    with quick():
        pool.expire()
    assert resting.recv(1) == b""
    lent.sendall(b"x")
    assert lease.recv(1, timeout=LONG) == b"x"  # a borrower is not disturbed
    with pool.acquire(LONG):
        assert host.accept()
    lease.close()
    assert lent.recv(1) == b""
    assert pool.stats().closed["cleared"] == 2


def test_a_smaller_pool_closes_what_is_too_much(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, max_size=6)
    leases = [pool.acquire() for _ in range(6)]
    for lease in leases[:3]:
        lease.close()
    pool.resize(4)
    assert (pool.stats().idle, pool.stats().in_use, pool.stats().max_size) == (1, 3, 4)
    pool.resize(1)
    assert (pool.stats().idle, pool.stats().in_use) == (0, 3)
    for lease in leases[3:]:
        lease.close()
    assert (pool.stats().idle, pool.stats().closed["full"]) == (1, 5)
    assert balanced(pool)


def test_E13_a_larger_pool_serves_those_who_wait(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, max_size=1)
    holder = pool.acquire()
    waiting = [Call(pool.acquire, LONG).sleeping() for _ in range(3)]
    with quick(2 * SHORT):
        pool.resize(None)
        leases = [call.result() for call in waiting]
    for lease in [holder, *leases]:
        lease.close()
    assert (pool.stats().created, pool.stats().max_size) == (4, None)


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "1"])
def test_a_size_that_cannot_be(host: Host, make_pool: MakePool, size: int) -> None:
    pool = make_pool(host.address, max_size=2)
    with pytest.raises((ValueError, TypeError)):
        pool.resize(size)
    assert pool.stats().max_size == 2


# -- the end


def test_E17_close_waits_for_the_leases(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    lease = pool.acquire()
    closing = Call(pool.close, timeout=LONG).sleeping()
    host.accept().sendall(b"x")
    assert lease.recv(1, timeout=LONG) == b"x"
    lease.close()
    with quick():
        assert closing.result() == 0


def test_E17_close_cuts_what_does_not_come_back_in_time(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    leases = [pool.acquire(), pool.acquire()]
    receiving = Call(leases[0].recv, 1).sleeping()
    with takes(SHORT):
        assert pool.close(timeout=SHORT) == 2
    with quick(), pytest.raises(gtcp.ClosedError):
        receiving.result()
    with pytest.raises(gtcp.ClosedError):
        leases[1].send(b"x")
    for lease in leases:
        lease.close()
    assert pool.stats().closed["cleared"] == 2
    assert pool.close(timeout=0) == 0
    assert balanced(pool)


def test_E17_close_ends_a_dial_that_is_under_way(make_pool: MakePool) -> None:
    from support.peers import deaf_address

    with deaf_address() as address:
        pool = make_pool(address)
        dialling = Call(pool.acquire, LONG).sleeping()
        with quick():
            pool.close()
            with pytest.raises(gtcp.PoolClosed):
                dialling.result()
        eventually(lambda: pool.stats().connecting == 0, within=5 * SHORT)
        assert balanced(pool)


@pytest.mark.parametrize("ahead", ["prefill", "min_idle"])
def test_E17_close_ends_a_set_up_that_no_caller_waits_for(host: Host, make_pool: MakePool, ahead: str) -> None:
    min_idle = 1 if ahead == "min_idle" else 0
    pool = make_pool(host.address, on_connect=lambda conn: conn.recv(1), connect_timeout=None, min_idle=min_idle)
    filling = Call(pool.prefill, 1, LONG) if ahead == "prefill" else None
    far = host.accept()
    eventually(lambda: pool.stats().connecting == 1)
    with quick():
        pool.close()
        assert far.recv(1) == b""
        if filling is not None:
            assert isinstance(filling.error(), gtcp.PoolClosed)
    assert balanced(pool)


def test_E17_close_tells_who_prefills_also_when_a_dial_cannot_be_ended(host: Host, make_pool: MakePool) -> None:
    go_on = threading.Event()
    pool = make_pool(host.address, dial=lambda address, seconds: go_on.wait(LONG) and gtcp.dial(address))
    filling = Call(pool.prefill, 1, LONG)
    eventually(lambda: pool.stats().connecting == 1)
    with quick():
        pool.close()
        assert isinstance(filling.error(), gtcp.PoolClosed)
    go_on.set()
    eventually(lambda: pool.stats().connecting == 0)
    assert pool.stats().closed["cleared"] == 1
    assert balanced(pool)


@pytest.mark.parametrize("timeout", [-1, float("nan"), True, "1"])
def test_D4_a_close_with_a_bad_timeout_closes_nothing(host: Host, make_pool: MakePool, timeout: float) -> None:
    pool = make_pool(host.address)
    with pytest.raises((ValueError, TypeError)):
        pool.close(timeout=timeout)
    pool.acquire().close()


# -- leaks


def take_it(pool: gtcp.Pool) -> gtcp.PoolConn:
    return pool.acquire()


def test_E21_a_lease_that_is_held_too_long_is_reported_once(
    host: Host, make_pool: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make_pool(host.address, leak_threshold=SHORT)
    with take_it(pool):
        pool.acquire().close()  # this one is not held long
        eventually(lambda: caplog.records)
        host.accept().settimeout(1.5 * SHORT)
        threading.Event().wait(1.5 * SHORT)  # no second report in this time
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("gtcp", logging.WARNING)
    assert f"a connection to {host.address} has been on loan for" in record.message
    assert "in take_it\n    return pool.acquire()\n" in record.message
    assert threading.current_thread().name in record.message


def test_E21_a_lease_of_a_shared_pool_tells_who_took_it(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    with gtcp.get_pool(host.address, leak_threshold=SHORT / 2), gtcp.PoolConn(host.address):
        eventually(lambda: caplog.records)
    assert "in test_E21_a_lease_of_a_shared_pool_tells_who_took_it" in caplog.records[0].message


# -- shared pools


@pytest.fixture
def no_shared_pools() -> Iterator[None]:
    for pool in gtcp.pools():
        pool.close()
    yield
    for pool in gtcp.pools():
        pool.close()


def test_the_list_of_shared_pools(no_shared_pools: None, serve: Serve) -> None:
    first, second = address_of(serve(echo)), address_of(serve(echo))
    assert gtcp.pools() == []
    gtcp.PoolConn(first).close()
    pool = gtcp.get_pool(second, max_size=2)
    with gtcp.Pool(first):  # one's own is nobody else's
        assert {str(each.addr) for each in gtcp.pools()} == {first, second}
    pool.close()
    assert [str(each.addr) for each in gtcp.pools()] == [first]


def test_E23_the_error_names_the_option(no_shared_pools: None) -> None:
    check = lambda lease: True  # noqa: E731
    gtcp.get_pool("h:80", check=check, ttl=5.0, min_idle=0)
    assert gtcp.get_pool("h:80", check=check) is gtcp.get_pool("h:80", ttl=5)
    for options, words in (
        ({"ttl": 6}, "ttl=5.0, not 6"),
        ({"max_idle": 1}, "max_idle=None, not 1"),
        ({"order": "fifo"}, "order='lifo', not 'fifo'"),
        ({"on_close": print}, "on_close=None, not <built-in"),
    ):
        with pytest.raises(ValueError, match=f"exists with {words}"):
            gtcp.get_pool("h:80", **options)
    with pytest.raises(TypeError):
        gtcp.get_pool("h:80", size=3)


def test_E23_options_after_an_implicit_pool(no_shared_pools: None, host: Host) -> None:
    gtcp.PoolConn(host.address).close()
    with pytest.raises(ValueError, match="exists with max_size=None, not 3"):
        gtcp.get_pool(host.address, max_size=3)


def test_E23_many_threads_make_one_pool(no_shared_pools: None, serve: Serve) -> None:
    address = address_of(serve(echo))
    pools = results(together([lambda: gtcp.get_pool(address, min_idle=1)] * 16))
    assert len(set(pools)) == 1
    eventually(lambda: pools[0].stats().idle == 1)


# -- numbers


def test_E15_the_error_carries_the_numbers(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, max_size=1)
    with pool.acquire(), pytest.raises(gtcp.PoolTimeout) as caught:
        pool.acquire(SHORT / 10)
    stats = caught.value.stats
    assert isinstance(stats, gtcp.PoolStats)
    assert (stats.max_size, stats.in_use, stats.idle, stats.timeouts) == (1, 1, 0, 1)
    assert isinstance(caught.value, TimeoutError)


def test_times_are_summed_up(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, max_size=1)
    lease = pool.acquire()
    waiting = Call(pool.acquire, LONG).sleeping()
    threading.Event().wait(SHORT)
    lease.close()
    waiting.result().close()
    stats = pool.stats()
    assert SHORT <= stats.use_longest <= stats.use_total <= LONG
    assert 0 < stats.wait_longest <= stats.wait_total <= LONG
    assert stats.use_longest >= SHORT


def test_the_numbers_agree_at_any_moment(serve: Serve, make_pool: MakePool) -> None:
    pool = make_pool(address_of(serve(echo_packages)), max_size=4, max_uses=3)
    ending = threading.Event()

    def use() -> None:
        count = 0
        while not ending.is_set():
            with pool.acquire(LONG) as lease:
                lease.send_recv_pkg(b"x", timeout=LONG)
                count += 1
                if count % 7 == 0:
                    lease.discard()

    crew = [Call(use) for _ in range(8)]
    for _ in range(2000):
        stats = pool.stats()
        assert stats.idle + stats.in_use == stats.created - sum(stats.closed.values())
        assert stats.idle + stats.in_use + stats.connecting <= 4
        assert stats.reused <= stats.acquired
    ending.set()
    for call in crew:
        call.result()
    assert balanced(pool)


# -- TLS


@everywhere
def test_E24_tickets_of_an_idle_connection_are_no_data(serve: Serve, make_pool: MakePool) -> None:
    authority = Authority()
    ours, theirs = authority.client(), authority.server()
    theirs.num_tickets = 4
    pool = make_pool(serve(echo_packages, tls=theirs).get_listened_address(), tls=ours)
    pool.acquire(LONG).close()  # goes back before its tickets have come
    for _ in range(100):
        with pool.acquire(LONG) as lease:
            assert lease.send_recv_pkg(b"x", timeout=LONG) == b"x"
    assert (pool.stats().created, pool.stats().reused) == (1, 100)
