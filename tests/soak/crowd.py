"""Ten thousand connections: half of them talk all the time, all of them are answered at the end.

Of each kind that a server has: threads, greenlets, and pkg_handler's connections that have no stack while they wait.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

FRAME = b"\0\5hello"
PROGRAM = """
import gtcp, os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
def echo(conn):
    for package in conn.packages():
        conn.send_pkg(package)
kind = sys.argv[1]
handler = gtcp.pkg_handler(lambda package: package) if kind == "pkg_handler" else echo
concurrency = "threads" if kind == "threads" else "greenlets"
with gtcp.Server("127.0.0.1:0", handler, concurrency=concurrency, backlog=4096, idle_timeout=600.0) as server:
    print(server.get_listened_port(), flush=True)
    sys.stdin.readline()
    print(len(server.connections), flush=True)
    sys.stdin.readline()
    print(server.shutdown(60.0), flush=True)
"""


def hold(count: int, seconds: float) -> None:
    """`count` connections are held for so long; every second one is answered meanwhile, and all in the end."""
    kinds = ["threads"]
    if importlib.util.find_spec("greenlet") is not None:
        kinds += ["greenlets", "pkg_handler"]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert hard > count + 100, f"the limit of descriptors is {hard}"
    for kind in kinds:
        with program(kind) as (process, port):
            _hold(process, port, kind, count, seconds)


def _hold(process: subprocess.Popen[str], port: int, kind: str, count: int, seconds: float) -> None:
    with contextlib.ExitStack() as stack:
        begin = time.monotonic()
        socks = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 30.0)) for _ in range(count)]
        answered(socks)
        ready = time.monotonic()
        for _ in range(5):
            answered(socks)  # a thread's stack has its size only after some waits
        before = resident(process.pid)
        rounds = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answered(socks[::2])
            rounds += 1
        answered(socks)
        assert ask(process) == str(count)
        grown = resident(process.pid) - before
        assert grown <= 16 << 20, f"{grown} bytes more for the same connections"
        begun = time.monotonic()
        cut = ask(process)
        assert cut == "0", f"{cut} were cut although all were idle"
        for sock in socks:
            assert sock.recv(1) == b""
        print(
            f"crowd: {count} connections, {kind}, held {seconds:.0f} s, opened and answered in {ready - begin:.1f} s, "
            f"{rounds} rounds of {count // 2}, {before // count} bytes each, ended in {time.monotonic() - begun:.1f} s",
            flush=True,
        )


def answered(socks: list[socket.socket]) -> None:
    for i in range(0, len(socks), 500):
        for sock in socks[i : i + 500]:
            sock.sendall(FRAME)
        for sock in socks[i : i + 500]:
            got = sock.recv(100)
            while len(got) < len(FRAME):
                more = sock.recv(100)
                assert more, "closed in the middle"
                got += more
            assert got == FRAME


def ask(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@contextlib.contextmanager
def program(kind: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    with subprocess.Popen([sys.executable, "-c", PROGRAM, kind], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
