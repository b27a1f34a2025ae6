"""gtcp.serve as a program: signals, worker processes (F11, F15)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

import gtcp
from gtcp import _serve
from gtcp._processes import Processes
from support import child
from support.calls import Call
from support.crew import Worker
from support.peers import free_port, listen
from support.timing import LATE, LONG, Queued, eventually, quick

PROGRAM = """
import os, sys, gtcp
def handler(conn):
    for package in conn.packages():
        if package == b"wait":
            print("working", flush=True)
            sys.stdin.readline()
        conn.send_pkg(b"%d" % os.getpid() + package)
gtcp.serve(sys.argv[1], handler, processes=int(sys.argv[2]), drain_timeout=5.0)
print("ended")
"""


@contextlib.contextmanager
def program(address: str, processes: int) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, address, str(processes)],
        stdin=-1,
        stdout=-1,
        stderr=-1,
        text=True,
    ) as running:
        try:
            eventually(lambda: worker(address))
            yield running
        finally:
            running.kill()


def worker(address: str) -> int:
    """The process that serves a new connection; 0 when there is none yet."""
    try:
        with gtcp.Conn(address, LONG) as conn:
            return int(conn.send_recv_pkg(b"", timeout=LONG))
    except (gtcp.SocketError, gtcp.EOF):
        return 0


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"127.0.0.1:{free_port()}" if request.param == "tcp" else f"unix://{tmp_path_factory.mktemp('s')}/s"


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_F15_F11_a_signal_drains(address: str, processes: int, number: signal.Signals) -> None:
    with program(address, processes) as running, gtcp.Conn(address, LONG) as idle, gtcp.Conn(address, LONG) as busy:
        idle.send_recv_pkg(b"", timeout=LONG)
        busy.send_pkg(b"wait")
        assert running.stdout is not None
        assert running.stdout.readline() == "working\n"
        running.send_signal(number)
        with pytest.raises(gtcp.EOF):
            idle.recv_pkg(timeout=LONG)
        out, err = running.communicate("go on\n", timeout=LONG)
        assert busy.recv_pkg(timeout=LONG).endswith(b"wait")
        assert (out, err, running.returncode) == ("ended\n", "", 0)
        with pytest.raises(gtcp.SocketError):
            gtcp.dial(address, LONG)


def test_a_worker_that_dies_is_replaced(address: str) -> None:
    with program(address, 2) as running:
        victim = worker(address)
        assert victim != running.pid
        os.kill(victim, signal.SIGKILL)
        assert running.stderr is not None
        assert f"worker {victim} ended with signal 9" in running.stderr.readline()
        eventually(lambda: worker(address) not in (0, victim))
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate(timeout=LONG)
        assert (out, err, running.returncode) == ("ended\n", "", 0)


def test_a_second_signal_cuts() -> None:
    address = f"127.0.0.1:{free_port()}"
    for processes in (1, 2):
        with program(address, processes) as running, gtcp.Conn(address, LONG) as busy:
            busy.send_pkg(b"wait")
            assert running.stdout is not None
            assert running.stdout.readline() == "working\n"
            running.send_signal(signal.SIGTERM)
            eventually(lambda: worker(address) == 0)
            running.send_signal(signal.SIGTERM)
            with quick(), pytest.raises((gtcp.EOF, gtcp.ResetError)):
                busy.recv_pkg(timeout=LONG)
            running.communicate("", timeout=LONG)
            assert running.returncode == 0


def told_again_while_it_stops() -> None:
    """The second signal comes when the supervisor has acted on the first and not yet noted that."""

    def job(lifeline: int) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])  # which ends it
        os.kill(os.getppid(), signal.SIGUSR1)
        threading.Event().wait(LONG)

    def stop(*_: object) -> None:
        supervisor.stop()

    supervisor = Processes([job], LONG, stop)
    signal.signal(signal.SIGUSR1, stop)
    with quick(LONG / 2), supervisor.children():
        supervisor.run()


def test_a_second_signal_cuts_whenever_it_comes() -> None:
    child.run(told_again_while_it_stops, within=2 * LONG)


def cut_by_a_late_worker() -> None:
    """The first word of the supervisor has not been heard when the second one comes."""
    lifeline, holder = os.pipe()
    over = threading.Event()
    working = threading.Event()

    def handler(conn: gtcp.Conn) -> None:
        working.set()
        over.wait(LONG)

    def stop() -> float:
        assert working.wait(LONG)
        os.close(holder)
        began = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)
        return began

    class Late(threading.Thread):
        def start(self) -> None:
            if self.name != "gtcp-lifeline":
                super().start()

    with listen() as listener:
        server = gtcp.Server(sock=listener, handler=handler)
        with gtcp.Conn(listener.getsockname(), LONG) as conn:
            threading.Thread, before = Late, threading.Thread  # type: ignore[misc]
            try:
                stopping, queued = Worker(stop), Queued()
                _serve._run(server, LONG, lifeline, None)
            finally:
                threading.Thread = before  # type: ignore[misc]
            assert time.monotonic() - stopping.result() <= LATE + queued.seconds
            with pytest.raises((gtcp.EOF, gtcp.ResetError)):
                conn.recv(1, timeout=LONG)
        over.set()
    os.close(lifeline)


def test_F11_the_second_word_to_a_worker_that_has_not_heard_the_first() -> None:
    child.run(cut_by_a_late_worker)


@pytest.mark.parametrize("arguments", [("",), ("127.0.0.1:0", print, 0), ("127.0.0.1:99999", print)], ids=str)
def test_wrong_arguments_are_told_before_anything_begins(arguments: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match=r"handler|processes|port"):
        gtcp.serve(*arguments[:2], **({"processes": 0} if len(arguments) > 2 else {}))  # type: ignore[arg-type]


def test_serve_is_for_the_main_thread() -> None:
    with pytest.raises(RuntimeError, match="main thread"):
        Call(gtcp.serve, "", print).result()


def closed_by_signals() -> None:
    """A signal handler closes the server wherever the main thread is with it; nothing waits for itself."""
    server = gtcp.Server("127.0.0.1:0", lambda conn: None, max_connections=5)
    fired = 0

    def close(*_: object) -> None:
        nonlocal fired
        fired += 1
        server.close()

    signal.signal(signal.SIGALRM, close)
    for i in range(300):
        # Again after a while: the first may come before there is anything to close.
        signal.setitimer(signal.ITIMER_REAL, 0.0002 + i % 13 * 0.0003, 0.01)
        if i % 3 == 0:
            server.run()
        else:
            server.start()
            server.stats()
            if i % 3 == 1:
                server.shutdown(LONG)
            server.close()
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert fired >= 100, fired


def test_F12_F15_a_signal_handler_closes_at_any_moment() -> None:
    child.run(closed_by_signals)


def test_serve_takes_an_address_or_a_socket() -> None:
    with listen() as sock:
        with pytest.raises(ValueError, match="needs an address or a socket"):
            gtcp.serve("127.0.0.1:0", print, sock=sock)
        with pytest.raises(TypeError, match=r"must be a socket\.socket"):
            gtcp.serve(handler=print, sock=sock.fileno())  # type: ignore[arg-type]
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(TypeError, match="must be a stream socket"):
        gtcp.serve(handler=print, sock=sock)


STUBBORN = """
import signal, sys, time, gtcp
def handler(conn):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    conn.send_pkg(b"here")
    while True:
        time.sleep(1000)
gtcp.serve(sys.argv[1], handler, processes=1 + int(sys.argv[2]), drain_timeout=0.0)
"""


def test_F11_a_worker_that_does_not_end_is_killed() -> None:
    """Two seconds after its time to drain."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-c", STUBBORN, address, "1"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
        try:
            eventually(lambda: says_here(address))
            running.send_signal(signal.SIGTERM)
            assert running.wait(LONG) == 0
        finally:
            running.kill()


def says_here(address: str) -> bool:
    try:
        with gtcp.Conn(address, LONG) as conn:
            return conn.recv_pkg(timeout=LONG) == b"here"
    except (gtcp.SocketError, gtcp.EOF):
        return False


def test_workers_end_with_their_supervisor(address: str) -> None:
    with program(address, 2) as running:
        assert worker(address)
        running.kill()
        running.wait(LONG)
        running.communicate(timeout=LONG)  # until the last one that has the pipes is gone
        assert worker(address) == 0
