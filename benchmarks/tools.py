"""What pip cannot install: which of it is not here, and what a run leaves out for that."""

from __future__ import annotations

import shutil
from dataclasses import dataclass


@dataclass(frozen=True)
class Tool:
    program: str
    package: str  # of Debian and its relatives
    lost: str


TOOLS = (
    Tool("cc", "gcc", "the lines of C, and with them every ratio to C"),
    Tool("go", "golang", "the lines of Go gtcp, the original"),
    Tool("redis-server", "redis-server", "what needs a Redis server"),
    Tool("valgrind", "valgrind", "counts of instructions"),
    Tool("strace", "strace", "counts of system calls"),
)


def absent() -> list[str]:
    """A sentence for each tool that is not installed."""
    return [
        f"{tool.program} is not installed (apt install {tool.package}): skipping {tool.lost}"
        for tool in TOOLS
        if shutil.which(tool.program) is None
    ]
