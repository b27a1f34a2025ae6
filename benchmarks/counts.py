"""Figures without noise: user-space instructions (callgrind) and syscalls (strace) for one exchange.

A client, or a server under load, runs twice, with few and with many exchanges; the difference belongs to the exchanges
alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.build import Unavailable
from benchmarks.groups import all_cases
from benchmarks.plan import Case, Contender, Table
from benchmarks.processes import Server, Toolbox

TITLE = "Instructions and syscalls of the client, or the server, for one unit of work"
LIMIT = 300.0
Run = Callable[[list[str], int], str]
"""Lets somebody work under a tool, for so many units."""

WANTED = (
    (
        "exchange-64",
        (
            *("C", "a bare C function called from Python", "gtcp", "gtcp, no timeout"),
            *("makefile", "socket, timeout", "asyncio streams", "uvloop streams"),
        ),
    ),
    ("pool-exchange", ("gtcp PoolConn(addr)", "gtcp Pool.acquire()", "LifoQueue of makefile")),
    ("exchange-60000", ("C", "gtcp", "makefile")),
    ("window-32", ("C", "gtcp send_recv_pkgs", "makefile")),
    ("flood-packages", ("C", "gtcp recv_pkgs", "gtcp packages()", "gtcp recv_pkg", "makefile")),
    ("flood-lines", ("C", "gtcp recv_line", "gtcp lines()", "makefile iteration")),
    ("server-64x1", ("C epoll", "gtcp pkg_handler", "gtcp greenlets", "uvloop Protocol", "gtcp.aio on uvloop")),
    ("server-64x16", ("C epoll", "gtcp pkg_handler", "gtcp greenlets, gathered", "uvloop Protocol")),
)
QUICK = {"C", "gtcp", "makefile"}


def per_exchange(tools: Toolbox, *, quick: bool) -> Table:
    """Two at a time: counts do not mind what else runs."""
    by_id = {case.id: case for case in all_cases()}
    chosen = [
        (by_id[case_id], contender)
        for case_id, names in (WANTED[:1] if quick else WANTED)
        for contender in by_id[case_id].contenders
        if contender.name in names and (not quick or contender.name in QUICK)
    ]
    with ThreadPoolExecutor(2) as workers:
        counted = workers.map(lambda pair: _count(tools, *pair), chosen)
        rows = [(case.title, each.name, *counts) for (case, each), counts in zip(chosen, counted, strict=True)]
    note = (
        "User-space instructions counted by callgrind (the kernel's are not in it), system calls by strace. "
        "Both by difference of two runs. In floods the number of syscalls depends on how full the socket is."
    )
    return Table("counts", TITLE, ("work", "who", "instructions", "syscalls", "which"), tuple(rows), note)


def _count(tools: Toolbox, case: Case, contender: Contender) -> tuple[str, str, str]:
    if case.group == "server":
        few, more, run = 2048, 2048 * 9, partial(_serve, tools, contender)  # multiples of all that is in flight
    else:
        few, more, run = 96, 96 * 21, partial(_ask, tools, contender)  # multiples of the window
    try:
        instructions = [_instructions(run, n) for n in (few, more)]
        calls_few, calls = (_syscalls(run, n) for n in (few, more))
    except (Unavailable, OSError, ValueError, subprocess.SubprocessError) as reason:
        return "", "", f"not counted: {reason}"
    each = {name: (calls[name] - calls_few.get(name, 0)) / (more - few) for name in calls}
    shown = {name: value for name, value in each.items() if value >= 0.005}
    total = f"{sum(shown.values()):.2f}" if calls else ""
    which = ", ".join(f"{name} {value:.2f}" for name, value in sorted(shown.items()))
    first, last = instructions
    return f"{(last - first) / (more - few):.0f}" if first is not None and last is not None else "", total, which


def _ask(tools: Toolbox, contender: Contender, watcher: list[str], n: int) -> str:
    """Runs the client for ``n`` units under a tool and returns what the tool said."""
    with Server(tools, contender.server, None) as server:
        server.wait_ready()
        words = [*watcher, *tools.words(contender.client), str(server.port), *contender.client.args]
        return _finished(subprocess.run(words, check=False, input=f"96\n{n}\n", **_setting(tools))).stderr


def _serve(tools: Toolbox, contender: Contender, watcher: list[str], n: int) -> str:
    """The same for the server, while its load exchanges ``n`` packages."""
    words = [*watcher, *tools.words(contender.server), *contender.server.args]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(words, text=True, cwd=tools.folder, env=_ENVIRONMENT, **pipes) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        load = [*tools.words(contender.client), port, *contender.client.args]
        _finished(subprocess.run(load, check=False, input=f"{n}\n", **_setting(tools)))
        return server.communicate(timeout=LIMIT)[1]


_ENVIRONMENT = os.environ | {"PYTHONHASHSEED": "0"}  # else two starts of Python differ by a million instructions


def _setting(tools: Toolbox) -> dict[str, Any]:
    return {
        "capture_output": True,
        "text": True,
        "cwd": tools.folder,
        "env": _ENVIRONMENT,
        "timeout": LIMIT,
    }


def _finished(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    if not done.stdout.startswith("ready"):
        own = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("==")]
        raise Unavailable(own[-1][:200] if own else "no answer")
    return done


def _instructions(run: Run, n: int) -> int | None:
    if shutil.which("valgrind") is None:
        return None
    found = re.search(r"Collected : (\d+)", run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"], n))
    return int(found[1]) if found else None


def _syscalls(run: Run, n: int) -> dict[str, int]:
    """Calls by name, all threads."""
    if shutil.which("strace") is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "calls"
        run(["strace", "-f", "-c", "-o", str(report)], n)
        lines = [line.split() for line in report.read_text().splitlines()]
    # percent, seconds, microseconds a call, calls, [errors,] name
    return {
        line[-1]: int(line[3]) for line in lines if len(line) in {5, 6} and line[3].isdigit() and line[-1] != "total"
    }
