"""A run of the tests that is killed takes along what it has started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import child, guard
from support.timing import LONG, eventually


def killed_run() -> None:
    guard.start()
    sleeper = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=-1, start_new_session=True, text=True)
    assert sleeper.stdout is not None
    print(sleeper.pid, sleeper.stdout.readline(), flush=True)  # noqa: T201
    os.kill(os.getpid(), signal.SIGKILL)


def lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_what_a_run_has_started_ends_with_it() -> None:
    done = child.call(killed_run)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    pids = done.stdout.split()
    assert len(pids) == 2
    eventually(lambda: not any(map(lives, pids)), LONG)
