"""Random bytes, random cuts, random questions: the parser and the model in plain Python agree (B3, B22)."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import gtcp
from gtcp._core import Parser
from support.model import Model, TooLong
from support.peers import frame

# Around the sizes where units change their path: the block of the buffer, the first piece of a large result.
EDGES = [16384, 65536]
SMALL = st.integers(0, 600)
LARGE = st.sampled_from([edge + near for edge in EDGES for near in (-5, -4, -2, -1, 0, 1, 3)] + [40_000, 200_000])
SIZES = SMALL | LARGE
HEADERS = st.integers(1, 4)
NEEDLES = st.sampled_from([b"\n", b"\r\n", b"aab", b"aa", b"\0\0\0", b"x" * 40])
LIMITS = st.sampled_from([0, 1, 3, 255, 600, 16384, 65535, 0x7FFFFFFF])


def pattern(size: int, first: int) -> bytes:
    """Bytes in which a piece that is lost, repeated or moved shows."""
    return bytes((first + i * 7 + (i >> 8)) & 0xFF for i in range(min(size, 4096))) * (size // 4096 + 1)


class Parsing(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.parser = Parser()
        self.model = Model()
        self.wire = b""  # sent, but not arrived yet

    # What the peer sends.

    @rule(size=SIZES, first=st.integers(0, 255), header=HEADERS)
    def send_package(self, size: int, first: int, header: int) -> None:
        size = min(size, 256**header - 1)
        self.wire += frame(pattern(size, first)[:size], header)

    @rule(data=st.text("ab\r\n\0x", max_size=50))
    def send_text(self, data: str) -> None:
        self.wire += data.encode()

    @rule(data=st.binary(max_size=20))
    def send_noise(self, data: bytes) -> None:
        self.wire += data

    # How it arrives.

    @rule(size=st.integers(1, 5) | SIZES)
    def arrive(self, size: int) -> None:
        chunk, self.wire = self.wire[:size], self.wire[size:]
        self.parser.feed(chunk)
        self.model.feed(chunk)

    # What is asked for.

    @rule(size=SIZES)
    def take_exact(self, size: int) -> None:
        assert self.parser.take_exact(size) == self.model.take_exact(size)

    @rule(header=HEADERS, limit=LIMITS)
    def take_pkg(self, header: int, limit: int) -> None:
        try:
            expected = self.model.take_pkg(header, limit)
        except TooLong:
            with pytest.raises(gtcp.LimitError):
                self.parser.take_pkg(header, limit)
        else:
            assert self.parser.take_pkg(header, limit) == expected

    @rule(header=HEADERS, limit=LIMITS, count=st.integers(-1, 3))
    def take_pkgs(self, header: int, limit: int, count: int) -> None:
        taken: list[bytes] = []
        expected: list[bytes] = []
        try:
            number = self.model.take_pkgs(header, limit, expected, count)
        except TooLong:
            with pytest.raises(gtcp.LimitError):
                self.parser.take_pkgs(header, limit, taken, count)
        else:
            assert self.parser.take_pkgs(header, limit, taken, count) == number
        assert taken == expected

    @rule(needle=NEEDLES, limit=LIMITS.filter(lambda limit: limit >= 40))
    def take_till(self, needle: bytes, limit: int) -> None:
        try:
            expected = self.model.take_till(needle, limit)
        except TooLong:
            with pytest.raises(gtcp.LimitError):
                self.parser.take_till(needle, limit)
        else:
            assert self.parser.take_till(needle, limit) == expected

    @rule(limit=LIMITS)
    def take_line(self, limit: int) -> None:
        try:
            expected = self.model.take_till(b"\n", limit, line=True)
        except TooLong:
            with pytest.raises(gtcp.LimitError):
                self.parser.take_till(b"\n", limit, line=True)
        else:
            assert self.parser.take_till(b"\n", limit, line=True) == expected

    @invariant()
    def same_number_of_bytes_is_left(self) -> None:
        assert self.parser.buffered == self.model.buffered

    def teardown(self) -> None:
        self.arrive(len(self.wire))
        left = self.model.buffered
        assert self.parser.take_exact(left) == self.model.take_exact(left)


Test_B3_B22_parsing = Parsing.TestCase
Test_B3_B22_parsing.settings = settings(stateful_step_count=40)
