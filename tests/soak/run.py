"""What must not grow: descriptors, threads, memory. `make soak`.

    python tests/soak/run.py [--short] [PART ...]

Parts: packages (a million round trips), pool (a million leases), dials (200 000), buffers, forks, replies (a million
requests, none of which gets another's), flaps (30, one a second), cancellations (200 000 on each of two loops), hubs
(20 000 clients whose calls end at any moment), deadlines (2000), crowd (10 000 connections of each kind for 60 s),
exits, chaos (20 minutes). --short does each for some seconds, and chaos for one minute.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

import gtcp  # noqa: E402
from gtcp.testing import Peer, echo  # noqa: E402
from support import guard  # noqa: E402
from support.leaks import Baseline  # noqa: E402

PAGE = os.sysconf("SC_PAGE_SIZE")
SAMPLES = 60
MOST_GROWTH = 256 << 10  # bytes per million operations
# What a run may grow by whatever its count: a page here and there. With pages of 4 KiB it excuses nothing from 200 000
# operations on.
NOISE = 12 * PAGE
MOST_BLOCKS = 10


STATM = os.open("/proc/self/statm", os.O_RDONLY)


def resident() -> int:
    return int(os.pread(STATM, 100, 0).split()[1]) * PAGE


def slope(memory: Sequence[int], step: int) -> float:
    """Bytes per million operations, by least squares."""
    n = len(memory)
    mean = sum(memory) / n
    above = sum((i - (n - 1) / 2) * (bytes_ - mean) for i, bytes_ in enumerate(memory))
    return above / (n * (n * n - 1) / 12) / step * 1e6


def watch(name: str, count: int, operate: Callable[[int], None]) -> None:
    """Runs `operate(n)` in equal steps and compares what the process holds."""
    step = max(1, count // SAMPLES)
    warm = max(2, SAMPLES // 10)
    for _ in range(warm):
        operate(step)
    gc.collect()
    before, start = Baseline(), time.monotonic()
    memory = array("q", bytes(8 * (SAMPLES + 1)))  # made before, so that measuring leaves nothing behind
    memory[0] = resident()
    # At a tenth, in the middle, at the end: a leak grows twice, what is made once, at whatever moment, is none.
    blocks = []
    shown = start
    for i in range(1, SAMPLES + 1):
        operate(step)
        memory[i] = resident()
        if i in (SAMPLES // 10, SAMPLES // 2, SAMPLES):
            gc.collect()
            blocks.append(sys.getallocatedblocks())
        if time.monotonic() - shown > 20:
            shown = time.monotonic()
            print(f"  {name}: {i * step} of {SAMPLES * step}", flush=True)
    grown_blocks = min(blocks[1] - blocks[0], blocks[2] - blocks[1])
    grown, total = slope(memory, step), memory[-1] - memory[0]
    took = time.monotonic() - start
    print(
        f"{name}: {SAMPLES * step} in {took:.0f} s, memory {total:+} bytes ({grown:+.0f} per million), "
        f"blocks {grown_blocks:+}",
        flush=True,
    )
    differences = before.differences()
    assert not differences, differences
    assert grown_blocks <= MOST_BLOCKS, grown_blocks
    # A short run has too few operations for the promise: a page more or less would be megabytes per million.
    most = max(MOST_GROWTH, NOISE / (SAMPLES * step) * 1e6)
    assert grown <= most, f"memory grows by {grown:.0f} bytes per million operations, {most:.0f} at most"


@contextlib.contextmanager
def peer(program: str, module: str = "gtcp.testing") -> Iterator[str]:
    """A peer in a process of its own, so that only this side is measured."""
    source = f"import sys; sys.path.insert(0, {str(TESTS)!r}); from gtcp.testing import Peer; "
    source += f"from {module} import *; p = Peer({program}); "
    source += "print(p.address, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", source], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def packages(count: int) -> None:
    batch = [b"x" * 100] * 50
    with peer("echo_packages()") as address, gtcp.Conn(address, 30.0) as conn:

        def operate(n: int) -> None:
            for _ in range(n // 100):
                assert conn.send_recv_pkgs(batch, timeout=30.0) == batch
                for _ in range(50):
                    assert conn.send_recv_pkg(b"hello", timeout=30.0) == b"hello"

        watch("packages", count, operate)


def pool(count: int) -> None:
    with peer("echo_packages()") as address, gtcp.Pool(address) as lender:

        def operate(n: int) -> None:
            for _ in range(n):
                with lender.acquire(30.0):
                    pass
            with lender.acquire(30.0) as lease:
                assert lease.send_recv_pkg(b"hello", timeout=30.0) == b"hello"

        watch("pool", count, operate)
        assert lender.stats().created <= 2, lender.stats()


def close_waits(address: str) -> str:
    """Our ends of connections to a peer that has closed its own."""
    command = ["ss", "-tanH", "state", "close-wait", "dst", address]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def dials(count: int) -> None:
    with peer("echo") as address, peer("lambda sock: sock.sendall(sock.recv(5))") as leaver:

        def operate(n: int) -> None:
            for i in range(n):
                with gtcp.Conn(address, 30.0) as conn:
                    assert conn.send_recv(b"hello", 5, timeout=30.0) == b"hello"
                    conn.abort()  # no port waits: there are fewer of them than dials
                if i % 100 == 0:
                    left()

        def left(look: Callable[[], None] = lambda: None) -> None:
            """A connection that the peer closes first: until this side closes it too, it stays in CLOSE_WAIT."""
            with gtcp.Conn(leaver, 30.0) as conn:
                assert conn.send_recv(b"hello", 5, timeout=30.0) == b"hello"
                try:
                    rest = conn.recv(1, timeout=30.0)
                except gtcp.EOF:
                    look()
                else:
                    raise AssertionError(rest)

        def seen() -> None:
            assert close_waits(leaver), "ss does not see a connection that is not closed"

        left(seen)
        watch("dials", count, operate)
        # The peers are still there: with them would go what they wait for.
        assert not close_waits(address) + close_waits(leaver), close_waits(address) + close_waits(leaver)


def buffers(count: int) -> None:
    """A large package, then idleness: the connection gives its memory back."""
    large, wide = bytes(64 << 20), gtcp.PkgOption(4)
    with peer("echo_packages(4)") as address, gtcp.Conn(address, 30.0) as conn:
        assert conn.send_recv_pkg(b"x", wide) == b"x"
        gc.collect()
        before = resident()
        for _ in range(max(1, count)):
            assert len(conn.send_recv_pkg(large, wide, timeout=60.0)) == len(large)
        with contextlib.suppress(gtcp.Timeout):
            conn.recv_pkg(wide, timeout=0.01)
        gc.collect()
        kept = resident() - before
    print(f"buffers: {kept:+} bytes after 64 MiB", flush=True)
    assert kept <= MOST_GROWTH, kept


def suite(name: str, tests: str, variable: str, count: int) -> None:
    """Tests that repeat themselves as often as a variable says."""
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=1200", *tests.split()]
    subprocess.run(command, check=True, env={**os.environ, variable: str(count)}, cwd=TESTS.parent)
    print(f"{name}: {count} times in {time.monotonic() - start:.0f} s", flush=True)


def exits(count: int) -> None:
    suite("exits", "tests/isolated/test_exit.py", "GTCP_TEST_EXITS", count)


def forks(count: int) -> None:
    """A fork in the middle of the pool's work, again and again; the child uses the pool too."""
    with Peer(echo) as other, gtcp.Pool(other.address, max_size=2) as lender:
        for i in range(count):
            with lender.acquire(30.0) as lease:
                pid = os.fork()
                if pid == 0:
                    code = 1
                    with contextlib.suppress(BaseException), lender.acquire(10.0) as own:
                        code = own.send_recv(b"child", 5, timeout=10.0) != b"child"
                    os._exit(code)
                assert lease.send_recv(b"hello", 5, timeout=30.0) == b"hello"
                assert os.waitpid(pid, 0)[1] == 0, f"fork {i}"
    print(f"forks: {count}, parent and child unharmed", flush=True)


