"""Pool and PoolConn: a connection on loan, and the next one who gets it (E8, E9, E12, E17, E21)."""

import functools
import gc
import os
import socket
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import gtcp
from gtcp import _reaper, _shared
from net.ends import Host, MakePool, Serve
from net.handlers import address_of, echo
from support.calls import Call
from support.faces import everywhere
from support.timing import LONG, SHORT, eventually, quick, takes


def port_of(conn: gtcp.Conn) -> int:
    return conn.local_addr().port


def test_a_connection_is_reused_by_the_next_lease(serve: Serve, make_pool: MakePool) -> None:
    pool = make_pool(address_of(serve(echo)))
    ports = set()
    for _ in range(5):
        with pool.acquire() as conn:
            assert conn.send_recv(b"hello", timeout=LONG) == b"hello"
            ports.add(port_of(conn))
    assert len(ports) == 1
    stats = pool.stats()
    assert (stats.created, stats.acquired, stats.reused, stats.idle, stats.in_use) == (1, 5, 4, 1, 0)


def test_pool_conn_uses_the_shared_pool(serve: Serve) -> None:
    address = address_of(serve(echo))
    with gtcp.get_pool(address) as pool:
        ports = set()
        for _ in range(5):
            conn = gtcp.PoolConn(address, LONG)
            assert conn.send_recv(b"hello", timeout=LONG) == b"hello"
            ports.add(port_of(conn))
            conn.close()
        assert len(ports) == 1
        assert pool.stats().acquired == 5


