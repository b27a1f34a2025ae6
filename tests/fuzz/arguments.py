"""Fuzzing of what callers hand in: options, addresses, timeouts. A clear error or a sound value, nothing else.

python tests/fuzz/arguments.py [corpus] [-runs=N] [options of libFuzzer]
"""

from __future__ import annotations

import contextlib
import math
import socket
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

import gtcp
from gtcp._address import parse
from gtcp._core import to_deadline

CLEAR = (ValueError, TypeError, OverflowError)

# A pair that lives as long as the process: no argument may cost it anything.
OURS, THEIRS = socket.socketpair()
CONN = gtcp.Conn.from_socket(OURS)
CONN.set_deadline_recv(0)


def anything(source: atheris.FuzzedDataProvider) -> object:
    match source.ConsumeIntInRange(0, 8):
        case 0:
            return source.ConsumeInt(9)
        case 1:
            return source.ConsumeFloat()
        case 2:
            return None
        case 3:
            return source.ConsumeBool()
        case 4:
            return source.ConsumeUnicode(20)
        case 5:
            return source.ConsumeBytes(20)
        case 6:
            return source.ConsumeIntInRange(-3, 70_000)
        case 7:
            return (source.ConsumeUnicode(20), source.ConsumeInt(4))
    return [source.ConsumeInt(1)]


def option(source: atheris.FuzzedDataProvider) -> None:
    try:
        made = gtcp.PkgOption(anything(source), anything(source))  # type: ignore[arg-type]
    except CLEAR:
        return
    most = 0x7FFFFFFF if made.header_size == 4 else 256**made.header_size - 1
    assert 1 <= made.header_size <= 4
    assert made.max_data_size is None or 0 <= made.max_data_size <= most
    with contextlib.suppress(gtcp.Timeout):
        CONN.recv_pkg(made)


def retry(source: atheris.FuzzedDataProvider) -> None:
    try:
        made = gtcp.Retry(*(anything(source) for _ in range(5)))  # type: ignore[arg-type]
    except CLEAR:
        return
    for attempt in (0, 1, 1000):
        assert 0 <= made.wait(attempt) <= made.max_interval


def address(source: atheris.FuzzedDataProvider) -> None:
    given = source.ConsumeUnicode(300) if source.ConsumeBool() else anything(source)
    try:
        made = parse(given)  # type: ignore[arg-type]
    except CLEAR:
        return
    assert 1 <= made.port <= 65535
    assert made.host.isascii()
    assert not set(made.host) & set("\0\r\n /\\@?#")
    assert parse(str(made)) == made


def timeout(source: atheris.FuzzedDataProvider) -> None:
    try:
        deadline = to_deadline(anything(source))  # type: ignore[arg-type]
    except CLEAR:
        return
    assert deadline is None or (math.isfinite(deadline) and deadline > 0)


def lengths(source: atheris.FuzzedDataProvider) -> None:
    call = source.PickValueInList(
        [
            lambda: CONN.recv(anything(source)),  # type: ignore[arg-type]
            lambda: CONN.recv_till(anything(source), max_size=anything(source)),  # type: ignore[arg-type]
            lambda: CONN.recv_line(max_size=anything(source)),  # type: ignore[arg-type]
            lambda: CONN.recv_pkgs(anything(source)),  # type: ignore[arg-type]
            lambda: CONN.recv_into(bytearray(source.ConsumeIntInRange(0, 100)), anything(source)),  # type: ignore[arg-type]
            lambda: CONN.recv_pkg(anything(source)),  # type: ignore[arg-type]
            lambda: CONN.set_buffer_wait_recv(anything(source)),  # type: ignore[arg-type]
        ]
    )
    with contextlib.suppress(gtcp.Timeout, *CLEAR):
        call()


TARGETS = (option, retry, address, timeout, lengths)


def one_input(data: bytes) -> None:
    source = atheris.FuzzedDataProvider(data)
    TARGETS[source.ConsumeIntInRange(0, len(TARGETS) - 1)](source)
    assert not CONN.closed


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
