"""What comes out of the pool: nothing that died, spoke or rested too long (E1, E2, E3, E11, E12)."""

import inspect
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import gtcp
from net.ends import Host, MakePool
from support.faces import FACES
from support.peers import frame, read_frame, reset
from support.timing import LATE, LONG, SHORT, Watch, eventually, quick, takes


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def talk(lease: gtcp.PoolConn, far: socket.socket) -> None:
    """An exchange that works."""
    far.sendall(frame(b"reply"))
    assert lease.send_recv_pkg(b"request", timeout=LONG) == b"reply"
    assert read_frame(far) == b"request"


def half_closed(ports: list[tuple[int, int]]) -> int:
    """How many of these connections, told by the ports of both ends, the kernel has in CLOSE_WAIT."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    found = [(int(row[1][-4:], 16), int(row[2][-4:], 16)) for row in rows if row[3] == "08"]
    return len(set(ports) & set(found))


def rested(pool: gtcp.Pool, host: Host) -> socket.socket:
    """The other end of a connection that is idle in the pool."""
    with pool.acquire() as lease:
        far = host.accept()
        talk(lease, far)
    assert pool.stats().in_use == 0
    return far


def lives(pool: gtcp.Pool, host: Host, seconds: float) -> None:
    """Assert that a connection which nobody uses is closed after so many seconds."""
    watch = Watch()
    far = rested(pool, host)
    with quick(seconds + LATE):
        assert far.recv(1) == b""
    assert watch.seconds >= seconds


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (lambda far: far.close(), "peer_closed"),
        (lambda far: far.shutdown(socket.SHUT_WR), "peer_closed"),
        (reset, "peer_closed"),
        (lambda far: far.sendall(b"\0"), "dirty"),
        (lambda far: far.sendall(frame(b"late reply")), "dirty"),
    ],
    ids=["E1 close", "E1 half close", "E2 reset", "E3 a byte", "E3 a package"],
)
def test_what_happened_while_idle_is_seen(
    host: Host, make_pool: MakePool, event: Callable[[socket.socket], object], reason: str
) -> None:
    pool = make_pool(host.address)
    event(rested(pool, host))
    with pool.acquire() as lease:
        talk(lease, host.accept())
    stats = pool.stats()
    assert (stats.closed[reason], stats.created, stats.idle) == (1, 2, 1)


def test_E1_several_dead_ones_are_passed_over(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    leases = [pool.acquire() for _ in range(4)]
    fars = [host.accept() for _ in leases]
    for lease in leases:
        lease.close()
    for far in fars[1:]:
        far.close()
    with pool.acquire() as lease:
        talk(lease, fars[0])
    stats = pool.stats()
    assert (stats.closed["peer_closed"], stats.created, stats.idle) == (3, 4, 1)


def test_E1_the_look_consumes_nothing(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    far = rested(pool, host)
    for _ in range(3):
        with pool.acquire() as lease:
            talk(lease, far)
    assert host.nobody_came()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_without_the_look_the_first_call_tells(host: Host, make_pool: MakePool, how: str) -> None:
    pool = make_pool(host.address, check=False, reconnect=False)
    far = rested(pool, host)
    reset(far) if how == "reset" else far.close()
    with pool.acquire() as lease, pytest.raises((gtcp.EOF, gtcp.ResetError, gtcp.PipeError)):
        lease.send_recv_pkg(b"request", timeout=LONG)
    assert pool.stats().idle == 0


def test_the_second_example_of_the_original(host: Host, make_pool: MakePool) -> None:
    # Without the look: reply, EOF, reply on a new port, EOF ...
    pool = make_pool(host.address, check=False)
    seen = []
    for _ in range(4):
        lease = pool.acquire()
        if lease.local_addr() not in seen:
            far = host.accept()
            far.sendall(b"> hello")
            assert lease.send_recv(b"hello", timeout=LONG) == b"> hello"
            assert far.recv(5) == b"hello"
            far.shutdown(socket.SHUT_WR)  # the server hangs up after each reply
        else:
            with pytest.raises(gtcp.EOF, match=r"^EOF$"):
                lease.send_recv(b"hello", timeout=LONG)
        seen.append(lease.local_addr())
        lease.close()
    assert seen[0] == seen[1] != seen[2] == seen[3]


# -- time


def test_the_idle_life_is_600_seconds() -> None:
    assert inspect.signature(gtcp.Pool).parameters["ttl"].default == 600.0


def test_E11_an_idle_connection_ends_although_nobody_calls(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, ttl=SHORT)
    lives(pool, host, SHORT)
    stats = pool.stats()
    assert (stats.idle, stats.closed["ttl"]) == (0, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_E11_no_half_closed_connection_outlives_its_time(host: Host, make_pool: MakePool) -> None:
    """Connections whose peer has closed wait for this side in CLOSE_WAIT; nobody calls, and they go nevertheless."""
    pool = make_pool(host.address, ttl=5 * SHORT)
    leases = [pool.acquire() for _ in range(5)]
    ports = [(lease.local_addr().port, lease.remote_addr().port) for lease in leases]
    since = time.monotonic()
    for lease in leases:
        host.accept().shutdown(socket.SHUT_WR)
        lease.close()
    eventually(lambda: half_closed(ports) == 5)
    eventually(lambda: half_closed(ports) == 0)
    assert 5 * SHORT <= time.monotonic() - since <= 5 * SHORT + 10 * LATE
    assert (pool.stats().idle, pool.stats().closed["ttl"]) == (0, 5)


def test_E11_each_pool_has_its_own_time(host: Host, make_pool: MakePool) -> None:
    slow = make_pool(host.address, ttl=LONG)
    rested(slow, host)
    lives(make_pool(host.address, ttl=SHORT / 2), host, SHORT / 2)
    assert slow.stats().idle == 1


@pytest.mark.parametrize("ttl", [None, LONG])
def test_E11_a_lifetime_ends_although_nobody_calls(host: Host, make_pool: MakePool, ttl: float | None) -> None:
    rested(make_pool(host.address, ttl=LONG / 2), host)  # somebody else's moment is set already
    pool = make_pool(host.address, ttl=ttl, max_lifetime=SHORT, lifetime_jitter=0.0)
    lives(pool, host, SHORT)
    assert pool.stats().closed["lifetime"] == 1


def test_E11_the_time_goes_on_after_a_pool_was_dropped(host: Host, make_pool: MakePool) -> None:
    forgotten = gtcp.Pool(host.address, ttl=SHORT / 10)
    far = rested(forgotten, host)
    del forgotten
    assert far.recv(1) == b""
    pool = make_pool(host.address, ttl=SHORT / 2)
    assert rested(pool, host).recv(1) == b""
    eventually(lambda: pool.stats().closed["ttl"] == 1)


def test_E12_time_on_loan_is_not_idle_time(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, ttl=5 * SHORT)
    with pool.acquire() as lease:
        far = host.accept()
        far.settimeout(6 * SHORT)
        with takes(6 * SHORT), pytest.raises(TimeoutError):
            far.recv(1)  # the lease outlives the ttl, and nobody cuts it
        far.settimeout(LONG)
        talk(lease, far)
    with pool.acquire() as lease:
        talk(lease, far)
    assert host.nobody_came()


def test_E12_every_return_starts_the_idle_time_anew(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, ttl=6 * SHORT)
    far = rested(pool, host)
    for _ in range(4):
        far.settimeout(2 * SHORT)
        with pytest.raises(TimeoutError):
            far.recv(1)
        with pool.acquire() as lease:
            talk(lease, far)
    assert pool.stats().created == 1


def test_no_idle_time_at_all_means_no_reuse(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, ttl=0)
    for _ in range(2):
        with pool.acquire():
            host.accept()
    assert pool.stats().idle == 0


def test_a_connection_serves_so_many_leases(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, max_uses=2)
    for _ in range(4):
        pool.acquire().close()
    stats = pool.stats()
    assert (stats.created, stats.closed["uses"]) == (2, 2)


def test_so_many_rest_at_most(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, max_idle=1)
    leases = [pool.acquire() for _ in range(3)]
    for lease in leases:
        lease.close()
    stats = pool.stats()
    assert (stats.idle, stats.closed["full"]) == (1, 2)
