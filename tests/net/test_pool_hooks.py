"""What a user's functions may do to a pool: anything but harm (E5, E6, E8)."""

import contextlib
import logging
import select
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

import gtcp
import gtcp.aio
from net.ends import Host, MakePool, Serve
from net.handlers import address_of, echo_packages
from support.calls import Call
from support.crew import results, together
from support.faces import everywhere
from support.peers import closed_address, deaf_address, frame, listen, read_frame, reset
from support.timing import LONG, SHORT, eventually, quick, takes


class Nasty(Exception):
    """Not even its words can be had."""

    def __str__(self) -> str:
        raise LookupError

    __repr__ = __str__


class Recorder:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def __call__(self, conn: gtcp.Conn, reason: str) -> None:
        assert conn.closed
        self.notes.append(reason)


def balanced(pool: gtcp.Pool) -> bool:
    """The books of a pool that nobody uses."""
    stats = pool.stats()
    assert (stats.in_use, stats.connecting, stats.waiting) == (0, 0, 0)
    return stats.idle == stats.created - sum(stats.closed.values())


# -- on_connect, dial


def test_on_connect_sets_a_session_up_once(serve: Serve, make_pool: MakePool) -> None:
    def greet(conn: gtcp.Conn) -> None:
        assert type(conn) is gtcp.Conn
        assert conn.send_recv_pkg(b"hello", timeout=LONG) == b"hello"

    pool = make_pool(address_of(serve(echo_packages)), on_connect=greet)
    for _ in range(3):
        with pool.acquire() as lease:
            assert lease.send_recv_pkg(b"question", timeout=LONG) == b"question"
    assert (pool.stats().created, pool.stats().reused) == (1, 2)


@pytest.mark.parametrize("error", [LookupError, gtcp.Timeout, Nasty, SystemExit], ids=lambda error: error.__name__)
def test_a_failure_of_on_connect_reaches_the_caller(
    host: Host, make_pool: MakePool, error: type[BaseException]
) -> None:
    def fail(conn: gtcp.Conn) -> None:
        raise error

    pool = make_pool(host.address, on_connect=fail, max_size=1)
    for _ in range(2):
        with quick(), pytest.raises(error):
            pool.acquire(LONG)
        assert host.accept().recv(1) == b""
    assert (pool.stats().failed, pool.stats().created) == (2, 0)
    assert balanced(pool)


def test_on_connect_has_the_time_of_the_dial(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, on_connect=lambda conn: conn.recv(1), connect_timeout=SHORT)
    with takes(SHORT), pytest.raises(gtcp.PoolTimeout, match="setting up a connection to"):
        pool.acquire(LONG)
    assert balanced(pool)


@pytest.mark.parametrize("left", ["closed", "half a package"])
def test_a_dial_that_leaves_nothing_fit_for_use(host: Host, make_pool: MakePool, left: str) -> None:
    def dial(address: gtcp.Address, seconds: float | None) -> gtcp.Conn:
        conn = gtcp.Conn(address, seconds)
        if left == "closed":
            conn.close()
        else:
            host.accept().sendall(b"\0")
            with pytest.raises(gtcp.Timeout):
                conn.recv_pkg(timeout=SHORT)
            conn.abort()
        return conn

    pool = make_pool(host.address, dial=dial)
    with pytest.raises(gtcp.BrokenError):
        pool.acquire(LONG)
    assert balanced(pool)


@pytest.mark.parametrize("kind", [socket.socket, gtcp.Conn])
def test_the_users_dial(host: Host, make_pool: MakePool, kind: type) -> None:
    asked = []

    def dial(address: gtcp.Address, seconds: float | None) -> Any:
        asked.append((str(address), seconds))
        return gtcp.dial(address, seconds) if kind is socket.socket else gtcp.Conn(address, seconds)

    pool = make_pool(host.address, dial=dial, connect_timeout=5)
    with pool.acquire(LONG) as lease:
        host.accept().sendall(b"x")
        assert lease.recv(1, timeout=LONG) == b"x"
    assert [address for address, _ in asked] == [host.address]
    assert 4 < asked[0][1] <= 5


