"""The types of the public API, as a type checker sees them. Checked by mypy, never run.

Every public name appears here once, so that a change of a type is a change of this file.
"""

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

from typing_extensions import assert_type

import gtcp
import gtcp.aio
import gtcp.contrib.gevent
from gtcp import _core, _greenlets


def connections(sock: socket.socket, buffer: bytearray) -> None:
    assert_type(gtcp.Conn(("127.0.0.1", 8999), None), gtcp.Conn)
    assert_type(gtcp.Conn.from_socket(sock), gtcp.Conn)
    with gtcp.Conn("127.0.0.1:8999", timeout=5.0) as conn:
        assert_type(conn, gtcp.Conn)

    assert_type(conn.recv(), bytes)
    assert_type(conn.recv(5, gtcp.Retry(count=1), timeout=1), bytes)
    assert_type(conn.recv_line(max_size=100, timeout=None), bytes)
    assert_type(conn.recv_till(b"\r\n", max_size=100, timeout=1.0), bytes)
    assert_type(conn.recv_into(buffer), int)
    assert_type(conn.send_recv(b"ping", 4, timeout=1.0), bytes)
    assert_type(conn.recv_with_timeout(5, 1.0), bytes)
    assert_type(conn.send_recv_with_timeout(memoryview(b"ping"), 4, 1.0), bytes)

    option = gtcp.PkgOption(header_size=4, max_data_size=1000, retry=gtcp.Retry(count=3))
    assert_type(conn.recv_pkg(option, timeout=1.0), bytes)
    assert_type(conn.send_recv_pkg(b"ping", option), bytes)
    assert_type(conn.recv_pkg_with_timeout(1.0, option), bytes)
    assert_type(conn.send_recv_pkg_with_timeout(b"ping", 1.0), bytes)
    assert_type(conn.recv_pkgs(3, option), list[bytes])
    assert_type(conn.send_recv_pkgs([b"a", bytearray(b"b")]), list[bytes])
    assert_type(conn.packages(option), Iterator[bytes])
    assert_type(conn.lines(), Iterator[bytes])

    assert_type(conn.local_addr(), gtcp.Address)
    assert_type(conn.remote_addr().host, str)
    assert_type(conn.remote_addr().port, int)
    assert_type(conn.fileno(), int)
    assert_type(conn.closed, bool)
    assert_type(conn.is_alive(), bool)
    assert_type(conn.detach(), socket.socket)


def procedures(conn: gtcp.Conn) -> None:
    """What answers nothing: a type checker rejects the use of the value."""
    conn.send(b"ping", gtcp.Retry(), timeout=1.0)
    conn.send_with_timeout(b"ping", 1.0)
    conn.send_pkg(bytearray(b"ping"), gtcp.PkgOption())
    conn.send_pkg_with_timeout(b"ping", 1.0)
    conn.send_pkgs([b"a", b"b"])
    with conn.gathered() as same:
        assert_type(same, gtcp.Conn)
    conn.flush(timeout=1.0)
    conn.set_deadline(None)
    conn.set_deadline_recv(1.5)
    conn.set_deadline_send(2)
    conn.set_buffer_wait_recv(0.01)
    conn.close_write()
    conn.abort()
    conn.close()


def pools() -> None:
    with gtcp.Pool("127.0.0.1:8999", check=False) as pool:
        assert_type(pool, gtcp.Pool)
    assert_type(gtcp.get_pool("127.0.0.1:8999"), gtcp.Pool)
    with pool.acquire(timeout=1.0) as lease:
        assert_type(lease, gtcp.PoolConn)
        assert_type(lease.recv_pkg(), bytes)
        lease.discard()
    with gtcp.PoolConn("127.0.0.1:8999") as lease:
        assert_type(lease, gtcp.PoolConn)
    plain: gtcp.Conn = lease
    plain.close()
    assert_type(pool.stats(), gtcp.PoolStats)
    assert_type(pool.stats().closed, dict[str, int])
    pool.clear()
    pool.expire()
    pool.resize(None)
    pool.prefill(3, timeout=1.0)
    assert_type(pool.close(), int)
    assert_type(pool.close(timeout=None), int)
    assert_type(gtcp.pools(), list[gtcp.Pool])
    assert_type(gtcp.PoolTimeout().stats, gtcp.PoolStats | None)


def hooks() -> None:
    def dial(addr: gtcp.Address, timeout: float | None) -> socket.socket:
        return gtcp.dial(addr, timeout)

    def check(lease: gtcp.PoolConn) -> bool:
        return lease.send_recv(b"PING", 4) == b"PONG"

    def closed(conn: gtcp.Conn, reason: str) -> None:
        assert_type(conn.local_addr(), gtcp.Address)
        assert_type(reason, str)

    gtcp.Pool("127.0.0.1:8999", dial=dial, check=check, on_close=closed, on_connect=lambda conn: conn.recv_line())
    gtcp.get_pool(
        "127.0.0.1:8999",
        max_size=3,
        order="fifo",
        check=True,
        socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)],
        on_release=lambda lease: assert_type(lease, gtcp.PoolConn),
    )
    gtcp.get_pool("127.0.0.1:8999", max_sise=3)  # type: ignore[call-arg]
    gtcp.get_pool("127.0.0.1:8999", order="random")  # type: ignore[arg-type]


