"""What goes back into the pool: only what is healthy, empty and in step (B12, E4, E5, E6, E7)."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

import gtcp
from net.ends import Host, MakePool
from support.faces import FACES
from support.peers import frame, read_frame, reset
from support.timing import LONG

Use = Callable[[gtcp.PoolConn, socket.socket], Any]


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fate(pool: gtcp.Pool, host: Host, use: Use) -> str:
    """What becomes of a connection after this use: "idle", or the reason why it was closed."""
    with pool.acquire() as lease:
        use(lease, host.accept())
    stats = pool.stats()
    assert stats.in_use == 0
    assert stats.idle + sum(stats.closed.values()) == 1
    return "idle" if stats.idle else next(reason for reason, count in stats.closed.items() if count)


def failing(error: type[Exception], call: Callable[[Any], Any]) -> Use:
    def use(lease: gtcp.PoolConn, far: socket.socket) -> None:
        with pytest.raises(error):
            call(lease)

    return use


def exchange(lease: gtcp.PoolConn, far: socket.socket) -> None:
    far.sendall(frame(b"reply"))
    assert lease.send_recv_pkg(b"request", timeout=LONG) == b"reply"
    assert read_frame(far) == b"request"


def two_sends(lease: gtcp.PoolConn, far: socket.socket) -> None:
    lease.send_pkg(b"note")
    assert read_frame(far) == b"note"
    exchange(lease, far)


GOOD: dict[str, Use] = {
    "nothing at all": lambda lease, far: None,
    "an exchange": exchange,
    "an empty send": lambda lease, far: lease.send(b""),
    "no packages sent": lambda lease, far: lease.send_pkgs([]),
    "no packages exchanged": lambda lease, far: lease.send_recv_pkgs([]),
    "no packages received": lambda lease, far: lease.recv_pkgs(0),
    "a receive": lambda lease, far: (far.sendall(b"news\n"), lease.recv_line(timeout=LONG)),
    "an empty package": lambda lease, far: (far.sendall(b"\0\0"), lease.send_recv_pkg(b"?", timeout=LONG)),
    "settings": lambda lease, far: lease.set_deadline(0),
    # A wrong argument is the caller's problem, not the connection's.
    "B12 a package too long": failing(gtcp.LimitError, lambda lease: lease.send_pkg(bytes(65536))),
    "B12 a batch too long": failing(gtcp.LimitError, lambda lease: lease.send_recv_pkgs([bytes(65536)])),
    "B20 a bad length": failing(ValueError, lambda lease: lease.recv(-2)),
    "B20 no bytes": failing(TypeError, lambda lease: lease.send("text")),
    "D4 a bad timeout": failing(ValueError, lambda lease: lease.send_recv(b"x", timeout=-1)),
}


@pytest.mark.parametrize("use", GOOD.values(), ids=GOOD.keys())
def test_it_goes_back_after(host: Host, make_pool: MakePool, use: Use) -> None:
    assert fate(make_pool(host.address), host, use) == "idle"


def received(data: bytes, call: Callable[[gtcp.PoolConn], Any]) -> Use:
    def use(lease: gtcp.PoolConn, far: socket.socket) -> None:
        far.sendall(data)
        call(lease)

    return use


def after_a_timeout(lease: gtcp.PoolConn, far: socket.socket) -> None:
    with pytest.raises(gtcp.Timeout):
        lease.send_recv_pkg(b"request", timeout=0)
    # Even a success afterwards does not heal it: whose reply was this?
    far.sendall(frame(b"late reply"))
    assert lease.recv_pkg(timeout=LONG) == b"late reply"


def after_the_peers_close(lease: gtcp.PoolConn, far: socket.socket) -> None:
    far.close()
    with pytest.raises(gtcp.EOF):
        lease.recv(timeout=LONG)


def after_a_reset(lease: gtcp.PoolConn, far: socket.socket) -> None:
    reset(far)
    with pytest.raises(gtcp.ResetError):
        lease.recv(timeout=LONG)


def a_package_above_the_limit(lease: gtcp.PoolConn, far: socket.socket) -> None:
    far.sendall(frame(b"hello"))
    with pytest.raises(gtcp.LimitError):
        lease.recv_pkg(gtcp.PkgOption(2, 4), timeout=LONG)


def a_line_above_the_limit(lease: gtcp.PoolConn, far: socket.socket) -> None:
    far.sendall(b"hello")
    with pytest.raises(gtcp.LimitError):
        lease.recv_line(timeout=LONG, max_size=4)


BAD: dict[str, tuple[Use, str]] = {
    "E4 a package too many": (received(frame(b"a") + frame(b"b"), lambda lease: lease.recv_pkg()), "dirty"),
    "E4 half a package": (received(frame(b"a") + b"\0", lambda lease: lease.recv_pkg()), "dirty"),
    "E4 a line too many": (received(b"one\ntwo\n", lambda lease: lease.recv_line()), "dirty"),
    "E5 a timeout": (failing(gtcp.Timeout, lambda lease: lease.send_recv_pkg(b"x", timeout=0)), "error"),
    "E5 a timeout of a plain receive": (failing(gtcp.Timeout, lambda lease: lease.recv(1, timeout=0)), "error"),
    "E5 a timeout of an iterator": (failing(gtcp.Timeout, lambda lease: next(lease.lines(timeout=0))), "error"),
    "E5 a timeout of a batch": (failing(gtcp.Timeout, lambda lease: lease.recv_pkgs(2, timeout=0)), "error"),
    "E5 a timeout, then a success": (after_a_timeout, "error"),
    "E7 a send without a reply": (lambda lease, far: lease.send(b"x"), "owed"),
    "E7 a package without a reply": (lambda lease, far: lease.send_pkg(b"x"), "owed"),
    "E7 a batch without replies": (lambda lease, far: lease.send_pkgs([b"x"]), "owed"),
    "E7 a send after the exchange": (lambda lease, far: (exchange(lease, far), lease.send(b"x")), "owed"),
    "E7 two packages, one reply": (two_sends, "owed"),
    "E7 a send, then no exchange": (lambda lease, far: (lease.send(b"x"), lease.send_recv_pkgs([])), "owed"),
    "B4 the peer's close": (after_the_peers_close, "peer_closed"),
    "B7 a reset": (after_a_reset, "peer_closed"),
    "B8 a package above the limit": (a_package_above_the_limit, "error"),
    "B13 a line above the limit": (a_line_above_the_limit, "error"),
    "C10 half a connection": (lambda lease, far: lease.close_write(), "error"),
}


@pytest.mark.parametrize(("use", "reason"), BAD.values(), ids=BAD.keys())
def test_it_is_closed_after(host: Host, make_pool: MakePool, use: Use, reason: str) -> None:
    assert fate(make_pool(host.address), host, use) == reason
    # The next one gets a connection of its own.
    pool = make_pool(host.address)
    with pool.acquire() as lease:
        exchange(lease, host.accept())


def test_E5_the_next_borrower_gets_its_own_reply(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    with pool.acquire() as lease, pytest.raises(gtcp.Timeout):
        lease.send_recv_pkg(b"first", timeout=0)
    far = host.accept()
    assert read_frame(far) == b"first"
    assert far.recv(1) == b""  # it is closed before the reply comes
    far.sendall(frame(b"reply to the first"))
    with pool.acquire() as lease:
        near = host.accept()
        near.sendall(frame(b"second"))
        assert lease.send_recv_pkg(b"?", timeout=LONG) == b"second"


def test_E6_an_exception_in_the_middle_of_an_exchange(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)

    def requests() -> Any:
        with pool.acquire() as lease:
            lease.send_pkg(b"request")
            yield
            lease.recv_pkg()

    generator = requests()
    next(generator)
    generator.close()  # GeneratorExit between request and reply
    assert pool.stats().closed["discarded"] == 1


def test_E7_a_pool_for_one_way_messages(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, one_way=True)
    for _ in range(3):
        with pool.acquire() as lease:
            lease.send_pkg(b"note")
    far = host.accept()
    assert [read_frame(far) for _ in range(3)] == [b"note"] * 3
    assert host.nobody_came()


def test_E7_one_way_forgives_no_failure(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, one_way=True)
    assert fate(pool, host, failing(gtcp.Timeout, lambda lease: lease.recv(1, timeout=0))) == "error"
