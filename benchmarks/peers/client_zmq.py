"""pyzmq REQ: its own framing, its own I/O thread, a REP server as its peer."""

from __future__ import annotations

import zmq

from benchmarks.peers._client import TIMEOUT, Job, Work, run_client


def exchange(job: Job) -> Work:
    sock = zmq.Context().socket(zmq.REQ)
    sock.setsockopt(zmq.RCVTIMEO, int(TIMEOUT * 1000))
    sock.setsockopt(zmq.LINGER, 0)
    sock.connect(f"tcp://{job.address}")
    data = job.data

    def work(n: int) -> None:
        for _ in range(n):
            sock.send(data)
            sock.recv()

    return work


if __name__ == "__main__":
    run_client({"exchange": exchange})
