"""gtcp's server. Variants: ``threads``, ``greenlets``, ``gathered`` (small sends leave together), ``pkg_handler``."""

from __future__ import annotations

import signal

import gtcp
from benchmarks.peers._server import HOST, announce, variant


def echo(conn: gtcp.Conn) -> None:
    try:
        while True:
            conn.send_pkg(conn.recv_pkg())
    except gtcp.Error:
        return


def make_server(kind: str) -> gtcp.Server:
    if kind == "threads":
        return gtcp.Server(f"{HOST}:0", echo)
    if kind == "greenlets":
        return gtcp.Server(f"{HOST}:0", echo, concurrency="greenlets")
    handler = gtcp.pkg_handler(lambda data: data) if kind == "pkg_handler" else echo
    return gtcp.Server(f"{HOST}:0", handler, concurrency="greenlets", gather_sends=True)


if __name__ == "__main__":
    server = make_server(variant("threads"))
    server.start()
    announce(server.get_listened_port())
    signal.pause()
