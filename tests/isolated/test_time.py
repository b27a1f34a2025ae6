"""Waits keep their time: under a storm of signals, and on a machine that is busy.

Row ids are those of the project's table of faults.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType

import pytest

import gtcp
from gtcp import _core
from support import child
from support.crew import Worker
from support.peers import Peer, deaf_address, echo, read, silent, socket_pair
from support.timing import LATE, LONG, SHORT, takes

HUGE = bytes(16 << 20)


class Storm:
    """SIGALRM at 1 kHz for the main thread, whose handler counts."""

    def __init__(self) -> None:
        self.count = 0
        signal.signal(signal.SIGALRM, self.handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    def end(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)


def keeps_time(wait: Callable[[float], object], seconds: float) -> None:
    """The wait ends with a Timeout, never early, and not late either."""
    with takes(seconds):
        try:
            wait(seconds)
        except gtcp.Timeout:
            return
        raise AssertionError("no timeout")


def waits_in_a_storm() -> None:
    with (
        socket_pair() as (ours, _),
        gtcp.Conn.from_socket(ours) as conn,
        socket_pair() as (second, _),
        gtcp.Conn.from_socket(second) as pipe,  # an exchange that has failed lets no other one follow
        socket_pair() as (third, _),
        gtcp.Conn.from_socket(third) as full,
        Peer(silent) as peer,
        gtcp.Pool(peer.address, max_size=1) as pool,
        pool.acquire(),
        deaf_address() as deaf,
    ):
        waits: dict[str, Callable[[float], object]] = {
            "recv": lambda t: conn.recv(1, timeout=t),
            "recv_line": lambda t: conn.recv_line(timeout=t),
            "recv_into": lambda t: conn.recv_into(bytearray(1), timeout=t),
            "exchange": lambda t: conn.send_recv_pkg(b"x", timeout=t),
            "pipeline": lambda t: pipe.send_recv_pkgs([b"x"], timeout=t),
            "send": lambda t: full.send(HUGE, timeout=t),
            "acquire": pool.acquire,
            "dial": lambda t: gtcp.Conn(deaf, t),
            "function": lambda t: gtcp.send(deaf, b"x", timeout=t),
        }
        storm = Storm()
        for name, wait in waits.items():
            before = storm.count
            keeps_time(wait, SHORT)
            assert storm.count - before >= 20, f"{name}: {storm.count - before} signals"
        for _ in range(100):
            keeps_time(waits["recv"], SHORT / 50)
        with takes(SHORT):
            _core.sleep(SHORT)
        storm.end()


def test_D6_waits_in_a_storm_of_signals() -> None:
    child.run(waits_in_a_storm)


def traffic_in_a_storm() -> None:
    """Not a byte is lost or doubled, whichever call a signal cuts short."""
    with Peer(echo) as peer, gtcp.Conn(peer.address) as conn, socket_pair() as (ours, theirs):
        storm = Storm()
        while storm.count < 300:
            packages = [bytes([i]) * (i * 97 % 5000) for i in range(100)]
            assert conn.send_recv_pkgs(packages, timeout=LONG) == packages
            assert conn.send_recv_pkg(b"one", timeout=LONG) == b"one"
        with gtcp.Conn.from_socket(ours) as slow:
            ours_data = bytes(range(251)) * 40_000
            reader = Worker(lambda: read(theirs, len(ours_data)))
            slow.send(ours_data, timeout=LONG)
            assert reader.result() == ours_data
            writer = Worker(lambda: theirs.sendall(ours_data))
            assert slow.recv(len(ours_data), timeout=LONG) == ours_data
            writer.result()
        storm.end()


def test_D6_traffic_in_a_storm_of_signals() -> None:
    child.run(traffic_in_a_storm)


def exact_waits(elsewhere: bool) -> None:
    """Longer than the moments for which a call looks again and again, and than the second after which it looks for
    signals."""
    with (
        socket_pair() as (ours, _),
        gtcp.Conn.from_socket(ours) as quiet,
        socket_pair() as (second, _),
        gtcp.Conn.from_socket(second) as full,
        Peer(silent) as peer,
        gtcp.Pool(peer.address, max_size=1) as pool,
        pool.acquire(),
    ):
        with contextlib.suppress(gtcp.Timeout):
            full.send(HUGE, timeout=0)
        waits: list[Callable[[float], object]] = [
            lambda t: quiet.recv(1, timeout=t),
            lambda t: full.send(HUGE, timeout=t),
            pool.acquire,
        ]

        def each() -> None:
            for wait in waits:
                for seconds in (0.6 * SHORT, 0.85 * SHORT, 1.2 * SHORT, 10.5 * SHORT):
                    keeps_time(wait, seconds)

        Worker(each).result(4 * LONG) if elsewhere else each()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["main thread", "another thread"])
def test_D2_waits_end_on_time(elsewhere: bool) -> None:
    child.run(exact_waits, elsewhere, within=5 * LONG)


SPIN = "import time\nend = time.monotonic() + {0}\nwhile time.monotonic() < end: pass"


@pytest.fixture
def busy_machine() -> None:  # type: ignore[misc]
    """More processes that compute than there are processors, by two and at least four."""
    command = [sys.executable, "-c", SPIN.format(LONG)]
    hogs = [subprocess.Popen(command) for _ in range(max(4, (os.cpu_count() or 1) + 2))]
    yield
    busy = [hog.poll() is None for hog in hogs]
    for hog in hogs:
        hog.kill()
        hog.wait()
    assert all(busy), "the machine was not busy to the end"


def test_D7_waits_on_a_busy_machine(busy_machine: None) -> None:
    late = []
    with socket_pair() as (ours, _), gtcp.Conn.from_socket(ours) as conn:
        for _ in range(30):
            start = time.monotonic()
            with pytest.raises(gtcp.Timeout):
                conn.recv(1, timeout=SHORT / 5)
            late.append(time.monotonic() - start - SHORT / 5)
    assert min(late) >= 0
    assert sorted(late)[-3] <= LATE


def test_D7_what_has_come_counts_whatever_the_clock_says() -> None:
    """No time is left, but the answer is there: a busy machine does not make up timeouts."""
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        theirs.sendall(b"1\n2")
        while conn.is_alive() and not ours_readable(conn):
            time.sleep(SHORT / 100)
        assert conn.recv_line(timeout=0) == b"1"
        assert conn.recv(1, timeout=0) == b"2"
        conn.set_deadline(time.monotonic() - 1)
        with pytest.raises(gtcp.Timeout):
            conn.recv(1)


def ours_readable(conn: gtcp.Conn) -> bool:
    return bool(_core.wait_any({conn.fileno(): _core.POLLIN}, _core.to_deadline(LONG)))