def servers() -> None:
    def handler(conn: gtcp.Conn) -> None:
        conn.send(conn.recv())

    with gtcp.Server("127.0.0.1:0", handler, "name") as server:
        assert_type(server, gtcp.Server)
    assert_type(gtcp.get_server(), gtcp.Server)
    assert_type(server.get_address(), str | tuple[str, int] | gtcp.Address)
    assert_type(server.get_listened_address(), gtcp.Address | None)
    assert_type(server.get_listened_port(), int)
    assert_type(server.connections, list[gtcp.Conn])
    assert_type(server.stats(), gtcp.ServerStats)
    assert_type(server.shutdown(1.0), int)
    for sock in gtcp.inherited_sockets():
        gtcp.Server(handler=handler, sock=sock, on_close=lambda conn, error: assert_type(conn, gtcp.Conn))
    gtcp.serve("127.0.0.1:0", handler, processes=2, idle_timeout=60.0)
    gtcp.serve("127.0.0.1:0", handler, idle_timeuot=60.0)  # type: ignore[call-arg]
    server.set_address(gtcp.FREE_PORT_ADDRESS)
    server.set_handler(handler)
    server.start()
    server.run()
    assert_type(server.shutdown(1.0), int)
    server.close()


def tls(context: ssl.SSLContext) -> None:
    assert_type(gtcp.load_key_crt("crt.pem", Path("key.pem"), ca_file="ca.pem", server_side=True), ssl.SSLContext)
    server = gtcp.Server(tls=context)
    server.set_tls_config(context)
    server.set_tls_key_crt("crt.pem", Path("key.pem"))
    server.reload_tls()
    gtcp.get_pool("localhost:8999", tls=context)
    gtcp.PoolConn("localhost:8999", tls=True).discard()
    with gtcp.Conn("127.0.0.1:8999", tls=True, server_hostname="localhost") as conn:
        assert_type(conn.tls_info(), gtcp.TLSInfo | None)
        conn.start_tls(context, server_side=True, timeout=1.0)
    info = conn.tls_info()
    assert info is not None
    assert_type(info.version, str | None)
    assert_type(info.resumed, bool)
    ssl_errors: list[type[ssl.SSLError]] = [gtcp.TLSError, gtcp.CertificateError, gtcp.TruncatedError]
    del ssl_errors


def functions() -> None:
    gtcp.send("127.0.0.1:8999", b"ping")
    gtcp.send_with_timeout("127.0.0.1:8999", b"ping", 1.0)
    gtcp.send_pkg("127.0.0.1:8999", b"ping")
    gtcp.send_pkg_with_timeout("127.0.0.1:8999", b"ping", 1.0)
    assert_type(gtcp.send_recv("127.0.0.1:8999", b"ping", 4), bytes)
    assert_type(gtcp.send_recv_with_timeout("127.0.0.1:8999", b"ping", 4, 1.0), bytes)
    assert_type(gtcp.send_recv_pkg("127.0.0.1:8999", b"ping"), bytes)
    assert_type(gtcp.send_recv_pkg_with_timeout("127.0.0.1:8999", b"ping", 1.0), bytes)
    assert_type(gtcp.dial(gtcp.Address("127.0.0.1", 8999)), socket.socket)
    assert_type(gtcp.dial("127.0.0.1:8999", timeout=1.0), socket.socket)
    assert_type(gtcp.get_free_port(), int)
    assert_type(gtcp.get_free_ports(3), list[int])
    assert_type(gtcp.FREE_PORT_ADDRESS, str)


def errors(error: gtcp.Error, end: gtcp.EOF) -> None:
    assert_type(error.sent, int | None)
    assert_type(end.partial, bytes)
    assert_type(end.expected, int | None)
    os_errors: list[type[OSError]] = [gtcp.Timeout, gtcp.EOF, gtcp.ClosedError, gtcp.PoolClosed]
    timeouts: list[type[TimeoutError]] = [gtcp.Timeout, gtcp.PoolTimeout]
    misuse: list[type[Exception]] = [gtcp.LimitError, gtcp.ConcurrencyError, gtcp.BrokenError]
    kernel: list[type[gtcp.SocketError]] = [
        gtcp.RefusedError,
        gtcp.ResetError,
        gtcp.AbortedError,
        gtcp.PipeError,
        gtcp.TimedOutError,
        gtcp.DeniedError,
    ]
    names: type[socket.gaierror] = gtcp.ResolveError
    assert_type(error.replies, list[bytes] | None)
    del os_errors, timeouts, misuse, kernel, names