def closed_socket() -> socket.socket:
    sock = socket.socket()
    sock.close()
    return sock


UNFIT: dict[str, tuple[Callable[[], socket.socket], str]] = {
    "closed": (closed_socket, "this one is closed"),
    "listening": (listen, "this one listens at 127.0.0.1:"),
    "not connected": (socket.socket, "this one has no peer"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_a_dial_that_answers_no_connection(host: Host, make_pool: MakePool, what: str) -> None:
    make, words = UNFIT[what]
    made = []

    def dial(address: gtcp.Address, seconds: float | None) -> socket.socket:
        made.append(make())
        return made[-1]

    pool = make_pool(host.address, dial=dial)
    with pytest.raises(ValueError, match=f"dial must answer a connected socket or gtcp.Conn: .*{words}"):
        pool.acquire(LONG)
    assert made[0].fileno() == -1
    assert balanced(pool)


def test_a_dial_that_answers_a_datagram_socket(host: Host, make_pool: MakePool) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as made:
        pool = make_pool(host.address, dial=lambda address, seconds: made)
        with pytest.raises(TypeError, match=r"dial must .*: .* stream socket"):
            pool.acquire(LONG)
        assert made.fileno() == -1
    assert balanced(pool)


def test_E10_a_dial_cannot_bring_another_pools_lease(host: Host, make_pool: MakePool) -> None:
    """Nothing is done with it, and whatever `dial` has done is not for the other pool's next borrower."""
    greeted: list[gtcp.Conn] = []
    other = make_pool(host.address)
    pool = make_pool(host.address, dial=lambda address, seconds: other.acquire(), on_connect=greeted.append)
    with pytest.raises(ValueError, match=r"dial must answer .* another pool"):
        pool.acquire(LONG)
    assert not greeted
    assert other.stats().closed["discarded"] == 1
    assert balanced(other)
    assert balanced(pool)


@everywhere
@pytest.mark.parametrize("where", ["on_connect", "dial"])
def test_E5_a_connection_on_which_a_call_of_the_set_up_failed_is_not_lent(
    host: Host, make_pool: MakePool, where: str, face: str
) -> None:
    """The reply to an optional greeting comes later, and would be the first borrower's."""

    def greet(conn: gtcp.Conn) -> None:
        with contextlib.suppress(gtcp.Timeout):
            conn.send_recv_pkg(b"hello", timeout=0)

    async def greet_in_loop(conn: gtcp.aio.Conn) -> None:
        with contextlib.suppress(gtcp.Timeout):
            await conn.send_recv_pkg(b"hello", timeout=0)

    def dial(address: gtcp.Address, seconds: float | None) -> gtcp.Conn:
        conn = gtcp.Conn(address, seconds)
        greet(conn)
        return conn

    async def dial_in_loop(address: gtcp.Address, seconds: float | None) -> gtcp.aio.Conn:
        conn = await gtcp.aio.connect(address, seconds)
        await greet_in_loop(conn)
        return conn

    in_loop = face != "threads"
    functions = {"on_connect": greet_in_loop if in_loop else greet, "dial": dial_in_loop if in_loop else dial}
    pool = make_pool(host.address, **{where: functions[where]})
    with pytest.raises(gtcp.BrokenError, match="dial or on_connect has left"):
        pool.acquire(LONG)
    assert (pool.stats().created, pool.stats().failed) == (0, 1)
    assert balanced(pool)


def test_a_dial_that_answers_something_else(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, dial=lambda address, seconds: "socket")
    with pytest.raises(TypeError, match="dial must answer"):
        pool.acquire(LONG)
    assert balanced(pool)


# -- check


@everywhere
def test_E25_a_check_that_talks(serve: Serve, make_pool: MakePool) -> None:
    asked = []

    def answer(conn: gtcp.Conn) -> None:
        for package in conn.packages():
            conn.send_pkg(package)
            if package == b"ping":
                asked.append(conn)

    pool = make_pool(address_of(serve(answer)), check=lambda lease: lease.send_recv_pkg(b"ping"))
    for _ in range(3):
        with pool.acquire() as lease:
            assert lease.send_recv_pkg(b"question", timeout=LONG) == b"question"
    assert len(asked) == 2  # a connection that was made for the lease needs none
    assert balanced(pool)


@everywhere
@pytest.mark.parametrize("bad", [lambda lease: False, lambda lease: 1 / 0, lambda lease: lease.discard()])
def test_E1_those_that_fail_the_check_are_passed_over(
    host: Host, make_pool: MakePool, bad: Callable[[gtcp.PoolConn], object]
) -> None:
    """At once, however many they are: no pause between them."""
    pool = make_pool(host.address, check=bad)
    leases = [pool.acquire() for _ in range(20)]
    for lease in leases:
        lease.close()
    with quick():
        pool.acquire(LONG).close()
    assert pool.stats().created == 21
    assert (pool.stats().acquired, pool.stats().idle) == (21, 1)
    assert balanced(pool)


def test_a_connection_that_was_dialled_ahead_is_checked_too(host: Host, make_pool: MakePool) -> None:
    asked = []
    pool = make_pool(host.address, check=lambda lease: asked.append(lease) is None)
    pool.prefill(1)
    pool.acquire().close()
    assert len(asked) == 1
    assert pool.stats().reused == 1


@everywhere
def test_E25_the_check_of_a_connection_whose_peer_vanished_ends_in_time(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, check=lambda lease: lease.send_recv_pkg(b"ping"), check_timeout=SHORT)
    pool.acquire().close()
    far = host.accept()
    with takes(SHORT), pool.acquire(LONG):
        assert read_frame(far) == b"ping"
        host.accept()
    assert pool.stats().closed["check"] == 1
    assert balanced(pool)


def test_a_check_never_outlives_the_wait(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, check=lambda lease: lease.send_recv_pkg(b"ping"))
    leases = [pool.acquire() for _ in range(3)]
    for lease in leases:
        lease.close()
    with takes(SHORT), pytest.raises(gtcp.PoolTimeout, match="passed the check"):
        pool.acquire(SHORT)
    assert pool.stats().idle == 2  # the time was up before they were asked
    assert balanced(pool)


def test_a_check_that_leaves_a_reply_behind_does_not_pass(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, check=lambda lease: lease.send_pkg(b"ping"))
    for _ in range(2):
        with pool.acquire():
            pass
    assert pool.stats().closed["check"] == 1


# -- on_acquire, on_release


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt])
def test_a_failure_of_on_acquire_reaches_the_caller(
    host: Host, make_pool: MakePool, error: type[BaseException]
) -> None:
    def fail(lease: gtcp.PoolConn) -> None:
        raise error

    pool = make_pool(host.address, on_acquire=fail, max_size=1)
    for _ in range(2):
        with pytest.raises(error):
            pool.acquire(LONG)
    assert (pool.stats().acquired, pool.stats().closed["error"]) == (0, 2)
    assert balanced(pool)


