"""A child process that talks in lines: read with a time limit, stopped for certain."""

import queue
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress

from support.timing import LONG


class LineProcess:
    """A running child; a thread reads its output, so it can never stall on a full pipe."""

    def __init__(self, args: Sequence[str], *, errors_too: bool = False) -> None:
        """`errors_too`: what it says on its standard error is among the lines."""
        self.args = args
        errors = subprocess.STDOUT if errors_too else None
        self._child = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read_lines, name=f"output of {args[0]}", daemon=True)
        self._reader.start()

    def _read_lines(self) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as output:
            for line in output:
                self._lines.put(line)
        self._lines.put(None)

    def read_line(self) -> bytes | None:
        """Return the next line, or None at the end of the output; `queue.Empty` when none comes."""
        return self._lines.get(timeout=LONG)

    def write_line(self, line: bytes) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(line + b"\n")
        self._child.stdin.flush()

    def stop(self, request: signal.Signals | None = None) -> int:
        """End the child's input, send the signal if there is one, and return the exit status."""
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):
            self._child.stdin.close()
        if request is not None:
            self._child.send_signal(request)
        try:
            self._child.wait(LONG)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._reader.join(LONG)
        return self._child.returncode
