"""asyncio ``Protocol`` as a server. Variants: ``asyncio`` and ``uvloop``.

It takes the packages apart and answers those of one read in one write: the fastest straightforward form.
"""

from __future__ import annotations

import asyncio
from typing import cast

from benchmarks.peers._client import frame
from benchmarks.peers._loops import run_on
from benchmarks.peers._server import BACKLOG, HOST, announce, variant
from benchmarks.peers.client_handmade import split_packages


class _Echo(asyncio.Protocol):
    transport: asyncio.Transport
    rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        packages, self.rest = split_packages(self.rest + data if self.rest else data)
        if len(packages) == 1:
            self.transport.write(frame(packages[0], 2))
        elif packages:
            self.transport.write(b"".join([frame(package, 2) for package in packages]))


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(_Echo, HOST, 0, backlog=BACKLOG)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    run_on(variant("asyncio"), main())
