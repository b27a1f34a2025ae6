"""pyzmq REP: the peer of the REQ client."""

from __future__ import annotations

import zmq

from benchmarks.peers._server import HOST, announce

if __name__ == "__main__":
    sock = zmq.Context().socket(zmq.REP)
    announce(sock.bind_to_random_port(f"tcp://{HOST}"))
    while True:
        sock.send(sock.recv())
