"""A network of one's own: interfaces, routes and ports that belong to one process. Root only, Linux only."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000


def require() -> None:
    """Skip the test where no namespace can be made."""
    if shutil.which("ip") is None:
        pytest.skip("needs ip of iproute2")
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make a network namespace")


# Inside a child.


def enter() -> None:
    """From here on the process has a loopback and nothing else."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    ip("link", "set", "lo", "up")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def setting(name: str, value: str) -> None:
    """Set /proc/sys/net/ipv4/`name` of the namespace."""
    (Path("/proc/sys/net/ipv4") / name).write_text(value)
