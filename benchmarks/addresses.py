"""What a program pays that talks to many addresses: memory and time of their shared pools."""

from __future__ import annotations

import json
import resource
import socket
from contextlib import ExitStack

from benchmarks.build import Unavailable
from benchmarks.plan import Command, Pinning, Table
from benchmarks.processes import Process, Toolbox, cpus_of
from benchmarks.report import time_text

COUNT = 10_000
TITLE = f"Pools of {COUNT:,} addresses"
LIMIT = 120.0


def of_pools(tools: Toolbox, *, quick: bool) -> Table:
    """Each address has a listener of its own, which leaves its connection in the backlog."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        with ExitStack() as stack:
            # First the process: `select` knows no descriptor beyond 1023.
            words = tools.words(Command("addresses"))
            process = stack.enter_context(Process(words, cpus_of(Pinning.ONE)[0], tools.folder))
            process.tell(" ".join(_listen(stack, i) for i in range(COUNT)))
            costs = json.loads(process.hear(LIMIT))
    except (Unavailable, OSError) as reason:
        return Table("addresses", TITLE, ("what", "remark"), (("everything", f"not measured: {reason}"),))
    rows = [(name, time_text(seconds), f"{kib:.1f}" if kib else "") for name, seconds, kib in costs]
    note = (
        "Anonymous resident memory of the process, the kernel's buffers are not in it. Times of PoolConn: medians of 5."
    )
    return Table("addresses", TITLE, ("what", "CPU time", "KiB"), tuple(rows), note)


def _listen(stack: ExitStack, i: int) -> str:
    listener = stack.enter_context(socket.create_server((f"127.{1 + (i >> 8)}.{i & 255}.1", 0), backlog=1))
    return "{}:{}".format(*listener.getsockname())
