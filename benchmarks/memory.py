"""What an idle connection costs a server that has answered one package on it: memory of the process, by difference."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack

from benchmarks.build import Unavailable
from benchmarks.groups import all_cases
from benchmarks.plan import Contender, Table
from benchmarks.processes import Server, Toolbox

TITLE = "Memory of a server for each idle connection that has exchanged one package"
FEW, MORE = 200, 1200  # connections; what the first ones cost is the server's own
PACKAGE = b"\0\100" + bytes(64)
LIMIT = 10.0


def per_connection(tools: Toolbox, *, quick: bool) -> Table:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    servers = next(case for case in all_cases() if case.id == "server-1000x1").contenders
    chosen = [each for each in servers if not quick or each.name.startswith("gtcp")]
    rows = sorted(((each.name, *_measure(tools, each)) for each in chosen), key=lambda row: float(row[1] or "inf"))
    note = (
        f"Anonymous resident memory with {MORE:,} connections less that with {FEW}, for each of those in between; the "
        "kernel's buffers are not in it. The C server keeps 64 KiB for each. Goals: greenlets 8 KiB, threads 24 KiB."
    )
    return Table("memory", TITLE, ("server", "KiB", "remark"), tuple(rows), note)


def _measure(tools: Toolbox, contender: Contender) -> tuple[str, str]:
    try:
        with Server(tools, contender.server, None) as server, ExitStack() as stack:
            server.wait_ready()
            sizes = []
            for count in (FEW, MORE - FEW):
                for _ in range(count):
                    _exchange(stack.enter_context(socket.create_connection(("127.0.0.1", server.port), LIMIT)))
                sizes.append(server.memory())
            return f"{(sizes[1] - sizes[0]) / (MORE - FEW) / 1024:.1f}", ""
    except (Unavailable, OSError) as reason:
        return "", f"not measured: {reason}"


def _exchange(sock: socket.socket) -> None:
    sock.sendall(PACKAGE)
    left = len(PACKAGE)
    while left:
        got = len(sock.recv(left))
        if not got:
            raise ConnectionError("the server hung up")
        left -= got
