"""What an import costs: whole processes, in turn, on one core."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from benchmarks.plan import Pinning, Table
from benchmarks.processes import Toolbox, cpus_of, pinned
from benchmarks.report import time_text
from benchmarks.stats import spread

TITLE = "Import: whole processes beside a bare Python"
PROGRAMS = {
    "bare Python": "pass",
    "gtcp": "import gtcp",
    "socket": "import socket",
    "asyncio": "import asyncio",
    "ssl": "import ssl",
    "redis": "import redis",
    "zmq": "import zmq",
    "twisted reactor": "from twisted.internet import reactor",
}


def _start(tools: Toolbox, code: str) -> float | None:
    before = time.perf_counter()
    done = subprocess.run([tools.python, "-c", code], cwd=tools.folder, capture_output=True, check=False)
    return time.perf_counter() - before if done.returncode == 0 else None


def import_times(tools: Toolbox, *, quick: bool) -> Table:
    """Medians of whole processes; the second number is what the import adds."""
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    with pinned(cpus_of(Pinning.ONE)[0]):
        for turn in range(6 if quick else 21):
            for name, code in PROGRAMS.items():
                took = _start(tools, code)
                if took is not None and turn > 0:  # the first turn fills the page cache and writes .pyc files
                    times[name].append(took)
    bare = spread(times["bare Python"]).median
    rows = []
    for name, values in times.items():
        if values:
            whole = spread(values)
            rows.append(
                (name, time_text(whole.median), f"{whole.iqr_percent:.0f} %", f"{(whole.median - bare) * 1e3:.1f} ms")
            )
        else:
            rows.append((name, "not installed", "", ""))
    return Table("import-time", TITLE, ("program", "median", "IQR", "above bare"), tuple(rows), _note(tools))


def _note(tools: Toolbox) -> str:
    """The goal, the size of the extension, and what the import pulls in that it should not."""
    code = "import sys, gtcp; print(*(m for m in ('ssl', 'asyncio', 'logging') if m in sys.modules))"
    done = subprocess.run([tools.python, "-c", code], cwd=tools.folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return "Goal: gtcp at most 15 ms above bare Python."
    early = done.stdout.strip() or "none"
    return (
        f"Goal: gtcp at most 15 ms above bare Python. Of ssl, asyncio and logging it imports: {early}. {_size(tools)}"
    )


def _size(tools: Toolbox) -> str:
    code = "import gtcp._core as core; print(core.__file__)"
    done = subprocess.run([tools.python, "-c", code], cwd=tools.folder, capture_output=True, text=True, check=False)
    path = Path(done.stdout.strip())
    if done.returncode != 0 or not path.is_file():
        return ""
    return f"Extension module: {path.stat().st_size / 1e6:.2f} MB as built here."
