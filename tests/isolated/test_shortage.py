"""A server that runs out of descriptors or threads goes on when there are some again.

Row ids are those of the project's table of faults.
"""

import contextlib
import logging
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

import gtcp
from support import child
from support.peers import listen
from support.timing import LATE, LONG, SHORT, Watch, eventually, quick


class Log(logging.Handler):
    """Keeps what gtcp logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        logger = logging.getLogger("gtcp")
        logger.addHandler(self)
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def few_descriptors(spare: int = 0) -> Iterator[Callable[[], None]]:
    """A low limit, and all descriptors below it but `spare` are taken; gives what sets them free."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken: list[int] = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))

    def release(count: int = 64) -> None:
        for fd in taken[:count]:
            os.close(fd)
        del taken[:count]

    release(spare)
    yield release
    release()


def echo(conn: gtcp.Conn) -> None:
    for package in conn.packages():
        conn.send_pkg(package)


def without_descriptors() -> None:
    log = Log()
    with gtcp.Server("127.0.0.1:0", echo) as server, contextlib.ExitStack() as stack:
        there = ("127.0.0.1", server.get_listened_port())
        old = stack.enter_context(gtcp.Conn(there))
        assert old.send_recv_pkg(b"before", timeout=LONG) == b"before"
        late = [socket.socket() for _ in range(3)]
        release = stack.enter_context(few_descriptors())
        for sock in late:
            sock.connect(there)  # into the queue: nobody can accept them
        eventually(lambda: log.lines)

        used, watch = cpu_seconds(), Watch()
        threading.Event().wait(5 * SHORT)
        assert cpu_seconds() - used <= 0.05 * watch.seconds, "the acceptor is busy with failing"
        assert old.send_recv_pkg(b"during", timeout=LONG) == b"during"
        assert len(log.lines) == 1, log.lines
        assert "cannot accept" in log.lines[0]
        assert str(server.get_listened_address()) in log.lines[0]

        release()
        with quick(1 + LATE):
            for sock in late:
                with gtcp.Conn.from_socket(sock) as conn:
                    assert conn.send_recv_pkg(b"after", timeout=LONG) == b"after"
        assert gtcp.send_recv_pkg(there, b"new", timeout=LONG) == b"new"
    assert len(log.lines) == 1, log.lines


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def test_F1_a_server_without_descriptors_waits_for_some() -> None:
    child.run(without_descriptors)


def closed_without_descriptors() -> None:
    """The server can be closed, too, and its back-off does not hold that up."""
    log = Log()
    with gtcp.Server("127.0.0.1:0", echo) as server, socket.socket() as sock, few_descriptors():
        sock.connect(("127.0.0.1", server.get_listened_port()))
        eventually(lambda: log.lines)
        watch = Watch()
        server.close()
        assert watch.seconds <= 5 * LATE  # what of it is the machine's takes descriptors to tell


def test_F10_a_server_without_descriptors_can_be_closed() -> None:
    child.run(closed_without_descriptors)


def dial_without_descriptors() -> None:
    """The place in the pool is not lost."""
    with gtcp.Server("127.0.0.1:0", echo) as server:
        there = ("127.0.0.1", server.get_listened_port())
        with gtcp.Pool(there, max_size=1) as pool, few_descriptors() as release:
            with pytest.raises(gtcp.SocketError, match="Too many open files"):
                pool.acquire(LONG)
            assert (pool.stats().connecting, pool.stats().in_use, pool.stats().failed) == (0, 0, 1)
            release()
            with pool.acquire(LONG) as lease:
                assert lease.send_recv_pkg(b"x", timeout=LONG) == b"x"


def test_A8_a_dial_without_descriptors_is_an_error_and_no_more() -> None:
    child.run(dial_without_descriptors)


def without_threads() -> None:
    """A stack larger than the address space: the system refuses each new thread."""
    log = Log()
    with gtcp.Server("127.0.0.1:0", echo) as server:
        there = ("127.0.0.1", server.get_listened_port())
        with gtcp.Conn(there) as old:
            assert old.send_recv_pkg(b"before", timeout=LONG) == b"before"
            usual = threading.stack_size(1 << 47)
            for i in range(3):
                with gtcp.Conn(there) as refused, pytest.raises((gtcp.EOF, gtcp.ResetError, gtcp.PipeError)):
                    refused.send_recv_pkg(b"x", timeout=LONG)
                assert len(log.lines) == i + 1, log.lines
                assert "no thread" in log.lines[i]
            threading.stack_size(usual)
            assert old.send_recv_pkg(b"during", timeout=LONG) == b"during"
        assert gtcp.send_recv_pkg(there, b"after", timeout=LONG) == b"after"


def test_F4_a_server_without_threads_refuses_and_goes_on() -> None:
    child.run(without_threads)


def idle_without_threads() -> None:
    """The reaper cannot be started when it is first needed; the next time it can."""
    with listen() as listener, gtcp.Pool(listener.getsockname(), ttl=SHORT) as pool:
        usual = threading.stack_size(1 << 47)
        pool.acquire().close()
        threading.stack_size(usual)
        pool.acquire().close()
        eventually(lambda: pool.stats().closed["ttl"] == 1)


def test_E11_a_reaper_that_could_not_start_is_started_later() -> None:
    child.run(idle_without_threads)
