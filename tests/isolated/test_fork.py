"""Forks: a child process leaves its parent's connections alone and makes its own.

Row ids are those of the project's table of faults.
"""

import contextlib
import gc
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable

import pytest

import gtcp
from gtcp import _core
from support import child
from support.collector import at_collection
from support.crew import Worker, results
from support.forks import fork, join
from support.interrupts import on, shoot
from support.peers import Holder, Peer, Talker, frame, read, socket_pair
from support.timing import LONG, SHORT, eventually, quick, takes
from support.tls import Authority, Ends


def answers(conn: gtcp.Conn, text: bytes) -> bool:
    return conn.send_recv_pkg(text, timeout=LONG) == text


def pool_with_idle_and_leased(ending: str) -> None:
    talker = Talker()
    with Peer(talker) as peer, gtcp.Pool(peer.address) as pool:
        leased, idle = pool.acquire(), pool.acquire()
        assert answers(leased, b"leased")
        assert answers(idle, b"idle")
        ports = {leased.local_addr().port, idle.local_addr().port}
        idle.close()

        def in_the_child() -> None:
            nonlocal leased
            assert (pool.stats().idle, pool.stats().in_use, pool.stats().closed["forked"]) == (0, 0, 2)
            for use in (lambda: leased.send(b"x"), lambda: leased.recv(0), leased.close_write):
                with pytest.raises(gtcp.ClosedError, match="forked"):
                    use()
            with quick(1.0), pool.acquire() as own:
                assert own.local_addr().port not in ports
                assert answers(own, b"own")
            assert (pool.stats().idle, pool.stats().in_use) == (1, 0)
            match ending:
                case "close":
                    leased.close()
                    pool.close()
                case "abort":
                    leased.abort()
                case "drop":
                    del leased
                    gc.collect()

        join(fork(in_the_child))
        eventually(lambda: talker.ended == 1)  # the child's own
        assert (pool.stats().idle, pool.stats().in_use) == (1, 1)
        assert answers(leased, b"still mine")
        leased.close()
        with pool.acquire() as first, pool.acquire() as second:
            assert {first.local_addr().port, second.local_addr().port} == ports
            assert answers(first, b"first")
            assert answers(second, b"second")
        assert (peer.accepted, talker.ended) == (3, 1)


@pytest.mark.parametrize("ending", ["exit", "close", "abort", "drop"])
def test_E19_a_child_leaves_the_connections_of_a_pool_to_its_parent(ending: str) -> None:
    child.run(pool_with_idle_and_leased, ending)


def connection(kind: str, ending: str) -> None:
    with socket_pair() as (ours, theirs):
        conn = (
            gtcp.Pool("127.0.0.1:1", dial=lambda *_: ours).acquire() if kind == "lease" else gtcp.Conn.from_socket(ours)
        )

        def in_the_child() -> None:
            match ending:
                case "close":
                    conn.close()
                case "abort":
                    conn.abort()
                case "leave":
                    gathering.__exit__(None, None, None)
            assert kind == "conn" or (conn.closed and not conn.is_alive())

        with (gathering := conn.gathered()):
            conn.send(b"pi")
            join(fork(in_the_child))
            conn.send(b"ng")
        assert theirs.recv(16) == b"ping"
        theirs.sendall(b"pong")
        assert conn.recv(4, timeout=LONG) == b"pong"
        conn._discard()
        assert theirs.recv(1) == b""  # no reset


@pytest.mark.parametrize("kind", ["conn", "lease"])
@pytest.mark.parametrize("ending", ["exit", "close", "abort", "leave"])
def test_E19_a_child_leaves_a_connection_to_its_parent(kind: str, ending: str) -> None:
    child.run(connection, kind, ending)


