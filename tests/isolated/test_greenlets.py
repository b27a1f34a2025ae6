"""Greenlets in processes of their own: without their package, and with Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

import gtcp
from support import child
from support.timing import LONG, eventually, quick


def without_the_package() -> None:
    sys.modules["greenlet"] = None  # type: ignore[assignment]
    for make in (lambda: gtcp.Server("", print, concurrency="greenlets"), lambda: gtcp.run(print)):
        with pytest.raises(ImportError, match=r"greenlets need the greenlet package: pip install gtcp\[greenlets\]"):
            make()
    with (
        gtcp.Server("127.0.0.1:0", lambda conn: conn.send(b"threads")) as server,
        gtcp.Conn(("127.0.0.1", server.get_listened_port()), LONG) as conn,
    ):
        assert conn.recv(7, timeout=LONG) == b"threads"


def test_the_error_without_the_package_names_the_extra() -> None:
    child.run(without_the_package)


PROGRAM = """
import signal, gtcp
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored

def handler(conn):
    for package in conn.packages():
        conn.send_pkg(package)

server = gtcp.Server("127.0.0.1:0", handler, concurrency="greenlets")
"""
SERVER = """
server.set_address("127.0.0.1:%d" % gtcp.get_free_port())
print(server.get_address(), flush=True)
try:
    server.run()
except KeyboardInterrupt:
    print("interrupted")
"""
CLIENT = """
def main():
    with server, gtcp.Conn(server.get_listened_address()) as conn:
        try:
            print(server.get_listened_address(), flush=True)
            conn.recv(1)
        finally:
            print("main ends", flush=True)

try:
    gtcp.run(main)
except KeyboardInterrupt:
    print("interrupted")
"""


@contextlib.contextmanager
def program(text: str) -> Iterator[subprocess.Popen[str]]:
    # Without the folder that it runs in on its path it meets the gtcp that the suite meets.
    settings = os.environ | {"PYTHONSAFEPATH": "1"}
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM + text], stdout=-1, stderr=-1, text=True, env=settings
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def connects(address: str) -> bool:
    with contextlib.suppress(gtcp.RefusedError), gtcp.Conn(address, LONG):
        return True
    return False


@pytest.mark.parametrize(
    ("text", "last_words"), [(SERVER, "interrupted\n"), (CLIENT, "main ends\ninterrupted\n")], ids=["server", "client"]
)
def test_ctrl_c(text: str, last_words: str) -> None:
    with program(text) as running:
        assert running.stdout is not None
        address = running.stdout.readline().strip()
        eventually(lambda: connects(address))
        with gtcp.Conn(address, LONG) as conn:
            assert conn.send_recv_pkg(b"x", timeout=LONG) == b"x"
            with quick(LONG / 5):
                running.send_signal(signal.SIGINT)
                with pytest.raises(gtcp.EOF):
                    conn.recv(1, timeout=LONG)
                assert running.communicate(timeout=LONG) == (last_words, "")
        assert running.returncode == 0
