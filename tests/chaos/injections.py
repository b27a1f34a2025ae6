"""The faults that chaos draws from: each does one thing to the world and knows what may come out.

A function that returns has seen an allowed outcome; Wrong, or any exception that is not in `allowed`, is none.
"""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import gtcp
from chaos.world import WIDE, World, Wrong, beside, pair, reset_after_all
from gtcp.testing import (
    Bandwidth,
    Blackhole,
    Fault,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    deaf_address,
    refusing_address,
    reset,
)
from support.model import Model, TooLong
from support.timing import LONG, SCALE

Injection = Callable[[World, random.Random], None]
INJECTIONS: dict[str, Injection] = {}

# Generous: the machine has other things to do, and the kernel misbehaves.
MOST_LATE = 1.0 * SCALE

GONE = (gtcp.ResetError, gtcp.PipeError, gtcp.EOF, gtcp.AbortedError)


def rows(*names: str) -> Callable[[Injection], Injection]:
    def register(injection: Injection) -> Injection:
        for name in names:
            INJECTIONS[name] = injection
        return injection

    return register


def same(got: object, wanted: object) -> None:
    if got != wanted:
        raise Wrong(f"got {got!r:.100} instead of {wanted!r:.100}")


@contextlib.contextmanager
def may_raise(*allowed: type[BaseException]) -> Iterator[None]:
    with contextlib.suppress(*allowed):
        yield


@contextlib.contextmanager
def must_raise(*kinds: type[BaseException]) -> Iterator[None]:
    try:
        yield
    except kinds:
        return
    raise Wrong(f"no {' or '.join(kind.__name__ for kind in kinds)}")


@contextlib.contextmanager
def in_time(timeout: float) -> Iterator[None]:
    """A call with this timeout, however it ends: not much after its deadline."""
    start = time.monotonic()
    try:
        yield
    finally:
        late = time.monotonic() - start - timeout
        if late > MOST_LATE:
            raise Wrong(f"a call with a timeout of {timeout:g} s ended {late:.3f} s after it")


def exchange(world: World, chance: random.Random, timeout: float) -> None:
    """One request of the pool; a reply, if there is one, is its own."""
    data = world.payload(chance)
    with world.pool.acquire(LONG) as lease, in_time(timeout):
        same(lease.send_recv_pkg(data, WIDE, timeout=timeout), data)


def spoiled(world: World, chance: random.Random, fault: Fault, *allowed: type[BaseException], timeout: float) -> None:
    way: Any = chance.choice(("up", "down", None))
    with world.proxy.having(fault, way), may_raise(*allowed):
        exchange(world, chance, timeout)


# -- the network


@rows("E5")
def delayed(world: World, chance: random.Random) -> None:
    delay = chance.choice((0.001, 0.004, 0.02))
    spoiled(world, chance, Latency(delay, delay / 2), gtcp.Timeout, timeout=chance.choice((0.002, 0.01, LONG)))


@rows("B1", "C1")
def sliced(world: World, chance: random.Random) -> None:
    spoiled(world, chance, Slicer(chance.randint(2, 40), 1), timeout=LONG)


@rows("D1")
def a_narrow_line(world: World, chance: random.Random) -> None:
    spoiled(world, chance, Bandwidth(chance.choice((2e5, 1e6))), gtcp.Timeout, timeout=chance.choice((0.005, LONG)))


@rows("B5", "B7")
def limited(world: World, chance: random.Random) -> None:
    spoiled(world, chance, LimitData(chance.randint(0, 60)), *GONE, timeout=LONG)


@rows("E2", "C4")
def broken_off(world: World, chance: random.Random) -> None:
    spoiled(world, chance, ResetPeer(chance.choice((0, 0.001))), *GONE, timeout=LONG)


@rows("E25", "C13")
def swallowed(world: World, chance: random.Random) -> None:
    fault = Blackhole(chance.choice((None, 0.002)))
    spoiled(world, chance, fault, gtcp.Timeout, *GONE, timeout=chance.choice((0.005, 0.01)))


@rows("E1", "C10")
def half_closed(world: World, chance: random.Random) -> None:
    data = world.payload(chance)
    with world.proxy.having(SlowClose(0.002), "up"), gtcp.Conn(world.proxy.address, LONG) as conn:
        conn.send_pkg(data, WIDE, timeout=LONG)
        conn.close_write()
        same(conn.recv_pkg(WIDE, timeout=LONG), data)
        with must_raise(gtcp.EOF):
            conn.recv_pkg(WIDE, timeout=LONG)


