"""gtcp.testing.FaultProxy: each fault does what it says, in its direction only, and nothing else."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

import gtcp
from gtcp.testing import (
    Bandwidth,
    Blackhole,
    FaultProxy,
    Latency,
    LimitData,
    Peer,
    ResetPeer,
    Slicer,
    SlowClose,
    echo,
    refusing_address,
)
from support.timing import LATE, LONG, SHORT, eventually, quick, takes

DATA = bytes(range(256)) * 400


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with Peer(echo) as peer, FaultProxy(peer.address, seed=1) as proxy:
        yield proxy


@contextlib.contextmanager
def pair(proxy: FaultProxy) -> Iterator[gtcp.Conn]:
    with gtcp.Conn(proxy.address, LONG) as conn:
        assert conn.send_recv(b"hello", 5, timeout=LONG) == b"hello"
        yield conn


def test_without_faults_it_is_not_noticed(proxy: FaultProxy) -> None:
    with pair(proxy) as one, pair(proxy) as two:
        for conn in (one, two):
            conn.send(DATA, timeout=LONG)
            conn.close_write()
            assert conn.recv(len(DATA), timeout=LONG) == DATA
            with pytest.raises(gtcp.EOF):
                conn.recv(1, timeout=LONG)
        assert proxy.accepted == 2
    eventually(lambda: proxy.open == 0)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_latency(proxy: FaultProxy, direction: Any) -> None:
    with pair(proxy) as conn:
        with proxy.having(Latency(SHORT), direction), takes(SHORT):
            conn.send_recv(b"hello", 5, timeout=LONG)
        with quick():
            conn.send_recv(b"hello", 5, timeout=LONG)


def test_latency_of_both_directions_adds_up_and_keeps_the_order(proxy: FaultProxy) -> None:
    with pair(proxy) as conn, proxy.having(Latency(SHORT, jitter=SHORT / 10)):
        with takes(2 * SHORT, SHORT / 5 + LATE):
            for i in range(50):
                conn.send(i.to_bytes(2, "big"))
            assert conn.recv(2, timeout=LONG) == b"\0\0"
        assert conn.recv(98, timeout=LONG) == b"".join(i.to_bytes(2, "big") for i in range(1, 50))


def test_bandwidth(proxy: FaultProxy) -> None:
    with pair(proxy) as conn, proxy.having(Bandwidth(len(DATA) / (5 * SHORT)), "down"), takes(4 * SHORT, 3 * SHORT):
        assert conn.send_recv(DATA, len(DATA), timeout=LONG) == DATA


def test_slices(proxy: FaultProxy) -> None:
    sizes: list[int] = []
    with pair(proxy) as conn, proxy.having(Slicer(10, 5, SHORT / 20), "down"):
        conn.send(DATA[:200])
        received = b""
        while len(received) < 200:
            received += (piece := conn.recv(0, timeout=LONG))
            sizes.append(len(piece))
    assert received == DATA[:200]
    assert len(sizes) > 3


def test_a_limit_of_data(proxy: FaultProxy) -> None:
    with pair(proxy) as conn, proxy.having(LimitData(7), "down"):
        conn.send(b"0123456789")
        with pytest.raises(gtcp.EOF) as end:
            conn.recv(10, timeout=LONG)
        assert end.value.partial == b"0123456"


def test_a_slow_close(proxy: FaultProxy) -> None:
    with pair(proxy) as conn, proxy.having(SlowClose(SHORT), "up"), takes(SHORT):
        conn.close_write()
        with pytest.raises(gtcp.EOF):
            conn.recv(1, timeout=LONG)


def test_a_black_hole(proxy: FaultProxy) -> None:
    with pair(proxy) as conn:
        with proxy.having(Blackhole(), "up"), takes(SHORT), pytest.raises(gtcp.Timeout):
            conn.send_recv(b"swallowed", timeout=SHORT)
        conn.send(b"heard")  # no exchange: the one that was swallowed is owed its reply
        assert conn.recv(5, timeout=LONG) == b"heard"


def test_a_black_hole_that_hangs_up(proxy: FaultProxy) -> None:
    with pair(proxy) as conn, proxy.having(Blackhole(SHORT), "up"), takes(0, 2 * SHORT), pytest.raises(gtcp.EOF):
        conn.send_recv(b"swallowed", timeout=LONG)


@pytest.mark.parametrize("after", [0.0, SHORT])
def test_a_reset(proxy: FaultProxy, after: float) -> None:
    with pair(proxy) as conn, takes(after), proxy.having(ResetPeer(after)), pytest.raises(gtcp.ResetError):
        conn.recv(1, timeout=LONG)


def test_freeze_and_thaw(proxy: FaultProxy) -> None:
    with pair(proxy) as conn:
        proxy.freeze()
        with pytest.raises(gtcp.Timeout):
            conn.send_recv(b"hello", 5, timeout=SHORT)
        with gtcp.Conn(proxy.address, LONG) as other:  # the kernel answers for the frozen host
            with pytest.raises(gtcp.Timeout):
                other.send_recv(b"other", 5, timeout=SHORT)
            proxy.thaw()
            assert conn.recv(5, timeout=LONG) == b"hello"
            assert other.recv(5, timeout=LONG) == b"other"


def test_refuse_and_listen(proxy: FaultProxy) -> None:
    with pair(proxy) as conn:
        proxy.refuse()
        with pytest.raises(gtcp.ResetError):
            conn.recv(1, timeout=LONG)
        with pytest.raises(gtcp.RefusedError):
            gtcp.Conn(proxy.address, LONG)
        proxy.listen()
        with pair(proxy):
            assert proxy.open == 1


def test_cut(proxy: FaultProxy) -> None:
    with pair(proxy) as conn:
        proxy.cut()
        with pytest.raises(gtcp.ResetError):
            conn.recv(1, timeout=LONG)
    with pair(proxy):
        pass


def test_faults_reach_connections_that_come_later(proxy: FaultProxy) -> None:
    with proxy.having(LimitData(2), "down"), gtcp.Conn(proxy.address) as conn:
        assert conn.send_recv(b"hello", 2, timeout=LONG) == b"he"
    proxy.inject(Latency(1000))
    proxy.heal()
    with pair(proxy):
        pass


def test_an_upstream_that_refuses_is_a_reset() -> None:
    def use(address: str) -> None:
        with gtcp.Conn(address) as conn:
            conn.send_recv(b"hello", timeout=LONG)

    with refusing_address() as address, FaultProxy(address) as proxy, pytest.raises((gtcp.ResetError, gtcp.PipeError)):
        use(proxy.address)


def test_much_data_both_ways_through_a_slow_reader(proxy: FaultProxy) -> None:
    data = DATA * 40
    with pair(proxy) as conn:
        assert conn.send_recv_pkgs([data] * 2, gtcp.PkgOption(4), timeout=LONG) == [data] * 2


def test_close_is_idempotent_and_closes_all() -> None:
    with Peer(echo) as peer, FaultProxy(peer.address) as proxy, pair(proxy) as conn:
        proxy.close()
        proxy.close()
        proxy.inject(Latency(1))
        with pytest.raises(gtcp.ResetError):
            conn.recv(1, timeout=LONG)
        with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
            sock.connect((proxy.host, proxy.port))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Latency(-1),
        lambda: Latency(float("nan")),
        lambda: Bandwidth(0),
        lambda: Slicer(5, 5),
        lambda: ResetPeer(float("inf")),
    ],
)
def test_impossible_faults(make: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()


def test_an_impossible_direction(proxy: FaultProxy) -> None:
    with pytest.raises(ValueError, match="direction"):
        proxy.inject(Latency(1), "left")  # type: ignore[arg-type]
