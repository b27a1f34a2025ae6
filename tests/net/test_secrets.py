"""What went over connections stands in no record that servers and pools log, and in no error of a pool (S23, F5)."""

import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest

import gtcp
from net.ends import Host, MakePool, Serve, run_by
from support.faces import everywhere
from support.loops import LOOPS
from support.peers import frame, read_frame, reset
from support.timing import LONG, SHORT, eventually

SECRET = b"correct-horse-battery"
SMALL = gtcp.PkgOption(2, 5)


concurrency = run_by("threads", "greenlets", *LOOPS)


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """With the traces, as a handler of records writes them, and what they hold besides."""
    return caplog.text + "".join(f"{record.args!r} {record.exc_info!r}" for record in caplog.records)


def close(sock: socket.socket) -> None:
    sock.close()


HANDLERS: dict[str, tuple[Callable[[Any], object], Callable[[socket.socket], object]]] = {
    "too large": (lambda conn: conn.recv_pkg(SMALL), lambda sock: sock.recv(1)),
    "cut off": (lambda conn: conn.recv(100), close),
    "reset": (lambda conn: conn.recv(100), reset),
    "too large to send": (lambda conn: conn.send_pkg(conn.recv_pkg(), SMALL), lambda sock: sock.recv(1)),
    "text": (lambda conn: conn.send(conn.recv_pkg().decode()), lambda sock: sock.recv(1)),
    "of its own": (lambda conn: {}[len(conn.recv_pkg())], lambda sock: sock.recv(1)),
}


@pytest.mark.parametrize("name", HANDLERS)
def test_F5_S23_no_record_of_a_handler_that_fails_holds_payload(
    serve: Serve, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.DEBUG, "gtcp")
    handler, end = HANDLERS[name]
    server = serve(handler)
    with socket.create_connection(("127.0.0.1", server.get_listened_port()), LONG) as sock:
        sock.sendall(frame(SECRET))
        end(sock)
    eventually(lambda: caplog.records)
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info
    assert SECRET.decode() not in logged(caplog)


@everywhere
def test_F5_S23_a_pool_tells_nothing_of_what_its_connections_carry(
    make_pool: MakePool, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "gtcp")

    def fail(conn: Any) -> None:
        raise LookupError("a hook that fails")

    pool = make_pool(host.address, max_size=1, on_release=fail, check=fail)
    told: list[str] = []

    def tell(error: BaseException) -> None:
        told.append(f"{error} {error!r} {error.args} {pool!r} {pool.stats()}")

    lease = pool.acquire(LONG)
    far = host.accept()
    lease.send_pkg(SECRET)
    assert read_frame(far) == SECRET
    far.sendall(frame(SECRET))
    with pytest.raises(gtcp.PoolTimeout) as nobody:
        pool.acquire(0)
    tell(nobody.value)
    assert lease.recv_pkg(timeout=LONG) == SECRET
    lease.close()  # clean: its hook fails
    far.sendall(SECRET)  # nobody has asked for it
    with pool.acquire(LONG) as lease:
        far = host.accept()
        far.sendall(frame(SECRET)[:-1])
        with pytest.raises(gtcp.Timeout) as late:
            lease.send_recv_pkg(SECRET, timeout=SHORT)
        tell(late.value)
        told.append(repr(lease))
    with pytest.raises(gtcp.ClosedError) as returned:
        lease.send(SECRET)
    tell(returned.value)
    pool.close()
    with pytest.raises(gtcp.PoolClosed) as closed:
        pool.acquire()
    tell(closed.value)
    assert [record.message for record in caplog.records] == [f"on_release of the pool of {pool.addr} failed"]
    assert SECRET.decode() not in "".join(told) + logged(caplog)
