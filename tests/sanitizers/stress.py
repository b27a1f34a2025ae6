"""Threads that do everything at once, for the thread sanitizer. Usage: stress.py [SECONDS] [SEED]"""

from __future__ import annotations

import contextlib
import logging
import random
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import gtcp
from support.timing import LONG

THREADS = 8
WIDE = gtcp.PkgOption(4)


def echo(conn: gtcp.Conn) -> None:
    for package in conn.packages(WIDE):
        conn.send_pkg(package, WIDE)


class Stress:
    def __init__(self, address: tuple[str, int], seconds: float, seed: int) -> None:
        self.address = address
        self.end = time.monotonic() + seconds
        self.seed = seed
        self.pool = gtcp.Pool(address, max_size=THREADS // 2, ttl=0.5)
        # One connection that all use, and somebody closes now and then.
        self.shared = gtcp.Conn(address, LONG)
        self.done: Counter[str] = Counter()
        self.errors: list[BaseException] = []

    def run(self, number: int) -> None:
        chance = random.Random(f"{self.seed}/{number}")
        actions = [self.borrow, self.use_shared, self.close_shared, self.dial, self.look]
        try:
            while time.monotonic() < self.end:
                action = chance.choices(actions, (40, 40, 1, 5, 10))[0]
                with contextlib.suppress(gtcp.Error):
                    action(chance)
                self.done[action.__name__] += 1
        except BaseException as error:  # noqa: BLE001
            self.errors.append(error)

    def borrow(self, chance: random.Random) -> None:
        data = chance.randbytes(chance.choice((1, 100, 60_000)))
        with self.pool.acquire(LONG) as lease:
            if lease.send_recv_pkg(data, WIDE, timeout=chance.choice((0.001, LONG))) != data:
                raise AssertionError("a reply that belongs to another request")

    def use_shared(self, chance: random.Random) -> None:
        conn = self.shared
        data = [chance.randbytes(chance.choice((1, 100, 60_000)))] * chance.randint(1, 3)
        if chance.random() < 0.5:
            if conn.send_recv_pkgs(data, WIDE, timeout=chance.choice((0.001, LONG))) != data and not conn.closed:
                raise gtcp.BrokenError("after somebody's timeout")
        else:
            conn.recv(0, timeout=0.001)

    def close_shared(self, chance: random.Random) -> None:
        old, self.shared = self.shared, gtcp.Conn(self.address, LONG)
        chance.choice((old.close, old.abort))()

    def dial(self, chance: random.Random) -> None:
        with gtcp.Conn(self.address, LONG) as conn:
            conn.send_recv_pkg(b"x", WIDE, timeout=LONG)

    def look(self, chance: random.Random) -> None:
        self.pool.stats()
        if chance.random() < 0.05:
            self.pool.clear()


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 120.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 32)
    warnings.simplefilter("ignore", ResourceWarning)
    logging.getLogger("gtcp").setLevel(logging.CRITICAL + 1)
    sys.setswitchinterval(1e-4)
    print(f"{THREADS} threads for {seconds:g} s, seed {seed}", flush=True)
    with gtcp.Server("127.0.0.1:0", echo) as server:
        stress = Stress(("127.0.0.1", server.get_listened_port()), seconds, seed)
        threads = [threading.Thread(target=stress.run, args=(i,)) for i in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stress.shared.close()
        stress.pool.close()
    if stress.errors:
        raise stress.errors[0]
    print(f"{stress.done.total()} operations, nothing wrong: {dict(stress.done)}")


if __name__ == "__main__":
    main()
