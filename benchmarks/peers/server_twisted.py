"""Twisted's ``Int16StringReceiver`` as a server."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.protocols.basic import Int16StringReceiver

from benchmarks.peers._server import BACKLOG, HOST, announce


class _Echo(Int16StringReceiver):
    MAX_LENGTH = 65535

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def stringReceived(self, string: bytes) -> None:
        self.sendString(string)


class _Factory(Factory):
    protocol = _Echo
    noisy = False


if __name__ == "__main__":
    port = reactor.listenTCP(0, _Factory(), backlog=BACKLOG, interface=HOST)
    announce(port.getHost().port)
    reactor.run()
