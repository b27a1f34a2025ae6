"""What gtcp does to its process: signals, warnings, the cost of the import.

Row ids are those of the project's table of faults.
"""

import _thread
import builtins
import contextlib
import functools
import gc
import itertools
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

import gtcp
from support import child
from support.peers import Peer, echo, reset, socket_pair
from support.timing import LONG, SHORT, eventually
from support.tls import Authority, Ends

# A program given with -c would find the source tree in the current folder, built or not.
NOT_FROM_HERE = "import sys; sys.path[:] = filter(None, sys.path)"
WIDE = gtcp.PkgOption(header_size=4)


def write_to_the_dead(secure: bool) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it; a command line tool may not
    calls: list[Callable[[gtcp.Conn], object]] = [
        lambda conn: conn.send(b"x"),
        lambda conn: conn.send(bytes(1 << 20)),
        lambda conn: conn.send_pkg(b"x"),
        lambda conn: conn.send_pkg(bytes(1 << 20), WIDE),
        lambda conn: conn.send_pkgs([b"x", bytes(1 << 20), b"x"], WIDE),
        lambda conn: conn.send_recv_pkg(b"x"),
        lambda conn: conn.send_recv_pkgs([b"x"] * 100),
    ]
    ends: tuple[Callable[[socket.socket], object], ...] = (reset, lambda sock: sock.close())
    # Over TLS an end without a goodbye has a name of its own.
    gone = (gtcp.PipeError, gtcp.ResetError, gtcp.EOF, gtcp.BrokenError, *([gtcp.TruncatedError] if secure else []))
    with contextlib.ExitStack() as stack:
        pairs = stack.enter_context(Ends(Authority())).connect if secure else functools.partial(plain_ends, stack)
        for end, call in itertools.product(ends, calls):
            conn, far = pairs()
            end(far)
            eventually(lambda: not conn.is_alive())  # noqa: B023 (called before the next one)
            failed = 0
            while failed < 3:
                try:
                    call(conn)
                except gone:
                    failed += 1
            conn.close()  # which over TLS would say goodbye
    print("alive")  # noqa: T201


def plain_ends(stack: contextlib.ExitStack) -> tuple[gtcp.Conn, socket.socket]:
    ours, far = stack.enter_context(socket_pair())
    return stack.enter_context(gtcp.Conn.from_socket(ours)), far


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_C4_a_peer_that_is_gone_is_an_error_not_a_signal(secure: bool) -> None:
    assert child.run(write_to_the_dead, secure) == "alive\n"


def test_the_import_is_light() -> None:
    """TLS, asyncio, pools, servers and options are paid for by those who use them."""
    code = f"{NOT_FROM_HERE}; import gtcp; print(*sys.modules)"
    done = child.interpreter(["-W", "error", "-c", code])
    bare = child.interpreter(["-W", "error", "-c", "import sys; print(*sys.modules)"])
    assert (done.returncode, done.stderr) == (0, ""), child.report(done)
    loaded = set(done.stdout.split()) - set(bare.stdout.split())
    assert not {"ssl", "asyncio", "greenlet", "hashlib", "logging", "signal"} & loaded
    assert not {"dataclasses", "inspect", "re", "typing"} & loaded
    assert "gtcp._core" in loaded


@pytest.mark.parametrize(
    "name", ["Pool", "PoolConn", "Server", "get_pool", "get_server", "load_key_crt", "serve", "Retry", "run"]
)
def test_a_name_that_is_loaded_late_can_be_the_first_that_is_asked_for(name: str) -> None:
    """And what it logs with is loaded along with it, while there are descriptors for that."""
    code = (
        f"from gtcp import {name}; import gtcp, sys; assert gtcp.{name} is {name}; assert '{name}' in dir(gtcp);"
        f"assert 'logging' in sys.modules or '{name}' in {{'load_key_crt', 'Retry', 'run'}}"
    )
    done = child.interpreter(["-W", "error", "-c", code])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), child.report(done)


def test_the_import_starts_no_thread_and_opens_no_descriptor() -> None:
    code = (
        f"{NOT_FROM_HERE}; import os, threading; before = os.listdir('/dev/fd'); import gtcp;"
        "assert os.listdir('/dev/fd') == before; assert threading.active_count() == 1"
    )
    done = child.interpreter(["-W", "error", "-c", code])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), child.report(done)


