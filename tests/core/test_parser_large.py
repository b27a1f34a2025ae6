"""Units too large for the buffer are received straight into their result; nobody can tell from outside."""

import random
from collections.abc import Iterator

import pytest

import gtcp
from gtcp._core import Parser
from support.peers import frame

# Below and above the buffer's block, and what a header alone may reserve; then several doublings.
SIZES = [16379, 16380, 16383, 16384, 16385, 65535, 65536, 65537, 131072, 300_001]


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def chunks(stream: bytes, seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    at = 0
    while at < len(stream):
        size = rng.choice([1, 2, 3, 100, 4096, 16384, 70_000])
        yield stream[at : at + size]
        at += size


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_B3_large_packages_among_small_ones(size: int, seed: int) -> None:
    payloads = [b"before", content(size), b"", content(size + 1), b"after"]
    parser = Parser()
    units: list[bytes] = []
    for chunk in chunks(b"".join(frame(p, 4) for p in payloads), seed):
        parser.feed(chunk)
        parser.take_pkgs(4, 0x7FFFFFFF, units, -1)
    assert units == payloads
    assert parser.buffered == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("there", [0, 1, 16384, 65536])
def test_exact_counts_with_some_bytes_there(size: int, there: int) -> None:
    stream = content(size) + b"tail"
    parser = Parser()
    parser.feed(stream[:there])
    if there < size:
        assert parser.take_exact(size) is None
    parser.feed(stream[there:])
    assert parser.take_exact(size) == stream[:size]
    assert parser.take_exact(4) == b"tail"


@pytest.mark.parametrize("arrived", [0, 1, 100, 16384, 65536, 99_999])
def test_B17_a_large_package_given_up_can_be_taken_as_anything(arrived: int) -> None:
    wire = frame(content(100_000), 4) + b"tail"
    parser = Parser()
    parser.feed(wire[:4])
    assert parser.take_pkg(4, 1 << 20) is None
    parser.feed(wire[4 : 4 + arrived])
    assert parser.take_pkg(4, 1 << 20) is None
    assert parser.buffered == 4 + arrived
    assert parser.take_exact(3) == wire[:3]  # the header comes back, too
    parser.feed(wire[4 + arrived :])
    assert parser.take_exact(len(wire) - 3) == wire[3:]


@pytest.mark.parametrize("header", [1, 2, 3])
def test_a_large_package_given_up_can_be_taken_by_another_header(header: int) -> None:
    wire = frame(content(70_000), 4)
    parser = Parser()
    parser.feed(wire[:1000])
    assert parser.take_pkg(4, 1 << 20) is None
    expected = int.from_bytes(wire[:header], "big")
    assert parser.take_pkg(header, 1000) == wire[header : header + expected]
    assert parser.buffered == 1000 - header - expected


def test_changing_one_s_mind_again_and_again_loses_nothing() -> None:
    wire = frame(content(100_000), 4)
    parser = Parser()
    for at in range(0, len(wire), 9_999):
        parser.feed(wire[at : at + 9_999])
        if at + 9_999 < len(wire):
            assert parser.take_pkg(4, 1 << 20) is None
            assert parser.take_exact(200_000) is None
            assert parser.take_till(b"no such thing", 1 << 20) is None
    assert parser.take_pkg(4, 1 << 20) == wire[4:]


def test_the_limit_of_a_large_package_on_its_way_may_shrink() -> None:
    parser = Parser()
    parser.feed(frame(content(100_000), 4)[:50_000])
    assert parser.take_pkg(4, 100_000) is None
    with pytest.raises(gtcp.LimitError, match=r"^package of 100000 bytes exceeds max_data_size 99999$"):
        parser.take_pkg(4, 99_999)
    assert parser.buffered == 50_000


@pytest.mark.parametrize(("header", "word"), [(4, b"\x7f\xff\xff\xff"), (4, b"\x80\0\0\0"), (4, b"\xff\xff\xff\xff")])
def test_B8_a_length_above_the_limit_is_refused_after_the_header(header: int, word: bytes) -> None:
    parser = Parser()
    parser.feed(word[:-1])
    assert parser.take_pkg(header, 1000) is None
    parser.feed(word[-1:])
    for _ in range(2):
        with pytest.raises(gtcp.LimitError, match="exceeds max_data_size 1000"):
            parser.take_pkg(header, 1000)
    assert parser.buffered == header


@pytest.mark.parametrize("header", [1, 2, 3, 4])
def test_B12_exactly_the_limit_and_one_more(header: int) -> None:
    limit = 200
    parser = Parser()
    parser.feed(frame(bytes(limit - 1), header) + frame(bytes(limit), header) + frame(bytes(limit + 1), header))
    assert parser.take_pkg(header, limit) == bytes(limit - 1)
    assert parser.take_pkg(header, limit) == bytes(limit)
    with pytest.raises(gtcp.LimitError):
        parser.take_pkg(header, limit)
