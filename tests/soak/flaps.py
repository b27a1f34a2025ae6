"""A server that goes and comes back once a second, and those who never stop asking it (E18)."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter

import gtcp
from gtcp.testing import FaultProxy, Peer, echo
from support.crew import Worker
from support.timing import EXCUSED, LATE, LONG, SCALE, eventually

ASKERS = 8
PAUSE = 0.005
"""Between two requests of one asker, who has other things to do."""
CONNECTIONS = 4
PROMISED = 0.2
"""Seconds until the first request after the return is answered."""
MOST_DIALS = 24
"""A second: while the server is away, one for each place, three short pauses, then one in 75 ms; and as many again."""


def exchange(pool: gtcp.Pool) -> None:
    with pool.acquire(LONG) as lease:
        assert lease.send_recv(b"hello", 5, timeout=LONG) == b"hello"


def ask(pool: gtcp.Pool, over: threading.Event) -> Counter[str]:
    """Asks again and again; what became of it."""
    counts: Counter[str] = Counter()
    while not over.wait(PAUSE):
        try:
            exchange(pool)
            counts["answered"] += 1
        except gtcp.RefusedError:
            counts["refused"] += 1
        except (gtcp.EOF, gtcp.ResetError, gtcp.PipeError):
            counts["cut off"] += 1
    return counts


def wait_for(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def run(seconds: int) -> None:
    """Away for half of each second."""
    returns = []
    with Peer(echo) as peer, FaultProxy(peer.address) as proxy, gtcp.Pool(proxy.address, max_size=CONNECTIONS) as pool:
        exchange(pool)
        over = threading.Event()
        askers = [Worker(lambda: ask(pool, over)) for _ in range(ASKERS)]
        begin = time.monotonic()
        for second in range(seconds):
            proxy.refuse()
            wait_for(begin + second + 0.5)
            proxy.listen()
            back = time.monotonic()
            exchange(pool)  # of the new time: it has no excuse to fail
            returns.append(time.monotonic() - back)
            wait_for(begin + second + 1.0)
        took = time.monotonic() - begin
        over.set()
        counts = sum((asker.result() for asker in askers), Counter[str]())
        eventually(lambda: pool.stats().connecting == 0)  # dials whose callers were served otherwise
        stats = pool.stats()
    dials = stats.created + stats.failed
    print(
        f"flaps: away and back {seconds} times in {took:.0f} s, {counts['answered']} requests answered, "
        f"{counts['refused']} refused, {counts['cut off']} cut off; the first after a return took "
        f"{statistics.median(returns) * 1e3:.0f} ms, {max(returns) * 1e3:.0f} ms at most; "
        f"{dials / took:.1f} dials a second",
        flush=True,
    )
    *most, longest = sorted(returns)
    assert statistics.median(returns) <= PROMISED * SCALE, returns
    assert max(most) <= PROMISED + LATE, returns
    assert longest <= PROMISED + EXCUSED, returns  # one may be a stall of the machine
    assert counts["answered"] > seconds * ASKERS, counts
    assert dials <= took * MOST_DIALS, stats
    assert (stats.in_use, stats.connecting, stats.waiting) == (0, 0, 0), stats
    assert stats.idle == stats.created - sum(stats.closed.values()), stats
