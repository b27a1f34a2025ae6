"""asyncio: an echo server and tasks that share a few pooled connections to it.

Prints what each task got back, and then how many connections all of them needed.
"""

import argparse
import asyncio

import gtcp
import gtcp.aio


async def echo(conn: gtcp.aio.Conn) -> None:
    """Serve one client until it goes."""
    async for line in conn.lines():
        await conn.send(b"> " + line + b"\n")


async def ask(pool: gtcp.aio.Pool, number: int) -> str:
    """One request on a connection of the pool."""
    async with pool.acquire() as conn:
        await conn.send(f"task {number}\n".encode())
        reply = await conn.recv_line(timeout=10.0)
        return reply.decode()


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("address", nargs="?", default="127.0.0.1:8999", help="where the server listens")
    parser.add_argument("--tasks", type=int, default=20, help="how many ask at the same time")
    parser.add_argument("--connections", type=int, default=4, help="how many connections they share")
    args = parser.parse_args()

    async with gtcp.aio.Server(args.address, echo), gtcp.aio.Pool(args.address, max_size=args.connections) as pool:
        for reply in await asyncio.gather(*[ask(pool, i) for i in range(args.tasks)]):
            print(reply)
        print(f"{args.tasks} tasks, {pool.stats().created} connections", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