def drop(what: str) -> None:
    with gtcp.Server("127.0.0.1:0", lambda conn: conn.recv(1)) as server:
        there = ("127.0.0.1", server.get_listened_port())
        with gtcp.Pool(there) as pool:
            held = [gtcp.Conn(there) if what == "connection" else pool.acquire(LONG)]
            held.clear()


@pytest.mark.parametrize(
    ("what", "text"), [("connection", "unclosed <gtcp.Conn"), ("lease", "lease not closed: <gtcp")]
)
def test_E21_what_is_dropped_while_it_is_open_warns(what: str, text: str) -> None:
    """As sockets and files do: on request, not by default, and as an error that cannot be raised."""
    assert child.run(drop, what, options=[]) == ""
    for option, word in (("default", "ResourceWarning"), ("error", "Exception ignored")):
        done = child.call(drop, what, options=["-W", option])
        assert done.returncode == 0, child.report(done)
        assert text in done.stderr, child.report(done)
        assert word in done.stderr, child.report(done)


def outlived_pools() -> None:
    """The moment at which an idle connection's time is over comes, and its pool is gone."""
    with Peer(echo) as peer:
        pool = gtcp.Pool(peer.address, ttl=SHORT / 5)
        pool.acquire().close()
        rings = time.monotonic() + SHORT
        del pool
        gc.collect()
        time.sleep(rings - time.monotonic())
        with gtcp.Pool(peer.address, ttl=SHORT / 5) as pool:
            pool.acquire().close()
            eventually(lambda: pool.stats().closed["ttl"] == 1)


def test_E11_the_reaper_outlives_the_pools() -> None:
    child.run(outlived_pools)


def failing_care(error: str) -> None:
    """A hook raises what no hook should, in the thread that looks after every pool."""
    logging.getLogger("gtcp").addHandler(logging.NullHandler())
    failures = [getattr(builtins, error)("once")]

    def mourn(conn: gtcp.Conn, reason: str) -> None:
        if reason == "ttl" and failures:
            raise failures.pop()

    with (
        Peer(echo) as peer,
        gtcp.Pool(peer.address, ttl=SHORT, on_close=mourn) as pool,
        gtcp.Pool(peer.address, ttl=2 * SHORT) as other,
    ):
        for lease in [pool.acquire(), pool.acquire(), other.acquire()]:
            lease.close()
        eventually(lambda: pool.stats().closed["ttl"] == 2 and other.stats().closed["ttl"] == 1)
        assert failures == []
        with gtcp.Pool(peer.address, min_idle=2) as ready:
            eventually(lambda: ready.stats().idle == 2)


@pytest.mark.parametrize("error", ["LookupError", "SystemExit", "GeneratorExit", "BaseException"])
def test_E5_the_reaper_outlives_what_hooks_raise(error: str) -> None:
    child.run(failing_care, error)


def watched_in_a_bare_thread() -> None:
    """Nobody has called `acquire` but the thread itself: there is no stack to tell."""
    logging.basicConfig(stream=sys.stdout)
    leases: list[gtcp.PoolConn] = []
    with Peer(echo) as peer, gtcp.Pool(peer.address, leak_threshold=SHORT) as pool:
        _thread.start_new_thread(leases.extend, (map(pool.acquire, [LONG]),))
        eventually(lambda: pool._watchlist is not None and leases and not pool._watchlist.held)
        leases.pop().close()


def test_E21_a_lease_that_a_bare_thread_takes_is_reported_too() -> None:
    assert "has been on loan for" in child.run(watched_in_a_bare_thread)


def test_the_runner_notices_what_is_said_and_how_it_ends() -> None:
    for program in (complain, fail, crash):
        with pytest.raises(AssertionError):
            child.run(program)


def complain() -> None:
    import sys

    print("a word", file=sys.stderr)  # noqa: T201


def fail() -> None:
    raise SystemExit(3)


def crash() -> None:
    import os

    os.kill(os.getpid(), signal.SIGSEGV)


def test_the_runner_ends_a_child_that_hangs() -> None:
    done = child.call(hang, within=LONG / 5)
    assert done.returncode == -signal.SIGABRT
    assert "in hang" in done.stderr


def hang() -> None:
    subprocess.run(["sleep", str(100 * LONG)], check=True)
