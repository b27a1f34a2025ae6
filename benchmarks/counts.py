"""Figures without noise: user-space instructions (callgrind) and syscalls (strace) for one exchange.

A client runs twice, with few and with many exchanges; the difference belongs to the exchanges alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.build import Unavailable
from benchmarks.groups import all_cases
from benchmarks.plan import Contender, Table
from benchmarks.processes import Server, Toolbox

TITLE = "Instructions and syscalls of the client for one unit of work"
FEW, MORE = 96, 96 * 21  # multiples of the window
LIMIT = 300.0

WANTED = (
    (
        "exchange-64",
        ("C", "gtcp", "gtcp, no timeout", "makefile", "socket, timeout", "asyncio streams", "uvloop streams"),
    ),
    ("pool-exchange", ("gtcp PoolConn(addr)", "gtcp Pool.acquire()", "LifoQueue of makefile")),
    ("exchange-60000", ("C", "gtcp", "makefile")),
    ("window-32", ("C", "gtcp send_recv_pkgs", "makefile")),
    ("flood-packages", ("C", "gtcp recv_pkgs", "gtcp packages()", "gtcp recv_pkg", "makefile")),
    ("flood-lines", ("C", "gtcp recv_line", "gtcp lines()", "makefile iteration")),
)
QUICK = {"C", "gtcp", "makefile"}


def per_exchange(tools: Toolbox, *, quick: bool) -> Table:
    """Two at a time: counts do not mind what else runs."""
    by_id = {case.id: case for case in all_cases()}
    chosen = [
        (by_id[case_id].title, contender)
        for case_id, names in (WANTED[:1] if quick else WANTED)
        for contender in by_id[case_id].contenders
        if contender.name in names and (not quick or contender.name in QUICK)
    ]
    with ThreadPoolExecutor(2) as workers:
        counted = workers.map(lambda pair: _count(tools, pair[1]), chosen)
        rows = [(title, contender.name, *counts) for (title, contender), counts in zip(chosen, counted, strict=True)]
    note = (
        "User-space instructions counted by callgrind (the kernel's are not in it), system calls by strace. "
        "Both by difference of two runs. In floods the number of syscalls depends on how full the socket is."
    )
    return Table("counts", TITLE, ("work", "client", "instructions", "syscalls", "which"), tuple(rows), note)


def _count(tools: Toolbox, contender: Contender) -> tuple[str, str, str]:
    try:
        with Server(tools, contender.server, None) as server:
            server.wait_ready()
            words = [*tools.words(contender.client), str(server.port), *contender.client.args]
            instructions = _difference(_instructions(tools, words, n) for n in (FEW, MORE))
            few, more = (_syscalls(tools, words, n) for n in (FEW, MORE))
    except (Unavailable, OSError, ValueError, subprocess.SubprocessError) as reason:
        return "", "", f"not counted: {reason}"
    each = {name: (more[name] - few.get(name, 0)) / (MORE - FEW) for name in more}
    shown = {name: value for name, value in each.items() if value >= 0.005}
    total = f"{sum(shown.values()):.2f}" if more else ""
    return instructions, total, ", ".join(f"{name} {value:.2f}" for name, value in sorted(shown.items()))


def _difference(pair: Iterable[int | None]) -> str:
    few, more = pair
    return f"{(more - few) / (MORE - FEW):.0f}" if few is not None and more is not None else ""


def _run(tools: Toolbox, words: list[str], n: int) -> str:
    """Runs the client for ``n`` units under a tool and returns what the tool said."""
    done = subprocess.run(
        words,
        input=f"{FEW}\n{n}\n",
        capture_output=True,
        text=True,
        cwd=tools.folder,
        env=os.environ | {"PYTHONHASHSEED": "0"},  # else two starts of Python differ by a million instructions
        timeout=LIMIT,
        check=False,
    )
    if not done.stdout.startswith("ready"):
        own = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("==")]
        raise Unavailable(own[-1][:200] if own else "no answer")
    return done.stderr


def _instructions(tools: Toolbox, words: list[str], n: int) -> int | None:
    if shutil.which("valgrind") is None:
        return None
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    found = re.search(r"Collected : (\d+)", _run(tools, [*valgrind, *words], n))
    return int(found[1]) if found else None


def _syscalls(tools: Toolbox, words: list[str], n: int) -> dict[str, int]:
    """Calls by name, all threads."""
    if shutil.which("strace") is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "calls"
        _run(tools, ["strace", "-f", "-c", "-o", str(report), *words], n)
        lines = [line.split() for line in report.read_text().splitlines()]
    # percent, seconds, microseconds a call, calls, [errors,] name
    return {
        line[-1]: int(line[3]) for line in lines if len(line) in {5, 6} and line[3].isdigit() and line[-1] != "total"
    }
