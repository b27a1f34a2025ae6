"""Descriptors: their numbers may be large, and no other program inherits them.

Row ids are those of the project's table of faults.
"""

import fcntl
import os
import resource
import socket
import subprocess
import sys

import pytest

import gtcp
from support import child
from support.peers import Peer, echo, socket_pair
from support.timing import LONG, SHORT, takes

# Prints which descriptors of the process are sockets.
LIST_SOCKETS = """
import os, stat
for name in os.listdir("/dev/fd"):
    try:
        if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
            print(name)
    except OSError:
        pass
"""


def large_numbers(least: int) -> None:
    """Everything that waits for a descriptor, with a number that select(2) could not say."""
    occupied: list[int] = []
    with Peer(echo) as peer, socket_pair() as (ours, theirs):
        resource.setrlimit(resource.RLIMIT_NOFILE, (least + 100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        while not occupied or occupied[-1] < least:
            occupied.append(fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD_CLOEXEC, 0))
        with gtcp.Conn.from_socket(socket.socket(fileno=occupied.pop())) as conn:
            assert conn.fileno() == least
            with takes(SHORT):
                try:
                    conn.recv(1, timeout=SHORT)
                except gtcp.Timeout:
                    theirs.sendall(b"x")
            assert conn.recv(1, timeout=LONG) == b"x"
        with gtcp.Pool(peer.address) as pool, pool.acquire() as lease:
            assert lease.fileno() >= least
            huge = bytes(60_000)
            assert lease.send_recv_pkgs([huge] * 20, timeout=LONG) == [huge] * 20
        with gtcp.Server("127.0.0.1:0", lambda conn: conn.send(conn.recv(1))) as server:
            there = server.get_listened_address()
            assert there is not None
            assert gtcp.send_recv(there, b"y", 1, timeout=LONG) == b"y"


def without_time_limit() -> None:
    """Others may read from a socket whose descriptor's number was asked for."""
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        for receive in (lambda: conn.recv(1, timeout=LONG), lambda: conn.recv(1)):
            theirs.sendall(b"x")
            assert receive() == b"x"
            with socket.socket(fileno=os.dup(conn.fileno())) as other:
                assert other.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) == bytes(16)
            with takes(3 * SHORT), pytest.raises(gtcp.Timeout):
                conn.recv(1, timeout=3 * SHORT)
            with socket.socket(fileno=os.dup(conn.fileno())) as other:
                assert other.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) == bytes(16)


def test_H10_who_shares_a_socket_finds_no_time_limit() -> None:
    child.run(without_time_limit)


@pytest.mark.parametrize("least", [1024, 10_000])
def test_H9_descriptors_with_large_numbers(least: int) -> None:
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if allowed != resource.RLIM_INFINITY and allowed < least + 100:
        pytest.skip(f"at most {allowed} descriptors are allowed")
    child.run(large_numbers, least)


def start_a_program() -> None:
    """A connection of each kind is open, also halfway through a dial and on the server's side."""
    with (
        gtcp.Server("127.0.0.1:0", lambda conn: conn.send_recv(b"hello", 1)) as server,
        gtcp.Conn(("127.0.0.1", server.get_listened_port())) as conn,
        gtcp.Pool(("127.0.0.1", server.get_listened_port())) as pool,
        pool.acquire() as lease,
    ):
        assert conn.recv(5, timeout=LONG) == b"hello"
        assert lease.recv(5, timeout=LONG) == b"hello"
        command = [sys.executable, "-c", LIST_SOCKETS]
        done = subprocess.run(command, close_fds=False, capture_output=True, text=True, timeout=LONG, check=True)
        assert done.stdout == ""
        # The list can see sockets: one that may be inherited is.
        inherited = conn.fileno()
        fcntl.fcntl(inherited, fcntl.F_SETFD, 0)
        done = subprocess.run(command, close_fds=False, capture_output=True, text=True, timeout=LONG, check=True)
        assert done.stdout == f"{inherited}\n"


def test_H10_no_program_inherits_a_socket() -> None:
    child.run(start_a_program)
