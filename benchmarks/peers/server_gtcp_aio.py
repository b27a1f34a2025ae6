"""gtcp's asyncio server. Variants: ``asyncio`` and ``uvloop``."""

from __future__ import annotations

import gtcp.aio
from benchmarks.peers._loops import run_on
from benchmarks.peers._server import HOST, announce, variant


async def echo(conn: gtcp.aio.Conn) -> None:
    try:
        while True:
            await conn.send_pkg(await conn.recv_pkg())
    except gtcp.Error:
        return


async def main() -> None:
    async with gtcp.aio.Server(f"{HOST}:0", echo) as server:
        announce(server.get_listened_port())
        await server.serve_forever()


if __name__ == "__main__":
    run_on(variant("asyncio"), main())
