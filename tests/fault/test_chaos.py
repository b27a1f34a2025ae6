"""A moment of chaos; `make chaos` has more of it."""

import re
from pathlib import Path

from support import child
from support.timing import LONG

RUN = Path(__file__).parents[1] / "chaos" / "run.py"


def test_I6_a_moment_of_chaos() -> None:
    done = child.interpreter(["-W", "error", str(RUN), "--injections", "500"], within=6 * LONG)
    assert done.returncode == 0, child.report(done)
    assert re.search(r"500 injections of .* none wrong, none hung", done.stdout), child.report(done)