def server(ending: str) -> None:
    def echo(conn: gtcp.Conn) -> None:
        for package in conn.packages():
            conn.send_pkg(package)

    with gtcp.Server("127.0.0.1:0", echo) as server:
        address = server.get_listened_address()
        assert address is not None
        with gtcp.Conn(address) as conn:
            assert answers(conn, b"before")
            join(fork(server.close if ending == "close" else lambda: None))
            assert answers(conn, b"after")
        with gtcp.Conn(address) as conn:
            assert answers(conn, b"new")


@pytest.mark.parametrize("ending", ["exit", "close"])
def test_E19_a_child_leaves_a_server_to_its_parent(ending: str) -> None:
    child.run(server, ending)


def expiring_pool() -> None:
    """The reaper is the parent's thread: a child needs one of its own."""
    talker = Talker()
    with Peer(talker) as peer, gtcp.Pool(peer.address, ttl=SHORT) as pool:
        with pool.acquire() as lease:
            assert answers(lease, b"parent")

        def in_the_child() -> None:
            with pool.acquire() as own:
                assert answers(own, b"child")
            eventually(lambda: pool.stats().closed["ttl"] == 1)

        join(fork(in_the_child))
        eventually(lambda: pool.stats().closed["ttl"] == 1 and talker.ended == 2)


def test_E19_idle_connections_of_a_child_expire_too() -> None:
    child.run(expiring_pool)


def ready_pool() -> None:
    with Peer(Talker()) as peer, gtcp.Pool(peer.address, min_idle=2) as pool:
        eventually(lambda: pool.stats().idle == 2)

        def in_the_child() -> None:
            shift = _core.alarm.attend()
            assert shift  # nobody was there: this may be the moment before an exec
            _core.alarm.resign(shift)
            with pool.acquire():
                eventually(lambda: pool.stats().idle == 2)

        join(fork(in_the_child))
        eventually(lambda: peer.accepted == 5)


def test_E19_min_idle_holds_in_a_child_from_its_first_lease_on() -> None:
    child.run(ready_pool)


def generations() -> None:
    depth = 0
    with Peer(Talker()) as peer, gtcp.Pool(peer.address) as pool:

        def use() -> None:
            with pool.acquire() as lease:
                assert answers(lease, b"hello")
            assert pool.stats().created == 1 + depth

        def descend() -> None:
            nonlocal depth
            depth += 1
            use()
            if depth < 3:
                join(fork(descend))

        use()
        join(fork(descend))
        use()


def test_E19_grandchildren_are_children_too() -> None:
    child.run(generations)


def busy_pool() -> None:
    """Threads borrow, wait and return all the time while the process forks."""
    with Peer(Talker()) as peer, gtcp.Pool(peer.address, max_size=2) as pool:
        ending = threading.Event()

        def borrow() -> int:
            count = 0
            while not ending.is_set():
                with pool.acquire(LONG) as lease:
                    assert answers(lease, b"%d" % count)
                count += 1
            return count

        def in_the_child() -> None:
            start = time.monotonic()
            for _ in range(3):
                with pool.acquire(LONG) as lease:
                    assert answers(lease, b"child")
            assert time.monotonic() - start < 1
            stats = pool.stats()
            assert (stats.in_use, stats.waiting, stats.connecting, stats.idle) == (0, 0, 0, 1)

        crew = [Worker(borrow) for _ in range(6)]
        for _ in range(20):
            join(fork(in_the_child, finalize=False))
        ending.set()
        assert min(results(crew)) > 0
        assert (pool.stats().in_use, pool.stats().waiting) == (0, 0)


def test_E20_a_fork_while_threads_use_the_pool() -> None:
    child.run(busy_pool)


