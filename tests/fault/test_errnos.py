"""Every system call that gtcp makes fails with every errno: the right exception, no descriptor lost, and the next
clean request succeeds.

The shim of chaos.c makes one call fail; a child goes through the errnos of one call and reports what came out.
"""

import contextlib
import errno
import functools
import json
import logging
import re
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import gtcp
from gtcp._errors import BY_ERRNO
from support import child, shim
from support.leaks import Baseline
from support.peers import Peer, frame, read_frame
from support.timing import LONG, SHORT

ERRNOS = (
    "EINTR", "EAGAIN", "EBADF", "EINVAL", "EMFILE", "ENOMEM", "ENOBUFS", "ECONNRESET", "EPIPE", "ETIMEDOUT",
    "ENETUNREACH", "EACCES",
)  # fmt: skip
DIALS = ("socket", "setsockopt", "fcntl", "connect", "getsockopt", "getsockname")
LISTENS = ("bind", "listen")
GREENLETS = ("epoll_create1", "eventfd", "epoll_ctl", "epoll_wait")
CALLS = (
    *DIALS,
    *LISTENS,
    "accept4",
    "ioctl",
    "ppoll",
    "recv",
    "recvmsg",
    "send",
    "sendmsg",
    "shutdown",
    "close",
    *GREENLETS,
)

LARGE = 40_000

# Interrupted calls are made again, and those that would block wait.
AGAIN = {
    "EINTR": {"connect", "accept4", "recv", "recvmsg", "send", "sendmsg"},
    "EAGAIN": {"accept4", "recv", "recvmsg", "send", "sendmsg"},
}


def expected(call: str, name: str) -> str:
    if call in {"ppoll", "epoll_wait"} and name == "EINTR":
        return "Timeout"  # the call was to last that long
    if call in {"close", "ioctl"} or call in AGAIN.get(name, ()):
        return "done"
    if call == "accept4":
        # These mean that the listener itself is gone; anything else is the affair of one connection, or passes.
        return "not served" if name in {"EBADF", "EINVAL"} else "done"
    kind = BY_ERRNO.get(getattr(errno, name), gtcp.SocketError)
    return f"{kind.__name__} {name}"


# In the child.


def request(conn: gtcp.Conn, size: int = 5) -> None:
    assert conn.send_recv_pkg(bytes(size), timeout=LONG) == bytes(size)


def dial(address: str, inject: Callable[[], None]) -> None:
    inject()
    with gtcp.Conn(address, LONG) as conn:
        shim.calm()
        request(conn)


def listen(address: str, inject: Callable[[], None]) -> None:
    inject()
    with gtcp.Server("127.0.0.1:0", lambda conn: None):
        pass


def accept(address: str, inject: Callable[[], None]) -> None:
    logging.getLogger("gtcp").setLevel(logging.CRITICAL)
    with gtcp.Server("127.0.0.1:0", lambda conn: conn.send_pkg(conn.recv_pkg())) as server:
        inject()
        try:
            with socket.create_connection(("127.0.0.1", server.get_listened_port()), LONG) as client:
                client.settimeout(5 * SHORT)
                client.sendall(frame(b"hello"))
                assert read_frame(client) == b"hello"
        except (OSError, EOFError):  # whichever of these the end of the listener meets
            raise AssertionError("not served") from None


def end(address: str, inject: Callable[[], None]) -> None:
    """The server asks whether its reply has arrived, as the client says more than it reads."""

    def handler(conn: gtcp.Conn) -> None:
        conn.send_pkg(conn.recv_pkg())
        select.select([conn.fileno()], [], [], LONG)

    with gtcp.Server("127.0.0.1:0", handler) as server:
        inject()
        with socket.create_connection(("127.0.0.1", server.get_listened_port()), LONG) as client:
            client.sendall(frame(b"hello"))
            assert read_frame(client) == b"hello"
            client.sendall(b"more")
            assert client.recv(1) == b""


def wait(address: str, inject: Callable[[], None]) -> None:
    with gtcp.Conn(address, LONG) as conn:
        inject()
        conn.recv(1, timeout=0.005)


def receive(address: str, inject: Callable[[], None]) -> None:
    with gtcp.Conn(address, LONG) as conn:
        conn.send_pkg(b"hello")
        inject()
        assert conn.recv_pkg(timeout=LONG) == b"hello"


def receive_large(address: str, inject: Callable[[], None]) -> None:
    with gtcp.Conn(address, LONG) as conn:
        request(conn, LARGE)  # the next one is expected to be as large, and is read into two places at once
        conn.send_pkg(bytes(LARGE))
        inject()
        assert conn.recv_pkg(timeout=LONG) == bytes(LARGE)


