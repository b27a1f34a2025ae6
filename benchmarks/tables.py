"""Results that are not races: what ``import gtcp`` costs, and instructions and syscalls for each exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from benchmarks import counts, startup
from benchmarks.plan import Table
from benchmarks.processes import Toolbox


class Maker(Protocol):
    def __call__(self, tools: Toolbox, *, quick: bool) -> Table: ...


@dataclass(frozen=True)
class Entry:
    group: str
    id: str
    title: str
    make: Maker


TABLES = (
    Entry("startup", "import-time", startup.TITLE, startup.import_times),
    Entry("counts", "counts", counts.TITLE, counts.per_exchange),
)
