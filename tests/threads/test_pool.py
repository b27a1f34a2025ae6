"""Many threads and one pool.

Row ids are those of the project's table of faults.
"""

import queue
import random
import threading
import time

import pytest

import gtcp
from conftest import MakePeer
from support.crew import Worker, results, together
from support.peers import echo
from support.timing import LATE, LONG, SHORT, eventually, quick


@pytest.fixture
def address(peer: MakePeer) -> str:
    return peer(echo).address


def balanced(pool: gtcp.Pool) -> bool:
    """The books of a pool that nobody uses."""
    stats = pool.stats()
    assert (stats.in_use, stats.connecting, stats.waiting) == (0, 0, 0)
    return stats.idle == stats.created - sum(stats.closed.values())


def waiters(pool: gtcp.Pool, count: int, timeout: float | None = LONG) -> list[Worker[gtcp.PoolConn]]:
    """So many threads that wait for a lease, in this order."""
    crew = []
    for _ in range(count):
        before = pool.stats().waiting
        crew.append(Worker(lambda: pool.acquire(timeout)))
        eventually(lambda: pool.stats().waiting == before + 1)  # noqa: B023
    return crew


@pytest.mark.parametrize(("threads", "max_size"), [(64, 1), (64, 10), (500, 10)])
def test_E13_many_threads_share_few_connections(peer: MakePeer, threads: int, max_size: int) -> None:
    echoing = peer(echo)
    with gtcp.Pool(echoing.address, max_size=max_size) as pool:

        def ask(who: int) -> None:
            for i in range(3):
                question = b"%d asks %d" % (who, i)
                with pool.acquire(LONG) as lease:
                    assert lease.send_recv_pkg(question, timeout=LONG) == question

        results(together([lambda who=who: ask(who) for who in range(threads)], within=2 * LONG))  # type: ignore[misc]
        assert echoing.accepted == pool.stats().created <= max_size
        assert pool.stats().acquired == 3 * threads
        assert balanced(pool)


def test_E13_waiters_are_served_in_their_order(address: str) -> None:
    with gtcp.Pool(address, max_size=1) as pool:
        lease = pool.acquire()
        crew = waiters(pool, 10)
        for worker in crew:
            lease.close()
            lease = worker.result()
            assert pool.stats().in_use == 1
        lease.close()
        assert pool.stats().created == 1


def test_E13_who_comes_later_does_not_overtake(address: str) -> None:
    with gtcp.Pool(address, max_size=1) as pool:
        lease = pool.acquire()
        (first,) = waiters(pool, 1)
        lease.close()
        # The connection is the waiter's already, whether or not its thread has run.
        with pytest.raises(gtcp.PoolTimeout):
            pool.acquire(0)
        first.result().close()


def test_E13_a_place_that_becomes_free_is_handed_on(address: str) -> None:
    """A connection that cannot be kept is as good as one that can: its place goes to the next."""
    with gtcp.Pool(address, max_size=1) as pool:
        lease = pool.acquire()
        crew = waiters(pool, 5)
        for worker in crew:
            lease.discard()
            lease = worker.result()
        lease.discard()
        assert pool.stats().created == 6
        assert balanced(pool)


def test_E13_a_failed_dial_hands_its_place_on(peer: MakePeer) -> None:
    listening = peer(echo)
    with gtcp.Pool(listening.address, max_size=2) as pool:
        listening.close()
        crew = together([lambda: pool.acquire(LONG)] * 32)
        assert {type(worker.error()) for worker in crew} == {gtcp.RefusedError}
        assert 2 <= pool.stats().failed <= 4  # who waits for the outcome of a probe shares it
        assert balanced(pool)


def test_E15_waiters_give_up_on_time_and_lose_nothing(address: str) -> None:
    with gtcp.Pool(address, max_size=1) as pool:
        holder = pool.acquire()

        def give_up() -> float:
            start = time.monotonic()
            with pytest.raises(gtcp.PoolTimeout, match="max_size 1"):
                pool.acquire(SHORT)
            return time.monotonic() - start

        waits = results(together([give_up] * 16))
        assert min(waits) >= SHORT
        assert max(waits) <= SHORT + LATE
        holder.close()
        with quick(), pool.acquire(0) as lease:
            assert lease.send_recv(b"x", 1) == b"x"
        assert pool.stats().created == 1
        assert balanced(pool)


def test_E15_a_waiter_that_gave_up_is_passed_over(address: str) -> None:
    with gtcp.Pool(address, max_size=1) as pool:
        holder = pool.acquire()
        (patient,) = waiters(pool, 1)
        impatient = waiters(pool, 3, SHORT)
        (last,) = waiters(pool, 1)
        for worker in impatient:
            assert isinstance(worker.error(), gtcp.PoolTimeout)
        holder.close()
        patient.result().close()
        last.result().close()
        assert balanced(pool)


