"""The programs at the other end: found or built once, started and stopped around each test."""

import os
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest

import gtcp
from interop.goframe import GoClient, GoServer, StartGoServer
from interop.redis_server import RedisServer
from support.programs import absent, require
from support.timing import LONG

GOPEER = Path(__file__).with_name("gopeer")
BUILD_LIMIT = 180.0

Serve: TypeAlias = Callable[..., str]


@pytest.fixture(scope="session")
def go_binary(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program of gopeer/, built."""
    go = require("go")
    # The machine's own Go or none: no toolchain is downloaded because of a test.
    environment = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [go, *words],
            cwd=GOPEER,
            env=environment,
            timeout=BUILD_LIMIT,
            check=False,
            capture_output=True,
            text=True,
        )

    modules = run("mod", "download")
    if modules.returncode:
        absent(f"the Go modules of gopeer cannot be had: {modules.stderr.strip()}")
    binary = tmp_path_factory.mktemp("gopeer") / "gopeer"
    build = run("build", "-trimpath", "-o", str(binary), ".")
    assert build.returncode == 0, build.stderr
    return str(binary)


@pytest.fixture
def go_server(go_binary: str) -> Iterator[StartGoServer]:
    """Start GoFrame servers: go_server(mode, **flags) returns the address of a new one."""
    with ExitStack() as running:

        def start(mode: str, **flags: int | str) -> str:
            server = GoServer(go_binary, mode, **flags)
            running.callback(server.close)
            return server.address

        yield start


@pytest.fixture
def serve(caplog: pytest.LogCaptureFixture) -> Iterator[Serve]:
    """Start servers of ours: serve(handler) returns the address of a new one.

    At the end all handlers have to come to theirs, and none may have raised anything that the server logs.
    """
    servers = []

    def start(handler: Callable[[gtcp.Conn], object], tls: ssl.SSLContext | None = None) -> str:
        server = gtcp.Server("127.0.0.1:0", handler, tls=tls)
        server.start()
        servers.append(server)
        return f"127.0.0.1:{server.get_listened_port()}"

    yield start
    assert [server.shutdown(LONG) for server in servers] == [0] * len(servers)
    assert [record.getMessage() for record in caplog.get_records("call") + caplog.records] == []


@pytest.fixture
def go_client(go_binary: str, serve: Serve) -> Iterator[GoClient]:
    """A GoFrame client. It needs `serve` so that it hangs up before the servers wait for their handlers."""
    client = GoClient(go_binary)
    yield client
    client.close()


@pytest.fixture(scope="session")
def redis_binary() -> str:
    return require("redis-server")


@pytest.fixture
def redis(redis_binary: str, tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server that no other test uses."""
    server = RedisServer(redis_binary, tmp_path)
    yield server
    assert server.stop() == 0