def chaos(seconds: int) -> None:
    command = [sys.executable, str(TESTS / "chaos" / "run.py"), "--injections", "100000000", "--seconds", str(seconds)]
    subprocess.run(command, check=True)


def deadlines(count: int) -> None:
    from soak.deadlines import all_of_them

    all_of_them(count)


def replies(count: int) -> None:
    from soak.replies import run

    with peer("answer", "soak.replies") as address:
        run(address, count)


def flaps(seconds: int) -> None:
    from soak.flaps import run

    run(seconds)


def crowd(seconds: int) -> None:
    from soak.crowd import hold

    hold(10_000 if seconds >= 60 else 1000, seconds)


def cancellations(count: int) -> None:
    from soak.cancellations import all_of_them

    all_of_them(count)


def hubs(count: int) -> None:
    from soak.hubs import all_of_them

    all_of_them(count)


PARTS: dict[str, tuple[Callable[[int], None], int, int]] = {
    "packages": (packages, 1_000_000, 60_000),
    "pool": (pool, 1_000_000, 60_000),
    "dials": (dials, 200_000, 6_000),
    "buffers": (buffers, 3, 1),
    "forks": (forks, 200, 20),
    "replies": (replies, 1_000_000, 20_000),
    "flaps": (flaps, 30, 3),
    "cancellations": (cancellations, 200_000, 2_000),
    "hubs": (hubs, 20_000, 300),
    "deadlines": (deadlines, 2000, 200),
    "crowd": (crowd, 60, 3),
    "exits": (exits, 200, 5),
    "chaos": (chaos, 1200, 60),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="What must not grow.")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS])
    options = parser.parse_args()
    guard.start()
    for name in options.parts or PARTS:
        part, full, short = PARTS[name]
        part(short if options.short else full)
    print("soak: nothing grew, nothing was left behind")


if __name__ == "__main__":
    main()
