"""Results that are not races: what an import and an idle connection cost, instructions and syscalls of an exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from benchmarks import counts, memory, startup
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
    Entry("memory", "memory", memory.TITLE, memory.per_connection),
    Entry("counts", "counts", counts.TITLE, counts.per_exchange),
)
