"""Addresses that cannot be reached for a while: who is told what, how often they are tried (E13, E14, E18)."""

import socket
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import gtcp
from net.ends import Host, MakePool
from support.calls import Call
from support.crew import results, together
from support.faces import everywhere
from support.peers import Peer, deaf_address, echo, free_port, listen, reset
from support.timing import LATE, LONG, SHORT, Watch, eventually, quick, takes


def balanced(pool: gtcp.Pool) -> bool:
    """The books of a pool that nobody uses."""
    stats = pool.stats()
    assert (stats.in_use, stats.connecting, stats.waiting) == (0, 0, 0)
    return stats.idle == stats.created - sum(stats.closed.values())


class Counting:
    """A dial that notes when it was asked, and how many were at it at the same time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.moments: list[float] = []
        self.under_way = 0
        self.most = 0

    def __call__(self, address: gtcp.Address, seconds: float | None) -> socket.socket:
        with self.lock:
            self.moments.append(time.monotonic())
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        try:
            return gtcp.dial(address, seconds)
        finally:
            with self.lock:
                self.under_way -= 1


@pytest.fixture
def dead() -> Iterator[socket.socket]:
    """Bound, so that it is nobody else's; `listen` brings it to life."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock


def address_of(sock: socket.socket) -> str:
    return "{}:{}".format(*sock.getsockname()[:2])


def ask_until(pool: gtcp.Pool, end: threading.Event) -> int:
    """Asks again and again, as a program would during an outage; how often that failed."""
    failures = 0
    while not end.is_set():
        try:
            pool.acquire(LONG).close()
        except gtcp.RefusedError:
            failures += 1
    return failures


def test_E18_one_dial_at_a_time_probes_a_dead_address(dead: socket.socket, make_pool: MakePool) -> None:
    dial = Counting()
    pool = make_pool(address_of(dead), dial=dial)
    with pytest.raises(gtcp.RefusedError):
        pool.acquire(LONG)
    dial.most = 0
    end = threading.Event()
    asking = [Call(ask_until, pool, end) for _ in range(8)]
    end.wait(10 * SHORT)
    end.set()
    failures = sum(call.result() for call in asking)
    assert dial.most == 1
    # Pauses of 75 to 150 ms soon, and some short ones at the beginning.
    assert len(dial.moments) <= 10 * SHORT / 0.075 + 5
    assert failures >= len(dial.moments)  # who waits for a probe shares its outcome
    assert balanced(pool)


@everywhere
def test_E18_the_pauses_grow_and_vary(dead: socket.socket, make_pool: MakePool) -> None:
    dial = Counting()
    pool = make_pool(address_of(dead), dial=dial)
    for _ in range(12):
        with pytest.raises(gtcp.RefusedError):
            pool.acquire(LONG)
    pauses = [b - a for a, b in zip(dial.moments, dial.moments[1:], strict=False)]
    assert 0.01 <= pauses[0] <= 0.02 + SHORT
    late = pauses[4:]
    assert all(0.075 <= pause <= 0.15 + SHORT for pause in late)
    assert len({round(pause, 4) for pause in late}) > 1


@everywhere
@pytest.mark.parametrize("threads", [1, 8])
def test_E18_the_first_request_after_the_return_is_served_in_200_ms(
    dead: socket.socket, make_pool: MakePool, threads: int
) -> None:
    pool = make_pool(address_of(dead))
    end = threading.Event()
    asking = [Call(ask_until, pool, end) for _ in range(threads)]
    eventually(lambda: pool.stats().failed > 8)  # the pauses are as long as they get
    end.set()
    for call in asking:
        call.result()
    dead.listen(64)
    with quick(0.2 + SHORT / 2), pool.acquire(LONG) as lease:
        assert lease.is_alive()


