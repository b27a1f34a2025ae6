"""Some tests of every folder in any order, and a moment of races: `make flakes` and `make tsan` have more of them."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from support import child
from support.timing import LONG

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SANITIZE = ROOT / ".ci" / "sanitize"
COUNT = 100


@pytest.mark.timeout(18 * LONG)
def test_I7_some_of_the_suite_in_any_order() -> None:
    seed = str(random.SystemRandom().randrange(1 << 32))
    order = ["--shuffle", seed, "--sample", str(COUNT), "-q", "-p", "no:cacheprovider"]
    done = child.interpreter(["-m", "pytest", *order, f"--ignore={HERE}", str(HERE.parent)], within=17 * LONG)
    assert (done.returncode, "passed" in done.stdout) == (0, True), f"--shuffle {seed}\n{child.report(done)}"


@pytest.mark.skipif(not SANITIZE.exists(), reason="the suite runs against an installed wheel, without the source tree")
@pytest.mark.timeout(12 * LONG)
def test_H17_a_moment_of_races_under_the_thread_sanitizer() -> None:
    """On the core that `make tsan` has built, which takes minutes."""
    # Its own core, not one that the path of this run names.
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "LD_PRELOAD"}}
    done = subprocess.run(
        [SANITIZE, "tsan", sys.executable, HERE.parent / "sanitizers" / "stress.py", "3"],
        env={**environment, "GTCP_AS_BUILT": "1"},
        capture_output=True,
        text=True,
        timeout=11 * LONG,
        check=False,
    )
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, child.report(done)
    assert "canary race: seen" in done.stdout
    assert "nothing wrong" in done.stdout
