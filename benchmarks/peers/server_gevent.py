"""gevent's ``StreamServer``: a greenlet for each connection, blocking style."""

from __future__ import annotations

import gevent.socket
from gevent.server import StreamServer

from benchmarks.peers._client import frame
from benchmarks.peers._server import BACKLOG, HOST, announce


def _echo(sock: gevent.socket.socket, address: object) -> None:
    sock.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
    file = sock.makefile("rb")
    while len(header := file.read(2)) == 2:
        sock.sendall(frame(file.read(int.from_bytes(header, "big")), 2))


if __name__ == "__main__":
    server = StreamServer((HOST, 0), _echo, backlog=BACKLOG)
    server.start()
    announce(server.server_port)
    server.serve_forever()
