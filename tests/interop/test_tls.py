"""TLS with peers that others have written: GoFrame's gtcp, OpenSSL's own programs, Redis."""

import asyncio
import contextlib
import re
import select
import signal
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import gtcp
import gtcp.aio
from interop.conftest import Serve
from interop.goframe import GoClient, StartGoServer
from interop.process import LineProcess
from interop.redis_server import RedisServer
from support.aio import begun
from support.loops import run
from support.programs import require
from support.timing import LONG
from support.tls import Authority, Files

pytestmark = pytest.mark.timeout(400)  # the first test builds the Go program

SIZES = [0, 1, 255, 16_384, 65_535]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def files(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return authority.files(tmp_path_factory.mktemp("certificates"))


def echo(conn: gtcp.Conn) -> None:
    for package in conn.packages(timeout=LONG):
        conn.send_pkg(package, timeout=LONG)


def echo_lines(conn: gtcp.Conn) -> None:
    for line in conn.lines(timeout=LONG):
        conn.send(b"> " + line + b"\n", timeout=LONG)


def test_our_client_and_gos_server(go_server: StartGoServer, authority: Authority, files: Files) -> None:
    address = go_server("package", crt=str(files[0]), key=str(files[1]))
    with gtcp.Conn(address, LONG, tls=authority.client()) as conn:
        for size in SIZES:
            assert conn.send_recv_pkg(bytes(size), timeout=LONG) == bytes(size)
        info = conn.tls_info()
        assert info is not None
        assert info.version == "TLSv1.3"
    with pytest.raises(gtcp.CertificateError):
        gtcp.Conn(address, LONG, tls=True)


def test_E24_leases_of_gos_server_share_one_connection(
    go_server: StartGoServer, authority: Authority, files: Files
) -> None:
    address = go_server("package", crt=str(files[0]), key=str(files[1]))
    with gtcp.Pool(address, tls=authority.client()) as pool:
        for i in range(100):
            with pool.acquire(LONG) as lease:
                assert lease.send_recv_pkg(b"%d" % i, timeout=LONG) == b"%d" % i
        assert pool.stats().created == 1


def test_gos_client_and_our_server(serve: Serve, go_client: GoClient, authority: Authority, files: Files) -> None:
    address = serve(echo, tls=gtcp.load_key_crt(files[0], files[1], server_side=True))
    go_client.call("dial_tls", files[2].read_bytes(), addr=address)
    for size in SIZES:
        assert go_client.call("send_recv_pkg", bytes(size)).data == bytes(size)
    packages = [b"%d" % i for i in range(1000)]
    assert go_client.call("send_recv_pkgs", items=packages).items == packages
    go_client.call("close")


@pytest.fixture
def s_server(files: Files) -> Iterator[tuple[LineProcess, str]]:
    """`openssl s_server` and its address; what it is told on its input goes to the client, "K" is a key update."""
    crt, key, _ = files
    command = ["s_server", "-accept", "127.0.0.1:0", "-cert", str(crt), "-key", str(key)]
    process = LineProcess([require("openssl"), *command])
    address = None
    while address is None:
        line = process.read_line()
        assert line is not None
        found = re.match(rb"ACCEPT (127\.0\.0\.1:\d+)", line)
        address = found and found[1].decode()
    yield process, address
    process.stop(signal.SIGTERM)


def until(process: LineProcess, wanted: bytes) -> None:
    """Read the process's output up to this line."""
    while (line := process.read_line()) is not None:
        if line.strip() == wanted:
            return
    raise AssertionError(f"the output ended without {wanted!r}")


def say(server: LineProcess, line: bytes, conn: gtcp.Conn) -> None:
    """Have the server say a line. Lines that it reads together with a command are lost, so it may be told again."""
    for _ in range(10):
        server.write_line(line)
        with contextlib.suppress(gtcp.Timeout):
            while conn.recv_line(timeout=LONG / 10) != line:
                pass  # the one before, said twice
            return
    raise AssertionError(f"the server never said {line!r}")


@pytest.mark.parametrize("update", [b"K", b"k"])
def test_G8_the_peer_updates_its_keys(s_server: tuple[LineProcess, str], authority: Authority, update: bytes) -> None:
    process, address = s_server
    with gtcp.Conn(address, LONG, tls=authority.client()) as conn:
        for i in range(3):
            conn.send(b"question %d\n" % i, timeout=LONG)
            until(process, b"question %d" % i)
            process.write_line(update)
            say(process, b"answer %d" % i, conn)


def test_G8_the_peer_negotiates_anew(s_server: tuple[LineProcess, str], authority: Authority) -> None:
    """As TLS 1.2 can: a send in the middle of that needs records of the peer's first."""
    process, address = s_server
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with gtcp.Conn(address, LONG, tls=context) as conn:
        for i in range(5):
            conn.send(b"question %d\n" % i, timeout=LONG)
            until(process, b"question %d" % i)
            process.write_line(b"r")
            assert select.select([conn], [], [], LONG)[0]
            with pytest.raises(gtcp.Timeout):
                conn.recv(1, timeout=0)
            conn.send(b"in the middle %d\n" % i, timeout=LONG)
            until(process, b"in the middle %d" % i)
            say(process, b"answer %d" % i, conn)


def test_G8_a_send_leaves_the_records_to_the_task_that_receives(
    s_server: tuple[LineProcess, str], authority: Authority
) -> None:
    """In the middle of a renegotiation a send needs records; in a loop both calls are of one thread.

    On uvloop, which looks at timers first: after each long step of somebody else the send has come before the receive.
    """
    process, address = s_server
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    async def hold_up() -> None:
        while True:
            time.sleep(0.02)  # noqa: ASYNC251 (all that comes of one turn is there at once)
            await asyncio.sleep(0)

    async def main() -> None:
        async with gtcp.aio.connect(address, LONG, tls=context) as conn:
            holding_up = await begun(hold_up())
            for i in range(15):
                receiving = await begun(conn.recv_line(timeout=LONG))
                process.write_line(b"r")
                await asyncio.sleep(0)
                process.write_line(b"answer %d" % i)
                for _ in range(10):
                    await conn.send(b"question\n", timeout=LONG)
                    await asyncio.sleep(0)
                while not receiving.done():  # lines that the server reads together with a command are lost
                    process.write_line(b"answer %d" % i)
                    await asyncio.wait([receiving], timeout=LONG / 20)
                    assert conn.buffered == 0 or receiving.done()
                assert receiving.result().startswith(b"answer ")
                with contextlib.suppress(gtcp.Timeout):
                    while True:  # what was told again
                        await conn.recv_line(timeout=LONG / 100)
            holding_up.cancel()

    run("uvloop", main(), 10 * LONG)


def test_G8_key_updates_and_tickets_of_an_idle_connection_are_silence(
    s_server: tuple[LineProcess, str], authority: Authority
) -> None:
    process, address = s_server
    with gtcp.Pool(address, tls=authority.client()) as pool:
        for i in range(3):
            with pool.acquire(LONG) as lease:
                lease.send(b"question %d\n" % i, timeout=LONG)
                until(process, b"question %d" % i)
                say(process, b"answer %d" % i, lease)
            process.write_line(b"k")
        assert pool.stats().created == 1
        with pool.acquire(LONG) as lease:
            lease.send(b"last\n", timeout=LONG)
            until(process, b"last")
            lease.discard()


def test_openssls_client_and_our_server(serve: Serve, authority: Authority, files: Files) -> None:
    address = serve(echo_lines, tls=authority.server())
    command = [
        "s_client",
        "-connect",
        address,
        "-CAfile",
        str(files[2]),
        "-verify_return_error",
        "-verify_ip",
        "127.0.0.1",
    ]
    client = LineProcess([require("openssl"), *command], errors_too=True)
    for i in range(3):
        client.write_line(b"line %d" % i)
        until(client, b"> line %d" % i)
        client.write_line(b"K")  # G8
        until(client, b"KEYUPDATE")
    client.stop()


def test_redis_over_tls(redis_binary: str, authority: Authority, files: Files, tmp_path: Path) -> None:
    redis = RedisServer(redis_binary, tmp_path, files)
    try:
        with gtcp.Pool(redis.address, tls=authority.client()) as pool:
            for i in range(100):
                with pool.acquire(LONG) as lease:
                    lease.send(b"SET key %d\r\nGET key\r\n" % i, timeout=LONG)
                    assert lease.recv_line(timeout=LONG) == b"+OK\r"
                    assert lease.recv_line(timeout=LONG).startswith(b"$")
                    assert lease.recv_line(timeout=LONG) == b"%d\r" % i
            assert pool.stats().created == 1
    finally:
        assert redis.stop() == 0