def test_E15_giving_up_while_a_connection_comes_back_loses_neither(address: str) -> None:
    """The timeout of the waiter and the return of the connection as close together as can be."""
    patience = SHORT / 50
    served = 0
    with gtcp.Pool(address, max_size=1) as pool:
        for i in range(200):
            holder = pool.acquire(0)
            waiter = Worker(lambda: pool.acquire(patience))
            # Around the end of its patience, earlier in some rounds and later in others.
            time.sleep(patience + (i - 100) * patience / 200)
            holder.close()
            try:
                waiter.result().close()
                served += 1
            except gtcp.PoolTimeout:
                pass
            assert pool.stats().idle == 1
            assert balanced(pool)
    assert served > 0


def test_E16_where_nobody_may_wait_the_refusal_says_so(address: str) -> None:
    with gtcp.Pool(address, max_size=1, max_waiting=0) as pool, pool.acquire():
        with quick(), pytest.raises(gtcp.PoolTimeout, match="nobody may wait"):
            pool.acquire(LONG)
        assert pool.stats().timeouts == 1


def test_E16_more_than_max_waiting_are_refused_at_once(address: str) -> None:
    with gtcp.Pool(address, max_size=1, max_waiting=2) as pool:
        holder = pool.acquire()
        crew = waiters(pool, 2)
        with quick(), pytest.raises(gtcp.PoolTimeout, match="2 callers are waiting already"):
            pool.acquire(LONG)
        holder.close()
        for worker in crew:
            worker.result().close()
        with pool.acquire(0):
            pass
        assert balanced(pool)


def test_E16_with_none_waiting_allowed_a_free_connection_is_still_lent(address: str) -> None:
    with gtcp.Pool(address, max_size=1, max_waiting=0) as pool:
        for _ in range(2):
            with pool.acquire(LONG), quick(), pytest.raises(gtcp.PoolTimeout):
                pool.acquire(LONG)


def test_E17_close_tells_waiters_and_spares_borrowers(address: str) -> None:
    pool = gtcp.Pool(address, max_size=2)
    idle, borrowed = pool.acquire(), pool.acquire()
    crew = waiters(pool, 8)
    with quick():
        pool.close()
        assert {type(worker.error()) for worker in crew} == {gtcp.PoolClosed}
    for lease in (idle, borrowed):
        assert lease.send_recv(b"x", 1, timeout=LONG) == b"x"
        assert pool.stats().in_use > 0
        lease.close()
    assert pool.stats().closed["cleared"] == 2
    assert balanced(pool)
    assert pool.stats().idle == 0


def test_E17_clear_replaces_what_was_there(address: str) -> None:
    with gtcp.Pool(address) as pool:
        borrowed = pool.acquire()
        pool.acquire().close()
        pool.clear()
        assert pool.stats().idle == 0
        borrowed.close()
        assert pool.stats().idle == 0
        pool.acquire().close()
        assert pool.stats().idle == 1


def test_E8_ten_thousand_double_closes(address: str) -> None:
    """Each lease is closed by its borrower and, at the same time, by somebody else."""
    leases: queue.SimpleQueue[gtcp.PoolConn | None] = queue.SimpleQueue()

    def close_again() -> None:
        while (lease := leases.get()) is not None:
            lease.close()

    with gtcp.Pool(address, max_size=3) as pool:
        other = Worker(close_again)
        for _ in range(10_000):
            lease = pool.acquire(LONG)
            leases.put(lease)
            lease.close()
            lease.close()
        leases.put(None)
        other.result()
        # Twice in the list would mean that two borrowers get one connection.
        free = [pool.acquire(LONG) for _ in range(3)]
        assert len({lease.local_addr() for lease in free}) == 3
        for lease in free:
            lease.close()
        assert pool.stats().acquired == 10_003
        assert balanced(pool)


def test_E8_close_after_the_pool_was_closed(address: str) -> None:
    pool = gtcp.Pool(address)
    lease = pool.acquire()
    pool.close()
    lease.close()
    lease.close()
    lease.discard()
    assert balanced(pool)


def test_E26_a_crowd_of_clumsy_borrowers(peer: MakePeer) -> None:
    """Good and bad borrowers, impatient ones, clears: replies stay with their requests and the books balance."""
    echoing = peer(echo)
    ending = threading.Event()

    with gtcp.Pool(echoing.address, max_size=6, max_waiting=20) as pool:

        def behave(who: int) -> int:
            rng = random.Random(who)
            served = 0
            while not ending.is_set():
                try:
                    lease = pool.acquire(rng.choice([0, 0.001, LONG]))
                except gtcp.PoolTimeout:
                    continue
                question = b"%d %d" % (who, served)
                match rng.randrange(8):
                    case 0:
                        lease.discard()
                    case 1:
                        lease.send_pkg(question)
                    case 2:
                        lease.abort()
                    case 3:
                        with pytest.raises(gtcp.LimitError):
                            lease.send_pkg(bytes(70_000))
                    case _:
                        assert lease.send_recv_pkg(question, timeout=LONG) == question
                        served += 1
                lease.close()
                if rng.randrange(100) == 0:
                    pool.clear()
            return served

        crew = [Worker(lambda who=who: behave(who)) for who in range(24)]  # type: ignore[misc]
        ending.wait(5 * SHORT)
        ending.set()
        assert all(worker.result() > 0 for worker in crew)
        assert pool.stats().idle <= 6
        assert balanced(pool)
