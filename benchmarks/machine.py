"""Where the numbers come from: machine, kernel, versions, pinning."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

from benchmarks.build import CFLAGS
from benchmarks.plan import Pinning
from benchmarks.processes import ROOT, Toolbox, cpus_of

PEER_PACKAGES = (
    "uvloop",
    "gevent",
    "greenlet",
    "twisted",
    "pyzmq",
    "redis",
    "hiredis",
    "psycopg",
    "psycopg-pool",
    "urllib3",
)


def describe(tools: Toolbox) -> dict[str, str]:
    """Facts in the order they are shown."""
    facts = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": f"{_cpu_model()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load at the start": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "python": f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}",
        "gtcp": _subject(tools),
        "C": f"{_first_line('cc', '--version')}, {' '.join(CFLAGS)}",
        "Go": f"{_first_line('go', 'version')}; {_go_module()}",
        "redis-server": _first_line("redis-server", "--version"),
        "peers": ", ".join(f"{name} {version}" for name in PEER_PACKAGES if (version := _version(name))),
    }
    for pinning in Pinning:
        client, server = cpus_of(pinning)
        facts[f"pinning, {pinning.value}"] = f"client on CPU {client}, server on CPU {server}"
    return facts


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _subject(tools: Toolbox) -> str:
    """Version and commit of the gtcp that is measured."""
    code = "import gtcp; print(getattr(gtcp, '__version__', 'unknown version'))"
    version = _first_line(tools.python, "-c", code, folder=tools.folder)
    return f"{version}, commit {_first_line('git', 'describe', '--always', '--dirty', folder=ROOT)}"


def _go_module() -> str:
    text = (Path(__file__).parent / "peers" / "gopeer" / "go.mod").read_text()
    return next(line.removeprefix("require ") for line in text.splitlines() if line.startswith("require github"))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _first_line(program: str, *args: str, folder: Path | None = None) -> str:
    if shutil.which(program) is None:
        return "not installed"
    done = subprocess.run([program, *args], capture_output=True, text=True, cwd=folder, timeout=60, check=False)
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else "unknown"
