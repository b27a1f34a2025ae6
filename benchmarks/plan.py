"""The words of a benchmark: commands, contenders, cases, goals, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Role(Enum):
    """``LIMIT`` is C, ``OURS`` is gtcp, ``PEER`` is everyone else; ``NOTE`` is shown, but never the best peer."""

    LIMIT = "C"
    OURS = "gtcp"
    PEER = "peer"
    NOTE = "note"


class Pinning(Enum):
    """Where the two processes of a measurement run."""

    ONE = "one core"
    TWO = "two cores"


@dataclass(frozen=True)
class Command:
    """A program and its arguments: ``cclient``, ``gopeer``, ``redis-server`` or a Python module of ``peers``."""

    program: str
    args: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contender:
    """A client and the server it talks to. In a case about servers the clients are all the same, else the servers."""

    name: str
    role: Role
    client: Command
    server: Command


@dataclass(frozen=True)
class Goal:
    """The ratios the project wants: to C and to the best peer. Shown beside the measured ones, never asserted."""

    to_limit: float | None = None
    to_best: float | None = None


@dataclass(frozen=True)
class Case:
    """One question, asked of all contenders in the same run."""

    id: str
    group: str
    title: str
    unit: str
    contenders: tuple[Contender, ...]
    goal: Goal = Goal()
    pinnings: tuple[Pinning, ...] = (Pinning.ONE, Pinning.TWO)
    quick: tuple[Pinning, ...] = (Pinning.ONE,)
    quantum: int = 1  # counts are multiples of it: a window, the number of threads
    note: str = ""


@dataclass(frozen=True)
class Sample:
    """One round of one contender."""

    count: int
    wall_ns: int
    cpu_ns: int  # the client's
    server_cpu_ns: int = 0
    latencies_ns: tuple[int, ...] = ()  # p50, p99, p99.9 when the client is the load generator

    @property
    def rate(self) -> float:
        return self.count / self.wall_ns * 1e9

    @property
    def client_cost(self) -> float:
        """Seconds of CPU the client took for one unit."""
        return self.cpu_ns / self.count / 1e9

    @property
    def cost(self) -> float:
        """Seconds of CPU both sides took for one unit."""
        return (self.cpu_ns + self.server_cpu_ns) / self.count / 1e9


@dataclass
class Measured:
    """All rounds of one contender, or why there are none. Round ``i`` of two contenders belong together."""

    contender: Contender
    samples: list[Sample] = field(default_factory=list)
    missing: str = ""

    @property
    def rates(self) -> list[float]:
        return [sample.rate for sample in self.samples]


@dataclass
class CaseResult:
    case: Case
    pinning: Pinning
    measured: list[Measured]


@dataclass(frozen=True)
class Table:
    """A result that is not a race by rounds: instruction counts, import times."""

    id: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