def rejected(conn: gtcp.Conn) -> None:
    """What a type checker must not let pass: an ignore without an error beneath it fails the check."""
    gtcp.Conn(8999)  # type: ignore[arg-type]
    gtcp.Pool("127.0.0.1:8999", order="random")  # type: ignore[arg-type]
    gtcp.Server(":0", "handler")  # type: ignore[arg-type]
    gtcp.Retry(count=0.5)  # type: ignore[arg-type]
    gtcp.PkgOption().header_size = 4  # type: ignore[misc]
    conn.send("text")  # type: ignore[arg-type]
    conn.recv("5")  # type: ignore[arg-type]
    conn.recv_till("\n")  # type: ignore[arg-type]
    conn.send_pkg(b"ping", gtcp.Retry())  # type: ignore[arg-type]
    conn.closed = True  # type: ignore[misc]
    conn.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def core(parser: _core.Parser, signal: _core.Signal) -> None:
    """The contract of the extension module, as far as other modules and tests rely on it."""
    assert_type(_core.to_deadline(None), None)
    assert_type(_core.to_deadline(1), float | None)
    assert_type(_core.remaining(None), None)
    assert_type(_core.remaining(1.0), float)
    assert_type(_core.remaining(_core.to_deadline(1.0)), float | None)
    assert_type(_core.wait_any({0: _core.POLLIN | _core.POLLOUT}, 1.0), list[int])
    _core.sleep(0.1)
    parser.feed(bytearray(b"x"))
    assert_type(parser.buffered, int)
    assert_type(parser.take_exact(1), bytes | None)
    assert_type(parser.take_pkg(2, 65535), bytes | None)
    assert_type(parser.take_pkgs(2, 65535, [], -1), int)
    assert_type(parser.take_till(b"\n", 100, line=True), bytes | None)
    signal.set()
    assert_type(signal.is_set, bool)
    assert_type(signal.wait(None), bool)
    assert_type(_core.alarm, _core.Alarm)
    assert_type(_core.alarm.attend(), int)
    assert_type(_core.REASON_NAMES, tuple[str, ...])


def greenlets() -> None:
    def work(first: int, second: str = "") -> bytes:
        return bytes(first) + second.encode()

    assert_type(_greenlets.run(work, 1, "a"), bytes)
    fiber = _greenlets.spawn(work, 1)
    assert_type(fiber.get(timeout=1.0), bytes)
    assert_type(fiber.join(), bool)
    assert_type(fiber.dead, bool)
    fiber.kill()
    _greenlets.spawn(work, "1")  # type: ignore[arg-type]
    hub = _core.Hub(print)
    assert_type(hub.spawn(work, 1, "a").get(), bytes)
    hub.run(hub.spawn(work, 1))
    hub.stop()
    assert_type(_core.current_hub(), _core.Hub | None)


async def asynchronous(address: gtcp.Address) -> None:
    async def check(lease: gtcp.aio.PoolConn) -> bool:
        return await lease.send_recv(b"PING", 4) == b"PONG"

    async def dial(addr: gtcp.Address, timeout: float | None) -> gtcp.aio.Conn:
        return await gtcp.aio.connect(addr, timeout)

    async with gtcp.aio.Pool("127.0.0.1:8999", max_size=3, check=check, dial=dial) as pool:
        assert_type(pool, gtcp.aio.Pool)
    async with pool.acquire(timeout=1.0) as lease:
        assert_type(lease, gtcp.aio.PoolConn)
        assert_type(await lease.send_recv_pkg(b"ping"), bytes)
        lease.discard()
    assert_type(await pool.acquire(), gtcp.aio.PoolConn)
    assert_type(await gtcp.aio.PoolConn("127.0.0.1:8999", tls=True), gtcp.aio.PoolConn)
    async with gtcp.aio.PoolConn(address) as lease:
        assert_type(lease, gtcp.aio.PoolConn)
        async for line in lease.lines():
            assert_type(line, bytes)
    plain: gtcp.aio.Conn = lease
    await plain.close()
    assert_type(pool.stats(), gtcp.PoolStats)
    pool.clear()
    pool.expire()
    pool.resize(None)
    await pool.prefill(3, timeout=1.0)
    assert_type(await pool.close(timeout=None), int)
    assert_type(
        gtcp.aio.get_pool(address, max_size=3, check=True, on_connect=lambda conn: conn.recv_line()), gtcp.aio.Pool
    )
    assert_type(gtcp.aio.pools(), list[gtcp.aio.Pool])
    gtcp.aio.get_pool(address, max_sise=3)  # type: ignore[call-arg]


def waiting() -> None:
    def wait(fd: int, events: int, timeout: float | None) -> None: ...

    gtcp.set_wait_function(wait)
    gtcp.set_wait_function(wait, event=threading.Event)
    gtcp.set_wait_function(None)
    gtcp.contrib.gevent.install()
