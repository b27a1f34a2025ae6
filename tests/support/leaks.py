"""What a test must leave as it found it: open descriptors and threads."""

import gc
import os
import threading
from pathlib import Path

from support.timing import SHORT, eventually

# The pool's janitor is started by the first idle connection and stays for the life of the process.
LASTING_THREADS = {"gtcp-reaper"}

_LINKS = Path("/proc/self/fd")
_NUMBERS = Path("/dev/fd")


def descriptors() -> set[tuple[int, str]]:
    """Every open fd with what it refers to.

    By inode where /proc tells it: a number alone would not show that a socket was closed and the
    number reused by a stranger's.
    """
    found = set()
    for entry in (_LINKS if _LINKS.exists() else _NUMBERS).iterdir():
        fd = int(entry.name)
        try:
            found.add((fd, str(entry.readlink()) if _LINKS.exists() else _identity(fd)))
        except OSError:  # the fd that listed the folder
            continue
    return found


def _identity(fd: int) -> str:
    status = os.fstat(fd)
    return f"{status.st_mode:o}:{status.st_dev}:{status.st_ino}"


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name not in LASTING_THREADS}


class Baseline:
    """The state before a test; `differences()` tells what the test changed."""

    def __init__(self) -> None:
        self._descriptors = descriptors()
        self._threads = threads()

    def differences(self) -> list[str]:
        # A thread that was told to end may need a moment, a cycle that holds a socket the collector: one that goes
        # through something older than the sweep (a call's object serves again) is in its sight only after unfreezing.
        if self._compare():
            gc.unfreeze()
            gc.collect()
            try:
                eventually(lambda: not self._compare(), within=10 * SHORT)
            except AssertionError:
                return self._compare()
        return []

    def _compare(self) -> list[str]:
        now = descriptors()
        return [
            *(f"leaked fd {fd}: {target}" for fd, target in sorted(now - self._descriptors)),
            *(f"closed a stranger's fd {fd}: {target}" for fd, target in sorted(self._descriptors - now)),
            *(f"leaked thread {thread.name}" for thread in threads() - self._threads),
        ]
