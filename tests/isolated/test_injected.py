"""Errors that no peer can cause: a small library, preloaded into the child, makes system calls fail.

Row ids are those of the project's table of faults, or of its list of hazards where it says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import gtcp
import gtcp.aio
from support import child
from support.aio import begun, linked
from support.crew import Worker
from support.interrupts import interrupt
from support.loops import run
from support.peers import Holder, Peer, deaf_address, echo, frame, read, socket_pair
from support.timing import LATE, LONG, SHORT, eventually, quick, takes

SOURCE = Path(__file__).with_name("faults.c")
DATA = bytes(range(251)) * 20
AGAIN = gtcp.Retry(count=3, interval=0.001)


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a child with the library."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True, timeout=6 * LONG)
    others = os.environ.get("LD_PRELOAD", "")
    return {"LD_PRELOAD": f"{others} {library}".strip()}


def next_sends(*steps: int) -> None:
    """n > 0: the next send takes n bytes; an errno as a negative number: it fails; 0: it does as usual."""
    ctypes.CDLL(None).faults_send((ctypes.c_int * len(steps))(*steps), len(steps))


def all_were_made() -> bool:
    left: int = ctypes.CDLL(None).faults_left()
    return left == 0


def signal_before_sleep() -> None:
    """SIGINT comes in the last moment before this thread sleeps, too early to wake it."""
    ctypes.CDLL(None).faults_signal(signal.SIGINT)


def slow_lookups(seconds: float) -> None:
    ctypes.CDLL(None).faults_lookup(int(seconds * 1e6))


@contextlib.contextmanager
def raises(number: int, sent: int) -> Iterator[None]:
    with pytest.raises(gtcp.SocketError) as failed:
        yield
    assert (failed.value.errno, failed.value.sent) == (number, sent)


def resumed_sends() -> None:
    shortages = [errno.ENOBUFS, errno.ENOMEM, errno.ENETUNREACH]
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        for number in shortages:
            next_sends(1000, -number, 500, -number, 1)
            conn.send(DATA, AGAIN)
            assert all_were_made()
            assert read(theirs, len(DATA)) == DATA
            for size in (100, 5000):  # copied behind its header, or gathered
                next_sends(-number, 1, -number, 1, 3, -number)
                conn.send_pkg(DATA[:size], gtcp.PkgOption(retry=AGAIN))
                assert all_were_made()
                assert read(theirs, size + 2) == frame(DATA[:size])


def test_H1_of_the_hazards_a_retry_goes_on_at_the_first_unsent_byte(preload: dict[str, str]) -> None:
    child.run(resumed_sends, environment=preload)


def pause_with_others() -> None:
    """Others wait, rather than send into the middle of a message that is to go on."""
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        next_sends(1000, -errno.ENOBUFS)
        first = Worker(lambda: conn.send(DATA, gtcp.Retry(count=1, interval=SHORT)))
        assert read(theirs, 1000) == DATA[:1000]
        conn.send(b"second", timeout=LONG)
        first.result()
        assert read(theirs, len(DATA) - 1000 + 6) == DATA[1000:] + b"second"


def test_C9_nobody_sends_into_the_pause_of_another(preload: dict[str, str]) -> None:
    child.run(pause_with_others, environment=preload)


def failed_sends() -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        next_sends(1000, -errno.ENOBUFS)
        with raises(errno.ENOBUFS, 1000):
            conn.send(DATA)
        conn.send(DATA[1000:])
        assert read(theirs, len(DATA)) == DATA

        next_sends(*[1000, -errno.ENOBUFS] * 4)
        with raises(errno.ENOBUFS, 4000):
            conn.send(DATA, AGAIN)
        conn.send(DATA[4000:])
        assert read(theirs, len(DATA)) == DATA

        # Not a byte of the package has left: the connection is as before.
        next_sends(-errno.ENOBUFS)
        with raises(errno.ENOBUFS, 0):
            conn.send_pkg(DATA)
        conn.send_pkg(DATA)
        assert read(theirs, len(DATA) + 2) == frame(DATA)

        # It has been cut in two: out of step for good.
        next_sends(2, 98, -errno.ENOBUFS)
        with raises(errno.ENOBUFS, 98):
            conn.send_pkg(DATA)
        with pytest.raises(gtcp.BrokenError):
            conn.send_pkg(DATA)


def test_C3_a_failed_send_tells_how_far_it_came(preload: dict[str, str]) -> None:
    child.run(failed_sends, environment=preload)


def interrupted_system_calls() -> None:
    storm = [-errno.EINTR, 1, -errno.EAGAIN, -errno.EINTR, 7, -errno.EAGAIN, 100] * 10
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        for _ in range(3):
            next_sends(*storm)
            conn.send(DATA)
            assert all_were_made()
            assert read(theirs, len(DATA)) == DATA
        next_sends(*storm)
        conn.send_pkgs([DATA, b"", DATA[:10]])
        assert read(theirs, len(DATA) + 16) == frame(DATA) + frame(b"") + frame(DATA[:10])


def test_C5_interrupted_and_postponed_sends_go_on(preload: dict[str, str]) -> None:
    child.run(interrupted_system_calls, environment=preload)


def deadline_before_the_retry() -> None:
    """H4 of the hazards: when the deadline would pass during the pause, there is none."""
    patient = gtcp.Retry(count=1000, interval=LONG)
    with socket_pair() as (ours, _), gtcp.Conn.from_socket(ours) as conn:
        next_sends(-errno.ENOBUFS)
        with quick(), raises(errno.ENOBUFS, 0):
            conn.send(DATA, patient, timeout=SHORT)


def test_H4_of_the_hazards_no_pause_outlasts_the_deadline(preload: dict[str, str]) -> None:
    child.run(deadline_before_the_retry, environment=preload)


def interrupted_pause() -> None:
    """Half a message has left when the pause before its retry is interrupted."""
    patient = gtcp.Retry(count=1, interval=LONG)
    with Peer(echo) as peer, gtcp.Pool(peer.address) as pool:
        lease = pool.acquire()
        assert lease.send_recv(b"x", 1) == b"x"
        next_sends(1000, -errno.ENOBUFS)
        assert type(interrupt(lambda: lease.send(DATA, patient))) is KeyboardInterrupt
        lease.close()
        assert (pool.stats().idle, pool.stats().closed["error"]) == (0, 1)


def test_E6_an_interrupted_pause_between_retries_poisons_the_lease(preload: dict[str, str]) -> None:
    child.run(interrupted_pause, environment=preload)


PATIENT = gtcp.Retry(count=1, interval=LONG)


def end_of_pause(end: Callable[[], object], sending: Worker[None], theirs: socket.socket) -> None:
    """Half a message has left, and its sender pauses before the retry: the end of the connection wakes it."""
    assert read(theirs, 1000) == DATA[:1000]
    sending.asleep()
    with quick(LATE / 2):
        end()
        error = sending.error()
    assert isinstance(error, gtcp.ClosedError)
    assert error.sent == 1000


def closed_while_a_thread_pauses() -> None:
    for end in (gtcp.Conn.close, gtcp.Conn.abort):
        with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
            next_sends(1000, -errno.ENOBUFS)
            end_of_pause(lambda: end(conn), Worker(lambda: conn.send(DATA, PATIENT)), theirs)  # noqa: B023


def closed_while_a_lease_pauses() -> None:
    holder = Holder()
    with Peer(holder) as peer, gtcp.Pool(peer.address) as pool:
        lease = pool.acquire(LONG)
        eventually(lambda: holder.ends)
        next_sends(1000, -errno.ENOBUFS)
        end_of_pause(lease.close, Worker(lambda: lease.send(DATA, PATIENT)), holder.ends[0])
        assert (pool.stats().idle, pool.stats().in_use, pool.stats().closed["error"]) == (0, 0, 1)
        holder.over.set()


def closed_while_a_greenlet_pauses() -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        next_sends(1000, -errno.ENOBUFS)
        end_of_pause(conn.close, Worker(lambda: gtcp.run(conn.send, DATA, PATIENT)), theirs)


def closed_while_a_task_pauses() -> None:
    async def main(end: Callable[[gtcp.aio.Conn], object]) -> None:
        async with linked() as (conn, far):
            next_sends(1000, -errno.ENOBUFS)
            sending = await begun(conn.send(DATA, PATIENT))
            assert read(far, 1000) == DATA[:1000]
            with quick(LATE / 2):
                end(conn)
                with pytest.raises(gtcp.ClosedError) as closed:
                    await sending
            assert closed.value.sent == 1000

    for end in (gtcp.aio.Conn.close, gtcp.aio.Conn.abort):
        run("asyncio", main(end))


@pytest.mark.parametrize(
    "program",
    [
        closed_while_a_thread_pauses,
        closed_while_a_lease_pauses,
        closed_while_a_greenlet_pauses,
        closed_while_a_task_pauses,
    ],
)
def test_H1_close_ends_the_pause_before_a_retry(preload: dict[str, str], program: Callable[[], None]) -> None:
    child.run(program, environment=preload)


def tasks_that_pause() -> None:
    """The pause of a task ends on time, or when the task is cancelled, and leaves the connection fit for use."""

    async def main() -> None:
        async with linked() as (conn, far):
            next_sends(1000, -errno.ENOBUFS)
            with takes(SHORT):
                await conn.send(DATA, gtcp.Retry(count=1, interval=SHORT))
            assert read(far, len(DATA)) == DATA

            next_sends(-errno.ENOBUFS)
            sending = await begun(conn.send(DATA, PATIENT))
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            await conn.send(b"fine")
            assert read(far, 4) == b"fine"

    run("asyncio", main())


def test_D2_E15_the_pause_of_a_task(preload: dict[str, str]) -> None:
    child.run(tasks_that_pause, environment=preload)


def slow_resolver() -> None:
    slow_lookups(LONG)
    ticks = 0
    ending = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not ending.wait(SHORT / 50):
            ticks += 1

    before = threading.active_count()
    ticking = Worker(tick)
    for call in (
        lambda: gtcp.Conn("a.name.invalid:1", 2 * SHORT),
        lambda: gtcp.dial("a.name.invalid:1", 2 * SHORT),
        lambda: gtcp.send("a.name.invalid:1", b"x", timeout=2 * SHORT),
    ):
        ticks = 0
        with takes(2 * SHORT, 2 * LATE), pytest.raises(gtcp.Timeout, match=r"a\.name\.invalid"):
            call()
        # Others run while the name is looked up: about 100 times, on a busy machine seldomer.
        assert ticks >= 20, ticks
    assert type(interrupt(lambda: gtcp.Conn("a.name.invalid:1"))) is KeyboardInterrupt
    ending.set()
    ticking.result()
    assert threading.active_count() >= before
    # The interpreter ends although four lookups are still under way.


def test_A5_a_slow_resolver_holds_up_neither_the_deadline_nor_others(preload: dict[str, str]) -> None:
    began = time.monotonic()
    child.run(slow_resolver, environment=preload)
    assert time.monotonic() - began < LONG


def failing_resolver() -> None:
    with pytest.raises(gtcp.ResolveError, match=r"a\.name\.invalid") as unknown:
        gtcp.Conn("a.name.invalid:1", LONG)
    assert isinstance(unknown.value, OSError)
    assert unknown.value.errno != 0


def test_A5_a_name_without_address() -> None:
    child.run(failing_resolver)


@contextlib.contextmanager
def noticed() -> Iterator[None]:
    """What sleeps here misses the signal, and notices it all the same."""
    signal_before_sleep()
    with quick(), pytest.raises(KeyboardInterrupt):
        yield


def missed_by_a_receive() -> None:
    for timeout in (None, LONG, SHORT * 5):
        with socket_pair() as (ours, _), gtcp.Conn.from_socket(ours) as conn, noticed():
            conn.recv(1, timeout=timeout)


def missed_by_a_send() -> None:
    with socket_pair() as (ours, _), gtcp.Conn.from_socket(ours) as conn, noticed():
        conn.send(bytes(1 << 24), timeout=LONG)


def missed_by_a_turn() -> None:
    with socket_pair() as (ours, _), gtcp.Conn.from_socket(ours) as conn:
        first = Worker(lambda: conn.send(bytes(1 << 24), timeout=LONG))
        first.asleep()
        for timeout in (None, LONG):
            with noticed():
                conn.send(b"x", timeout=timeout)
        conn.abort()
        assert isinstance(first.error(), gtcp.ClosedError)


def missed_by_a_lease() -> None:
    with Peer(echo) as peer, gtcp.Pool(peer.address, max_size=1) as pool, pool.acquire(LONG):
        with pytest.raises(gtcp.PoolTimeout):
            pool.acquire(SHORT / 10)  # what it starts for the first waiter sleeps, too
        for timeout in (None, LONG):
            with noticed():
                pool.acquire(timeout)


def missed_by_a_dial() -> None:
    with deaf_address() as address, noticed():
        gtcp.Conn(address, LONG)


def missed_by_greenlets() -> None:
    with socket_pair() as (ours, _), gtcp.Conn.from_socket(ours) as conn:
        for timeout in (None, LONG):
            with noticed():
                gtcp.run(partial(conn.recv, 1, timeout=timeout))


@pytest.mark.parametrize(
    "program",
    [
        missed_by_a_receive,
        missed_by_a_send,
        missed_by_a_turn,
        missed_by_a_lease,
        missed_by_a_dial,
        missed_by_greenlets,
    ],
)
def test_H4_a_signal_in_the_moment_before_a_sleep(preload: dict[str, str], program: Callable[[], None]) -> None:
    child.run(program, environment=preload)


def large_units() -> None:
    """Whose other side keeps up, so that a call without a limit could go on for all of it."""
    size = 10_000_000
    option = gtcp.PkgOption(4, size)
    most = ctypes.CDLL(None).faults_most
    room = bytearray(size)
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn, gtcp.Conn.from_socket(theirs) as far:
        for send, receive in (
            (conn.send, partial(far.recv, size)),
            (conn.send, partial(far.recv_into, room, size)),
            (partial(conn.send_pkg, option=option), partial(far.recv_pkg, option)),
            (lambda data: conn.send_pkgs([data], option), lambda: far.recv_pkgs(1, option)[0]),
        ):
            most()
            sending = Worker(lambda: send(bytes(size)))  # noqa: B023
            got = receive()
            sending.result()
            assert got in (bytes(size), size)
            assert 1 << 19 <= most() <= (1 << 20) + 4


def test_D1_no_system_call_moves_more_than_a_mebibyte(preload: dict[str, str]) -> None:
    child.run(large_units, environment=preload)


def send_in_steps() -> None:
    """The kernel takes it in small steps and always has room, so the greenlet never has to wait."""
    turns = 0

    def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            gtcp.sleep(0)

    def main() -> None:
        gtcp.spawn(count)
        next_sends(*[9000] * 100)
        conn.send(bytes(900_000), timeout=LONG)
        assert all_were_made()

    with socket_pair() as (ours, _), gtcp.Conn.from_socket(ours) as conn:
        gtcp.run(main)
    assert turns >= 5, turns


def test_a_send_in_many_steps_does_not_hold_up_other_greenlets(preload: dict[str, str]) -> None:
    child.run(send_in_steps, environment=preload)