def send(address: str, inject: Callable[[], None], size: int = 5) -> None:
    with gtcp.Conn(address, LONG) as conn:
        inject()
        request(conn, size)


def shut(address: str, inject: Callable[[], None]) -> None:
    with gtcp.Conn(address, LONG) as conn:
        inject()
        conn.close_write()


def close(address: str, inject: Callable[[], None]) -> None:
    conn = gtcp.Conn(address, LONG)
    inject()
    conn.close()


def greenlets(address: str, inject: Callable[[], None]) -> None:
    """As `gtcp.run` makes what its greenlets wait with."""
    inject()
    gtcp.run(dial, address, lambda: None)


def dial_as_a_greenlet(address: str, inject: Callable[[], None]) -> None:
    gtcp.run(dial, address, inject)


def wait_as_a_greenlet(address: str, inject: Callable[[], None]) -> None:
    gtcp.run(wait, address, inject)


PROGRAMS: dict[str, Callable[[str, Callable[[], None]], None]] = {
    **dict.fromkeys(DIALS, dial),
    **dict.fromkeys(LISTENS, listen),
    "accept4": accept,
    "ioctl": end,
    "ppoll": wait,
    "recv": receive,
    "recvmsg": receive_large,
    "send": send,
    "sendmsg": functools.partial(send, size=5000),
    "shutdown": shut,
    "close": close,
    "epoll_create1": greenlets,
    "eventfd": greenlets,
    "epoll_ctl": dial_as_a_greenlet,
    "epoll_wait": wait_as_a_greenlet,
}


class Cell(NamedTuple):
    outcome: str
    injected: int
    traces: list[str]


def cell(call: str, name: str, address: str) -> Cell:
    before, count = Baseline(), shim.injected()
    try:
        PROGRAMS[call](address, lambda: shim.fail(call, getattr(errno, name)))
        outcome = "done"
    except gtcp.SocketError as error:
        outcome = f"{type(error).__name__} {errno.errorcode[error.errno or 0]}"
    except (gtcp.Error, OSError) as error:
        outcome = type(error).__name__
    except AssertionError as error:
        outcome = str(error)
    shim.calm()
    with gtcp.Conn(address, LONG) as conn:
        request(conn)
    return Cell(outcome, shim.injected() - count, before.differences())


def row(call: str, address: str) -> None:
    print(json.dumps({name: cell(call, name, address) for name in ERRNOS}))  # noqa: T201


# In the parent.


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Callable[[str], dict[str, Cell]]]:
    def echo(sock: socket.socket) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                sock.sendall(frame(read_frame(sock)))

    with Peer(echo) as peer:

        @functools.cache
        def of(call: str) -> dict[str, Cell]:
            printed = child.run(row, call, peer.address, environment=shim.environment(), within=6 * LONG)
            return {name: Cell(*values) for name, values in json.loads(printed).items()}

        yield of


def test_C5_every_call_of_the_core_is_among_them() -> None:
    assert len(set(CALLS)) == 21
    assert len({getattr(errno, name) for name in ERRNOS}) == 12
    headers = Path(__file__).parents[2] / "gtcp" / "_corelib"
    if not headers.is_dir():
        pytest.skip("the suite runs against an installed wheel, without the source tree")
    for header, arguments, some in (
        ("gtcp_posix.h", r"(?:fd|fds|listener)\b", {"recv", "recvmsg", "close"}),
        ("gtcp_epoll.h", r"(?:epoll|fd|0|EPOLL_CLOEXEC)\b", set(GREENLETS)),
    ):
        linux = re.sub(r"#else\n.*?#endif", "", (headers / header).read_text(), flags=re.DOTALL)
        made = set(re.findall(rf"(?<![\w.*])([a-z]+[a-z_]*[14]?)\({arguments}", linux))
        # Those of the bell, which nobody needs to hear about: it rings already, or nobody rang.
        made = {call for call in made if not call.startswith("gtcp_")} - {"read", "write"}
        assert some <= made <= set(CALLS), header


@pytest.mark.parametrize("name", ERRNOS)
@pytest.mark.parametrize("call", CALLS)
def test_C5_a_call_that_fails(call: str, name: str, outcomes: Callable[[str], dict[str, Cell]]) -> None:
    if call in GREENLETS:
        pytest.importorskip("greenlet")
    found = outcomes(call)[name]
    assert found == Cell(expected(call, name), 1, [])
