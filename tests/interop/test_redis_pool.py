"""The pool on a real Redis: many threads, killed connections, a restarted server."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import gtcp
from interop.redis_server import RedisServer
from interop.resp import Reply, command, exchange, read_reply
from support.timing import LONG, SHORT, eventually

THREADS = 32
REQUESTS = 200
CONNECTIONS = 8
EXPECTED = [[b"%d/%d" % (worker, i) for i in range(REQUESTS)] for worker in range(THREADS)]


@pytest.fixture
def pool(redis: RedisServer) -> Iterator[gtcp.Pool]:
    with gtcp.Pool(redis.address, max_size=CONNECTIONS) as pool:
        yield pool


@pytest.fixture
def control(redis: RedisServer) -> Iterator[gtcp.Conn]:
    """A connection outside the pool, to look at Redis and to kill others from."""
    with gtcp.Conn(redis.address, timeout=LONG) as conn:
        yield conn


def echo(pool: gtcp.Pool, request: bytes) -> Reply | ConnectionError:
    """Return the reply to the request, which has to be the same, or how the connection failed."""
    try:
        with pool.acquire(LONG) as conn:
            return exchange(conn, "ECHO", request)
    except ConnectionError as error:
        return error


def client_id(conn: gtcp.Conn) -> int:
    """Return Redis's number of the connection, which it never gives again."""
    number = exchange(conn, "CLIENT", "ID")
    assert isinstance(number, int)
    return number


def connected_clients(control: gtcp.Conn) -> dict[int, dict[str, str]]:
    """Return what Redis says of each of its connections, by number."""
    listing = exchange(control, "CLIENT", "LIST")
    assert isinstance(listing, bytes)
    clients = [dict(word.split("=", 1) for word in line.split()) for line in listing.decode().splitlines()]
    return {int(client["id"]): client for client in clients}


def connections_ever(control: gtcp.Conn) -> int:
    """Return how many connections Redis has accepted."""
    statistics = exchange(control, "INFO", "stats")
    assert isinstance(statistics, bytes)
    fields = dict(line.split(":", 1) for line in statistics.decode().splitlines() if ":" in line)
    return int(fields["total_connections_received"])


def test_every_thread_gets_its_own_replies(pool: gtcp.Pool, control: gtcp.Conn) -> None:
    before = connections_ever(control)
    with ThreadPoolExecutor(THREADS) as threads:
        replies = threads.map(lambda requests: [echo(pool, each) for each in requests], EXPECTED, timeout=LONG)
        assert list(replies) == EXPECTED
    stats = pool.stats()
    assert stats.created == connections_ever(control) - before
    assert 1 <= stats.created <= CONNECTIONS
    assert stats.acquired == THREADS * REQUESTS == stats.created + stats.reused
    assert (stats.idle, stats.in_use, stats.waiting) == (stats.created, 0, 0)


def test_shared_pool_under_threads(redis: RedisServer, control: gtcp.Conn) -> None:
    """`PoolConn(address)` by itself: the same, through the pool that all its users share."""

    def work(requests: list[bytes]) -> list[Reply]:
        replies = []
        for request in requests:
            with gtcp.PoolConn(redis.address, timeout=LONG) as conn:
                replies.append(exchange(conn, "ECHO", request))
        return replies

    before = connections_ever(control)
    with gtcp.get_pool(redis.address), ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(work, EXPECTED, timeout=LONG)) == EXPECTED
    assert 1 <= connections_ever(control) - before <= THREADS


def test_pipelines_through_the_pool(pool: gtcp.Pool) -> None:
    def work(requests: list[bytes]) -> list[Reply]:
        with pool.acquire(LONG) as conn:
            conn.send(b"".join(command("ECHO", request) for request in requests), timeout=LONG)
            return [read_reply(conn) for _ in requests]

    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(work, EXPECTED, timeout=LONG)) == EXPECTED


def test_close_leaves_no_connection_behind(pool: gtcp.Pool, control: gtcp.Conn) -> None:
    leases = [pool.acquire(LONG) for _ in range(CONNECTIONS)]
    numbers = {client_id(conn) for conn in leases}
    assert len(numbers) == CONNECTIONS
    for conn in leases:
        conn.close()
    assert numbers | {client_id(control)} == connected_clients(control).keys()
    pool.close()
    # The close was sent before the question, but Redis may read the question first.
    eventually(lambda: connected_clients(control).keys() == {client_id(control)})


def test_reply_left_unread_reaches_nobody(pool: gtcp.Pool) -> None:
    with pool.acquire(LONG) as conn:
        first = client_id(conn)
        conn.send(command("ECHO", "mine") * 2, timeout=LONG)
        assert read_reply(conn) == b"mine"
    with pool.acquire(LONG) as conn:
        assert exchange(conn, "ECHO", "yours") == b"yours"
        assert client_id(conn) != first


def test_reply_owed_after_a_timeout_reaches_nobody(pool: gtcp.Pool, control: gtcp.Conn) -> None:
    with pool.acquire(LONG) as conn:
        first = client_id(conn)
        conn.send(command("BLPOP", "queue", 0), timeout=LONG)
        with pytest.raises(gtcp.Timeout):
            conn.recv_line(timeout=SHORT)
    with pool.acquire(LONG) as conn:
        assert exchange(control, "RPUSH", "queue", "for the first") == 1
        assert exchange(conn, "ECHO", "for the second") == b"for the second"
        assert client_id(conn) != first