@everywhere
def test_E18_a_server_that_flaps_sees_few_dials(make_pool: MakePool) -> None:
    """Up for a moment, down for a moment, again and again, with eight who ask all the time."""
    port = free_port()
    dial = Counting()
    pool = make_pool(f"127.0.0.1:{port}", dial=dial, max_size=4)
    end = threading.Event()
    asking = [Call(ask_until, pool, end) for _ in range(8)]
    flaps = 4
    for _ in range(flaps):
        down, failed = time.monotonic(), pool.stats().failed
        eventually(lambda: pool.stats().failed >= failed + 5)  # noqa: B023  # the pauses are long by now
        probes = sum(moment > down for moment in dial.moments)
        # Pauses of 10, 20, 40 ms at least, then of 75; and those that were under way when it went down.
        assert probes <= 4 + 3 + (time.monotonic() - down) / 0.075 + 1
        acquired = pool.stats().acquired
        with Peer(echo, port=port):
            with quick(0.2 + LATE):
                eventually(lambda: pool.stats().acquired > acquired)  # noqa: B023
            eventually(lambda: pool.stats().acquired > acquired + 50)  # noqa: B023
    end.set()
    for call in asking:
        call.result()
    stats = pool.stats()
    # While it is up at most max_size dials are needed; while it is down the probes have their pauses.
    spent = dial.moments[-1] - dial.moments[0]
    assert len(dial.moments) <= flaps * 2 * 4 + spent / 0.02
    assert stats.acquired > 200
    assert balanced(pool)


def test_E14_a_dial_that_hangs_holds_nobody_up_who_can_be_served(host: Host, make_pool: MakePool) -> None:
    go_on = threading.Event()
    dials = []

    def dial(address: gtcp.Address, seconds: float | None) -> socket.socket:
        dials.append(address)
        if len(dials) > 1:
            assert go_on.wait(LONG)
        return gtcp.dial(address, seconds)

    pool = make_pool(host.address, dial=dial)
    lease = pool.acquire(LONG)
    hanging = [Call(pool.acquire, LONG).sleeping() for _ in range(3)]
    assert pool.stats().connecting == 3
    with quick():
        lease.close()
        served = hanging[0].result()  # first come first served, whoever's dial it was
        served.close()
        hanging[1].result().close()
        hanging[2].result().close()
    go_on.set()
    eventually(lambda: pool.stats().connecting == 0)
    assert balanced(pool)


@everywhere
def test_E14_a_deaf_address_costs_the_callers_time_and_no_more(make_pool: MakePool) -> None:
    with deaf_address() as address:
        pool = make_pool(address, max_size=2)
        with takes(SHORT):
            crew = together([lambda: pool.acquire(SHORT)] * 6)
        for worker in crew:
            assert isinstance(worker.error(), gtcp.PoolTimeout)
        eventually(lambda: pool.stats().connecting == 0)
        assert pool.stats().timeouts == 6
        assert balanced(pool)


def ask_briefly_until(pool: gtcp.Pool, end: threading.Event) -> None:
    while not end.is_set():
        with pytest.raises(gtcp.PoolTimeout):
            pool.acquire(3 * SHORT)


@pytest.mark.parametrize("hook", [True, False], ids=["dial", "plain"])
@pytest.mark.parametrize("threads", [1, 8])
def test_E18_a_deaf_address_is_probed_too_when_callers_are_impatient(
    make_pool: MakePool, threads: int, hook: bool
) -> None:
    """No dial of theirs lasts long enough to say something by itself."""
    dial = Counting()
    end = threading.Event()
    with deaf_address() as address:
        pool = make_pool(address, dial=dial) if hook else make_pool(address)
        asking = [Call(ask_briefly_until, pool, end) for _ in range(threads)]
        eventually(lambda: "last dial failed: no answer" in repr(pool))
        stats = pool.stats()
        eventually(lambda: pool.stats().failed > stats.failed + stats.connecting)  # those begun before are over
        dial.most, failed, watch = 0, pool.stats().failed, Watch()
        end.wait(10 * SHORT)
        end.set()
        for call in asking:
            call.result()
        assert dial.most <= 1
        # Each of them takes what its caller has left of 3 * SHORT; all callers dialling would be eight times as many.
        assert pool.stats().failed - failed <= 2 * watch.seconds / (3 * SHORT) + 2
        eventually(lambda: pool.stats().connecting == 0)
        assert balanced(pool)


@everywhere
def test_E14_a_dial_that_takes_long_is_ended_by_connect_timeout(make_pool: MakePool) -> None:
    with deaf_address() as address:
        pool = make_pool(address, connect_timeout=SHORT)
        with takes(SHORT), pytest.raises(gtcp.Timeout, match="connecting to"):
            pool.acquire(LONG)
        eventually(lambda: pool.stats().connecting == 0)
        assert balanced(pool)


