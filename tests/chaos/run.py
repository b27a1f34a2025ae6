"""Draws faults by a seed and lets them happen: none may be wrong, none may hang. `make chaos`.

    python tests/chaos/run.py [--seed N] [--injections 25000 | --seconds 60] [--only N]

The same seed draws the same faults; --only repeats one of them. For the core the kernel misbehaves a little all the
time (see tests/fault/chaos.c) unless --calm is given.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from chaos.injections import INJECTIONS
from chaos.world import World
from support import guard, shim
from support.timing import SCALE

HANGS = 60.0 * SCALE
STORM = (200, 50, 50, 0)
LEAST = 20 / SCALE
"""Injections a second: fewer, and most of the time was spent waiting for something that should not take long."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw faults by a seed and let them happen.")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--injections", type=int, default=25_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--only", type=int, help="the number of the one injection to make")
    parser.add_argument("--calm", action="store_true", help="with a kernel that behaves")
    options = parser.parse_args()
    if not options.calm and "CHAOS" not in os.environ and sys.platform == "linux":
        os.environ.update(shim.environment((options.seed, *STORM), only="gtcp/_core."))
        os.execv(sys.executable, [sys.executable, *sys.argv[:1], "--seed", str(options.seed), *sys.argv[1:]])
    guard.start()
    print(f"seed {options.seed}, {len(INJECTIONS)} rows", flush=True)
    return chaos(options)


def chaos(options: argparse.Namespace) -> int:
    names = sorted(INJECTIONS)
    seen: Counter[str] = Counter()
    numbers = range(options.injections) if options.only is None else (options.only,)
    start = shown = time.monotonic()
    with World(options.seed) as world:
        for number in numbers:
            chance = random.Random(f"{options.seed}/{number}")
            name = chance.choice(names)
            faulthandler.dump_traceback_later(HANGS, exit=True)
            try:
                INJECTIONS[name](world, chance)
                world.clean_request()
                if number % 50 == 0:
                    world.check_books()
            except BaseException as error:
                # Again with: --seed and --only.
                print(f"WRONG: injection {number}, {name} {INJECTIONS[name].__name__}: {error!r}", flush=True)
                raise
            faulthandler.cancel_dump_traceback_later()
            seen[name] += 1
            now = time.monotonic()
            if now - shown >= 10:
                shown = now
                print(f"  {seen.total():6} injections, {now - start:4.0f} s", flush=True)
            if now - start >= options.seconds:
                break
        world.check_books()
    took = time.monotonic() - start
    shaken = shim.injected() if "CHAOS" in os.environ else 0
    print(
        f"{seen.total()} injections of {len(seen)} rows in {took:.0f} s, seed {options.seed}: none wrong, none hung; "
        f"the kernel misbehaved {shaken} times besides"
    )
    if took >= options.seconds and seen.total() < LEAST * options.seconds:
        print(f"TOO FEW: {LEAST * options.seconds:.0f} injections at least were to be made")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