def test_kill_of_an_idle_connection(pool: gtcp.Pool, control: gtcp.Conn) -> None:
    """The look at checkout finds it closed; nobody notices."""
    with pool.acquire(LONG) as conn:
        first = client_id(conn)
    assert exchange(control, "CLIENT", "KILL", "ID", first) == 1
    with pool.acquire(LONG) as conn:
        assert exchange(conn, "ECHO", "after") == b"after"
        assert client_id(conn) != first


def test_kill_of_a_connection_that_waits_for_its_reply(pool: gtcp.Pool, control: gtcp.Conn) -> None:
    def wait_for_ever(conn: gtcp.PoolConn) -> None:
        with conn:
            conn.send(command("BLPOP", "nothing", 0), timeout=LONG)
            conn.recv_line(timeout=LONG)

    waiting, bystander = pool.acquire(LONG), pool.acquire(LONG)
    number, other = client_id(waiting), client_id(bystander)
    with ThreadPoolExecutor(1) as threads, bystander:
        outcome = threads.submit(wait_for_ever, waiting)
        eventually(lambda: connected_clients(control)[number]["flags"] == "b", what="the client is blocked")
        assert exchange(control, "CLIENT", "KILL", "ID", number) == 1
        error = outcome.exception(timeout=LONG)
        assert client_id(bystander) == other
    assert isinstance(error, gtcp.EOF)
    assert str(error) == "EOF"
    with pool.acquire(LONG) as again:
        assert client_id(again) == other


def test_kill_of_all_connections_under_load(pool: gtcp.Pool, control: gtcp.Conn) -> None:
    """A kill costs those who held a lease one failure, and nobody ever gets a wrong reply."""
    kills = 4
    under_way = [threading.Event() for _ in range(kills)]
    killed = [threading.Event() for _ in range(kills)]
    failures: list[ConnectionError] = []

    def work(requests: list[bytes]) -> list[Reply | ConnectionError]:
        replies = []
        for i, request in enumerate(requests):
            part, place = divmod(i, REQUESTS // kills)
            if part and place == 0:
                assert killed[part - 1].wait(LONG)
            if place == 1:
                under_way[part].set()  # somebody was served, so there is a connection to kill
            reply = echo(pool, request)
            for _ in range(kills):
                if isinstance(reply, ConnectionError):
                    failures.append(reply)
                    reply = echo(pool, request)
            replies.append(reply)
        return replies

    victims = 0
    with ThreadPoolExecutor(THREADS) as threads:
        replies = threads.map(work, EXPECTED, timeout=LONG)
        for part in range(kills):
            assert under_way[part].wait(LONG)
            count = exchange(control, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            killed[part].set()
            assert isinstance(count, int)
            assert 1 <= count <= CONNECTIONS
            victims += count
        assert list(replies) == EXPECTED
    assert len(failures) <= victims
    assert all(isinstance(error, gtcp.Error) for error in failures), failures


def test_restart_between_two_leases(redis: RedisServer, pool: gtcp.Pool) -> None:
    """Eight idle connections die with the old server; nobody notices."""
    leases = [pool.acquire(LONG) for _ in range(CONNECTIONS)]
    for i, conn in enumerate(leases):
        assert exchange(conn, "SET", f"key {i}", "from before") == "OK"
    for conn in leases:
        conn.close()
    assert redis.stop() == 0
    redis.start()
    leases = [pool.acquire(LONG) for _ in range(CONNECTIONS)]
    for i, conn in enumerate(leases):
        assert exchange(conn, "ECHO", i) == b"%d" % i
        assert exchange(conn, "GET", f"key {i}") is None
        conn.close()


def test_restart_during_a_lease(redis: RedisServer, pool: gtcp.Pool) -> None:
    """The old lease ends with EOF, nobody answers while Redis is down, then all is as before."""
    with pool.acquire(LONG) as conn:
        assert exchange(conn, "PING") == "PONG"
        assert redis.stop() == 0
        with pytest.raises(gtcp.EOF, match=r"^EOF$"):
            conn.recv_line(timeout=LONG)
    with pytest.raises(ConnectionRefusedError) as refused:
        pool.acquire(LONG)
    assert isinstance(refused.value, gtcp.Error)
    redis.start()
    assert echo(pool, b"after") == b"after"


def test_restart_under_load(redis: RedisServer, pool: gtcp.Pool) -> None:
    """While Redis is down each thread loses one request; once it is back, none."""
    under_way, down, back = threading.Event(), threading.Event(), threading.Event()
    failures: list[ConnectionError] = []

    def work(requests: list[bytes]) -> list[Reply | ConnectionError]:
        replies = []
        for i, request in enumerate(requests):
            if i == REQUESTS // 4:
                under_way.set()
            if i == REQUESTS // 2:
                assert down.wait(LONG)
            reply = echo(pool, request)
            if isinstance(reply, ConnectionError):
                failures.append(reply)
                assert back.wait(LONG)
                reply = echo(pool, request)
            replies.append(reply)
        return replies

    with ThreadPoolExecutor(THREADS) as threads:
        replies = threads.map(work, EXPECTED, timeout=LONG)
        assert under_way.wait(LONG)
        assert redis.stop() == 0
        down.set()
        eventually(lambda: len(failures) == THREADS)
        redis.start()
        back.set()
        assert list(replies) == EXPECTED
    assert len(failures) == THREADS
    assert all(isinstance(error, gtcp.Error) for error in failures), failures
