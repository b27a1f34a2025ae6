"""The shim of tests/fault/chaos.c: compiled here, loaded in front of a child's C library, steered from inside it."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.programs import absent

SOURCE = Path(__file__).parents[1] / "fault" / "chaos.c"


@functools.cache
def library() -> str:
    """The compiled shim. Skips the test where there is nothing to compile it with."""
    if sys.platform != "linux":
        pytest.skip("the shim is made for Linux")
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        absent("no C compiler for the shim")
    key = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    built = Path(tempfile.gettempdir()) / f"gtcp-chaos-{os.getuid()}-{key}.so"
    if not built.exists():
        with tempfile.TemporaryDirectory() as scratch:
            fresh = Path(scratch) / "chaos.so"
            flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
            subprocess.run([compiler, *flags, "-o", str(fresh), str(SOURCE), "-ldl"], check=True)
            # Under its final name only when it is whole: other runs may look for it at the same moment.
            shutil.copy(fresh, own := built.with_suffix(f".{os.getpid()}"))
            own.replace(built)
    return str(built)


def environment(storm: tuple[int, int, int, int, int] | None = None, only: str | None = None) -> Mapping[str, str]:
    """What a child needs to run behind the shim.

    `storm`: seed, short, and per thousand EINTR, EAGAIN, ENOBUFS. `only`: part of the path of the library whose calls
    are meant.
    """
    loaded = [*os.environ.get("LD_PRELOAD", "").split(), library()]
    variables = {"LD_PRELOAD": " ".join(loaded)}
    if storm is not None:
        variables["CHAOS"] = ",".join(map(str, storm))
    if only is not None:
        variables["CHAOS_ONLY"] = only
    return variables


# Inside a child.


@functools.cache
def _loaded() -> ctypes.CDLL:
    shim = ctypes.CDLL(None)
    shim.chaos_injected.restype = ctypes.c_long
    shim.chaos_storm.argtypes = [ctypes.c_ulonglong, *[ctypes.c_int] * 4]
    shim.chaos_clock.argtypes = [ctypes.c_long]
    return shim


def fail(call: str, error: int, times: int = 1, skip: int = 0) -> None:
    """The next `times` calls fail, after `skip` that do not."""
    assert _loaded().chaos_fail(call.encode(), error, times, skip) == 0, call


def left(call: str) -> int:
    """How many of the calls that are to fail have not been made yet."""
    return int(_loaded().chaos_left(call.encode()))


def calm() -> None:
    """No more faults."""
    _loaded().chaos_calm()


def storm(seed: int, short: int, eintr: int, eagain: int, enobufs: int = 0) -> None:
    """Faults by chance from now on."""
    _loaded().chaos_storm(seed, short, eintr, eagain, enobufs)


def move_clock(seconds: int) -> None:
    """The wall clock shows so many seconds more than it should."""
    _loaded().chaos_clock(seconds)


def injected() -> int:
    """How many faults there were."""
    return int(_loaded().chaos_injected())
