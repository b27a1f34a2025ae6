"""TLS and leases of pools in greenlets: the same calls, many at once in one thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest

import gtcp
from support.timing import LONG, SHORT, takes
from support.tls import Authority

CLIENTS = 50


def serve(conn: gtcp.Conn) -> None:
    for package in conn.packages():
        if package != b"never":
            conn.send_pkg(package)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(params=["threads", "greenlets"])
def concurrency(request: pytest.FixtureRequest) -> Literal["threads", "greenlets"]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def pooled(leaves_no_trace: None) -> Iterator[gtcp.Server]:
    """A server whose connections may stay in the shared pools until the end."""
    with gtcp.Server("127.0.0.1:0", serve) as server:
        yield server
        gtcp.get_pool(server.get_listened_address() or "").close()


def all_of(client: object, count: int = CLIENTS) -> None:
    def main() -> None:
        for fiber in [gtcp.spawn(client, number) for number in range(count)]:  # type: ignore[arg-type,var-annotated]
            fiber.get(LONG)

    gtcp.run(main)


def test_tls(authority: Authority, concurrency: Literal["threads", "greenlets"]) -> None:
    with gtcp.Server("127.0.0.1:0", serve, tls=authority.server(), concurrency=concurrency) as server:
        address, context = server.get_listened_address(), authority.client()
        assert address is not None

        def client(number: int) -> None:
            with gtcp.Conn(address, LONG, tls=context) as conn:
                for size in (10, 1000, 60000):
                    data = bytes([number]) * size
                    assert conn.send_recv_pkg(data, timeout=LONG) == data

        all_of(client)


def test_a_tls_server_goes_on_while_a_client_says_nothing(authority: Authority) -> None:
    with gtcp.Server("127.0.0.1:0", serve, tls=authority.server(), concurrency="greenlets") as server:
        address = server.get_listened_address()
        assert address is not None
        with gtcp.Conn(address, LONG), gtcp.Conn(address, LONG, tls=authority.client()) as conn:
            assert conn.send_recv_pkg(b"x", timeout=LONG) == b"x"


def test_a_tls_call_that_times_out_lets_the_others_go_on(authority: Authority) -> None:
    with gtcp.Server("127.0.0.1:0", serve, tls=authority.server()) as server:
        address, context = server.get_listened_address(), authority.client()
        assert address is not None

        def main() -> None:
            with gtcp.Conn(address, LONG, tls=context) as silent, gtcp.Conn(address, LONG, tls=context) as busy:
                waiting = gtcp.spawn(silent.recv_pkg_with_timeout, 2 * SHORT)
                with takes(2 * SHORT, late=LONG / 5):
                    while not waiting.dead:
                        assert busy.send_recv_pkg(b"x", timeout=LONG) == b"x"
                with pytest.raises(gtcp.Timeout):
                    waiting.get()
                assert silent.send_recv_pkg(b"y", timeout=LONG) == b"y"

        gtcp.run(main)


def test_leases_of_the_shared_pool(pooled: gtcp.Server) -> None:
    address = str(pooled.get_listened_address())

    def client(number: int) -> None:
        for lap in range(3):
            with gtcp.PoolConn(address, LONG) as lease:
                data = b"%d %d" % (number, lap)
                assert lease.send_recv_pkg(data, timeout=LONG) == data

    all_of(client)
    stats = gtcp.get_pool(address).stats()
    assert stats.acquired == 3 * CLIENTS
    assert (stats.in_use, stats.failed) == (0, 0)
    assert stats.created <= CLIENTS


def test_a_lease_that_timed_out_or_was_killed_does_not_go_back(pooled: gtcp.Server) -> None:
    address = str(pooled.get_listened_address())

    def ask(timeout: float) -> bytes:
        with gtcp.PoolConn(address, LONG) as lease:
            return lease.send_recv_pkg(b"never", timeout=timeout)

    def main() -> None:
        late, killed = gtcp.spawn(ask, SHORT), gtcp.spawn(ask, LONG)
        with pytest.raises(gtcp.Timeout):
            late.get(LONG)
        killed.kill()
        assert killed.join(LONG)
        stats = gtcp.get_pool(address).stats()
        assert (stats.idle, stats.in_use, sum(stats.closed.values())) == (0, 0, 2)
        assert gtcp.send_recv_pkg(address, b"fine", timeout=LONG) == b"fine"

    gtcp.run(main)
