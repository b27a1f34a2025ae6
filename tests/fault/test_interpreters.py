"""Other interpreters than the one that everybody tests with."""

from __future__ import annotations

import importlib.util

import pytest

from gtcp.testing import Peer, echo_packages
from support import child

IN_SUBINTERPRETER = """
try:
    import gtcp
except ImportError as error:
    assert "interpreter" in str(error).lower(), error
else:
    import socket
    ours, theirs = socket.socketpair()  # an isolated interpreter has no threads for a peer
    with theirs, gtcp.Conn.from_socket(ours) as conn:
        theirs.sendall(b"hello")
        assert conn.recv(5, timeout=10) == b"hello"
"""


def in_a_subinterpreter(here_first: bool) -> None:
    try:
        import _interpreters as interpreters  # type: ignore[import-not-found]
    except ImportError:
        import _xxsubinterpreters as interpreters  # type: ignore[import-not-found]
    if here_first:
        import gtcp

        assert gtcp.Conn
    number = interpreters.create()
    failed = interpreters.run_string(number, IN_SUBINTERPRETER)
    assert failed is None, failed
    interpreters.destroy(number)


@pytest.mark.parametrize("here_first", [True, False])
def test_H14_works_or_refuses_with_an_import_error(here_first: bool) -> None:
    names = ("_interpreters", "_xxsubinterpreters")
    if not any(importlib.util.find_spec(name) for name in names):
        pytest.skip("this Python cannot make interpreters")
    child.run(in_a_subinterpreter, here_first, options=["-W", "ignore"])


def in_a_patched_process(address: str) -> None:
    from gevent import monkey  # type: ignore[import-untyped]

    monkey.patch_all()
    import gtcp

    for _ in range(3):
        with gtcp.PoolConn(address) as lease:
            assert lease.send_recv_pkg(b"hello", timeout=10) == b"hello"
    # Another dial, in which gevent's resolver has its turn, while gtcp's own thread waits.
    with gtcp.PoolConn(address), gtcp.PoolConn(address) as lease:
        assert lease.send_recv_pkg(b"hello", timeout=10) == b"hello"
    try:
        with gtcp.PoolConn(address) as lease:
            lease.recv_pkg(timeout=0.05)
    except gtcp.Timeout:
        pass
    else:
        raise AssertionError("received what nobody sent")


def test_H16_a_monkey_patched_process() -> None:
    pytest.importorskip("gevent", reason="gevent is not installed")
    with Peer(echo_packages()) as peer:
        child.run(in_a_patched_process, peer.address)