def busy_handler() -> None:
    """A signal handler forks at any moment of a lease's life, and its child uses the pool there and then."""
    pids: list[int] = []

    def in_the_child() -> None:
        stats = pool.stats()
        assert (stats.in_use, stats.waiting, stats.connecting, stats.idle) == (0, 0, 0, 0), stats
        with pool.acquire(LONG) as first, pool.acquire(LONG) as second:
            assert answers(first, b"first")
            assert answers(second, b"second")
        stats = pool.stats()
        assert (stats.in_use, stats.idle) == (0, 2), stats

    with Peer(Talker()) as peer, gtcp.Pool(peer.address, max_size=2) as pool:
        signal.signal(signal.SIGALRM, lambda *_: pids.append(fork(in_the_child, finalize=False)))
        served = 0
        for number in range(40):
            signal.setitimer(signal.ITIMER_REAL, 0.0003 + number % 7 * 0.0004)
            while len(pids) <= number:
                with pool.acquire(LONG) as lease:
                    assert answers(lease, b"%d" % served)
                served += 1
        for pid in pids:
            join(pid)
        stats = pool.stats()
        assert (stats.in_use, stats.waiting, stats.connecting, stats.created) == (0, 0, 0, 1), stats


def test_E20_a_fork_in_a_signal_handler_while_the_pool_is_busy() -> None:
    child.run(busy_handler)


def forked_in(call: Callable[[], object], release: Callable[[], object]) -> object:
    """A signal handler forks in the middle of the call: in the child that ends at once, here it goes on."""
    pids: list[int] = []

    def forks() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pids.append(os.fork())

    def let_go() -> None:
        eventually(lambda: pids)
        join(pids[0])
        release()

    on(signal.SIGALRM, forks)
    shoot(signal.SIGALRM)
    letting = Worker(let_go)
    code = 1
    try:
        value = call()
    except gtcp.ClosedError as error:
        code = 0 if "forked" in str(error) else 2
        raise
    finally:
        if pids and not pids[0]:
            os._exit(code)
    letting.result()
    return value


def waiting_for_a_lease() -> None:
    with Peer(Talker()) as peer, gtcp.Pool(peer.address, max_size=1) as pool:
        for timeout in (None, LONG):
            holder = pool.acquire()
            lease = forked_in(lambda: pool.acquire(timeout), holder.close)  # noqa: B023
            assert isinstance(lease, gtcp.PoolConn)
            assert answers(lease, b"mine")
            lease.close()
            assert (pool.stats().in_use, pool.stats().waiting) == (0, 0)


def receiving() -> None:
    holder = Holder()
    with Peer(holder) as peer, gtcp.Pool(peer.address) as pool, gtcp.Conn(peer.address) as conn:
        with pool.acquire() as lease:
            eventually(lambda: len(holder.ends) == 2)
            for timeout in (None, LONG):
                for each, far in ((conn, holder.ends[0]), (lease, holder.ends[1])):
                    data = forked_in(
                        lambda: each.recv_pkg(timeout=timeout),  # noqa: B023
                        lambda: far.sendall(frame(b"the parent's")),  # noqa: B023
                    )
                    assert data == b"the parent's"
        holder.over.set()


def sending() -> None:
    huge = bytes(32 << 20)
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        forked_in(lambda: conn.send(huge), lambda: read(theirs, len(huge)))
        # And waiting for another sender.
        first = Worker(lambda: conn.send(huge))
        first.asleep()
        forked_in(lambda: conn.send(b"x"), lambda: read(theirs, len(huge) + 1))
        first.result()


def sleeping() -> None:
    """Which nobody else has a part in: it goes on, in both."""
    began = time.monotonic()
    pids: list[int] = []
    on(signal.SIGALRM, lambda: pids.append(fork(lambda: None, finalize=False)))
    signal.setitimer(signal.ITIMER_REAL, SHORT / 10)
    gtcp.sleep(SHORT)
    assert time.monotonic() - began >= SHORT
    join(pids[0])


@pytest.mark.parametrize("program", [waiting_for_a_lease, receiving, sending, sleeping])
def test_E19_a_call_that_a_handler_forked_in_ends_in_the_child(program: Callable[[], None]) -> None:
    child.run(program)


