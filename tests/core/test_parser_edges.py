"""What the parser refuses before it looks at a byte, and units that come in two places at once."""

import pytest

from gtcp._core import Parser
from support.peers import frame


@pytest.mark.parametrize("header_size", [-1, 0, 5, 2**31 - 1])
def test_B20_an_impossible_header_is_refused_and_nothing_is_taken(header_size: int) -> None:
    parser = Parser()
    parser.feed(frame(b"hello"))
    with pytest.raises(ValueError, match=f"header_size must be from 1 to 4, got {header_size}"):
        parser.take_pkg(header_size, 100)
    with pytest.raises(ValueError, match=f"header_size must be from 1 to 4, got {header_size}"):
        parser.take_pkgs(header_size, 100, [], -1)
    assert parser.take_pkg(2, 100) == b"hello"


def test_B20_a_negative_length_is_refused_and_nothing_is_taken() -> None:
    parser = Parser()
    parser.feed(b"hello")
    with pytest.raises(ValueError, match="n must not be negative, got -1"):
        parser.take_exact(-1)
    assert parser.take_exact(5) == b"hello"


@pytest.mark.parametrize("line", [False, True])
def test_B15_an_empty_delimiter_is_refused_and_nothing_is_taken(line: bool) -> None:
    parser = Parser()
    parser.feed(b"hello")
    with pytest.raises(ValueError, match="the delimiter must not be empty"):
        parser.take_till(b"", 100, line=line)
    assert parser.take_exact(5) == b"hello"


@pytest.mark.parametrize("wrong", ["text", None, 5, [1]])
def test_B20_what_is_no_buffer_is_not_fed(wrong: object) -> None:
    parser = Parser()
    with pytest.raises(TypeError):
        parser.feed(wrong)  # type: ignore[arg-type]
    assert parser.buffered == 0


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 100, 39_999])
@pytest.mark.parametrize("second", [0, 5, 16_380, 16_381, 39_999, 40_000, 40_001, 200_000])
def test_B3_a_package_after_a_large_one_is_received_into_two_places(second: int, cut: int) -> None:
    """It is expected to be as large, before its header is known."""
    parser = Parser()
    large = frame(b"1" * 40_000, 4)
    parser.feed(large[:10])
    assert parser.take_pkg(4, 1 << 20) is None
    parser.feed(large[10:])
    assert parser.take_pkg(4, 1 << 20) == large[4:]
    following = frame(b"2" * second, 4) + frame(b"tail", 4)
    units: list[bytes] = []
    for piece in (following[:cut], following[cut:]):
        parser.feed(piece)
        parser.take_pkgs(4, 1 << 20, units, -1)
    assert units == [b"2" * second, b"tail"]
    assert parser.buffered == 0