def test_a_lease_is_a_new_object_each_time(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    first = pool.acquire()
    first.close()
    second = pool.acquire()
    assert second is not first
    assert isinstance(second, gtcp.PoolConn)
    assert isinstance(second, gtcp.Conn)
    second.close()


def test_lifo_the_last_one_back_is_the_next_one_out(host: Host, make_pool: MakePool) -> None:
    assert order_of_reuse(make_pool(host.address)) == [2, 1, 0]


def test_fifo_the_one_that_rested_longest_is_the_next_one_out(host: Host, make_pool: MakePool) -> None:
    assert order_of_reuse(make_pool(host.address, order="fifo")) == [0, 1, 2]


def order_of_reuse(pool: gtcp.Pool) -> list[int]:
    leases = [pool.acquire() for _ in range(3)]
    ports = [port_of(lease) for lease in leases]
    for lease in leases:
        lease.close()
    leases = [pool.acquire() for _ in range(3)]
    order = [ports.index(port_of(lease)) for lease in leases]
    for lease in leases:
        lease.close()
    return order


@everywhere
def test_settings_of_a_lease_end_with_it(serve: Serve, make_pool: MakePool) -> None:
    pool = make_pool(address_of(serve(echo)))
    with pool.acquire() as conn:
        conn.set_deadline(0)
        conn.set_buffer_wait_recv(LONG)
    with pool.acquire() as conn, quick():
        assert conn.send_recv(b"hello") == b"hello"
    assert pool.stats().created == 1


# -- the end of a lease


@everywhere
@pytest.mark.parametrize("end", ["close", "discard", "abort"])
def test_E8_ending_a_lease_twice(host: Host, make_pool: MakePool, end: str) -> None:
    pool = make_pool(host.address)
    first = pool.acquire()
    first.close()
    second = pool.acquire()  # the same connection
    for _ in range(2):
        getattr(first, end)()
    host.accept().sendall(b"x")
    assert second.recv(1, timeout=LONG) == b"x"
    second.close()
    stats = pool.stats()
    assert (stats.created, stats.idle, stats.in_use) == (1, 1, 0)


@everywhere
def test_E8_two_threads_end_a_lease_at_once(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    for _ in range(50):
        lease = pool.acquire()
        for call in [Call(lease.close) for _ in range(4)]:
            call.result()
    stats = pool.stats()
    assert (stats.created, stats.idle, stats.in_use) == (1, 1, 0)


@everywhere
def test_E9_a_lease_is_dead_after_its_end(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    old = pool.acquire()
    old.close()
    new = pool.acquire()
    far = host.accept()
    far.sendall(b"for the new one")
    for use in (
        lambda: old.recv(timeout=LONG),
        lambda: old.send(b"x"),
        lambda: old.send_recv_pkg(b"x"),
        old.recv_pkgs,
        lambda: next(old.lines()),
        old.local_addr,
        old.remote_addr,
        old.close_write,
        old.detach,
    ):
        with pytest.raises(gtcp.ClosedError):
            use()
    assert old.closed
    assert old.fileno() == -1
    assert not old.is_alive()
    assert repr(old).endswith("PoolConn closed>")
    assert new.recv(timeout=LONG) == b"for the new one"
    new.send(b"y")
    assert far.recv(10) == b"y"
    new.discard()


@everywhere
@pytest.mark.parametrize("end", ["discard", "abort"])
def test_a_lease_can_be_kept_out_of_the_pool(host: Host, make_pool: MakePool, end: str) -> None:
    pool = make_pool(host.address)
    lease = pool.acquire()
    far = host.accept()
    getattr(lease, end)()
    with pytest.raises(ConnectionResetError) if end == "abort" else quick():
        assert far.recv(1) == b""
    stats = pool.stats()
    assert (stats.idle, stats.in_use, stats.closed["discarded"]) == (0, 0, 1)


@everywhere
def test_an_exception_inside_with_discards(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    with pytest.raises(LookupError), pool.acquire():
        raise LookupError
    assert host.accept().recv(1) == b""
    assert pool.stats().closed["discarded"] == 1


@everywhere
def test_a_detached_lease_leaves_its_pool(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    with pool.acquire().detach() as sock:
        sock.sendall(b"x")
        assert host.accept().recv(1) == b"x"
        stats = pool.stats()
        assert (stats.idle, stats.in_use) == (0, 0)


@everywhere
def test_E21_a_forgotten_lease_warns_and_frees_its_place(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, max_size=1)
    lease = pool.acquire()
    text = repr(lease)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del lease
        gc.collect()
    assert [str(each.message) for each in caught] == [f"lease not closed: {text}"]
    assert caught[0].category is ResourceWarning
    assert host.accept().recv(1) == b""
    with quick():
        pool.acquire(LONG).close()
    assert pool.stats().closed["leaked"] == 1


# -- the end of the pool


@everywhere
def test_E17_close_ends_idle_connections_now_and_leases_when_they_come_back(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    lease, idle = pool.acquire(), pool.acquire()
    lent, resting = host.accept(), host.accept()
    idle.close()
    pool.close()
    assert resting.recv(1) == b""
    lent.sendall(b"x")
    assert lease.recv(1, timeout=LONG) == b"x"
    lease.close()
    assert lent.recv(1) == b""
    stats = pool.stats()
    assert (stats.idle, stats.in_use, stats.closed["cleared"]) == (0, 0, 2)


@everywhere
def test_E17_a_closed_pool_lends_nothing(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    for _ in range(2):
        pool.close()
    with quick(), pytest.raises(gtcp.PoolClosed) as error:
        pool.acquire()
    assert isinstance(error.value, gtcp.ClosedError)
    assert host.nobody_came()


@everywhere
def test_E17_close_wakes_those_who_wait(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, max_size=1)
    lease = pool.acquire()
    waiting = [Call(pool.acquire, LONG).sleeping() for _ in range(3)]
    with quick():
        pool.close()
        for call in waiting:
            with pytest.raises(gtcp.PoolClosed):
                call.result()
    lease.close()


def test_a_closed_shared_pool_is_replaced(host: Host) -> None:
    with gtcp.get_pool(host.address) as first:
        gtcp.PoolConn(host.address).close()
    with gtcp.get_pool(host.address) as second:
        assert second is not first
        gtcp.PoolConn(host.address).close()
        assert second.stats().acquired == 1


def test_a_shared_pool_that_nobody_asked_for_is_forgotten_when_it_is_empty_for_long(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def known(address: str) -> int:
        _shared._shared.forget_unused()
        return sum(str(pool.addr) == address for pool in gtcp.pools())

    gtcp.PoolConn(host.address).close()
    [pool] = [pool for pool in gtcp.pools() if str(pool.addr) == host.address]
    assert known(host.address) == 1  # with an idle connection
    pool.clear()
    assert known(host.address) == 1  # empty since now
    monkeypatch.setattr(_shared, "_FORGOTTEN_AFTER", 0.0)
    monkeypatch.setattr(_reaper, "chores", [])  # else it would look all the time
    gtcp.PoolConn(host.address).discard()
    assert known(host.address) == 1  # used meanwhile
    assert known(host.address) == 0
    with gtcp.get_pool(host.address) as asked_for:
        assert asked_for is not pool
        assert [known(host.address) for _ in range(3)] == [1, 1, 1]


def test_E11_shared_pools_in_which_nothing_ever_rested_are_forgotten_too(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_shared, "_FORGOTTEN_AFTER", SHORT)
    monkeypatch.setattr(_reaper, "chores", [_shared._Lookout()])  # one that has not looked just now
    gtcp.PoolConn(host.address).discard()
    eventually(lambda: all(str(pool.addr) != host.address for pool in gtcp.pools()))


def test_what_a_pool_is_called_is_noted_once(host: Host) -> None:
    class Name(str):
        __slots__ = ()

    for _ in range(10):
        for address in (host.address, Name(host.address)):
            gtcp.PoolConn(address).close()
            gtcp.PoolConn(address, tls=False).close()
    with gtcp.get_pool(host.address) as pool:
        assert pool._spellings == {host.address}


def test_a_lease_waits_as_long_as_its_pool_says(host: Host) -> None:
    with gtcp.get_pool(host.address, max_size=1, timeout=SHORT) as pool, pool.acquire():
        with takes(SHORT), pytest.raises(gtcp.PoolTimeout):
            gtcp.PoolConn(host.address)
        with quick(), pytest.raises(gtcp.PoolTimeout):
            gtcp.PoolConn(host.address, 0)


def test_E23_a_pool_is_known_by_its_first_options_whatever_its_size(host: Host) -> None:
    with gtcp.get_pool(host.address, max_size=10, min_idle=3) as pool:
        pool.resize(2)
        assert gtcp.get_pool(host.address) is gtcp.get_pool(host.address, max_size=10) is pool
        gtcp.PoolConn(pool.addr).close()
        assert pool.stats().max_size == 2


def test_a_shared_pool_that_another_thread_has_made_meanwhile_is_the_one(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[gtcp.Pool] = []

    def make(*args: Any, **options: Any) -> gtcp.Pool:
        pool = gtcp.Pool(*args, **options)
        if not made:
            made.append(pool)
            made.append(Call(gtcp.get_pool, host.address).result())
        return pool

    monkeypatch.setattr(_shared._shared, "_make", make)
    with gtcp.get_pool(host.address) as pool:
        assert pool is made[1]
        assert made[0].closed
        assert not pool.closed


@everywhere
def test_clear_replaces_what_there_was(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    lease, idle = pool.acquire(), pool.acquire()
    lent, resting = host.accept(), host.accept()
    idle.close()
    pool.clear()
    assert resting.recv(1) == b""
    lease.close()
    assert lent.recv(1) == b""
    with pool.acquire():
        host.accept()
    assert pool.stats().idle == 1


# -- limits


def test_no_tls_is_no_tls_however_it_is_said(host: Host) -> None:
    with gtcp.get_pool(host.address) as pool:
        assert gtcp.get_pool(host.address, tls=False) is gtcp.get_pool(host.address, tls=None) is pool


def test_a_pool_cannot_be_made_anew_under_its_leases(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    with pool.acquire(), pytest.raises(RuntimeError, match="already"):
        pool.__init__(host.address)  # type: ignore[misc]
    assert pool.stats().idle == 1


def test_socket_options_are_set_on_every_connection(host: Host, make_pool: MakePool) -> None:
    hops, probes = (socket.IPPROTO_IP, socket.IP_TTL), (socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    pool = make_pool(host.address, socket_options=[(*hops, 33), (*probes, 0)])
    with pool.acquire() as first, pool.acquire() as second:
        for lease in (first, second):
            with socket.socket(fileno=os.dup(lease.fileno())) as sock:
                assert sock.getsockopt(*hops) == 33
                assert sock.getsockopt(*probes) == 0  # the user's word stands against our default


def test_a_socket_option_that_the_kernel_refuses_fails_the_dial(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, socket_options=[(socket.SOL_SOCKET, 9999, 1)])
    with pytest.raises(gtcp.SocketError, match="not available"):
        pool.acquire(timeout=LONG)
    assert pool.stats().failed == 1


@everywhere
def test_a_full_pool_lends_what_comes_back(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, max_size=2)
    leases = [pool.acquire(), pool.acquire()]
    waiting = Call(pool.acquire, LONG).sleeping()
    port = port_of(leases[0])
    leases[0].close()
    with quick():
        lease = waiting.result()
    assert port_of(lease) == port
    lease.close()
    leases[1].close()
    assert pool.stats().created == 2


@everywhere
def test_E15_waiting_in_vain(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, max_size=1, timeout=SHORT)
    with pool.acquire():
        for wait in (pool.acquire, lambda: pool.acquire(SHORT)):
            with takes(SHORT), pytest.raises(gtcp.PoolTimeout, match="max_size 1, in use 1") as error:
                wait()
            assert isinstance(error.value, TimeoutError)
        with quick(), pytest.raises(gtcp.PoolTimeout):
            pool.acquire(0)
    with quick():
        pool.acquire(0).close()


@everywhere
def test_E13_many_threads_and_few_connections(serve: Serve, make_pool: MakePool) -> None:
    pool = make_pool(address_of(serve(echo)), max_size=4)

    def use(number: int) -> None:
        for i in range(10):
            with pool.acquire(LONG) as conn:
                question = f"{number} {i}".encode()
                assert conn.send_recv(question, len(question), timeout=LONG) == question

    for call in [Call(use, number) for number in range(32)]:
        call.result()
    stats = pool.stats()
    assert stats.created <= 4
    assert (stats.acquired, stats.in_use, stats.waiting) == (320, 0, 0)


@everywhere
def test_A1_a_failed_dial_takes_no_place(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(f"127.0.0.1:{gtcp.get_free_port()}", max_size=1)
    for _ in range(3):
        with quick(), pytest.raises(gtcp.RefusedError):
            pool.acquire(LONG)
    stats = pool.stats()
    assert (stats.failed, stats.created, stats.in_use, stats.connecting) == (3, 0, 0, 0)


# -- options


def test_the_shared_pool_of_an_address(host: Host) -> None:
    with gtcp.get_pool(host.address, max_size=3) as pool:
        name, _, port = host.address.partition(":")
        assert gtcp.get_pool(host.address) is pool
        assert gtcp.get_pool((name, int(port))) is pool
        assert gtcp.get_pool(gtcp.Address(name, int(port)), max_size=3) is pool
        with pytest.raises(ValueError, match=r"exists with max_size=3, not 4"):
            gtcp.get_pool(host.address, max_size=4)
        with pytest.raises(ValueError, match=r"exists with check=True, not False"):
            gtcp.get_pool(host.address, check=False)
        with pytest.raises(TypeError, match="check must be a bool"):
            gtcp.get_pool(host.address, check=1)  # type: ignore[arg-type]


def test_an_option_that_the_caller_changes_later_stays_as_it_was(host: Host) -> None:
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)]
    with gtcp.get_pool(host.address, socket_options=options) as pool:
        assert gtcp.get_pool(host.address, socket_options=list(options)) is pool
        options.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))
        with pytest.raises(ValueError, match="exists with socket_options="):
            gtcp.get_pool(host.address, socket_options=options)


def test_names_of_hosts_are_compared_without_case() -> None:
    with gtcp.get_pool("LocalHost:80") as pool:
        assert gtcp.get_pool("localhost:80") is pool


async def nobody_awaits(*arguments: object) -> None:
    raise AssertionError


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_size": 0}, ValueError),
        ({"max_size": -1}, ValueError),
        ({"max_size": 1 << 70}, ValueError),
        ({"min_idle": 1 << 70}, ValueError),
        ({"max_size": True}, TypeError),
        ({"max_size": 1.5}, TypeError),
        ({"max_idle": -1}, ValueError),
        ({"max_waiting": -1}, ValueError),
        ({"max_uses": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"ttl": -1}, ValueError),
        ({"ttl": float("nan")}, ValueError),
        ({"max_lifetime": -1}, ValueError),
        ({"max_lifetime": True}, TypeError),
        ({"lifetime_jitter": 1.5}, ValueError),
        ({"connect_timeout": -1}, ValueError),
        ({"order": "random"}, ValueError),
        ({"min_idle": 3, "max_size": 2}, ValueError),
        ({"check": "ping"}, TypeError),
        ({"socket_options": socket.SO_RCVBUF}, TypeError),
        ({"socket_options": [(socket.SOL_SOCKET, socket.SO_RCVBUF)]}, TypeError),
        ({"socket_options": [(socket.SOL_SOCKET, "SO_RCVBUF", 4096)]}, TypeError),
        ({"socket_options": [(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096.0)]}, TypeError),
        ({"socket_options": [(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)], "dial": gtcp.dial}, ValueError),
        ({"socket_options": ((socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 31),)}, ValueError),
        ({"size": 1}, TypeError),
        *(({name: nobody_awaits}, TypeError) for name in ("check", "dial", "on_connect", "on_acquire", "on_release")),
        ({"on_close": functools.partial(nobody_awaits, 1)}, TypeError),
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [gtcp.Pool, gtcp.get_pool], ids=["Pool", "get_pool"])
def test_bad_options(make: Callable[..., gtcp.Pool], options: dict[str, Any], error: type[Exception]) -> None:
    gtcp.get_pool("h:80").close()  # that of another test, if there is one
    with pytest.raises(error) as raised:
        make("h:80", **options)
    [(name, value), *others] = options.items()
    assert name in str(raised.value)
    if error is ValueError and not others:
        assert repr(value) in str(raised.value)
    gtcp.get_pool("h:80").close()  # the failure left no half-made pool behind


def test_a_pool_can_be_opened_after_options_that_were_refused() -> None:
    pool = gtcp.Pool.__new__(gtcp.Pool)
    with pytest.raises(ValueError, match="ttl"):
        pool.__init__("h:80", ttl=-1)  # type: ignore[misc]
    pool.__init__("h:80")  # type: ignore[misc]
    pool.close()


def test_a_limit_beyond_all_numbers(make_pool: MakePool) -> None:
    pool = make_pool("h:80", max_size=2)
    with pytest.raises(ValueError, match="max_size"):
        pool.resize(1 << 70)
    assert pool.stats().max_size == 2


@pytest.mark.parametrize("timeout", [-1, float("nan"), True, "1"])
def test_D4_bad_timeouts_of_acquire(host: Host, make_pool: MakePool, timeout: Any) -> None:
    pool = make_pool(host.address)
    with pytest.raises((ValueError, TypeError), match="timeout"):
        pool.acquire(timeout)
    assert host.nobody_came()
    stats = pool.stats()
    assert (stats.acquired, stats.in_use, stats.connecting) == (0, 0, 0)


def test_repr_tells_address_and_numbers(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, max_size=5)
    assert repr(pool).startswith(f"<gtcp.Pool {host.address}: max_size 5, in use 0, idle 0")
