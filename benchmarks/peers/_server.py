"""What the Python servers share: the port is printed, and the program ends when its stdin ends."""

from __future__ import annotations

import os
import resource
import sys
import threading

HOST = "127.0.0.1"
BACKLOG = 4096


def variant(default: str) -> str:
    """The first word of the command line."""
    return sys.argv[1] if len(sys.argv) > 1 else default


def announce(port: int) -> None:
    """Prints the port. From here on a thread waits for the end of stdin; it sleeps until then."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    print(port, flush=True)


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)