def test_on_acquire_talks_within_the_callers_time(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, on_acquire=lambda lease: lease.recv(1))
    with takes(SHORT), pytest.raises(gtcp.PoolTimeout, match="on_acquire") as caught:
        pool.acquire(SHORT)
    assert caught.value.stats is not None
    assert (caught.value.stats.timeouts, pool.stats().timeouts) == (1, 1)
    assert balanced(pool)


@pytest.mark.parametrize("hook", ["dial", "on_connect", "on_acquire"])
def test_a_hook_may_have_a_limit_of_its_own(host: Host, make_pool: MakePool, hook: str) -> None:
    def impatient(*_: object) -> None:
        raise gtcp.Timeout("not even begun")

    pool = make_pool(host.address, **{hook: impatient})
    with pytest.raises(gtcp.Timeout, match="not even begun") as caught:
        pool.acquire(LONG)
    assert not isinstance(caught.value, gtcp.PoolTimeout)
    assert pool.stats().timeouts == 0
    assert balanced(pool)


def test_the_time_of_the_hook_is_not_the_leases(serve: Serve, make_pool: MakePool) -> None:
    pool = make_pool(address_of(serve(echo_packages)), on_acquire=lambda lease: lease.send_recv_pkg(b"reset") and None)
    for _ in range(2):
        with pool.acquire(SHORT) as lease:
            with pytest.raises(gtcp.Timeout):
                lease.recv_pkg(timeout=1.2 * SHORT)
            assert lease.send_recv_pkg(b"question") == b"question"