@rows("D2")
def frozen_until_a_timeout(world: World, chance: random.Random) -> None:
    world.proxy.freeze()
    try:
        with must_raise(gtcp.Timeout):
            exchange(world, chance, chance.choice((0.0, 0.002, 0.01)))
    finally:
        world.proxy.thaw()


@rows("E18")
def refused(world: World, chance: random.Random) -> None:
    world.proxy.refuse()
    try:
        with must_raise(gtcp.RefusedError, *GONE):
            exchange(world, chance, LONG)
    finally:
        world.proxy.listen()


@rows("E3", "B6")
def cut_during(world: World, chance: random.Random) -> None:
    with beside(world.proxy.cut), may_raise(*GONE):
        exchange(world, chance, LONG)


@rows("A10", "F3")
def reset_at_once(world: World, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 5)):
        sock = socket.create_connection(world.direct, LONG)
        if chance.random() < 0.5:
            sock.send(chance.randbytes(chance.randint(1, 3)))
        reset(sock)


@rows("B18", "B9", "F8")
def nonsense(world: World, chance: random.Random) -> None:
    with socket.create_connection(world.direct, LONG) as sock, may_raise(OSError):
        sock.sendall(
            chance.choice((b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0", b"\x7f\xff\xff\xff", b"\xff" * 9))
        )
        sock.sendall(chance.randbytes(chance.randint(0, 50)))


@rows("C12")
def nothing_to_send(world: World, chance: random.Random) -> None:
    """Between two pieces of a stream that it must not show in."""
    first, second = chance.randbytes(3), chance.randbytes(3)
    with pair() as (conn, far):
        conn.send(first, timeout=LONG)
        for empty in (b"", bytearray(), memoryview(b"")):
            with in_time(0):
                conn.send(empty, timeout=0)
        conn.send_pkgs([], WIDE, timeout=LONG)
        conn.send(second, timeout=LONG)
        conn.close()
        with far.makefile("rb") as stream:
            same(stream.read(), first + second)
        with must_raise(gtcp.ClosedError):
            conn.send(b"")


@rows("A1", "A2", "D4")
def nobody_there(world: World, chance: random.Random) -> None:
    if chance.random() < 0.5:
        with refusing_address() as address, must_raise(gtcp.RefusedError):
            gtcp.Conn(address, LONG)
    else:
        timeout = chance.choice((0.0, 0.001, 0.01))
        with deaf_address() as address, must_raise(gtcp.Timeout), in_time(timeout):
            gtcp.Conn(address, timeout)


# -- what a peer sends, in every order and cut


@rows("B2", "B3", "B4", "B8", "B11", "B12", "B15", "B17")
def cut_anywhere(world: World, chance: random.Random) -> None:
    """Random units in random pieces, with timeouts between them: as the model says."""
    wire = b""
    for _ in range(chance.randint(1, 12)):
        data = chance.randbytes(chance.choice((0, 1, 5, 200)))
        wire += chance.choice((len(data).to_bytes(2, "big") + data, data + b"\n", b"ab" * chance.randint(0, 9), data))
    model = Model()
    ending = chance.choice(("close", "reset"))
    with pair() as (conn, far):
        while wire:
            size = chance.randint(1, len(wire))
            far.sendall(wire[:size])
            model.feed(wire[:size])
            wire = wire[size:]
            for _ in range(chance.randint(0, 3)):
                if not take(conn, model, chance):
                    return
        if ending == "reset":
            reset_after_all(far)
        else:
            far.close()
        # What came before the end is there, the end itself after it.
        while model.buffered:
            size = min(model.buffered, chance.randint(1, 300))
            same(conn.recv(size, timeout=LONG), model.take_exact(size))
        with must_raise(gtcp.EOF if ending == "close" else gtcp.ResetError):
            conn.recv(1, timeout=LONG)


def take(conn: gtcp.Conn, model: Model, chance: random.Random) -> bool:
    """One receive, compared; False when the connection is broken, as it has to be."""
    kind = chance.randint(0, 3)
    size, option = chance.randint(1, 300), gtcp.PkgOption(2, chance.choice((None, 100)))
    limit = option.max_data_size or 0xFFFF
    try:
        expected = (
            lambda: model.take_exact(size),
            lambda: model.take_pkg(2, limit),
            lambda: model.take_till(b"\n", 1 << 20, line=True),
            lambda: model.take_till(b"aba", 1 << 20),
        )[kind]()
    except TooLong:
        with must_raise(gtcp.LimitError):
            conn.recv_pkg(option, timeout=LONG)
        with must_raise(gtcp.BrokenError):
            conn.recv(1, timeout=LONG)
        return False
    timeout = 0.001 if expected is None else LONG
    try:
        with in_time(timeout):
            got = (
                lambda: conn.recv(size, timeout=timeout),
                lambda: conn.recv_pkg(option, timeout=timeout),
                lambda: conn.recv_line(timeout=timeout),
                lambda: conn.recv_till(b"aba", timeout=timeout),
            )[kind]()
    except gtcp.Timeout:
        got = None
    same(got, expected)
    return True


@rows("B13", "B14")
def a_line_without_end(world: World, chance: random.Random) -> None:
    limit = chance.randint(1, 5000)
    with pair() as (conn, far):
        far.sendall(b"x" * (limit + 1))
        with must_raise(gtcp.LimitError):
            conn.recv_line(timeout=LONG, max_size=limit)
        same(conn.recv(limit + 1, timeout=LONG), b"x" * (limit + 1))


@rows("B16", "D5")
def a_flood(world: World, chance: random.Random) -> None:
    begun, done = threading.Event(), threading.Event()

    def pour(far: socket.socket) -> None:
        while not done.is_set():
            far.send(bytes(65536))
            begun.set()

    with pair() as (conn, far), beside(pour, far):
        try:
            conn.set_buffer_wait_recv(LONG)
            begun.wait(LONG)  # the patience that follows is for a flood, not for its thread to begin
            timeout = chance.choice((0.002, 0.01))
            with in_time(timeout):
                got = conn.recv(-1, timeout=timeout)
            if not got:
                raise Wrong("nothing of a flood")
        finally:
            done.set()
            conn.abort()


@rows("C2", "C3")
def a_deaf_peer(world: World, chance: random.Random) -> None:
    data = chance.randbytes(1000) * 300
    with pair(buffers=4096) as (conn, far):
        try:
            with in_time(0.005):
                conn.send(data, timeout=0.005)
        except gtcp.Timeout as error:
            sent = error.sent or 0

            def read() -> None:
                got = bytearray()
                while len(got) < len(data) and (piece := far.recv(1 << 20)):
                    got += piece
                same(bytes(got), data)

            with beside(read):
                conn.send(memoryview(data)[sent:], timeout=LONG)  # where it stopped: nothing twice, nothing missing
        else:
            raise Wrong("300 kB in the buffers of a socket")


@rows("C9", "H3")
def many_senders(world: World, chance: random.Random) -> None:
    count = chance.randint(2, 4)
    packages = [[bytes([i]) * chance.choice((0, 1, 300, 40_000)) for _ in range(5)] for i in range(count)]
    with pair() as (conn, far), gtcp.Conn.from_socket(far) as other, contextlib.ExitStack() as stack:
        for each in packages:
            stack.enter_context(beside(conn.send_pkgs, each, WIDE))
        got = other.recv_pkgs(5 * count, WIDE, timeout=LONG)
        same(sorted(got), sorted(package for each in packages for package in each))


# -- leases and their ends


@rows("E6")
def a_raise_in_the_middle(world: World, chance: random.Random) -> None:
    with must_raise(ZeroDivisionError), world.pool.acquire(LONG) as lease:
        lease.send_pkg(world.payload(chance), WIDE, timeout=LONG)
        raise ZeroDivisionError


@rows("E4", "E7")
def a_reply_left_behind(world: World, chance: random.Random) -> None:
    with world.pool.acquire(LONG) as lease:
        data = world.payload(chance)
        for _ in range(chance.randint(1, 3)):
            lease.send_pkg(data, WIDE, timeout=LONG)
        if chance.random() < 0.5:
            same(lease.recv_pkg(WIDE, timeout=LONG), data)


@rows("E8", "E9", "E10")
def used_after_close(world: World, chance: random.Random) -> None:
    lease = world.pool.acquire(LONG)
    data = world.payload(chance)
    same(lease.send_recv_pkg(data, WIDE, timeout=LONG), data)
    with beside(lease.close):
        lease.close()
    with world.pool.acquire(LONG) as next_one:
        for use in (lambda: lease.send(b"x"), lambda: lease.recv(1), lease.local_addr):
            with must_raise(gtcp.ClosedError):
                use()
        lease.close()
        lease.discard()
        same(next_one.send_recv_pkg(data, WIDE, timeout=LONG), data)


@rows("E13", "E15", "E16")
def a_crowd_at_the_pool(world: World, chance: random.Random) -> None:
    def borrow(patience: float) -> None:
        with may_raise(gtcp.PoolTimeout):
            with in_time(patience):
                lease = world.pool.acquire(patience)
            with lease:
                data = world.payload(chance)
                same(lease.send_recv_pkg(data, WIDE, timeout=LONG), data)

    with contextlib.ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(beside(borrow, chance.choice((0.0, 0.001, LONG))))


@rows("E11", "E12", "E17")
def a_pool_that_ends(world: World, chance: random.Random) -> None:
    with gtcp.Pool(world.direct, max_size=2, ttl=chance.choice((0.0, 0.001, 10.0))) as pool:
        for _ in range(chance.randint(1, 3)):
            with pool.acquire(LONG) as lease:
                data = world.payload(chance)
                same(lease.send_recv_pkg(data, WIDE, timeout=LONG), data)
        with beside(pool.close), may_raise(gtcp.PoolClosed), pool.acquire(LONG) as lease:
            same(lease.send_recv_pkg(b"last", WIDE, timeout=LONG), b"last")


# -- threads and signals


@rows("H1", "H2")
def closed_while_blocked(world: World, chance: random.Random) -> None:
    end = chance.choice(("close", "abort"))
    with pair() as (conn, _):
        with beside(getattr(conn, end)), must_raise(gtcp.ClosedError):
            if chance.random() < 0.5:
                conn.recv(1, timeout=LONG)
            else:
                conn.send(bytes(30_000_000), timeout=LONG)
        with gtcp.Conn(world.direct, LONG) as stranger:  # most likely with the same number
            same(stranger.send_recv_pkg(b"mine", WIDE, timeout=LONG), b"mine")


def address_of(server: gtcp.Server) -> tuple[str, int]:
    return ("127.0.0.1", server.get_listened_port())


class Interrupt(Exception):
    """What a signal handler raises here."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupt


@rows("D6", "H4")
def interrupted(world: World, chance: random.Random) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGALRM, _interrupt)
    try:
        with may_raise(Interrupt):
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 2e-3))
                exchange(world, chance, LONG)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)


@rows("F7", "F10", "F12")
def a_server_that_ends(world: World, chance: random.Random) -> None:
    server = gtcp.Server("127.0.0.1:0", lambda conn: conn.send_pkg(conn.recv_pkg(timeout=LONG)))
    with server, gtcp.Conn(address_of(server), LONG) as conn, beside(server.close), may_raise(*GONE):
        same(conn.send_recv_pkg(b"hello", timeout=LONG), b"hello")


@rows("C7")
def a_buffer_that_others_want(world: World, chance: random.Random) -> None:
    data = bytearray(chance.randbytes(30_000))
    wanted = bytes(data)

    def change() -> None:
        with may_raise(BufferError):
            data.append(1)

    with world.pool.acquire(LONG) as lease, beside(change):
        got = lease.send_recv_pkg(data, WIDE, timeout=LONG)
        if got not in (wanted, wanted + b"\1"):
            raise Wrong("bytes that were never there")


@rows("B20", "A7", "C8")
def wrong_arguments(world: World, chance: random.Random) -> None:
    with world.pool.acquire(LONG) as lease:
        for call in (
            lambda: lease.recv(chance.choice((-2, 2**63, 1.5, True, None))),  # type: ignore[arg-type]
            lambda: lease.send_pkg(bytes(256), gtcp.PkgOption(1)),
            lambda: lease.recv_pkg(timeout=chance.choice((-1, float("nan"), "1"))),  # type: ignore[arg-type]
            lambda: gtcp.PkgOption(chance.choice((0, 5, -1))),
            lambda: gtcp.Conn(chance.choice(("h:8_0", "h:", ":80:", "h:99999", "a\0b:80"))),
        ):
            with must_raise(ValueError, TypeError, OverflowError):
                call()
        data = world.payload(chance)
        same(lease.send_recv_pkg(data, WIDE, timeout=LONG), data)
