"""A little of everything, for tools that slow a program down fifty times."""

from __future__ import annotations

import contextlib
import logging
import warnings

import gtcp

WIDE = gtcp.PkgOption(4)


def echo(conn: gtcp.Conn) -> None:
    for package in conn.packages(WIDE):
        conn.send_pkg(package, WIDE)


def main() -> None:
    warnings.simplefilter("error")
    logging.getLogger("gtcp").setLevel(logging.CRITICAL + 1)
    with gtcp.Server("127.0.0.1:0", echo) as server:
        there = ("127.0.0.1", server.get_listened_port())
        with gtcp.Conn(there) as conn:
            for size in (0, 1, 1000, 20_000, 100_000):
                assert conn.send_recv_pkg(bytes(size), WIDE) == bytes(size)
            many = [bytes(i) for i in range(100)]
            assert conn.send_recv_pkgs(many, WIDE) == many
            conn.send_pkgs([b"line\n", b"till--"], WIDE)
            assert conn.recv_line() == b"\0\0\0\5line"
            assert conn.recv_till(b"--") == b"\0\0\0\6till--"
            with contextlib.suppress(gtcp.Timeout):
                conn.recv(1, timeout=0.01)
        with gtcp.Pool(there, max_size=2) as pool:
            for _ in range(10):
                with pool.acquire() as lease, contextlib.suppress(gtcp.Timeout):
                    lease.send_recv_pkg(b"hello", WIDE, timeout=0.0001 if _ % 2 else 10.0)
            with contextlib.suppress(gtcp.LimitError), pool.acquire() as lease:
                lease.send_pkg(bytes(70_000))
    with contextlib.suppress(gtcp.RefusedError):
        gtcp.Conn(there)
    print("smoke: done")


if __name__ == "__main__":
    main()
