"""Waiting by a function of the user's: every wait goes through it, and real gevent under monkey-patching."""

import contextlib
import importlib.util

import pytest

from support import child
from support.programs import absent


@pytest.fixture(autouse=True)
def needs_gevent(request: pytest.FixtureRequest) -> None:
    if "gevent" in request.node.name and importlib.util.find_spec("gevent") is None:
        absent("gevent is not installed")


# What is not ours is gevent's affair.
OPTIONS = ("-W", "error", "-W", "ignore::DeprecationWarning")


def care_without_waits(error: str) -> None:
    """The wait function fails whenever gtcp's own thread waits by it."""
    import builtins
    import logging
    import select
    import threading

    import gtcp
    from gtcp.testing import Peer, echo
    from support.timing import SHORT, eventually

    logging.getLogger("gtcp").addHandler(logging.NullHandler())
    threading.excepthook = lambda args: None
    failed = 0

    def wait(fd: int, events: int, timeout: float | None) -> None:
        nonlocal failed
        if threading.current_thread().name == "gtcp-reaper":
            failed += 1
            raise getattr(builtins, error)("not here")
        poll = select.poll()
        poll.register(fd, events)
        poll.poll(None if timeout is None else timeout * 1000)

    with Peer(echo) as peer, gtcp.Pool(peer.address, ttl=SHORT) as pool, gtcp.Pool(peer.address, ttl=SHORT) as other:
        gtcp.set_wait_function(wait)
        pool.acquire().close()
        eventually(lambda: failed)
        if error == "OSError":  # passes, like every Exception; with others the thread ends
            eventually(lambda: pool.stats().closed["ttl"] == 1)
        gtcp.set_wait_function(None)
        eventually(lambda: "gtcp-reaper" not in [thread.name for thread in threading.enumerate()] or error == "OSError")
        other.acquire().close()
        eventually(lambda: pool.stats().closed["ttl"] == other.stats().closed["ttl"] == 1)


@pytest.mark.parametrize("error", ["OSError", "SystemExit"])
def test_E5_care_goes_on_after_a_failure_of_the_wait_function(error: str) -> None:
    child.run(care_without_waits, error)


def every_wait() -> None:
    import select
    import threading

    import gtcp
    from gtcp.testing import Peer, echo
    from support.leaks import descriptors
    from support.timing import SHORT, eventually

    waits: list[tuple[int, int, float | None]] = []

    def wait(fd: int, events: int, timeout: float | None) -> None:
        if threading.current_thread() is threading.main_thread():  # the pool's reaper has its own times
            waits.append((fd, events, timeout))
        poll = select.poll()
        poll.register(fd, events)
        poll.poll(None if timeout is None else timeout * 1000)

    def seen() -> list[tuple[int, int, float | None]]:
        taken = waits[:]
        waits.clear()
        return taken

    with Peer(echo) as peer:
        before = len(descriptors())
        gtcp.set_wait_function(wait)
        with gtcp.Conn(peer.address) as conn:
            seen()
            while not (calls := seen()):  # a reply that is faster needs no wait
                assert conn.send_recv(b"hello", 5, timeout=10) == b"hello"
            (fd, events, timeout), *_ = calls
            assert (fd, events) == (conn.fileno(), select.POLLIN)
            assert timeout is not None
            assert 9 < timeout <= 10
            for _ in range(2):
                with pytest.raises(gtcp.Timeout):
                    conn.recv(1, timeout=SHORT)
                assert seen()
            conn.send(b"x")
            select.select([conn.fileno()], [], [])
            assert conn.recv(1, timeout=0) == b"x"  # what is there needs no wait
            assert seen() == []
            assert conn.send_recv(b"no limit", 8) == b"no limit"
            assert all(timeout is None for _, _, timeout in seen())
        with gtcp.Pool(peer.address, max_size=1) as pool:
            lease = pool.acquire()
            seen()
            with pytest.raises(gtcp.PoolTimeout):
                pool.acquire(timeout=SHORT)
            assert seen()
            taken = threading.Event()

            def take() -> None:
                with pool.acquire(10):
                    taken.set()

            thread = threading.Thread(target=take)
            thread.start()
            while not pool.stats().waiting:
                pass
            lease.close()
            thread.join()
            assert taken.is_set()
        gtcp.set_wait_function(None)
        seen()
        with gtcp.Conn(peer.address) as conn:
            assert conn.send_recv(b"hello", 5) == b"hello"
        assert seen() == []
        eventually(lambda: len(descriptors()) <= before + 2)  # the peer closes in its own time
    with pytest.raises(TypeError):
        gtcp.set_wait_function(1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="wait function"):
        gtcp.set_wait_function(None, event=threading.Event)


