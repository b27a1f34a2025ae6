"""Clients and servers as processes: started, pinned, asked for rounds, ended."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

from typing_extensions import Self

from benchmarks.build import Unavailable, c_program, go_program
from benchmarks.certificates import make_certificates
from benchmarks.plan import Command, Pinning, Sample

START_LIMIT = 30.0
ROUND_LIMIT = 60.0
CPUCLOCK_SCHED = 2
ROOT = Path(__file__).parent.parent
C_PROGRAMS = {
    "cclient": (),
    "cserver": (),
    "cload": (),
    "tlsclient": ("-lssl", "-lcrypto"),
    "tlsserver": ("-lssl", "-lcrypto"),
}


@dataclass(frozen=True)
class Toolbox:
    """Which Python runs the Python programs, and from which folder: that decides which gtcp is measured."""

    python: str = sys.executable
    folder: Path = ROOT

    def words(self, command: Command) -> list[str]:
        if command.program == "tlsserver":
            make_certificates()
        if command.program in C_PROGRAMS:
            return [str(c_program(command.program, *C_PROGRAMS[command.program]))]
        if command.program == "gopeer":
            return [str(go_program())]
        if command.program == "redis-server":
            path = shutil.which("redis-server")
            if path is None:
                raise Unavailable("redis-server is not installed")
            return [path]
        return [self.python, "-m", f"benchmarks.peers.{command.program}"]


def is_native(command: Command) -> bool:
    """Whether the program is the same whichever gtcp is measured."""
    return command.program in C_PROGRAMS or command.program in {"gopeer", "redis-server"}


def cpus() -> tuple[int, int]:
    """The two CPUs to use; one twice on a machine that has no more."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[1] if len(allowed) > 1 else allowed[0]


def cpus_of(pinning: Pinning) -> tuple[int, int]:
    """The CPU of the client and that of the server."""
    first, second = cpus()
    return (second, second) if pinning is Pinning.ONE else (first, second)


@contextmanager
def pinned(cpu: int | None) -> Iterator[None]:
    """A process started inside inherits the CPU, with all threads it will ever have. None: any CPU."""
    if cpu is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


P = TypeVar("P", bound="Process")


class Process:
    """A child that answers line by line; its errors are kept to say why it failed."""

    def __init__(self, words: list[str], cpu: int | None, folder: Path) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in end)
        with pinned(cpu):
            self._child = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, cwd=folder
            )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._to, self._from = self._child.stdin, self._child.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def cpu_ns(self) -> int:
        """User and system time of all its threads until now, by its CPU-time clock (see clock_getcpuclockid)."""
        try:
            return time.clock_gettime_ns(~self._child.pid << 3 | CPUCLOCK_SCHED)
        except OSError:
            raise Unavailable(self.why()) from None

    def memory(self) -> int:
        """Bytes of anonymous memory that are resident."""
        for line in Path(f"/proc/{self._child.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise Unavailable(self.why())

    def tell(self, line: str) -> None:
        try:
            self._to.write(line + "\n")
            self._to.flush()
        except OSError:
            raise Unavailable(self.why()) from None

    def hear(self, limit: float) -> str:
        """The next line. No line within ``limit`` seconds, or none at all, is a reason to go on without this peer."""
        if not select.select([self._from], [], [], limit)[0]:
            raise Unavailable(f"no answer within {limit:.0f} s; {self.why(wait=False)}")
        line = self._from.readline()
        if not line:
            raise Unavailable(self.why())
        return line.strip()

    def why(self, *, wait: bool = True) -> str:
        """The last error the process wrote to stderr, or else its last line."""
        if wait:
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(2)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        errors = [line for line in lines if "Error" in line]
        return (errors or lines or [f"ended with {self._child.poll()}"])[-1][:200]

    def end(self) -> None:
        """Its stdin ends, which every peer takes as the end; those that do not listen are stopped."""
        with suppress(OSError):
            self._to.close()
        try:
            self._child.wait(1)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._from.close()
        self._errors.close()


class Server(Process):
    """A process that listens on ``port`` once ``wait_ready`` has returned."""

    def __init__(self, tools: Toolbox, command: Command, cpu: int | None) -> None:
        self.port = 0
        words = tools.words(command)
        if command.program == "redis-server":
            self.port = free_port()
            words += ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
            words += ["--daemonize", "no", "--loglevel", "warning", "--dir", tempfile.gettempdir()]
        super().__init__([*words, *command.args], cpu, tools.folder)

    def wait_ready(self) -> None:
        if not self.port:
            self.port = int(self.hear(START_LIMIT))
            return
        end = time.monotonic() + START_LIMIT
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise Unavailable(f"does not listen after {START_LIMIT:.0f} s")

    def end(self) -> None:
        if self._child.poll() is None:
            self._child.terminate()
        super().end()


class Client(Process):
    """A process that works by rounds."""

    def __init__(self, tools: Toolbox, command: Command, port: int, cpu: int) -> None:
        words = tools.words(command)
        if command.program == "gopeer":
            words.append("client")
        super().__init__([*words, str(port), *command.args], cpu, tools.folder)

    def wait_ready(self) -> None:
        answer = self.hear(START_LIMIT)
        if answer != "ready":
            raise Unavailable(f"said {answer!r} instead of ready")

    def round(self, count: int) -> Sample:
        self.tell(str(count))
        wall, cpu, *latencies = (int(word) for word in self.hear(ROUND_LIMIT).split())
        return Sample(count, wall, cpu, latencies_ns=tuple(latencies))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
