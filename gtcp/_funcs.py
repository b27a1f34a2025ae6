"""One call each: dial, do one thing, close."""

from __future__ import annotations

from gtcp import _core
from gtcp._address import Address, AddressLike
from gtcp._conn import Conn
from gtcp._dial import earlier
from gtcp._errors import SocketError

TYPE_CHECKING = False  # see _address
if TYPE_CHECKING:
    from typing_extensions import Buffer

    from gtcp._options import PkgOption, Retry

_DIAL_TIMEOUT = 30.0


def send(
    addr: AddressLike | Address, data: Buffer, retry: Retry | None = None, *, timeout: float | None = None
) -> None:
    """Dials, sends `data`, closes. `retry` is also for dials that are refused; `timeout`: seconds for all of it."""
    deadline = _core.to_deadline(timeout)
    with _open(addr, retry, deadline) as conn:
        conn.send(data, retry, timeout=_core.remaining(deadline))


def send_recv(
    addr: AddressLike | Address,
    data: Buffer,
    length: int = -1,
    retry: Retry | None = None,
    *,
    timeout: float | None = None,
) -> bytes:
    """Dials, sends `data`, receives as `Conn.recv(length)` does, closes. Else as `send`."""
    deadline = _core.to_deadline(timeout)
    with _open(addr, retry, deadline) as conn:
        return conn.send_recv(data, length, retry, timeout=_core.remaining(deadline))


def send_pkg(
    addr: AddressLike | Address, data: Buffer, option: PkgOption | None = None, *, timeout: float | None = None
) -> None:
    """Dials, sends one package, closes. Else as `send`, with the retry of the option."""
    deadline = _core.to_deadline(timeout)
    with _open(addr, None if option is None else option.retry, deadline) as conn:
        conn.send_pkg(data, option, timeout=_core.remaining(deadline))


def send_recv_pkg(
    addr: AddressLike | Address, data: Buffer, option: PkgOption | None = None, *, timeout: float | None = None
) -> bytes:
    """Dials, sends one package, receives one, closes. Else as `send_pkg`."""
    deadline = _core.to_deadline(timeout)
    with _open(addr, None if option is None else option.retry, deadline) as conn:
        return conn.send_recv_pkg(data, option, timeout=_core.remaining(deadline))


def send_with_timeout(
    addr: AddressLike | Address, data: Buffer, timeout: float | None, retry: Retry | None = None
) -> None:
    """`send(addr, data, retry, timeout=timeout)`."""
    send(addr, data, retry, timeout=timeout)


def send_recv_with_timeout(
    addr: AddressLike | Address, data: Buffer, length: int, timeout: float | None, retry: Retry | None = None
) -> bytes:
    """`send_recv(addr, data, length, retry, timeout=timeout)`."""
    return send_recv(addr, data, length, retry, timeout=timeout)


def send_pkg_with_timeout(
    addr: AddressLike | Address, data: Buffer, timeout: float | None, option: PkgOption | None = None
) -> None:
    """`send_pkg(addr, data, option, timeout=timeout)`."""
    send_pkg(addr, data, option, timeout=timeout)


def send_recv_pkg_with_timeout(
    addr: AddressLike | Address, data: Buffer, timeout: float | None, option: PkgOption | None = None
) -> bytes:
    """`send_recv_pkg(addr, data, option, timeout=timeout)`."""
    return send_recv_pkg(addr, data, option, timeout=timeout)


def _open(addr: AddressLike | Address, retry: Retry | None, deadline: float | None) -> Conn:
    """A connection; a dial that fails is tried again as the policy says, since nothing has been sent yet."""
    attempt = 0
    while True:
        try:
            return Conn(addr, _core.remaining(earlier(deadline, _core.to_deadline(_DIAL_TIMEOUT))))
        except SocketError:
            if retry is None or attempt >= retry.count:
                raise
            wait = retry.wait(attempt)
            if deadline is not None and wait >= (_core.remaining(deadline) or 0.0):
                raise
            _core.sleep(wait)
            attempt += 1