@pytest.mark.parametrize("end", ["close", "discard"])
def test_E8_on_acquire_may_end_the_lease(host: Host, make_pool: MakePool, end: str) -> None:
    """Then there is nothing to lend; the caller's time bounds the attempts."""
    pool = make_pool(host.address, on_acquire=lambda lease: getattr(lease, end)())
    with takes(SHORT / 2, SHORT), pytest.raises(gtcp.PoolTimeout):
        pool.acquire(SHORT)
    assert pool.stats().acquired == 0
    assert balanced(pool)


@pytest.mark.parametrize("end", ["close", "discard"])
def test_E8_an_on_acquire_that_always_ends_the_lease_is_an_error(host: Host, make_pool: MakePool, end: str) -> None:
    """Also for who has all the time of the world."""
    pool = make_pool(host.address, on_acquire=lambda lease: getattr(lease, end)())
    with quick(LONG / 2), pytest.raises(RuntimeError, match="on_acquire ended 8 leases in a row"):
        pool.acquire(None)
    assert pool.stats().created <= 8
    assert balanced(pool)


def test_E8_on_acquire_may_pass_over_any_number_of_old_connections(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, on_acquire=lambda lease: lease.discard() if lease.local_addr() in old else None)
    old: list[gtcp.Address] = []
    leases = [pool.acquire() for _ in range(30)]
    old += [lease.local_addr() for lease in leases]
    for lease in leases:
        lease.close()
    pool.acquire(None).close()
    assert pool.stats().closed["discarded"] == 30
    assert balanced(pool)


@pytest.mark.parametrize("hook", ["dial", "on_connect"])
@pytest.mark.parametrize("call", ["clear", "expire"])
def test_E17_a_hook_that_always_clears_the_pool_is_an_error(
    host: Host, make_pool: MakePool, hook: str, call: str
) -> None:
    """What it sets up is older than that, so none of it may be lent."""

    def clears(conn: Any, *seconds: float | None) -> Any:
        made = gtcp.Conn(conn, LONG) if seconds else None
        getattr(pool, call)()
        return made

    pool = make_pool(host.address, **{hook: clears})
    with quick(LONG / 2), pytest.raises(RuntimeError, match="8 new connections in a row were cleared"):
        pool.acquire(None)
    assert (pool.stats().created, pool.stats().closed["cleared"]) == (8, 8)
    assert balanced(pool)


def test_on_release_may_talk(serve: Serve, make_pool: MakePool) -> None:
    pool = make_pool(address_of(serve(echo_packages)), on_release=lambda lease: lease.send_recv_pkg(b"reset"))
    for _ in range(3):
        with pool.acquire() as lease:
            assert lease.send_recv_pkg(b"question", timeout=LONG) == b"question"
            lease.set_deadline(0)  # the borrower's time is not the hook's
    assert pool.stats().created == 1
    assert balanced(pool)


def test_on_release_ends_in_time(host: Host, make_pool: MakePool, caplog: pytest.LogCaptureFixture) -> None:
    pool = make_pool(host.address, on_release=lambda lease: lease.recv(1), check_timeout=SHORT)
    lease = pool.acquire()
    with takes(SHORT):
        lease.close()
    assert pool.stats().closed["error"] == 1
    assert "on_release" in caplog.text