def collected_while_the_books_begin_anew() -> None:
    """A finalizer that runs inside the fork, in the child, finds the pool fit for use and leaves it so."""
    with Peer(Talker()) as peer, gtcp.Pool(peer.address, max_size=2) as pool:
        parent = os.getpid()
        held: list[gtcp.PoolConn] = []

        def borrow() -> None:
            if os.getpid() != parent:
                held.append(pool.acquire(LONG))

        def in_the_child() -> None:
            for own in held:
                assert answers(own, b"child")
                own.close()
            stats = pool.stats()
            assert (stats.in_use, stats.idle, stats.closed["forked"]) == (0, len(held), 1), stats

        for number in range(1, 60):
            with pool.acquire() as lease:
                assert answers(lease, b"parent")
            with at_collection(number, borrow):
                pid = fork(in_the_child, finalize=False)
            join(pid)
        assert pool.stats().created == 1


def test_E20_a_finalizer_that_uses_the_pool_inside_the_fork() -> None:
    child.run(collected_while_the_books_begin_anew, within=6 * LONG)  # 59 processes


def busy_connection() -> None:
    """One thread receives, another is in the middle of a send; the fork and the child's end disturb neither."""
    huge = bytes(8 << 20)
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        receiver = Worker(lambda: conn.recv_line(timeout=LONG))
        sender = Worker(lambda: conn.send(huge, timeout=LONG))
        receiver.asleep()
        sender.asleep()
        join(fork(lambda: None))
        join(fork(conn.close))
        # CPython 3.13 cannot be taken down in a child that a thread forked, whatever it has loaded.
        Worker(lambda: join(fork(lambda: None, finalize=False))).result()
        theirs.sendall(b"line\n")
        assert receiver.result() == b"line"
        received = 0
        while received < len(huge):
            received += len(theirs.recv(1 << 20))
        sender.result()


def test_H8_a_fork_in_the_middle_of_a_receive() -> None:
    child.run(busy_connection)


def busy_connection_in_the_child() -> None:
    """What the parent's threads have begun ends nowhere else: a child that joins in is refused at once."""
    huge = bytes(8 << 20)
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        sender = Worker(lambda: conn.send(huge, timeout=LONG))
        sender.asleep()

        def in_the_child() -> None:
            number = conn.fileno()
            for use in (
                lambda: conn.send(b"x"),
                lambda: conn.send_pkgs([b"x"]),
                lambda: conn.recv(1),
                lambda: conn.send_recv(b"x", 1),
                conn.close_write,
            ):
                with quick(), pytest.raises(gtcp.ClosedError, match="forked"):
                    use()
            conn.close()
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(number)  # its copy is not kept for calls that never end

        join(fork(in_the_child))
        assert read(theirs, len(huge)) == huge  # the child has put nothing into it
        sender.result()
        join(fork(lambda: conn.send(b"child")))  # nobody uses it: it may
        conn.send(b"parent")
        assert read(theirs, 11) == b"childparent"


def test_E19_H8_a_child_is_refused_where_its_parents_threads_are_at_work() -> None:
    child.run(busy_connection_in_the_child)


def flushing_in_the_child() -> None:
    """A call that is the first on its connection, in a process that is a child, is one as any other."""

    def in_the_child() -> None:
        with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
            fill(conn)
            with contextlib.suppress(gtcp.ClosedError), conn.gathered():
                conn.send(b"y")
                flusher = Worker(conn.flush)
                flusher.asleep()
                receiver = Worker(lambda: conn.recv(1, timeout=LONG))
                theirs.sendall(b"x")
                assert receiver.result() == b"x"
                conn.close()
                assert isinstance(flusher.error(), gtcp.ClosedError)

    join(fork(in_the_child, finalize=False))


def fill(conn: gtcp.Conn) -> None:
    """The kernel takes no more, and gtcp does not know."""
    with socket.socket(fileno=os.dup(conn.fileno())) as same, contextlib.suppress(BlockingIOError):
        while True:
            same.send(bytes(1 << 16), socket.MSG_DONTWAIT)


def test_E19_a_flush_in_a_child_is_a_call_like_others() -> None:
    child.run(flushing_in_the_child)