def test_every_wait_goes_through_the_function() -> None:
    child.run(every_wait)


def failing_in_a_dialler() -> None:
    """A thread of gtcp's own that waits for work when the function fails: the next dial finds another one."""
    import logging
    import select
    import threading

    import gtcp
    from gtcp.testing import Peer, echo
    from support.timing import LONG, eventually

    logging.getLogger("gtcp").setLevel(logging.CRITICAL)
    rests: list[int] = []

    def wait(fd: int, events: int, timeout: float | None) -> None:
        if threading.current_thread().name == "gtcp-dialer" and events == select.POLLIN:
            rests.append(fd)
            if len(rests) == 1:
                raise OSError("once")
        poll = select.poll()
        poll.register(fd, events)
        poll.poll(None if timeout is None else timeout * 1000)

    gtcp.set_wait_function(wait)
    with Peer(echo) as peer, gtcp.Pool(peer.address, on_connect=lambda conn: None) as pool:
        for _ in range(3):
            pool.acquire(timeout=LONG).discard()
            eventually(lambda: rests)
    assert len(rests) >= 1


def test_a_function_that_fails_costs_no_dial() -> None:
    child.run(failing_in_a_dialler)


def interrupted_event() -> None:
    """A signal's exception out of `event.set()` reaches the caller, and the sleeper is awake."""
    import select
    import threading

    import gtcp
    from gtcp.testing import Peer, echo
    from support.calls import Call
    from support.timing import LONG, eventually, quick

    class Event(threading.Event):
        interrupted = False

        def set(self) -> None:
            if threading.current_thread() is threading.main_thread() and Event.interrupted:
                Event.interrupted = False
                raise KeyboardInterrupt
            super().set()

    def wait(fd: int, events: int, timeout: float | None) -> None:
        poll = select.poll()
        poll.register(fd, events)
        poll.poll(None if timeout is None else timeout * 1000)

    gtcp.set_wait_function(wait, event=Event)
    with Peer(echo) as peer, gtcp.Pool(peer.address, max_size=1) as pool:
        lease = pool.acquire()
        waiting = Call(pool.acquire, LONG)
        eventually(lambda: pool.stats().waiting == 1)
        Event.interrupted = True
        with quick():
            with pytest.raises(KeyboardInterrupt):
                lease.close()
            waiting.result().close()


def test_an_interrupted_event_wakes_its_sleeper() -> None:
    child.run(interrupted_event)


