"""All cases, group by group."""

from __future__ import annotations

from benchmarks.groups import aio, exchange, pool, server, streams, tls
from benchmarks.plan import Case


def all_cases() -> list[Case]:
    return [case for module in (exchange, pool, streams, tls, aio, server) for case in module.cases()]
