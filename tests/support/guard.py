"""What a run has started ends with it, however it ends: one that was killed leaves no process behind.

Whatever the run starts inherits a mark in its environment. The guard, a process of its own, waits for the end of the
run and then ends those that bear the mark.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

MARK = "GTCP_TEST_RUN"


def start() -> None:
    """From now on, what this process starts ends with it. Nothing happens where there is no /proc to find it by."""
    if sys.platform != "linux":
        return
    mark = f"{MARK}={os.getpid()}.{os.urandom(8).hex()}"
    plain = {name: value for name, value in os.environ.items() if name not in {MARK, "LD_PRELOAD"}}
    os.posix_spawn(sys.executable, [sys.executable, "-I", "-S", __file__, str(os.getpid()), mark], plain, setsid=True)
    os.environ[MARK] = mark.partition("=")[2]


def bearers(mark: str) -> list[int]:
    """The processes that have it in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:  # gone, or somebody else's
                continue
    return found


def guard(run: int, mark: str) -> None:
    try:
        end = select.poll()
        end.register(os.pidfd_open(run), select.POLLIN)
        end.poll()
    except ProcessLookupError:
        pass
    for _ in range(100):  # one that is about to fork could escape a single look
        pids = bearers(mark)
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


if __name__ == "__main__":
    guard(int(sys.argv[1]), sys.argv[2])
