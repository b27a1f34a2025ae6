"""A wrong argument raises before any byte moves, and the connection is as it was (B12, B20, C8, D4)."""

import math
import time
from collections.abc import Callable
from typing import Any

import pytest

import gtcp
from contract.makers import Maker
from contract.operations import EXCHANGES, RECEIVES, SENDS
from support.peers import frame, read_frame
from support.timing import LONG, SHORT

Use = Callable[[Any], Any]  # Any: what a type checker would refuse is the point
Wrong = tuple[Use, type[Exception] | tuple[type[Exception], ...]]

NOT_BYTES: list[Any] = ["text", None, 5, 1.5, ["x"], object()]
BAD_LENGTHS: list[tuple[Any, type[Exception]]] = [
    (-2, ValueError),
    (-(2**63), ValueError),
    (2**63, ValueError),
    (2**100, ValueError),
    (True, TypeError),
    (1.5, TypeError),
    ("5", TypeError),
    (None, TypeError),
    (b"5", TypeError),
]
BAD_TIMEOUTS: list[tuple[Any, type[Exception]]] = [
    (-1, ValueError),
    (-1e-9, ValueError),
    (-math.inf, ValueError),
    (math.nan, ValueError),
    (True, TypeError),
    ("1", TypeError),
    (b"1", TypeError),
    ([], TypeError),
]

WRONG: dict[str, Wrong] = {}
for data in NOT_BYTES:
    name = type(data).__name__
    WRONG |= {
        f"send {name}": (lambda conn, d=data: conn.send(d), TypeError),
        f"send_pkg {name}": (lambda conn, d=data: conn.send_pkg(d), TypeError),
        f"send_recv {name}": (lambda conn, d=data: conn.send_recv(d, 1), TypeError),
        f"send_recv_pkg {name}": (lambda conn, d=data: conn.send_recv_pkg(d), TypeError),
        f"send_pkgs [{name}]": (lambda conn, d=data: conn.send_pkgs([b"good", d]), TypeError),
        f"send_recv_pkgs [{name}]": (lambda conn, d=data: conn.send_recv_pkgs([b"good", d]), TypeError),
        f"recv_till {name}": (lambda conn, d=data: conn.recv_till(d), TypeError),
    }
for length, error in BAD_LENGTHS:
    WRONG |= {
        f"recv {length!r}": (lambda conn, n=length: conn.recv(n), error),
        f"send_recv {length!r}": (lambda conn, n=length: conn.send_recv(b"x", n), error),
        f"recv_pkgs {length!r}": (lambda conn, n=length: conn.recv_pkgs(n), error),
        f"recv_into {length!r}": (lambda conn, n=length: conn.recv_into(bytearray(9), n), error),
        f"window {length!r}": (lambda conn, n=length: conn.send_recv_pkgs([b"x"], window=n), error),
    }
    if length is not None:
        WRONG |= {
            f"recv_line max_size {length!r}": (lambda conn, n=length: conn.recv_line(max_size=n), error),
            f"recv_till max_size {length!r}": (lambda conn, n=length: conn.recv_till(b"x", max_size=n), error),
            f"lines max_size {length!r}": (lambda conn, n=length: conn.lines(max_size=n), error),
        }
for option in ("2", 2, True, (2, 100), {"header_size": 2}):
    name = type(option).__name__
    WRONG |= {
        f"send_pkg option {name}": (lambda conn, o=option: conn.send_pkg(b"x", o), TypeError),
        f"recv_pkg option {name}": (lambda conn, o=option: conn.recv_pkg(o), TypeError),
        f"send_recv_pkg option {name}": (lambda conn, o=option: conn.send_recv_pkg(b"x", o), TypeError),
        f"send_pkgs option {name}": (lambda conn, o=option: conn.send_pkgs([b"x"], o), TypeError),
        f"recv_pkgs option {name}": (lambda conn, o=option: conn.recv_pkgs(1, o), TypeError),
        f"send_recv_pkgs option {name}": (lambda conn, o=option: conn.send_recv_pkgs([b"x"], o), TypeError),
        f"packages option {name}": (lambda conn, o=option: conn.packages(o), TypeError),
    }
for retry in (3, True, "3", (3, 0.1)):
    name = type(retry).__name__
    WRONG |= {
        f"send retry {name}": (lambda conn, r=retry: conn.send(b"x", r), TypeError),
        f"send_recv retry {name}": (lambda conn, r=retry: conn.send_recv(b"x", 1, r), TypeError),
        f"recv retry {name}": (lambda conn, r=retry: conn.recv(1, r), TypeError),
        f"recv_line retry {name}": (lambda conn, r=retry: conn.recv_line(r), TypeError),
        f"recv_till retry {name}": (lambda conn, r=retry: conn.recv_till(b"x", r), TypeError),
    }
