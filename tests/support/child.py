"""Runs a function of a test module in an interpreter of its own.

    def program(port: int) -> None:         # at the top level of the test module
        print(port)

    def test() -> None:
        assert child.run(program, 80) == "80\n"

The child must end by itself, in time, with the exit code that is expected and nothing on stderr: a
warning, a thread's traceback, a crash of the interpreter or words at its end fail the test. One that
hangs says where each of its threads stands. Arguments have to be what JSON can carry.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from support.timing import LONG

START = str(Path(__file__).with_name("start.py"))
STRICT = ("-W", "error")


def run(
    program: Callable[..., object],
    *arguments: object,
    options: Sequence[str] = STRICT,
    environment: Mapping[str, str] | None = None,
    code: int = 0,
    within: float = 2 * LONG,
) -> str:
    """What `program` prints; it is called in a child whose interpreter gets `options`."""
    done = call(program, *arguments, options=options, environment=environment, within=within)
    assert (done.returncode, done.stderr) == (code, ""), report(done)
    return done.stdout


def call(
    program: Callable[..., object],
    *arguments: object,
    options: Sequence[str] = STRICT,
    environment: Mapping[str, str] | None = None,
    within: float = 2 * LONG,
) -> subprocess.CompletedProcess[str]:
    """The same without a judgement."""
    source = inspect.getsourcefile(program)
    assert source is not None
    order = [START, source, program.__name__, json.dumps(arguments)]
    return interpreter([*options, "-X", "faulthandler", *order], environment, within)


def interpreter(
    arguments: Iterable[str], environment: Mapping[str, str] | None = None, within: float = 2 * LONG
) -> subprocess.CompletedProcess[str]:
    """A Python process, with its descendants ended after `within` seconds."""
    command = [sys.executable, *arguments]
    # Files instead of pipes: a descendant that lives on cannot make the reader wait for it.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            command, stdout=out, stderr=err, env={**os.environ, **(environment or {})}, start_new_session=True
        )
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(within)
        finally:
            if process.poll() is None:
                # With -X faulthandler every process of the group says where its threads stand.
                os.killpg(process.pid, signal.SIGABRT)
                process.wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, out.read(), err.read())


def report(done: subprocess.CompletedProcess[str]) -> str:
    """What a failing test shows of its child."""
    return f"exit code {done.returncode}\n-- stdout\n{done.stdout}\n-- stderr\n{done.stderr}"
