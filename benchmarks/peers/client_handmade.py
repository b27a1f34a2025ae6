"""Framing by hand in Python: large reads, slices, joins. What a careful author writes when speed matters."""

from __future__ import annotations

from benchmarks.peers._client import Job, Work, connect, frame, request, run_client

READ = 256 * 1024
BATCH = 512


def split_packages(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole packages (2-byte header) at the start of ``data``, and the rest."""
    packages = []
    at, end = 0, len(data)
    while end - at >= 2:
        stop = at + 2 + (data[at] << 8 | data[at + 1])
        if stop > end:
            break
        packages.append(data[at + 2 : stop])
        at = stop
    return packages, data[at:]


def window(job: Job) -> Work:
    sock, data, count = connect(job, None), job.data, job.argument

    def work(n: int) -> None:
        for _ in range(n // count):
            sock.sendall(b"".join([frame(data, 2) for _ in range(count)]))
            have, rest = 0, b""
            while have < count:
                packages, rest = split_packages(rest + sock.recv(READ))
                have += len(packages)

    return work


def flood(job: Job) -> Work:
    sock = connect(job, None)

    def work(n: int) -> None:
        sock.sendall(request(n))
        have, rest = 0, b""
        while have < n:
            packages, rest = split_packages(rest + sock.recv(READ))
            have += len(packages)

    return work


def lines(job: Job) -> Work:
    sock = connect(job, None)

    def work(n: int) -> None:
        sock.sendall(request(n))
        have, rest = 0, b""
        while have < n:
            *whole, rest = (rest + sock.recv(READ)).split(b"\n")
            have += len(whole)

    return work


def sendflood(job: Job) -> Work:
    sock, data, total = connect(job, None), job.data, job.size + 2

    def work(n: int) -> None:
        sock.sendall(request(n * total))
        for start in range(0, n, BATCH):
            sock.sendall(b"".join([frame(data, 2) for _ in range(min(BATCH, n - start))]))
        sock.recv(1)

    return work


if __name__ == "__main__":
    run_client({"window": window, "flood": flood, "lines": lines, "sendflood": sendflood})
