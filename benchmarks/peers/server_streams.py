"""asyncio streams as a server. Variants: ``asyncio`` and ``uvloop``."""

from __future__ import annotations

import asyncio

from benchmarks.peers._client import frame
from benchmarks.peers._loops import run_on
from benchmarks.peers._server import BACKLOG, HOST, announce, variant


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            length = int.from_bytes(await reader.readexactly(2), "big")
            writer.write(frame(await reader.readexactly(length), 2))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(_echo, HOST, 0, backlog=BACKLOG)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    run_on(variant("asyncio"), main())
