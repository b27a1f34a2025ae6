"""A unit that has begun to come is let in whole, wherever its first bytes are when the server begins to end (F11)."""

from __future__ import annotations

import array
import asyncio
import ctypes
import fcntl
import socket
import ssl
import sys
import termios
import threading
from collections.abc import Iterator

import pytest

import gtcp
from net.ends import Serve
from net.handlers import echo_packages
from support.aio import begun, far_read, linked
from support.calls import Call
from support.loops import LOOPS, run
from support.peers import frame
from support.timing import LONG, eventually
from support.tls import Authority

Ends = tuple[gtcp.Conn, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    with gtcp.Conn.from_socket(near) as conn, far:
        yield conn, far


def in_kernel(fd: int) -> int:
    """Bytes that have come and have not been read."""
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


def test_bytes_in_the_memory_of_the_caller(ends: Ends) -> None:
    conn, far = ends
    block = bytearray(5)
    receiving = Call(conn.recv_into, block, 5).sleeping()
    far.sendall(b"ab")
    eventually(lambda: in_kernel(conn.fileno()) == 0)
    receiving.sleeping()
    conn._drain()
    far.sendall(b"cde")
    assert receiving.result() == 5
    assert block == b"abcde"
    with pytest.raises(gtcp.ClosedError):
        conn.recv_into(block, 5, timeout=LONG)


@pytest.mark.skipif(sys.platform != "linux", reason="which library has the system calls, and the number of FIONREAD")
def test_bytes_of_a_thread_that_waits_for_the_interpreter(ends: Ends) -> None:
    """Who calls C by PyDLL keeps the GIL: what the receiving thread has read it cannot hand on meanwhile."""
    conn, far = ends
    system = ctypes.PyDLL(None)
    left = ctypes.c_int(-1)
    near_fd, far_fd = conn.fileno(), far.fileno()
    receiving = Call(conn.recv_pkg).sleeping()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(LONG)
    try:
        system.send(far_fd, b"\0\5ab", 4, 0)
        for _ in range(1000):
            system.usleep(10_000)
            system.ioctl(near_fd, termios.FIONREAD, ctypes.byref(left))
            if left.value == 0:
                break
        system.usleep(100_000)
        conn._drain()
    finally:
        sys.setswitchinterval(interval)
    far.sendall(b"cde")
    assert receiving.result() == b"abcde"
    with pytest.raises(gtcp.ClosedError):
        conn.recv_pkg(timeout=LONG)


def until_it_has_come(fd: int) -> None:
    """Keeps the thread and all who share it from everything else."""
    while in_kernel(fd) == 0:
        threading.Event().wait(0.001)


def test_a_unit_that_came_while_the_greenlet_was_busy(ends: Ends) -> None:
    pytest.importorskip("greenlet")
    conn, far = ends

    def main() -> None:
        far.sendall(frame(b"first"))
        assert conn.recv_pkg(timeout=LONG) == b"first"
        with pytest.raises(gtcp.Timeout):
            conn.recv_pkg(timeout=0.001)
        far.sendall(frame(b"second"))
        until_it_has_come(conn.fileno())
        conn._drain()
        assert conn.recv_pkg(timeout=LONG) == b"second"
        with pytest.raises(gtcp.ClosedError):
            conn.recv_pkg(timeout=LONG)

    gtcp.run(main)


@pytest.mark.parametrize("kind", LOOPS)
def test_a_unit_that_came_while_the_loop_was_busy(kind: str) -> None:
    async def main() -> None:
        async with linked() as (conn, far):
            far.sendall(frame(b"first"))
            assert await conn.recv_pkg(timeout=LONG) == b"first"
            with pytest.raises(gtcp.Timeout):
                await conn.recv_pkg(timeout=0.001)
            far.sendall(frame(b"second"))
            until_it_has_come(conn.fileno())
            conn._drain()
            assert await conn.recv_pkg(timeout=LONG) == b"second"
            with pytest.raises(gtcp.ClosedError):
                await conn.recv_pkg(timeout=LONG)

    run(kind, main())


@pytest.mark.parametrize("kind", LOOPS)
def test_a_task_that_waits_beside_one_that_sends(kind: str) -> None:
    async def main() -> None:
        async with linked(receive_buffer=4096) as (conn, far):
            news = bytes(8 << 20)
            receiving = await begun(conn.recv_pkg(timeout=LONG))
            sending = [await begun(conn.send(news)) for _ in range(2)]
            conn._drain()
            await far_read(far, len(news))
            assert not receiving.done()
            await far_read(far, len(news))
            await asyncio.gather(*sending)
            with pytest.raises(gtcp.ClosedError):
                await receiving

    run(kind, main())


@pytest.mark.parametrize("concurrency", ["threads", "greenlets", *LOOPS])
def test_half_a_record_of_tls(serve: Serve) -> None:
    authority = Authority()
    server = serve(echo_packages, tls=authority.server())
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = authority.client().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(("127.0.0.1", server.get_listened_port()), LONG) as sock:

        def when_it_has_come(step: object) -> bytes | None:
            while True:
                try:
                    return step()  # type: ignore[operator,no-any-return]
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(65536))

        when_it_has_come(session.do_handshake)
        session.write(b"\0\1a")
        assert when_it_has_come(lambda: session.read(3)) == b"\0\1a"
        session.write(b"\0\5abcde")
        record = outgoing.read()
        sock.sendall(record[:9])
        [conn] = server.connections
        eventually(lambda: in_kernel(conn.fileno()) == 0)
        stopping = Call(server.shutdown, LONG)
        eventually(lambda: server.get_listened_port() == -1)
        sock.sendall(record[9:])
        assert when_it_has_come(lambda: session.read(7)) == b"\0\5abcde"
        assert stopping.result() == 0
