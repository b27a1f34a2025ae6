"""How exact deadlines are, and how soon a close or Ctrl-C is noticed: figures, for a machine that is idle otherwise."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable

import gtcp
from gtcp.testing import deaf_address
from support.crew import Worker
from support.peers import socket_pair
from support.timing import LONG

LATE = 0.020  # p99 of timeouts
WOKEN = 0.050  # p99 of closes
INTERRUPTED = 0.100  # every Ctrl-C
MUCH = bytes(16 << 20)


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def report(name: str, values: list[float], most: float) -> None:
    found = f"{name}: {len(values)}, median {1e3 * sorted(values)[len(values) // 2]:.2f} ms"
    print(f"{found}, p99 {1e3 * p99(values):.2f} ms, worst {1e3 * max(values):.2f} ms", flush=True)
    assert p99(values) <= most, f"p99 of {name} above {most} s"


def timeouts(count: int) -> None:
    """None is early, whatever is waited for."""
    chance = random.Random(0)
    late: list[float] = []
    with contextlib.ExitStack() as stack:
        quiet = gtcp.Conn.from_socket(stack.enter_context(socket_pair())[0])
        full = gtcp.Conn.from_socket(stack.enter_context(socket_pair())[0])
        stack.enter_context(quiet)
        stack.enter_context(full)
        with contextlib.suppress(gtcp.Timeout):
            full.send(MUCH, timeout=0)
        deaf = stack.enter_context(deaf_address())
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        pool = stack.enter_context(gtcp.Pool(listener.getsockname(), max_size=1))
        stack.enter_context(pool.acquire())
        calls: list[Callable[[float], object]] = [
            lambda t: quiet.recv(1, timeout=t),
            lambda t: quiet.recv(timeout=t),
            lambda t: quiet.recv_line(timeout=t),
            lambda t: quiet.recv_till(b"--", timeout=t),
            lambda t: quiet.recv_pkg(timeout=t),
            lambda t: quiet.recv_pkgs(2, timeout=t),
            lambda t: full.send(MUCH, timeout=t),
            pool.acquire,
            lambda t: gtcp.Conn(deaf, t),
        ]
        for i in range(count):
            wait = chance.choice((0.0, 1e-6, 0.0004, 0.001, 0.0049, 0.011, 0.02, 0.05))
            start = time.monotonic()
            try:
                calls[i % len(calls)](wait)
            except gtcp.Timeout:
                took = time.monotonic() - start
            else:
                raise AssertionError("no timeout")
            assert took >= wait, f"{wait - took} s early"
            late.append(took - wait)
    report("late timeouts", late, LATE)


def closes(count: int) -> None:
    """A close wakes who is blocked, each time."""
    woken: list[float] = []
    for i in range(count):
        with socket_pair() as (ours, _), gtcp.Conn.from_socket(ours) as conn:
            call = (lambda: conn.recv(1)) if i % 2 else (lambda: conn.send(MUCH))
            ended: list[float] = []

            def blocked() -> None:
                try:
                    call()  # noqa: B023
                finally:
                    ended.append(time.monotonic())  # noqa: B023

            worker = Worker(blocked)
            worker.asleep()
            start = time.monotonic()
            conn.close()
            assert isinstance(worker.error(), gtcp.ClosedError)
            woken.append(ended[0] - start)
    report("closes that woke somebody", woken, WOKEN)


def interrupts(count: int) -> None:
    """Ctrl-C is a KeyboardInterrupt at once. For the main thread."""
    took: list[float] = []
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
    with socket_pair() as (ours, _), gtcp.Conn.from_socket(ours) as conn:
        for _ in range(count):
            sent: list[float] = []

            def send() -> None:
                sent.append(time.monotonic())  # noqa: B023
                os.kill(os.getpid(), signal.SIGINT)

            timer = threading.Timer(0.01, send)
            timer.start()
            try:
                conn.recv(1, timeout=LONG)
            except KeyboardInterrupt:
                took.append(time.monotonic() - sent[0])
            timer.join()
    assert len(took) == count
    assert max(took) <= INTERRUPTED
    report("interrupts", took, INTERRUPTED)


def all_of_them(count: int) -> None:
    timeouts(count)
    closes(count // 2)
    interrupts(count // 20)
