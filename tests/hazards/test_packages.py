"""Hazards of the original's package protocol (gtcp_conn_pkg.go) that gtcp does not inherit.

The numbers are those of the project's list of hazards; its severities A and B have a test each.
"""

import tracemalloc

import pytest

import gtcp
from conftest import MakePeer
from support.peers import echo, frame, says, socket_pair
from support.timing import SHORT, quick

INSTANT = SHORT / 20


@pytest.mark.parametrize(("header", "split"), [(header, split) for header in (2, 3, 4) for split in range(1, header)])
def test_H25_a_timeout_inside_a_header_keeps_it(header: int, split: int) -> None:
    option = gtcp.PkgOption(header_size=header)
    wire = frame(b"first", header) + frame(b"second", header)
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        theirs.sendall(wire[:split])
        with pytest.raises(gtcp.Timeout):
            conn.recv_pkg(option, timeout=INSTANT)
        theirs.sendall(wire[split:])
        assert [conn.recv_pkg(option), conn.recv_pkg(option)] == [b"first", b"second"]


@pytest.mark.parametrize("size", [100, 16_384, 60_000, 1_000_000])
def test_H26_a_timeout_inside_a_body_keeps_it(size: int) -> None:
    option = gtcp.PkgOption(header_size=4)
    body = bytes(i % 251 for i in range(size))
    wire = frame(body, 4)
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        for piece in (wire[:5], wire[5 : size // 2], wire[size // 2 : -1]):
            theirs.sendall(piece)
            with pytest.raises(gtcp.Timeout):
                conn.recv_pkg(option, timeout=INSTANT)
        theirs.sendall(wire[-1:] + frame(b"next", 4))
        assert conn.recv_pkg(option) == body
        assert conn.recv_pkg(option) == b"next"


def test_H27_a_package_above_the_limit_breaks_the_connection(peer: MakePeer) -> None:
    option = gtcp.PkgOption(max_data_size=10)
    # The body of the first looks like a package: an attacker's hope.
    with gtcp.Conn(peer(says(frame(frame(b"evil") * 3) + frame(b"good"))).address) as conn:
        with pytest.raises(gtcp.LimitError, match="18 bytes exceeds max_data_size 10"):
            conn.recv_pkg(option)
        for use in (conn.recv_pkg, conn.recv, lambda: conn.send_pkg(b"x")):
            with quick(), pytest.raises(gtcp.BrokenError):
                use()


def test_H27_a_pool_drops_the_broken_connection(peer: MakePeer) -> None:
    with gtcp.Pool(peer(says(frame(bytes(100)) + frame(b"x"))).address) as pool:
        lease = pool.acquire()
        with pytest.raises(gtcp.LimitError):
            lease.recv_pkg(gtcp.PkgOption(max_data_size=10))
        lease.close()
        assert (pool.stats().idle, pool.stats().closed["error"]) == (0, 1)


def test_H28_the_limit_never_exceeds_what_the_header_can_say() -> None:
    for header in (1, 2, 3, 4):
        most = min(256**header - 1, 0x7FFFFFFF)
        assert gtcp.PkgOption(header_size=header, max_data_size=most).max_data_size == most
        for limit in (most + 1, -1):
            with pytest.raises(ValueError, match="max_data_size"):
                gtcp.PkgOption(header_size=header, max_data_size=limit)
    with pytest.raises(ValueError, match="1000"):
        gtcp.PkgOption(header_size=1, max_data_size=1000)


@pytest.mark.parametrize("header", [1, 2])
def test_H28_a_length_is_never_truncated(peer: MakePeer, header: int) -> None:
    option = gtcp.PkgOption(header_size=header)
    with gtcp.Conn(peer(echo).address) as conn:
        too_long = bytes(256**header + 44)
        for call in (conn.send_pkg, conn.send_recv_pkg):
            with pytest.raises(gtcp.LimitError, match=f"{len(too_long)} bytes exceeds max_data_size"):
                call(too_long, option)
        with pytest.raises(gtcp.LimitError):
            conn.send_pkgs([b"fine", too_long], option)
        # Not a byte has left, and the connection is as before.
        assert conn.send_recv_pkg(b"fine", option) == b"fine"
        conn.close_write()
        assert list(conn.packages(option)) == []


@pytest.mark.parametrize("header", [-1, 0, 5, 2**63])
def test_H29_a_header_of_impossible_size_is_refused(header: int) -> None:
    with pytest.raises(ValueError, match="header_size must be from 1 to 4"):
        gtcp.PkgOption(header_size=header)
    with pytest.raises(ValueError, match="header_size must be from 1 to 4"):
        gtcp.PkgOption(header_size=header, max_data_size=10)


def test_H30_a_declared_length_reserves_no_memory() -> None:
    option = gtcp.PkgOption(header_size=4)
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        theirs.sendall(0x7FFFFFFF.to_bytes(4, "big") + b"a little")
        tracemalloc.start()
        try:
            with pytest.raises(gtcp.Timeout):
                conn.recv_pkg(option, timeout=INSTANT)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 1 << 20


def test_H30_a_length_above_the_default_limit_is_refused() -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        theirs.sendall(0x80000000.to_bytes(4, "big"))
        with quick(), pytest.raises(gtcp.LimitError, match=str(0x7FFFFFFF)):
            conn.recv_pkg(gtcp.PkgOption(header_size=4))
