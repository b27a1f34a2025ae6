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

import importlib.util
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
    order = [__file__, source, program.__name__, repr(within), json.dumps(arguments)]
    return interpreter([*options, "-X", "faulthandler", *order], environment, within + 1)


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
            code = process.wait(within)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
            if not isinstance(sys.exc_info()[1], subprocess.TimeoutExpired):
                raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, code, out.read(), err.read())


def report(done: subprocess.CompletedProcess[str]) -> str:
    """What a failing test shows of its child."""
    return f"exit code {done.returncode}\n-- stdout\n{done.stdout}\n-- stderr\n{done.stderr}"


def main(source: str, name: str, within: str, arguments: str) -> object:
    """What the child does."""
    import faulthandler

    faulthandler.dump_traceback_later(float(within), exit=True)
    spec = importlib.util.spec_from_file_location("program", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["program"] = module
    spec.loader.exec_module(module)
    return getattr(module, name)(*json.loads(arguments))


if __name__ == "__main__":
    here = Path(__file__).parent
    # As in the parent: the tests' folder instead of this file's own, whose modules have common names.
    sys.path[:] = [str(here.parent), *(entry for entry in sys.path if Path(entry) != here)]
    main(*sys.argv[1:])