def greenlets_on_a_pool(count: int, size: int, install: bool) -> None:
    from gevent import monkey

    monkey.patch_all()
    import gc
    import random
    import time

    import gevent

    import gtcp
    import gtcp.contrib.gevent
    from support.leaks import descriptors

    if install:
        gtcp.contrib.gevent.install()
    else:
        gtcp.set_wait_function(gtcp.contrib.gevent.wait)  # queues by descriptors

    def handler(conn: gtcp.Conn) -> None:
        with contextlib.suppress(gtcp.Error):  # of clients that were killed
            for package in conn.packages():
                if package.startswith(b"slow"):
                    gevent.sleep(0.05)
                conn.send_pkg(package)

    rng = random.Random(8)
    outcomes = {"done": 0, "timeout": 0, "gevent's timeout": 0, "killed": 0}
    ticks = 0

    def ticking() -> None:
        nonlocal ticks
        while True:
            gevent.sleep(0.005)
            ticks += 1

    with gtcp.Server("127.0.0.1:0", handler) as server, gtcp.Pool(str(server.get_listened_address())) as pool:
        pool.acquire().close()
    gevent.sleep(0.01)  # what lasts is there: the hub's descriptors, and the one that the reaper sleeps on
    before = descriptors()
    with (
        gtcp.Server("127.0.0.1:0", handler) as server,
        gtcp.Pool(str(server.get_listened_address()), max_size=size, timeout=30) as pool,
    ):

        def work(i: int) -> None:
            slow = i % 10 == 0
            for j in range(5):
                text = b"%s %d %d" % (b"slow" if slow else b"quick", i, j)
                limit = 0.01 if slow else 30
                try:
                    with gevent.Timeout(limit if j % 2 else None), pool.acquire() as lease:
                        assert lease.send_recv_pkg(text, timeout=None if j % 2 else limit) == text
                    outcomes["done"] += 1
                except gtcp.Timeout:
                    outcomes["timeout"] += 1
                except gevent.Timeout:
                    outcomes["gevent's timeout"] += 1
                except gevent.GreenletExit:
                    outcomes["killed"] += 1
                    raise

        ticker = gevent.spawn(ticking)
        crowd = [gevent.spawn(work, i) for i in range(count)]
        for victim in rng.sample(crowd, count // 10):
            gevent.sleep(0.0005)
            victim.kill(block=False)
        gevent.joinall(crowd, raise_error=True, timeout=60)
        assert all(each.dead for each in crowd)
        ticker.kill()
        stats = pool.stats()
        assert (stats.in_use, stats.connecting, stats.waiting) == (0, 0, 0), stats
        assert stats.idle <= size
        assert stats.idle == stats.created - sum(stats.closed.values())
        assert outcomes["done"] > count * 3, outcomes
        assert all(outcomes.values()), outcomes
        assert ticks > 5, ticks
        leases = [pool.acquire(1) for _ in range(size)]  # every place is there
        for lease in leases:
            assert lease.send_recv_pkg(b"own", timeout=30) == b"own"
            lease.close()
    del crowd, victim  # they hold what ended them, and that where they waited
    deadline = time.monotonic() + 10
    while descriptors() != before and time.monotonic() < deadline:  # handlers see the ends of their clients
        gc.collect()
        gevent.sleep(0.01)
    assert descriptors() == before, descriptors() ^ before


def test_E13_gevent_a_thousand_greenlets_on_a_pool_of_32() -> None:
    child.run(greenlets_on_a_pool, 1000, 32, True, options=OPTIONS, within=90)


def test_E13_gevent_queues_by_descriptors() -> None:
    child.run(greenlets_on_a_pool, 200, 8, False, options=OPTIONS, within=60)


def gevent_beside_threads() -> None:
    """A greenlet waits for what a real thread gives back."""
    import gevent
    from gevent.threadpool import ThreadPool

    import gtcp
    import gtcp.contrib.gevent
    from gtcp.testing import Peer, echo

    gtcp.contrib.gevent.install()
    gevent.get_hub()
    threads = ThreadPool(2)
    with Peer(echo) as peer, gtcp.Pool(peer.address, max_size=1) as pool:
        for _ in range(50):
            lease = pool.acquire(10)
            waiting = gevent.spawn(pool.acquire, 10)
            gevent.sleep(0)
            assert not waiting.ready()
            threads.spawn(lease.close).get()
            waiting.get(timeout=10).close()
            assert threads.spawn(lambda: pool.acquire(10).close()).get() is None
    threads.kill()


def test_gevent_beside_real_threads() -> None:
    child.run(gevent_beside_threads, options=OPTIONS)


def gevent_conn() -> None:
    from gevent import monkey

    monkey.patch_all()
    import gevent

    import gtcp
    import gtcp.contrib.gevent
    from gtcp.testing import Peer, echo

    gtcp.contrib.gevent.install()
    with Peer(echo) as peer, gtcp.Conn(f"localhost:{peer.port}") as conn:
        assert conn.send_recv(b"name", 4, timeout=10) == b"name"
        receiving = gevent.spawn(conn.recv, 1)
        gevent.sleep(0)
        try:
            conn.recv(1)
        except gtcp.ConcurrencyError:
            pass
        else:
            raise AssertionError
        receiving.kill()  # costs nothing: what comes is the next one's
        assert conn.send_recv(b"again", 5, timeout=10) == b"again"
        try:
            with gevent.Timeout(0.02):
                conn.recv(1)
        except gevent.Timeout:
            pass
        else:
            raise AssertionError
        exchanges = [gevent.spawn(conn.send_recv, b"%d" % (i % 10), 1) for i in range(50)]
        gevent.joinall(exchanges, raise_error=True, timeout=10)
        assert [each.value for each in exchanges] == [b"%d" % (i % 10) for i in range(50)]

        def sleep() -> type[BaseException] | None:
            try:
                conn.recv(1)
            except gtcp.ClosedError as error:
                return type(error)
            return None

        sleeper = gevent.spawn(sleep)
        gevent.sleep(0)
        conn.close()
        assert sleeper.get(timeout=10) is gtcp.ClosedError


def test_gevent_one_connection() -> None:
    child.run(gevent_conn, options=OPTIONS)
