"""``socketserver.ThreadingTCPServer``: a thread for each connection, the handler's buffered ``rfile``."""

from __future__ import annotations

import socket
import socketserver

from benchmarks.peers._client import frame
from benchmarks.peers._server import BACKLOG, HOST, announce


class _Echo(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        read, send = self.rfile.read, self.request.sendall
        while len(header := read(2)) == 2:
            send(frame(read(int.from_bytes(header, "big")), 2))


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = BACKLOG

    def handle_error(self, request: object, client_address: object) -> None:
        """The load ends by closing its connections; that is not worth a traceback."""


if __name__ == "__main__":
    with _Server((HOST, 0), _Echo) as server:
        assert isinstance(server.socket, socket.socket)
        announce(server.server_address[1])
        server.serve_forever()