def forked_in_openssl() -> None:
    """How much is buffered cannot be asked of a session that the parent's thread uses for ever."""
    authority = Authority()
    with Ends(authority) as ends:
        conn, far = ends.connect()
        far.sendall(b"x")
        eventually(lambda: conn.is_alive() and conn.buffered == 1)  # the session has it
        asked, over = threading.Event(), threading.Event()

        def hold(session: object) -> None:
            asked.set()
            over.wait(LONG)

        holding = Worker(lambda: conn._ask_tls(hold))
        asked.wait(LONG)

        def in_the_child() -> None:
            with quick():
                assert conn.buffered == 0
                assert conn.is_alive()
                conn.close()

        join(fork(in_the_child, finalize=False))
        over.set()
        holding.result()
        assert conn.recv(1, timeout=LONG) == b"x"


def test_E19_a_child_asks_no_tls_session_of_its_parent() -> None:
    child.run(forked_in_openssl)


def shared_time_limit() -> None:
    """The kernel's time limit for a receive is the socket's, and so that of both processes."""
    with socket_pair() as (ours, _), gtcp.Conn.from_socket(ours) as conn:
        with takes(3 * SHORT), pytest.raises(gtcp.Timeout):
            conn.recv(1, timeout=3 * SHORT)

        def in_the_child() -> None:
            receiving = Worker(conn.recv)
            receiving.asleep()
            os._exit(0)

        join(fork(in_the_child))
        with takes(3 * SHORT), pytest.raises(gtcp.Timeout):
            conn.recv(1, timeout=3 * SHORT)


def test_E19_D1_a_child_moves_no_deadline_of_its_parent() -> None:
    child.run(shared_time_limit)


def fork_and_close() -> None:
    """The parent's close reaches the peer although a child holds copies of the descriptors."""
    talker = Talker()
    with Peer(talker) as peer, gtcp.Pool(peer.address) as pool:
        with pool.acquire() as lease:
            assert answers(lease, b"x")

        def in_the_child() -> None:
            ours.close()
            theirs.recv(1)

        ours, theirs = socket.socketpair()
        pid = fork(in_the_child, finalize=False)
        theirs.close()
        pool.close()
        eventually(lambda: talker.ended == 1)
        ours.close()
        join(pid)


def test_E19_the_parents_close_of_an_idle_connection_is_not_held_up_by_a_child() -> None:
    child.run(fork_and_close)


def secure(ending: str) -> None:
    """A close_notify of the child, or anything else that it encrypts, would end the session under its parent."""
    authority = Authority()
    ours = authority.client()

    def echo(conn: gtcp.Conn) -> None:
        for package in conn.packages():
            conn.send_pkg(package)

    with gtcp.Server("127.0.0.1:0", echo, tls=authority.server()) as server:
        address = server.get_listened_address()
        assert address is not None
        with gtcp.Conn(address, tls=ours) as conn, gtcp.Pool(address, tls=ours) as pool:
            with pool.acquire() as lease:
                assert answers(lease, b"before")
            assert answers(conn, b"before")

            def in_the_child() -> None:
                nonlocal conn
                for use in (lambda: conn.send(b"x"), lambda: conn.recv(0), conn.close_write, conn.tls_info):
                    with pytest.raises(gtcp.ClosedError, match="forked"):
                        use()
                match ending:
                    case "close":
                        conn.close()
                        pool.close()
                        server.close()
                    case "abort":
                        conn.abort()
                    case "drop":
                        del conn
                        gc.collect()

            join(fork(in_the_child))
            assert answers(conn, b"after")
            assert conn.is_alive()
            with pool.acquire() as lease:
                assert answers(lease, b"after")
            assert pool.stats().created == 1


@pytest.mark.parametrize("ending", ["exit", "close", "abort", "drop"])
def test_E19_a_child_says_no_goodbye_on_its_parents_tls_connections(ending: str) -> None:
    child.run(secure, ending)
