"""Forks with an end: what the child process does, and how it ended. For child processes only."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import traceback
import warnings
from collections.abc import Callable

from support.timing import LONG, eventually


def fork(program: Callable[[], object], finalize: bool = True) -> int:
    """Start a process that calls `program` and exits with 0, or with 1 and a traceback; answers its id.

    `finalize`: the interpreter is taken down, which is slow, as at the end of any other process.
    """
    with warnings.catch_warnings():
        # Forking with threads is what these tests are about.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    try:
        program()
        code = 0
    except BaseException:  # noqa: BLE001 (the parent sees it in stderr and in the exit code)
        traceback.print_exc()
        code = 1
    if not finalize:
        os._exit(code)
    # What sys.exit() ends with, without the way up through the parent's `with` blocks.
    ctypes.pythonapi.Py_Exit(code)
    raise AssertionError


def join(pid: int, within: float = LONG) -> None:
    """Wait for a process, which has to end with 0 and in time."""
    ended: list[int] = []
    if sys.platform == "linux":  # where the kernel tells
        fd = os.pidfd_open(pid)
        select.select([fd], [], [], within)
        os.close(fd)
        within = 0.0

    def has_ended() -> bool:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            ended.append(os.waitstatus_to_exitcode(status))
        return bool(done)

    try:
        eventually(has_ended, within, "a forked process that ends")
    except AssertionError:
        os.kill(pid, signal.SIGABRT)
        os.waitpid(pid, 0)
        raise
    assert ended == [0]
