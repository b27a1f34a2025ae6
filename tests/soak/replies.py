"""Requests that carry an id, through one pool: whose reply is it? With late replies, impatience and signals."""

from __future__ import annotations

import random
import signal
import socket
import threading
import time
import warnings
from collections import Counter
from types import FrameType

import gtcp
from support.peers import read_frame

THREADS = 4
LATE = 0.005
PATIENCE = 0.001
IMPATIENT = 0.05
"""The share of requests that end by a timeout, with the reply on its way."""
ALARM_EVERY = 0.0015


class Alarm(Exception):
    """What the signal handler raises."""


def answer(sock: socket.socket) -> None:
    """The server: sends each request back, late when its first byte says so."""
    try:
        while True:
            request = read_frame(sock)
            if request[:1] == b"L":
                time.sleep(LATE)
            sock.sendall(len(request).to_bytes(2, "big") + request)
    except (EOFError, OSError):
        pass


class Requests:
    """Some threads' requests and what became of them."""

    def __init__(self, pool: gtcp.Pool) -> None:
        self.pool = pool
        self.counts: Counter[str] = Counter()
        self.foreign: list[tuple[bytes, bytes]] = []
        self.lock = threading.Lock()
        self.at_it = False
        """The main thread is inside a request: a signal raises there, once."""

    def alarm(self, number: int, frame: FrameType | None) -> None:
        if self.at_it:
            self.at_it = False
            raise Alarm

    def run(self, who: int, count: int) -> None:
        chance = random.Random(who)
        counts: Counter[str] = Counter()
        foreign: list[tuple[bytes, bytes]] = []
        main = threading.current_thread() is threading.main_thread()
        for number in range(count):
            late = chance.random() < IMPATIENT
            how = chance.randrange(4)
            names = [b"%s %d %d %d" % (b"L" if late else b"-", who, number, i) for i in range(3 if how == 3 else 1)]
            replies: list[bytes] = []
            try:
                self.at_it = main or self.at_it
                self.request(names, how, PATIENCE if late else 30.0, replies)
                outcome = "answered"
            except gtcp.Timeout:
                outcome = "timed out"
            except Alarm:
                outcome = "interrupted"
            if main:
                self.at_it = False
            counts[outcome] += 1
            foreign += [(name, reply) for name, reply in zip(names, replies, strict=False) if name != reply]
            if outcome == "answered" and len(replies) != len(names):
                foreign.append((names[-1], b"(no reply)"))
        with self.lock:
            self.counts += counts
            self.foreign += foreign

    def request(self, names: list[bytes], how: int, timeout: float, replies: list[bytes]) -> None:
        """One lease, used in one of the ways that users have; some of them clumsy."""
        if how == 0:
            with self.pool.acquire(30.0) as lease:
                replies.append(lease.send_recv_pkg(names[0], timeout=timeout))
        elif how == 1:
            with self.pool.acquire(30.0) as lease:
                lease.send_pkg(names[0], timeout=30.0)
                replies.append(lease.recv_pkg(timeout=timeout))
        elif how == 2:
            lease = self.pool.acquire(30.0)
            try:
                replies.append(lease.send_recv_pkg(names[0], timeout=timeout))
            finally:
                lease.close()  # an ordinary close, whatever has happened
        else:
            with self.pool.acquire(30.0) as lease:
                replies += lease.send_recv_pkgs(names, timeout=timeout)


def run(address: str, count: int) -> None:
    """So many requests by all threads together; the main thread is interrupted all the time."""
    # A signal between the lease and the `with` that would end it, or in a dial: the collector ends it.
    warnings.filterwarnings("ignore", category=ResourceWarning)
    start = time.monotonic()
    with gtcp.Pool(address, max_size=THREADS - 1) as pool:
        requests = Requests(pool)
        others = [threading.Thread(target=requests.run, args=(who, count // THREADS)) for who in range(1, THREADS)]
        before = signal.signal(signal.SIGALRM, requests.alarm)
        for thread in others:
            thread.start()
        signal.setitimer(signal.ITIMER_REAL, ALARM_EVERY, ALARM_EVERY)
        try:
            requests.run(0, count - count // THREADS * len(others))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
        for thread in others:
            thread.join()
        stats = pool.stats()
    counts = requests.counts
    print(
        f"replies: {counts.total()} requests in {time.monotonic() - start:.0f} s, {counts['answered']} answered, "
        f"{counts['timed out']} timed out, {counts['interrupted']} interrupted, {stats.created} connections, "
        f"{len(requests.foreign)} foreign replies",
        flush=True,
    )
    assert not requests.foreign, requests.foreign[:5]
    assert counts.total() == count, counts
    assert counts["timed out"] >= count * IMPATIENT / 2, counts
    assert counts["interrupted"] > 0, counts
    assert (stats.in_use, stats.connecting, stats.waiting) == (0, 0, 0), stats
    assert stats.idle == stats.created - sum(stats.closed.values()), stats
