"""Unix sockets: addresses, servers, clients, pools; and sockets that somebody else opened."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import gtcp
from net.ends import Serve
from net.handlers import echo_packages
from support.peers import listen
from support.timing import LONG, SHORT


def test_server_client_and_pool(serve: Serve, tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/s"
    server = serve(echo_packages, address)
    assert str(server.get_listened_address()) == address
    with gtcp.Conn(address, LONG) as conn:
        assert conn.send_recv_pkg(b"hello", timeout=LONG) == b"hello"
        assert (str(conn.remote_addr()), str(conn.local_addr())) == (address, "unix://")
    with gtcp.Pool(address) as pool:
        for _ in range(3):
            with pool.acquire(LONG) as lease:
                assert lease.send_recv_pkg(b"hello", timeout=LONG) == b"hello"
        assert pool.stats().created == 1
    server.close()
    assert not (tmp_path / "s").exists()
    with pytest.raises(gtcp.SocketError, match="No such file"):
        gtcp.dial(address, LONG)


def test_F13_a_file_that_was_left_over_is_replaced_one_in_use_is_not(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    serve(echo_packages, f"unix://{path}")
    with pytest.raises(gtcp.SocketError, match="in use"):
        serve(echo_packages, f"unix://{path}")
    (tmp_path / "file").write_text("precious")
    with pytest.raises(gtcp.SocketError, match="in use"):
        serve(echo_packages, f"unix://{tmp_path}/file")
    assert (tmp_path / "file").read_text() == "precious"


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        first.connect(str(tmp_path / "s"))
        with pytest.raises(gtcp.Timeout):
            gtcp.dial(f"unix://{tmp_path}/s", SHORT)


@pytest.mark.parametrize("bad", ["unix://", "unix:///", "unix://relative", "unix:///a\0b", "unix:///" + "x" * 103])
def test_A6_bad_paths(bad: str) -> None:
    with pytest.raises(ValueError, match=r"Unix|path"):
        gtcp.Server(bad)


def test_a_socket_of_the_callers_outlives_the_server() -> None:
    with listen() as sock:
        for _ in range(2):
            with gtcp.Server(handler=echo_packages, sock=sock) as server, gtcp.Conn(sock.getsockname(), LONG) as conn:
                assert conn.send_recv_pkg(b"hello", timeout=LONG) == b"hello"
                assert server.get_listened_port() == sock.getsockname()[1]


ACTIVATED = """
import os
os.environ["LISTEN_PID"] = str(os.getpid())
import gtcp
[sock] = gtcp.inherited_sockets()
assert gtcp.inherited_sockets() == []
print(sock.getsockname()[1], os.get_inheritable(sock.fileno()))
"""


def test_sockets_of_a_service_manager() -> None:
    with listen() as sock:
        port = sock.getsockname()[1]

        def place() -> None:
            os.dup2(sock.fileno(), 3)

        done = subprocess.run(
            [sys.executable, "-c", ACTIVATED],
            preexec_fn=place,
            close_fds=False,
            env={**os.environ, "LISTEN_FDS": "1"},
            capture_output=True,
            text=True,
            check=True,
            timeout=LONG,
        )
    assert done.stdout == f"{port} False\n"


NO_SOCKET = """
import os, gtcp
for fds in ("1", "2"):
    os.environ.update(LISTEN_FDS=fds, LISTEN_PID=str(os.getpid()))
    try:
        gtcp.inherited_sockets()
    except OSError:
        print("no socket", "LISTEN_FDS" in os.environ)
"""


def test_what_a_service_manager_leaves_open_is_no_socket() -> None:
    command = [sys.executable, "-W", "error", "-c", NO_SOCKET]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LONG)
    assert (done.stdout, done.stderr) == ("no socket False\n" * 2, "")
