"""Results that are not races: what an import, an idle connection and pools cost, instructions and syscalls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from benchmarks import addresses, counts, memory, startup
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
    Entry("pool", "addresses", addresses.TITLE, addresses.of_pools),
    Entry("startup", "import-time", startup.TITLE, startup.import_times),
    Entry("memory", "memory", memory.TITLE, memory.per_connection),
    Entry("counts", "counts", counts.TITLE, counts.per_exchange),
)
