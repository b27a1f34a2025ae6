"""The package exchange over TLS 1.3."""

from __future__ import annotations

from benchmarks.certificates import AUTHORITY, SERVER
from benchmarks.groups._who import go, ours, peer
from benchmarks.plan import Case, Command, Contender, Pinning, Role


def _case(size: int, title: str, quick: tuple[Pinning, ...]) -> Case:
    server = Command("tlsserver", (SERVER,))
    work = "exchange", size, 2
    return Case(
        id=f"tls-{size}",
        group="tls",
        title=f"TLS 1.3: {title} package exchange",
        unit="exchanges",
        quick=quick,
        contenders=(
            Contender("C, OpenSSL", Role.LIMIT, Command("tlsclient", ("exchange", str(size), AUTHORITY)), server),
            ours("gtcp", server, *work, module="client_gtcp_tls"),
            go(server, "tls", size, 2, name="Go gtcp"),
            peer("ssl makefile", "client_tls", server, *work, variant="makefile"),
            peer("ssl recv", "client_tls", server, *work, variant="recv"),
            peer("asyncio streams", "client_tls_streams", server, *work, variant="asyncio"),
            peer("uvloop streams", "client_tls_streams", server, *work, variant="uvloop"),
        ),
        note="One cipher for all: AES-128-GCM. Go's gtcp is told not to verify, as its own documentation does.",
    )


def cases() -> list[Case]:
    return [_case(64, "64 B", (Pinning.ONE,)), _case(60_000, "60 000 B", ())]
