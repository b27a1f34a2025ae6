"""Lines and delimiters: exact bytes, limits that do not depend on the cuts, and no second look (B13, B14, B15)."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gtcp
from gtcp._core import Parser
from support.model import Model, TooLong


@pytest.mark.parametrize(
    ("stream", "needle", "unit"),
    [
        (b"aaab", b"aab", b"aaab"),
        (b"aabaab", b"aab", b"aab"),
        (b"ababac", b"abac", b"ababac"),
        (b"\r\r\n", b"\r\n", b"\r\r\n"),
        (b"enDEND", b"END", b"enDEND"),  # the original ignored case here
        (b"\xfe\xff\x80\x81", b"\x80\x81", b"\xfe\xff\x80\x81"),  # and held all invalid UTF-8 for equal
        (b"\0\0\0\1", b"\0\1", b"\0\0\0\1"),
        (b"x" * 500 + b";", b";", b"x" * 500 + b";"),
    ],
)
def test_B15_the_first_exact_match_however_cut(stream: bytes, needle: bytes, unit: bytes) -> None:
    for at in range(len(stream)):
        parser = Parser()
        parser.feed(stream[:at])
        assert parser.take_till(needle, 1000) in {None, unit}
        parser.feed(stream[at:] + b"rest")
        taken = parser.take_till(needle, 1000) if parser.buffered == len(stream) + 4 else unit
        assert taken == unit, at
        assert parser.take_exact(parser.buffered) == stream[len(unit) :] + b"rest"


@pytest.mark.parametrize("size", [2, 100, 65536])
def test_B15_a_long_delimiter_byte_by_byte_at_its_end(size: int) -> None:
    needle = b"a" * (size - 1) + b"b"
    parser = Parser()
    parser.feed(b"a" * 10 + needle[:-3])
    for byte in needle[-3:-1]:
        assert parser.take_till(needle, 1 << 20) is None
        parser.feed(bytes([byte]))
    assert parser.take_till(needle, 1 << 20) is None
    parser.feed(b"b")
    assert parser.take_till(needle, 1 << 20) == b"a" * 10 + needle


def test_looking_for_something_else_starts_from_the_front() -> None:
    parser = Parser()
    parser.feed(b"one;two,three")
    assert parser.take_till(b"\n", 100) is None
    assert parser.take_till(b",", 100) == b"one;two,"
    parser.feed(b"|four")
    assert parser.take_till(b"|", 100) == b"three|"
    assert parser.take_till(b"four", 100) == b"four"


@given(
    data=st.text("ab\n", max_size=60).map(str.encode),
    needle=st.sampled_from([b"\n", b"ab", b"aab", b"b\n"]),
    limit=st.integers(3, 20),
    cuts=st.lists(st.integers(0, 60), max_size=6).map(sorted),
)
def test_B15_units_and_limits_do_not_depend_on_the_cuts(
    data: bytes, needle: bytes, limit: int, cuts: list[int]
) -> None:
    whole, model = outcomes([data], needle, limit)
    assert whole == model
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert outcomes(pieces, needle, limit)[0] == whole


def outcomes(chunks: list[bytes], needle: bytes, limit: int) -> tuple[list[object], list[object]]:
    """What the parser gave and what the model gave, in the end."""
    parser, model = Parser(), Model()
    sources: list[Parser | Model] = [parser, model]
    results: tuple[list[object], list[object]] = [], []
    for chunk in chunks:
        parser.feed(chunk)
        model.feed(chunk)
        for source, found in zip(sources, results, strict=True):
            try:
                while (unit := source.take_till(needle, limit)) is not None:
                    found.append(unit)
            except (gtcp.LimitError, TooLong):
                if found[-1:] != [TooLong]:
                    found.append(TooLong)
    return results


@pytest.mark.parametrize("size", [0, 1, 9, 10])
def test_B13_a_line_as_long_as_its_limit(size: int) -> None:
    parser = Parser()
    for _ in range(size):
        parser.feed(b"x")
        assert parser.take_till(b"\n", 10, line=True) is None
    parser.feed(b"\n")
    assert parser.take_till(b"\n", 10, line=True) == b"x" * size


@pytest.mark.parametrize("cut", [True, False])
def test_B13_a_line_above_its_limit_stays(cut: bool) -> None:
    parser = Parser()
    parser.feed(b"x" * 11 if cut else b"x" * 11 + b"\nnext")
    with pytest.raises(gtcp.LimitError, match=r"^no delimiter within max_size 10 bytes$"):
        parser.take_till(b"\n", 10, line=True)
    if cut:
        parser.feed(b"\nnext")
    assert parser.take_till(b"\n", 11, line=True) == b"x" * 11
    assert parser.take_exact(4) == b"next"


@pytest.mark.parametrize("cut", [True, False])
def test_B13_a_delimiter_counts_into_its_limit(cut: bool) -> None:
    parser = Parser()
    parser.feed(b"12345678--"[: 9 if cut else 10])
    if cut:
        assert parser.take_till(b"--", 10) is None
        parser.feed(b"-")
    assert parser.take_till(b"--", 10) == b"12345678--"
    parser.feed(b"123456789-")
    with pytest.raises(gtcp.LimitError):
        parser.take_till(b"--", 10)


def seconds_byte_by_byte(size: int) -> float:
    """CPU time for a line of so many bytes that is looked for after each of them."""
    parser = Parser()
    start = time.thread_time()
    for _ in range(size):
        parser.feed(b"x")
        parser.take_till(b"\n", size, line=True)
    return time.thread_time() - start


def test_B14_a_line_byte_by_byte_is_scanned_once() -> None:
    # Twice the bytes cost twice the time, not four times: at this size a second look at
    # everything would be most of the work.
    ratios = (seconds_byte_by_byte(1 << 19) / seconds_byte_by_byte(1 << 18) for _ in range(5))
    assert any(ratio < 3 for ratio in ratios)
