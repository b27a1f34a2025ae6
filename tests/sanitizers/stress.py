"""Threads that do everything at once, for the thread sanitizer. Usage: stress.py [SECONDS] [SEED]"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import gtcp
import gtcp.aio
from support.timing import LONG
from support.tls import Authority

THREADS = 8
WIDE = gtcp.PkgOption(4)
PATIENCE = (0, 0.001, LONG)


def echo(conn: gtcp.Conn) -> None:
    for package in conn.packages(WIDE):
        conn.send_pkg(package, WIDE)


class Side:
    """A server's address, and what all threads have in common there: a pool that is too small, a connection."""

    def __init__(self, server: gtcp.Server, tls: ssl.SSLContext | None) -> None:
        self.address = ("127.0.0.1", server.get_listened_port())
        self.tls = tls
        self.pool = gtcp.Pool(self.address, max_size=THREADS // 2, ttl=0.5, tls=tls)
        self.shared = self.dial()  # somebody closes it now and then

    def dial(self) -> gtcp.Conn:
        return gtcp.Conn(self.address, LONG, tls=self.tls)

    def close(self) -> None:
        self.shared.close()
        self.pool.close()


class Stress:
    def __init__(self, sides: list[Side], seconds: float, seed: int) -> None:
        self.sides = sides
        self.end = time.monotonic() + seconds
        self.seed = seed
        self.done: Counter[str] = Counter()
        self.errors: list[BaseException] = []

    def run(self, number: int) -> None:
        chance = random.Random(f"{self.seed}/{number}")
        actions = [self.borrow, self.use_shared, self.close_shared, self.dial, self.look, self.await_many]
        try:
            while time.monotonic() < self.end:
                action = chance.choices(actions, (40, 40, 1, 5, 10, 2))[0]
                with contextlib.suppress(gtcp.Error):
                    action(chance, chance.choice(self.sides))
                self.done[action.__name__] += 1
        except BaseException as error:  # noqa: BLE001
            self.errors.append(error)

    def borrow(self, chance: random.Random, side: Side) -> None:
        data = chance.randbytes(chance.choice((1, 100, 60_000)))
        with side.pool.acquire(chance.choice(PATIENCE)) as lease:
            if lease.send_recv_pkg(data, WIDE, timeout=chance.choice((0.001, LONG))) != data:
                raise AssertionError("a reply that belongs to another request")

    def use_shared(self, chance: random.Random, side: Side) -> None:
        conn = side.shared
        data = [chance.randbytes(chance.choice((1, 100, 60_000)))] * chance.randint(1, 3)
        if chance.random() < 0.5:
            if conn.send_recv_pkgs(data, WIDE, timeout=chance.choice((0.001, LONG))) != data and not conn.closed:
                raise gtcp.BrokenError("after somebody's timeout")
        else:
            conn.recv(0, timeout=0.001)

    def close_shared(self, chance: random.Random, side: Side) -> None:
        old, side.shared = side.shared, side.dial()
        chance.choice((old.close, old.abort))()

    def dial(self, chance: random.Random, side: Side) -> None:
        with side.dial() as conn:
            conn.send_recv_pkg(b"x", WIDE, timeout=LONG)

    def look(self, chance: random.Random, side: Side) -> None:
        side.pool.stats()
        if chance.random() < 0.05:
            side.pool.clear()

    def await_many(self, chance: random.Random, side: Side) -> None:
        """A loop of this thread's own: tasks that share a connection, one of them cancelled."""

        asked = [chance.randbytes(size) for size in (1, 100, 60_000, 1, 100)]

        async def main() -> None:
            async with gtcp.aio.connect(side.address, LONG, tls=side.tls) as conn:
                tasks = [asyncio.create_task(conn.send_recv_pkg(data, WIDE, timeout=LONG)) for data in asked]
                await asyncio.sleep(0)
                tasks[chance.randrange(len(tasks))].cancel()
                for data, answer in zip(asked, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
                    if isinstance(answer, bytes) and answer != data:
                        raise AssertionError("a reply that belongs to another request")
                    if isinstance(answer, Exception) and not isinstance(answer, gtcp.Error):
                        raise answer

        asyncio.run(main())


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 120.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 32)
    warnings.simplefilter("ignore", ResourceWarning)
    logging.getLogger("gtcp").setLevel(logging.CRITICAL + 1)
    sys.setswitchinterval(1e-4)
    print(f"{THREADS} threads for {seconds:g} s, seed {seed}", flush=True)
    authority = Authority()
    with gtcp.Server("127.0.0.1:0", echo) as plain, gtcp.Server("127.0.0.1:0", echo, tls=authority.server()) as secret:
        sides = [Side(plain, None), Side(secret, authority.client())]
        stress = Stress(sides, seconds, seed)
        threads = [threading.Thread(target=stress.run, args=(i,)) for i in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for side in sides:
            side.close()
    if stress.errors:
        raise stress.errors[0]
    print(f"{stress.done.total()} operations, nothing wrong: {dict(stress.done)}")


if __name__ == "__main__":
    main()
