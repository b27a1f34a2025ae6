"""Builds the C and Go peers when they are needed and keeps them in the user's cache directory."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
CFLAGS = ("-O3", "-Wall", "-Wextra", "-pthread")


class Unavailable(Exception):
    """A peer that cannot run here; the text says why and is shown in the results."""


def cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base) / "gtcp-benchmarks"
    path.mkdir(parents=True, exist_ok=True)
    return path


def _digest(files: list[Path], *words: str) -> str:
    digest = hashlib.sha256(repr(words).encode())
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _run(command: list[str], cwd: Path, what: str) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Unavailable(f"{what} does not build: {lines[-1] if lines else 'no message'}")


@cache
def c_program(name: str, *libraries: str) -> Path:
    """The program made of ``peers/NAME.c``."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise Unavailable("no C compiler")
    source = PEERS / f"{name}.c"
    target = cache_dir() / f"{name}-{_digest([source, PEERS / 'wire.h'], compiler, *CFLAGS, *libraries)}"
    if not target.exists():
        fresh = target.with_suffix(f".{os.getpid()}")
        _run([compiler, *CFLAGS, "-o", str(fresh), str(source), *libraries], PEERS, name)
        fresh.rename(target)
    return target


@cache
def c_extension(name: str) -> Path:
    """The extension module for this Python made of ``peers/NAME.c``."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise Unavailable("no C compiler")
    source = PEERS / f"{name}.c"
    flags = (*CFLAGS, "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}")
    target = cache_dir() / f"{name}-{_digest([source], compiler, *flags)}.so"
    if not target.exists():
        fresh = target.with_suffix(f".{os.getpid()}")
        _run([compiler, *flags, "-o", str(fresh), str(source)], PEERS, name)
        fresh.rename(target)
    return target


@cache
def go_program() -> Path:
    """GoFrame's gtcp as a program; the module downloads what it needs the first time."""
    go = shutil.which("go")
    if go is None:
        raise Unavailable("Go is not installed")
    folder = PEERS / "gopeer"
    sources = [path for path in folder.iterdir() if path.suffix in {".go", ".mod", ".sum"}]
    target = cache_dir() / f"gopeer-{_digest(sources, go)}"
    if not target.exists():
        fresh = target.with_suffix(f".{os.getpid()}")
        _run([go, "build", "-o", str(fresh), "."], folder, "the Go peer")
        fresh.rename(target)
    return target
