"""Moments of the soak: nothing grows and nothing is left behind; `make soak` has the full counts."""

import sys
from pathlib import Path

import pytest

from support import child
from support.timing import LONG

RUN = Path(__file__).parents[1] / "soak" / "run.py"
PARTS = {
    "I1": "packages",
    "I2": "pool",
    "I3": "dials",
    "I4": "buffers",
    "E19": "forks",
    "E5 E6": "replies",
    "E18": "flaps",
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("row", PARTS)
def test_a_moment_of(row: str) -> None:
    done = child.interpreter(["-W", "error", str(RUN), "--short", PARTS[row]], within=6 * LONG)
    assert done.returncode == 0, child.report(done)
