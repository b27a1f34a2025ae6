"""Twisted's ``Int16StringReceiver``: the same packages, by callbacks."""

from __future__ import annotations

import sys
import time

from twisted.internet import reactor
from twisted.internet.protocol import ClientFactory
from twisted.protocols.basic import Int16StringReceiver

from benchmarks.peers._client import HOST, Job, parse_job, request


class _Client(Int16StringReceiver):
    """Works by rounds: reads a count, does it by callbacks, prints the times, reads the next."""

    MAX_LENGTH = 65535

    def __init__(self, job: Job) -> None:
        self.flooding = job.work == "flood"
        self.data = job.data
        self.left = 0

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        print("ready", flush=True)
        self.next_round()

    def next_round(self) -> None:
        line = sys.stdin.readline()
        if not line:
            reactor.stop()
            return
        self.left = int(line)
        self.cpu, self.wall = time.process_time_ns(), time.perf_counter_ns()
        if self.flooding:
            self.transport.write(request(self.left))
        else:
            self.sendString(self.data)

    def stringReceived(self, string: bytes) -> None:
        self.left -= 1
        if self.left == 0:
            print(time.perf_counter_ns() - self.wall, time.process_time_ns() - self.cpu, flush=True)
            self.next_round()
        elif not self.flooding:
            self.sendString(self.data)


class _Factory(ClientFactory):
    noisy = False

    def __init__(self, job: Job) -> None:
        self.job = job

    def buildProtocol(self, addr: object) -> _Client:
        return _Client(self.job)


if __name__ == "__main__":
    job = parse_job()
    reactor.connectTCP(HOST, job.port, _Factory(job))
    reactor.run()
