"""However the bytes were cut on their way, the same units come out (B1, B2, B3, B11)."""

from collections.abc import Callable

import pytest

from gtcp._core import Parser
from support.peers import frame

HEADERS = [1, 2, 3, 4]
LIMIT = {1: 0xFF, 2: 0xFFFF, 3: 0xFFFFFF, 4: 0x7FFFFFFF}
PAYLOADS = [b"", b"a", b"\0\0\0\0", b"", b"", b"hello", bytes(range(200)), b"end"]
LINES = [b"", b"one", b"\r", b"two\r", b"", b"x" * 200]


def drain(take: Callable[[], bytes | None]) -> list[bytes]:
    units = []
    while (unit := take()) is not None:
        units.append(unit)
    return units


def packages(chunks: list[bytes], header: int) -> list[bytes]:
    parser = Parser()
    units = []
    for chunk in chunks:
        parser.feed(chunk)
        units += drain(lambda: parser.take_pkg(header, LIMIT[header]))
    assert parser.buffered == 0
    return units


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[i : i + 1] for i in range(len(stream))]


@pytest.mark.parametrize("header", HEADERS)
def test_B2_many_packages_in_one_chunk(header: int) -> None:
    assert packages([b"".join(frame(p, header) for p in PAYLOADS)], header) == PAYLOADS


@pytest.mark.parametrize("header", HEADERS)
def test_B1_packages_byte_by_byte(header: int) -> None:
    assert packages(bytewise(b"".join(frame(p, header) for p in PAYLOADS)), header) == PAYLOADS


@pytest.mark.parametrize("header", HEADERS)
def test_B3_packages_cut_at_every_place(header: int) -> None:
    stream = b"".join(frame(p, header) for p in PAYLOADS)
    for at in range(len(stream) + 1):
        assert packages([stream[:at], stream[at:]], header) == PAYLOADS, at


@pytest.mark.parametrize("header", HEADERS)
def test_B3_packages_cut_at_every_two_places(header: int) -> None:
    payloads = [b"", b"ab", b"c"]
    stream = b"".join(frame(p, header) for p in payloads)
    for first in range(len(stream) + 1):
        for second in range(first, len(stream) + 1):
            chunks = [stream[:first], stream[first:second], stream[second:]]
            assert packages(chunks, header) == payloads, (first, second)


@pytest.mark.parametrize("cut", ["whole", "bytewise"])
def test_B1_lines(cut: str) -> None:
    stream = b"".join(line + b"\n" for line in LINES)
    parser = Parser()
    units = []
    for chunk in [stream] if cut == "whole" else bytewise(stream):
        parser.feed(chunk)
        units += drain(lambda: parser.take_till(b"\n", 200, line=True))
    assert units == LINES
    assert parser.buffered == 0


@pytest.mark.parametrize("size", [1, 2, 7, 200])
def test_B3_exact_counts_cut_at_every_place(size: int) -> None:
    stream = bytes(range(200))
    for at in range(len(stream) + 1):
        parser = Parser()
        parser.feed(stream[:at])
        units = drain(lambda: parser.take_exact(size))  # noqa: B023 (called before the next turn)
        parser.feed(stream[at:])
        units += drain(lambda: parser.take_exact(size))  # noqa: B023
        assert b"".join(units) == stream[: len(units) * size]
        assert parser.buffered == len(stream) % size


@pytest.mark.parametrize("header", HEADERS)
def test_B11_only_empty_packages(header: int) -> None:
    assert packages([bytes(header) * 100], header) == [b""] * 100


def test_take_pkgs_takes_what_is_whole() -> None:
    parser = Parser()
    parser.feed(b"".join(frame(p) for p in PAYLOADS) + b"\0\5hal")
    taken: list[bytes] = []
    assert parser.take_pkgs(2, 0xFFFF, taken, 3) == 3
    assert taken == PAYLOADS[:3]
    assert parser.take_pkgs(2, 0xFFFF, taken, -1) == len(PAYLOADS) - 3
    assert parser.take_pkgs(2, 0xFFFF, taken, 0) == 0
    assert taken == PAYLOADS
    assert parser.buffered == 5


def test_nothing_is_consumed_before_a_unit_is_whole() -> None:
    parser = Parser()
    parser.feed(b"\0\5hal")
    assert parser.take_pkg(2, 0xFFFF) is None
    assert parser.take_till(b"\n", 100, line=True) is None
    assert parser.take_exact(6) is None
    assert parser.buffered == 5
    assert parser.take_exact(5) == b"\0\5hal"


def test_units_of_several_kinds_in_one_stream() -> None:
    parser = Parser()
    parser.feed(b"GET /\r\n" + frame(b"body", 3) + b"a;b;" + b"12345")
    assert parser.take_till(b"\n", 100, line=True) == b"GET /\r"
    assert parser.take_pkg(3, 100) == b"body"
    assert parser.take_till(b";", 100) == b"a;"
    assert parser.take_till(b";", 100) == b"b;"
    assert parser.take_exact(5) == b"12345"
    assert parser.buffered == 0