@pytest.mark.parametrize("error", [LookupError, Nasty])
def test_a_failure_of_on_release_is_logged(
    host: Host, make_pool: MakePool, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    def fail(lease: gtcp.PoolConn) -> None:
        raise error

    pool = make_pool(host.address, on_release=fail, max_size=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging, "raiseExceptions", False)
        for _ in range(2):
            pool.acquire(LONG).close()
    assert [record.message for record in caplog.records] == [f"on_release of the pool of {host.address} failed"] * 2
    assert pool.stats().closed["error"] == 2
    assert balanced(pool)


def test_E6_an_interrupted_on_release_gives_the_place_back(host: Host, make_pool: MakePool) -> None:
    def fail(lease: gtcp.PoolConn) -> None:
        raise KeyboardInterrupt

    pool = make_pool(host.address, on_release=fail, max_size=1, leak_threshold=LONG)
    for _ in range(2):
        lease = pool.acquire(LONG)
        with pytest.raises(KeyboardInterrupt):
            lease.close()
        assert lease.closed
    assert balanced(pool)
    assert pool._watchlist is not None
    assert not pool._watchlist.held


@pytest.mark.parametrize("kill", [reset, socket.socket.close], ids=["reset", "close"])
def test_E1_a_connection_found_dead_by_on_release_is_not_replaced(
    host: Host, make_pool: MakePool, kill: Callable[[socket.socket], None]
) -> None:
    """The lease had sent nothing itself: a send of the borrower would be made on a new connection."""
    pool = make_pool(host.address, check=False, on_release=lambda lease: lease.send_recv_pkg(b"reset"))
    closing = Call(pool.acquire().close)
    far = host.accept()
    assert read_frame(far) == b"reset"
    far.sendall(frame(b"as new"))
    closing.result()
    assert pool.stats().idle == 1
    kill(far)
    pool.acquire().close()
    stats = pool.stats()
    assert (stats.created, stats.idle, stats.in_use) == (1, 0, 0)
    assert balanced(pool)
    assert host.nobody_came()


def test_on_release_may_keep_it_out_of_the_pool(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, on_release=lambda lease: lease.discard())
    pool.acquire().close()
    assert pool.stats().idle == 0
    assert balanced(pool)


def test_on_release_does_not_see_what_is_not_fit_to_go_back(host: Host, make_pool: MakePool) -> None:
    seen: list[gtcp.PoolConn] = []
    pool = make_pool(host.address, on_release=seen.append)
    pool.acquire().discard()
    with pool.acquire() as lease:
        lease.send(b"no reply to this")
    assert seen == []


# -- on_close


def test_on_close_tells_why(host: Host, make_pool: MakePool) -> None:
    recorder = Recorder()
    pool = make_pool(host.address, on_close=recorder, ttl=5 * SHORT)
    pool.acquire().discard()
    with pool.acquire() as lease:
        lease.send(b"no reply to this")
    pool.acquire().close()
    eventually(lambda: len(recorder.notes) == 3)
    pool.acquire().close()
    pool.clear()
    assert recorder.notes == ["discarded", "owed", "ttl", "cleared"]


def test_E21_on_close_hears_of_a_lease_that_was_dropped(host: Host, make_pool: MakePool) -> None:
    recorder = Recorder()
    pool = make_pool(host.address, on_close=recorder, max_idle=0)
    lease = pool.acquire()
    with pytest.warns(ResourceWarning, match="lease not closed"):
        del lease
    eventually(lambda: recorder.notes == ["leaked"])


@pytest.mark.parametrize("error", [LookupError, Nasty])
def test_a_failure_of_on_close_is_logged(
    host: Host, make_pool: MakePool, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    def fail(conn: gtcp.Conn, reason: str) -> None:
        raise error

    pool = make_pool(host.address, on_close=fail)
    leases = [pool.acquire() for _ in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging, "raiseExceptions", False)
        leases[0].discard()
        for lease in leases[1:]:
            lease.close()
        pool.clear()
        eventually(lambda: len(caplog.records) == 3)  # the reaper may have been at one of them already
    assert [record.message for record in caplog.records] == [f"on_close of the pool of {host.address} failed"] * 3
    assert balanced(pool)


def test_E22_hooks_may_use_the_pool(host: Host, make_pool: MakePool) -> None:
    """No lock is held while they run."""

    def look(*_: object) -> None:
        assert pool.stats().in_use + pool.stats().idle >= 0
        pool._reap()
        spare.acquire(LONG).close()

    spare = make_pool(host.address)
    pool = make_pool(host.address, on_connect=look, on_acquire=look, on_release=look, on_close=look, check=look)
    for _ in range(3):
        with quick():
            pool.acquire(LONG).close()
            pool.clear()
    assert balanced(pool)


def test_E22_on_close_may_use_its_own_pool(host: Host, make_pool: MakePool) -> None:
    """Even when the connection died on its way to a caller that waits, and the pool has room for one only."""
    used = []

    def use(conn: gtcp.Conn, reason: str) -> None:
        if reason == "dirty":
            with pool.acquire(LONG) as lease:
                used.append(lease.local_addr())

    pool = make_pool(host.address, max_size=1, on_close=use)
    lease = pool.acquire(LONG)
    waiting = Call(pool.acquire, LONG)
    eventually(lambda: pool.stats().waiting == 1)
    host.accept().sendall(b"junk")
    select.select([lease.fileno()], [], [], LONG)
    lease.close()
    waiting.result().close()
    eventually(lambda: used)
    assert pool.stats().closed["dirty"] == 1
    eventually(lambda: pool.stats().idle == 1)
    assert balanced(pool)


@pytest.mark.parametrize("what", ["acquire", "clear"])
def test_E22_on_close_that_uses_its_own_pool_does_not_call_itself(host: Host, make_pool: MakePool, what: str) -> None:
    """After a restart of the server each acquire finds another dead connection."""
    here = threading.local()
    depths: list[int] = []

    def use(conn: gtcp.Conn, reason: str) -> None:
        here.depth = getattr(here, "depth", 0) + 1
        if what == "clear":
            pool.clear()
        else:
            pool.acquire(LONG).close()
        depths.append(here.depth)
        here.depth -= 1

    pool = make_pool(host.address, on_close=use)
    leases = [pool.acquire(LONG) for _ in range(20)]
    for _ in leases:
        host.accept().shutdown(socket.SHUT_RDWR)
    for lease in leases:
        eventually(lambda: not lease.is_alive())  # noqa: B023
        lease.close()
    pool.acquire(LONG).close()
    eventually(lambda: len(depths) >= 20)
    assert max(depths) == 1
    assert what == "clear" or pool.stats().closed["peer_closed"] == 20


def test_E11_on_close_that_takes_its_time_keeps_no_other_pool_waiting(host: Host, make_pool: MakePool) -> None:
    end = threading.Event()
    slow = make_pool(host.address, ttl=SHORT / 2, on_close=lambda conn, reason: end.wait(LONG))
    other = make_pool(host.address, ttl=SHORT)
    slow.acquire().close()
    eventually(lambda: slow.stats().closed["ttl"] == 1)
    with quick(1.0 + SHORT):
        other.acquire().close()
        eventually(lambda: other.stats().closed["ttl"] == 1)
        slow.acquire().close()
        eventually(lambda: slow.stats().closed["ttl"] == 2)  # nor its own connections
    end.set()


def test_E15_a_hook_that_blocks_holds_nobody_else_up(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, on_release=lambda lease: lease.recv(1))
    slow = pool.acquire()
    far = host.accept()
    closing = Call(slow.close).sleeping()
    with quick():
        lease = pool.acquire(LONG)
    far.sendall(b"x")
    closing.result()
    host.accept().sendall(b"x")
    lease.close()
    assert pool.stats().idle == 2


def test_a_failing_dial_with_unspeakable_words_costs_no_place(make_pool: MakePool) -> None:
    def dial(address: gtcp.Address, seconds: float | None) -> gtcp.Conn:
        raise Nasty

    with closed_address() as address:
        pool = make_pool(address, dial=dial, max_size=1)
        for _ in range(3):
            with quick(2 * SHORT), pytest.raises(Nasty):
                pool.acquire(LONG)
        assert balanced(pool)


class Odd(Exception):
    """Made of more than it keeps as its arguments, so `copy` cannot make another one."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(f"{what} {code}")
        self.code = code


@pytest.mark.parametrize("failure", [Odd("refused", 7), gtcp.EOF(), OSError(9, "no", "there")], ids=str)
def test_callers_that_share_the_outcome_of_a_probe_get_an_exception_each(
    make_pool: MakePool, failure: Exception
) -> None:
    tries: list[int] = []
    over = threading.Event()

    def dial(address: gtcp.Address, seconds: float | None) -> gtcp.Conn:
        tries.append(1)
        if len(tries) > 1:
            assert over.wait(LONG)
        raise failure

    pool = make_pool("127.0.0.1:1", dial=dial)
    with pytest.raises(type(failure)):
        pool.acquire(LONG)
    callers = [Call(pool.acquire, LONG) for _ in range(4)]
    eventually(lambda: len(tries) == 2 and pool.stats().waiting == 3)
    over.set()
    errors = []
    for caller in callers:
        with pytest.raises(type(failure)) as raised:
            caller.result()
        errors.append(raised.value)
        assert (str(raised.value), vars(raised.value)) == (str(failure), vars(failure))
    # Who came when the probe had begun has asked anew, and there is one failure that all dials raise.
    assert len(set(map(id, errors))) == 4 - (len(tries) - 2)


def test_a_dial_may_end_in_a_timeout_of_the_standard_library(make_pool: MakePool) -> None:
    def dial(address: gtcp.Address, seconds: float | None) -> socket.socket:
        assert seconds
        return socket.create_connection((address.host, address.port), seconds)

    with deaf_address() as address:
        pool = make_pool(address, dial=dial)
        with takes(SHORT), pytest.raises(gtcp.PoolTimeout, match="connecting to"):
            pool.acquire(SHORT)
        with quick(), pytest.raises(gtcp.PoolTimeout, match="connecting to"):
            pool.acquire(0)  # for which no function of the user's is called
        assert "last dial failed" not in repr(pool)  # somebody with more time may have more luck
        eventually(lambda: pool.stats().connecting == 0)
        assert balanced(pool)


def test_the_words_of_a_failure_are_cut(make_pool: MakePool) -> None:
    def dial(address: gtcp.Address, seconds: float | None) -> gtcp.Conn:
        raise ValueError("x" * 100_000)

    pool = make_pool("127.0.0.1:1", dial=dial)
    with pytest.raises(ValueError, match="xxx"):
        pool.acquire(LONG)
    assert "xxx" in repr(pool)
    assert len(repr(pool)) < 500


def test_the_number_of_leases_never_falls(host: Host, make_pool: MakePool) -> None:
    seen: list[int] = []

    def refuse_once(lease: gtcp.PoolConn) -> None:
        seen.append(pool.stats().acquired)
        if len(seen) == 1:
            lease.discard()

    pool = make_pool(host.address, on_acquire=refuse_once)
    pool.acquire(LONG).close()
    assert [*seen, pool.stats().acquired] == [0, 0, 1]


def test_two_threads_that_open_one_lease(host: Host, make_pool: MakePool) -> None:
    both = threading.Barrier(2)

    def dial(address: gtcp.Address, seconds: float | None) -> gtcp.Conn:
        both.wait(LONG)
        return gtcp.Conn(address, seconds)

    with gtcp.get_pool(host.address, dial=dial) as pool:
        lease = gtcp.PoolConn.__new__(gtcp.PoolConn)
        refused: list[RuntimeError] = []

        def open_it() -> None:
            try:
                lease.__init__(host.address)  # type: ignore[misc]
            except RuntimeError as error:
                refused.append(error)

        results(together([open_it] * 2))
        assert len(refused) == 1
        lease.close()
        assert (pool.stats().in_use, pool.stats().idle) == (0, 2)
