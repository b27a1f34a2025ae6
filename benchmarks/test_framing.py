"""pytest-benchmark: units that are already in the socket, taken out one by one and all at once."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import gtcp
from benchmarks.peers._client import frame
from benchmarks.peers.client_handmade import split_packages

COUNT = 400  # 26 kB: they fit into one read
ROUNDS = 200
PACKAGES = frame(b"x" * 64, 2) * COUNT
LINES = (b"x" * 39 + b"\n") * COUNT
Pair = tuple[socket.socket, socket.socket]


def _measure(benchmark: BenchmarkFixture, there: socket.socket, wire: bytes, take: Callable[[], object]) -> None:
    """``take`` receives what was sent just before."""
    benchmark.extra_info["units"] = COUNT
    benchmark.pedantic(take, setup=lambda: there.sendall(wire), rounds=ROUNDS, warmup_rounds=10)


@pytest.mark.benchmark(group=f"{COUNT} packages of 64 B")
class TestPackages:
    def test_recv_pkg(self, benchmark: BenchmarkFixture, loopback_pair: Pair) -> None:
        with gtcp.Conn.from_socket(loopback_pair[0]) as conn:
            _measure(benchmark, loopback_pair[1], PACKAGES, lambda: [conn.recv_pkg() for _ in range(COUNT)])

    def test_recv_pkgs(self, benchmark: BenchmarkFixture, loopback_pair: Pair) -> None:
        with gtcp.Conn.from_socket(loopback_pair[0]) as conn:
            _measure(benchmark, loopback_pair[1], PACKAGES, lambda: conn.recv_pkgs(COUNT))

    def test_packages(self, benchmark: BenchmarkFixture, loopback_pair: Pair) -> None:
        with gtcp.Conn.from_socket(loopback_pair[0]) as conn:
            packages = conn.packages()
            _measure(benchmark, loopback_pair[1], PACKAGES, lambda: [next(packages) for _ in range(COUNT)])

    def test_makefile(self, benchmark: BenchmarkFixture, loopback_pair: Pair) -> None:
        with loopback_pair[0].makefile("rb", buffering=65536) as file:
            _measure(
                benchmark,
                loopback_pair[1],
                PACKAGES,
                lambda: [file.read(int.from_bytes(file.read(2), "big")) for _ in range(COUNT)],
            )

    def test_by_hand(self, benchmark: BenchmarkFixture, loopback_pair: Pair) -> None:
        here, there = loopback_pair
        _measure(benchmark, there, PACKAGES, lambda: split_packages(here.recv(65536)))


@pytest.mark.benchmark(group=f"{COUNT} lines of 40 B")
class TestLines:
    def test_recv_line(self, benchmark: BenchmarkFixture, loopback_pair: Pair) -> None:
        with gtcp.Conn.from_socket(loopback_pair[0]) as conn:
            _measure(benchmark, loopback_pair[1], LINES, lambda: [conn.recv_line() for _ in range(COUNT)])

    def test_lines(self, benchmark: BenchmarkFixture, loopback_pair: Pair) -> None:
        with gtcp.Conn.from_socket(loopback_pair[0]) as conn:
            lines = conn.lines()
            _measure(benchmark, loopback_pair[1], LINES, lambda: [next(lines) for _ in range(COUNT)])

    def test_makefile(self, benchmark: BenchmarkFixture, loopback_pair: Pair) -> None:
        with loopback_pair[0].makefile("rb", buffering=65536) as file:
            _measure(benchmark, loopback_pair[1], LINES, lambda: [next(file) for _ in range(COUNT)])
