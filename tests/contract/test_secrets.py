"""What went over a connection stands in no text of an error: those end in logs, which others read (S23)."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import gtcp
from contract.makers import Maker
from support.peers import frame, reset
from support.timing import LONG, SHORT

SECRET = b"correct-horse-battery"
SMALL = gtcp.PkgOption(2, 5)


def told(*things: object) -> str:
    """All that a log could say of them."""
    texts = [f"{thing!s} {thing!r}" for thing in things]
    for thing in things:
        if isinstance(thing, BaseException):
            texts += [repr(thing.args), *traceback.format_exception(thing)]
    return "\n".join(texts)


def arrived(conn: gtcp.Conn, far: socket.socket, wire: bytes) -> None:
    """The bytes are in the connection, though a call for more than there are has failed."""
    far.sendall(wire)
    with pytest.raises(gtcp.Timeout) as late:
        conn.recv(len(wire) + 1, timeout=SHORT)
    assert SECRET.decode() not in told(late.value, conn)


def send_until_it_fails(conn: gtcp.Conn) -> None:
    for _ in range(1000):
        conn.send(SECRET * 1000, timeout=LONG)


# What is done with the far end, then with ours, which fails.
FAILURES: dict[str, tuple[type[Exception], Callable[[socket.socket], object], Callable[[Any], object]]] = {
    "package too large": (
        gtcp.LimitError, lambda far: far.sendall(frame(SECRET)), lambda conn: conn.recv_pkg(SMALL, timeout=LONG),
    ),
    "line too long": (
        gtcp.LimitError, lambda far: far.sendall(SECRET), lambda conn: conn.recv_line(timeout=LONG, max_size=9),
    ),
    "too large to send": (gtcp.LimitError, id, lambda conn: conn.send_pkg(SECRET, SMALL)),
    "one too large to send": (gtcp.LimitError, id, lambda conn: conn.send_pkgs([b"", SECRET], SMALL)),
    "half a line": (gtcp.Timeout, lambda far: far.sendall(SECRET), lambda conn: conn.recv_line(timeout=SHORT)),
    "no reply": (gtcp.Timeout, id, lambda conn: conn.send_recv_pkg(SECRET, timeout=SHORT)),
    "one reply of two": (
        gtcp.Timeout, lambda far: far.sendall(frame(SECRET)),
        lambda conn: conn.send_recv_pkgs([SECRET, SECRET], timeout=SHORT),
    ),
    "never read": (gtcp.Timeout, id, lambda conn: conn.send(SECRET * 1_000_000, timeout=SHORT)),
    "peer gone": (gtcp.Error, reset, send_until_it_fails),
    "text": (TypeError, id, lambda conn: conn.send(SECRET.decode())),
    "text among packages": (TypeError, id, lambda conn: conn.send_pkgs([SECRET, SECRET.decode()])),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_F5_S23_no_error_tells_what_was_sent(make_conn: Maker, name: str) -> None:
    kind, prepare, use = FAILURES[name]
    conn, far = make_conn()
    prepare(far)
    with pytest.raises(kind) as caught:
        use(conn)
    errors: list[BaseException] = [caught.value]
    # And what the connection has to say of it afterwards.
    for again in (lambda: conn.send_recv_pkg(SECRET, timeout=0), lambda: conn.recv_pkg(timeout=0)):
        try:
            again()
        except gtcp.Error as error:
            errors.append(error)
    errors += filter(None, [error.__context__ for error in errors])
    assert SECRET.decode() not in told(conn, *errors)
    conn.abort()
    with pytest.raises(gtcp.ClosedError) as closed:
        conn.send(SECRET)
    assert SECRET.decode() not in told(conn, closed.value)


@pytest.mark.parametrize("receive", ["recv_pkg", "recv_line", "recv"])
def test_F5_S23_bytes_that_an_end_cut_off_are_an_attribute_only(make_conn: Maker, receive: str) -> None:
    conn, far = make_conn()
    arrived(conn, far, frame(SECRET)[:-1])
    far.close()
    arguments = (100,) if receive == "recv" else ()
    with pytest.raises(gtcp.EOF) as end:
        getattr(conn, receive)(*arguments, timeout=LONG)
    assert end.value.partial.endswith(SECRET[:-1])
    assert SECRET[:-1].decode() not in told(end.value, conn)