WRONG |= {
    "recv_pkgs -2": (lambda conn: conn.recv_pkgs(-2), ValueError),
    "recv_into -1": (lambda conn: conn.recv_into(bytearray(9), -1), ValueError),
    "recv_into more than fits": (lambda conn: conn.recv_into(bytearray(9), 10), ValueError),
    "recv_into nothing": (lambda conn: conn.recv_into(bytearray()), ValueError),
    "recv_into bytes": (lambda conn: conn.recv_into(b"read only"), (TypeError, BufferError)),
    "recv_into None": (lambda conn: conn.recv_into(None), TypeError),
    "recv_into a gap": (lambda conn: conn.recv_into(memoryview(bytearray(9))[::2]), (BufferError, ValueError)),
    "recv_till empty": (lambda conn: conn.recv_till(b""), ValueError),
    "recv_till above max_size": (lambda conn: conn.recv_till(b"xxx", max_size=2), ValueError),
    "window 0": (lambda conn: conn.send_recv_pkgs([b"x"], window=0), ValueError),
    "send_pkgs no iterable": (lambda conn: conn.send_pkgs(5), TypeError),
    "send_pkg too long": (lambda conn: conn.send_pkg(bytes(65536)), gtcp.LimitError),
    "send_recv_pkg too long": (lambda conn: conn.send_recv_pkg(bytes(65536)), gtcp.LimitError),
    "send_pkgs too long": (lambda conn: conn.send_pkgs([b"good", bytes(65536)]), gtcp.LimitError),
    "send_recv_pkgs too long": (lambda conn: conn.send_recv_pkgs([b"good", bytes(65536)]), gtcp.LimitError),
    "set_deadline nan": (lambda conn: conn.set_deadline(math.nan), ValueError),
    "set_deadline text": (lambda conn: conn.set_deadline("soon"), TypeError),
    "set_deadline bool": (lambda conn: conn.set_deadline(True), TypeError),
    "set_deadline_recv nan": (lambda conn: conn.set_deadline_recv(math.nan), ValueError),
    "set_deadline_send nan": (lambda conn: conn.set_deadline_send(math.nan), ValueError),
    "set_buffer_wait_recv negative": (lambda conn: conn.set_buffer_wait_recv(-1), ValueError),
    "set_buffer_wait_recv nan": (lambda conn: conn.set_buffer_wait_recv(math.nan), ValueError),
    "set_buffer_wait_recv bool": (lambda conn: conn.set_buffer_wait_recv(True), TypeError),
    "an argument too many": (lambda conn: conn.recv(1, None, 1), TypeError),
    "an unknown argument": (lambda conn: conn.recv(1, time_out=1), TypeError),
}
WITH_TIMEOUT: dict[str, Callable[[gtcp.Conn, Any], Any]] = {
    **{name: each.call for name, each in RECEIVES.items()},
    **{name: lambda conn, t, call=call: call(conn, b"x", t) for name, call in SENDS.items()},
    **{name: lambda conn, t, call=call: call(conn, b"x", t) for name, call in EXCHANGES.items()},
    "send_with_timeout": lambda conn, t: conn.send_with_timeout(b"x", t),
    "recv_with_timeout": lambda conn, t: conn.recv_with_timeout(1, t),
    "send_recv_with_timeout": lambda conn, t: conn.send_recv_with_timeout(b"x", 1, t),
    "send_pkg_with_timeout": lambda conn, t: conn.send_pkg_with_timeout(b"x", t),
    "recv_pkg_with_timeout": lambda conn, t: conn.recv_pkg_with_timeout(t),
    "send_recv_pkg_with_timeout": lambda conn, t: conn.send_recv_pkg_with_timeout(b"x", t),
}


def check_is_as_before(conn: gtcp.Conn, far: Any) -> None:
    """No byte went out, none was taken, and the connection works."""
    assert conn.recv_pkg(timeout=LONG) == b"waiting"
    conn.send_pkg(b"fine", timeout=LONG)
    assert read_frame(far) == b"fine"


@pytest.mark.parametrize("name", WRONG)
def test_B20_wrong_arguments(make_conn: Maker, name: str) -> None:
    use, error = WRONG[name]
    conn, far = make_conn()
    far.sendall(frame(b"waiting"))
    conn.set_deadline(time.monotonic() + SHORT)  # should the argument be taken after all
    with pytest.raises(error):
        use(conn)
    conn.set_deadline(None)
    check_is_as_before(conn, far)


@pytest.mark.parametrize("name", WITH_TIMEOUT)
def test_D4_wrong_timeouts(make_conn: Maker, name: str) -> None:
    conn, far = make_conn()
    far.sendall(frame(b"waiting"))
    for timeout, error in BAD_TIMEOUTS:
        with pytest.raises(error, match="timeout"):
            WITH_TIMEOUT[name](conn, timeout)
    check_is_as_before(conn, far)


def test_an_option_in_disguise_cannot_cheat(make_conn: Maker) -> None:
    class Disguised:
        header_size = 1
        max_data_size = 1000
        retry = None

    conn, far = make_conn()
    far.sendall(frame(b"waiting"))
    with pytest.raises((TypeError, ValueError)):
        conn.send_pkg(bytes(300), Disguised())  # type: ignore[arg-type]
    check_is_as_before(conn, far)


def test_a_refused_option_does_not_change_the_next_call(make_conn: Maker) -> None:
    class Refused:
        header_size = 4
        max_data_size = -1
        retry = None

    good = gtcp.PkgOption(1)
    conn, far = make_conn()
    conn.send_pkg(b"a", good)
    with pytest.raises((TypeError, ValueError)):
        conn.send_pkg(b"b", Refused())  # type: ignore[arg-type]
    conn.send_pkg(b"c", good)
    assert [read_frame(far, 1) for _ in range(2)] == [b"a", b"c"]
