"""Runs a case: starts everybody, finds a count for each, then goes round and round in turn."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.build import Unavailable
from benchmarks.plan import Case, CaseResult, Command, Contender, Measured, Pinning
from benchmarks.processes import Client, Server, Toolbox, cpus_of, is_native

MAX_COUNT = 1_000_000_000


@dataclass(frozen=True)
class Settings:
    """How long: ``starts`` times fresh processes, and with each ``rounds`` of ``seconds`` for every contender.

    Where the memory of a process happens to lie makes it a few percent faster or slower for its whole life: only
    fresh processes average that.
    """

    starts: int
    rounds: int
    seconds: float
    quick: bool


QUICK = Settings(starts=1, rounds=7, seconds=0.05, quick=True)
FULL = Settings(starts=2, rounds=6, seconds=0.1, quick=False)

Tools = Callable[[Contender], Toolbox]
Say = Callable[[str], None]
ServerKey = tuple[Toolbox | None, Command]


def progress(text: str) -> None:
    """One line that is overwritten on a terminal, nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def run_case(case: Case, pinning: Pinning, settings: Settings, tools: Tools, say: Say = progress) -> CaseResult:
    """Contenders that cannot start, or that fail on the way, are in the result with the reason."""
    measured = [Measured(contender) for contender in case.contenders]
    for _ in range(settings.starts):
        _run_once(case, pinning, settings, tools, say, [m for m in measured if not m.missing])
    for m in measured:
        if m.missing:
            m.samples.clear()
    return CaseResult(case, pinning, measured)


def _run_once(
    case: Case, pinning: Pinning, settings: Settings, tools: Tools, say: Say, measured: list[Measured]
) -> None:
    client_cpu, server_cpu = cpus_of(pinning)
    with ExitStack() as stack:
        say(f"{case.id}, {pinning.value}: starting {len(measured)} contenders")
        servers = _start_servers(stack, measured, server_cpu, tools)
        clients = _start_clients(stack, measured, servers, client_cpu, tools)
        counts: dict[str, int] = {}
        for m in measured:
            if not m.missing:
                say(f"{case.id}, {pinning.value}: warming up {m.contender.name}")
                _guarded(m, partial(_calibrate, clients, m, case, settings, counts))
        for turn in range(settings.rounds):
            for m in _in_turn(measured, turn):
                if not m.missing:
                    say(f"{case.id}, {pinning.value}: round {turn + 1} of {settings.rounds}, {m.contender.name}")
                    client, server = clients[m.contender.name], servers[_server_key(m, tools)]
                    _guarded(m, partial(_round, m, client, server, counts[m.contender.name]))
        say("")


def _round(m: Measured, client: Client, server: Server, count: int) -> None:
    before = server.cpu_ns()
    sample = client.round(count)
    m.samples.append(replace(sample, server_cpu_ns=server.cpu_ns() - before))


def _guarded(m: Measured, step: Callable[[], object]) -> None:
    try:
        step()
    except (Unavailable, ValueError) as reason:
        m.missing = str(reason)


def _in_turn(measured: list[Measured], turn: int) -> list[Measured]:
    """A B C, then C B A, each time from another place: nobody always follows the same neighbour."""
    start = turn // 2 % max(len(measured), 1)
    order = measured[start:] + measured[:start]
    return order if turn % 2 == 0 else order[::-1]


def _server_key(m: Measured, tools: Tools) -> ServerKey:
    command = m.contender.server
    return None if is_native(command) else tools(m.contender), command


def _start_servers(stack: ExitStack, measured: list[Measured], cpu: int, tools: Tools) -> dict[ServerKey, Server]:
    """One server for each different command; contenders with the same command share it."""
    servers: dict[ServerKey, Server] = {}
    reasons: dict[ServerKey, str] = {}
    for m in measured:
        key = _server_key(m, tools)
        if key not in servers and key not in reasons:
            try:
                servers[key] = stack.enter_context(Server(tools(m.contender), m.contender.server, cpu))
            except Unavailable as reason:
                reasons[key] = str(reason)
    for key, server in servers.items():
        try:
            server.wait_ready()
        except (Unavailable, ValueError) as reason:
            reasons[key] = str(reason)
    for m in measured:
        m.missing = reasons.get(_server_key(m, tools), "")
    return servers


def _start_clients(
    stack: ExitStack,
    measured: list[Measured],
    servers: Mapping[ServerKey, Server],
    cpu: int,
    tools: Tools,
) -> dict[str, Client]:
    clients: dict[str, Client] = {}
    waiting = [m for m in measured if not m.missing]
    for m in waiting:
        port = servers[_server_key(m, tools)].port
        try:
            client = Client(tools(m.contender), m.contender.client, port, cpu)
            clients[m.contender.name] = stack.enter_context(client)
        except Unavailable as reason:
            m.missing = str(reason)
    for m in waiting:
        if not m.missing:
            _guarded(m, clients[m.contender.name].wait_ready)
    return clients


def _calibrate(
    clients: Mapping[str, Client], m: Measured, case: Case, settings: Settings, counts: dict[str, int]
) -> None:
    """Enters a count that takes about ``settings.seconds``; finding it is the warm-up as well."""
    client = clients[m.contender.name]
    target, count = settings.seconds * 1e9, case.quantum
    while True:
        wall = max(client.round(count).wall_ns, 1)
        if wall > target / 3 or count >= MAX_COUNT:
            counts[m.contender.name] = _whole(count * target / wall, case.quantum)
            return
        count = _whole(count * min(8.0, target / wall), case.quantum)


def _whole(count: float, quantum: int) -> int:
    return max(1, min(MAX_COUNT, round(count / quantum))) * quantum
