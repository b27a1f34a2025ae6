"""Differential fuzzing: random bytes become random questions to the parser and to the model in plain Python.

    python tests/fuzz/parser.py [corpus] [-runs=N] [options of libFuzzer]

The core has to be built with GTCP_BUILD=fuzz. `make fuzz` does all of it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

import gtcp
from gtcp._core import Parser
from support.model import Model, TooLong

NEEDLES = (b"\n", b"\r\n", b"aab", b"aa", b"\0\0\0", b"x" * 40)
LIMITS = (0, 1, 3, 40, 255, 600, 16384, 65535, 0x7FFFFFFF)
SMALL = (0, 1, 2, 3, 40, 255, 256, 600)
# Around the block of the buffer and the first piece of a large result.
LARGE = (16379, 16382, 16384, 16385, 65535, 65536, 70000)

# "All packages" of 70 000 zeros would be 70 000 empty ones; such inputs took more than half of the time.
FEW = 1000
MANY = 300


class Both:
    """The parser and its model, asked the same."""

    def __init__(self) -> None:
        self.parser = Parser()
        self.model = Model()

    def ask(self, name: str, *arguments: object, **options: object) -> None:
        expected: object
        try:
            expected = getattr(self.model, name)(*arguments, **options)
        except TooLong:
            expected = TooLong
        got: object
        try:
            got = getattr(self.parser, name)(*arguments, **options)
        except gtcp.LimitError:
            got = TooLong
        if got != expected:
            raise AssertionError(f"{name}{arguments}{options}: {got!r:.100} instead of {expected!r:.100}")
        if self.parser.buffered != self.model.buffered:
            raise AssertionError(f"{name}: {self.parser.buffered} bytes are left instead of {self.model.buffered}")

    def feed(self, data: bytes) -> None:
        self.parser.feed(data)
        self.model.feed(data)


def one_input(data: bytes) -> None:
    """Each byte is an order; some take arguments from the bytes behind it."""
    both = Both()
    at = 0

    def byte() -> int:
        nonlocal at
        at += 1
        return data[at - 1] if at <= len(data) else 0

    def size_of(order: int) -> int:
        sizes = LARGE if order >= 0xE0 else SMALL
        return sizes[byte() % len(sizes)]

    while at < len(data):
        order = byte()
        match order & 7:
            case 0:
                size = byte()
                both.feed(data[at : at + size])
                at += size
            case 1:
                both.ask("take_pkg", 1 + (order >> 3 & 3), LIMITS[byte() % len(LIMITS)])
            case 2:
                both.ask("take_exact", order >> 3 if order & 128 else size_of(order))
            case 3:
                needle = NEEDLES[order >> 3 & 7] if order >> 3 & 7 < len(NEEDLES) else b"\n"
                both.ask("take_till", needle, max(len(needle), LIMITS[byte() % len(LIMITS)]))
            case 4:
                both.ask("take_till", b"\n", LIMITS[byte() % len(LIMITS)], line=True)
            case 5:
                ours: list[bytes] = []
                theirs: list[bytes] = []
                header, limit, count = 1 + (order >> 3 & 3), LIMITS[byte() % len(LIMITS)], (order >> 5) - 1
                if both.model.buffered > FEW:
                    count %= MANY  # the -1 that means all of them becomes so many
                pkgs(both, header, limit, count, ours, theirs)
            case 6:
                # A package whose payload repeats a pattern, so that large units cost few bytes of input.
                header, size = 1 + (order >> 3 & 3), size_of(order)
                size = min(size, 256**header - 1)
                both.feed(size.to_bytes(header, "big") + bytes([byte()]) * size)
            case 7:
                both.feed(bytes([byte()]) * size_of(order))
    both.ask("take_exact", both.model.buffered)


def pkgs(both: Both, header: int, limit: int, count: int, ours: list[bytes], theirs: list[bytes]) -> None:
    got: object
    expected: object
    try:
        expected = both.model.take_pkgs(header, limit, theirs, count)
    except TooLong:
        expected = TooLong
    try:
        got = both.parser.take_pkgs(header, limit, ours, count)
    except gtcp.LimitError:
        got = TooLong
    if (got, ours) != (expected, theirs):
        raise AssertionError(f"take_pkgs: {got}, {ours!r:.100} instead of {expected}, {theirs!r:.100}")


def canary(data: bytes) -> None:
    """Fails for an input that only a fuzzer finds: proof that failures are noticed."""
    parser = Parser()
    parser.feed(data)
    if parser.take_till(b"!\n", 100):
        raise AssertionError("canary")


if __name__ == "__main__":
    atheris.Setup(sys.argv, canary if os.environ.get("GTCP_FUZZ_CANARY") else one_input)
    atheris.Fuzz()
