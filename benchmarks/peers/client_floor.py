"""The floor for Python: a function in C that sends and receives and does nothing else, see ``floor.c``."""

from __future__ import annotations

import socket
import struct
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader

from benchmarks.build import c_extension
from benchmarks.peers._client import TIMEOUT, Job, Work, connect, run_client


def exchange(job: Job) -> Work:
    loader = ExtensionFileLoader("floor", str(c_extension("floor")))
    spec = spec_from_loader("floor", loader)
    assert spec is not None
    floor = module_from_spec(spec)
    loader.exec_module(floor)
    sock, data, call = connect(job, None), job.data, floor.exchange
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(TIMEOUT), 0))

    def work(n: int) -> None:
        fd = sock.fileno()
        for _ in range(n):
            call(fd, data, timeout=TIMEOUT)

    return work


if __name__ == "__main__":
    run_client({"exchange": exchange})