@pytest.mark.parametrize("waits", ["TLS", "on_connect"])
def test_E15_the_end_of_the_callers_time_is_a_pool_timeout(host: Host, make_pool: MakePool, waits: str) -> None:
    """Whoever notices it first: the caller, or the thread that is at the dial."""
    options: dict[str, Any] = {"tls": True} if waits == "TLS" else {"on_connect": lambda conn: conn.recv(1)}
    pool = make_pool(host.address, **options)
    for count in range(1, 21):
        with pytest.raises(gtcp.PoolTimeout, match="max_size no limit") as error:
            pool.acquire(SHORT / 10)
        assert error.value.stats is not None
        assert pool.stats().timeouts == count
    eventually(lambda: pool.stats().connecting == 0)


@everywhere
def test_E14_other_pools_do_not_notice(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)

    def spent() -> float:
        """The median of some dials, of which a single one may be late on a busy machine."""
        seconds = []
        for _ in range(51):
            with quick() as watch:
                pool.acquire(LONG).discard()
            seconds.append(watch.seconds)
        return statistics.median(seconds)

    alone = spent()
    with deaf_address() as address:
        deaf = make_pool(address)
        stuck = [Call(deaf.acquire, LONG).sleeping() for _ in range(4)]
        assert spent() <= 2 * alone + LATE / 20
        assert deaf.stats().connecting == 4
        deaf.close()
        for call in stuck:
            assert isinstance(call.error(), gtcp.PoolClosed)


@everywhere
def test_E13_E14_after_a_deaf_time_everybody_is_served(make_pool: MakePool) -> None:
    """Their dials hang, then the listener accepts again: nobody is lost."""
    with listen(backlog=0) as listener:
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        pool = make_pool(address_of(listener), max_size=3)
        stuck = [Call(lambda: pool.acquire(LONG).close()) for _ in range(9)]  # in any order
        eventually(lambda: pool.stats().waiting == 6 and pool.stats().connecting == 3)
        accepted = []

        def accept() -> None:
            while True:
                accepted.append(listener.accept()[0])

        accepting = Call(accept)
        try:
            for call in stuck:
                call.result()
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            assert isinstance(accepting.error(), OSError)
            for sock in [*fillers, *accepted]:
                sock.close()
        assert pool.stats().created <= 3
        eventually(lambda: pool.stats().connecting == 0)  # dials whose callers were served otherwise
        assert balanced(pool)


@everywhere
def test_E13_nobody_is_overtaken(host: Host, make_pool: MakePool) -> None:
    """Fifty who queue up one after the other are served in that order, whatever becomes free."""
    pool = make_pool(host.address, max_size=1)
    holder = pool.acquire()
    order: list[int] = []

    def ask(number: int) -> None:
        lease = pool.acquire(LONG)
        order.append(number)
        (lease.discard if number % 3 == 0 else lease.close)()

    crew = []
    for number in range(50):
        crew.append(Call(ask, number))
        eventually(lambda: pool.stats().waiting == number + 1)  # noqa: B023
    holder.close()
    for call in crew:
        call.result()
    assert order == list(range(50))
    assert balanced(pool)


@everywhere
def test_E13_a_burst_dials_no_more_than_it_needs(host: Host, make_pool: MakePool) -> None:
    """Without a limit too: a caller who can be served by what is under way begins no dial."""
    pool = make_pool(host.address)
    leases = results(together([lambda: pool.acquire(LONG)] * 32))
    assert pool.stats().created == 32
    for lease in leases:
        lease.close()
    results(together([lambda: pool.acquire(LONG).close()] * 32))
    assert pool.stats().created == 32


@everywhere
def test_E18_a_failed_reconnect_shuts_the_gate_too(make_pool: MakePool) -> None:
    host = Host()
    dial = Counting()
    pool = make_pool(host.address, dial=dial, check=False)
    pool.acquire(LONG).close()
    lease = pool.acquire(LONG)
    reset(host.accept())
    host.close()
    eventually(lambda: not lease.is_alive())
    with pytest.raises(gtcp.RefusedError):
        lease.send(b"x")
    lease.close()
    assert pool.stats().failed == 1
    with pytest.raises(gtcp.RefusedError):
        pool.acquire(LONG)
    assert dial.moments[2] - dial.moments[1] >= 0.01  # the probe came after a pause
