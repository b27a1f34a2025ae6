"""Pooled connections and a server that hangs up after each reply.

First with `check=False`: the pool hands out the connection that the server has closed meanwhile, the
request is written, the reply never comes, and EOF tells so. `close()` then destroys the connection,
so the next request dials a new one: the port changes.

Then as gtcp does by default: a look at the connection when it leaves the pool finds the hang-up, the
request goes out on a new connection, and every line is answered.
"""

import argparse
import time

import gtcp


def reply_once(conn: gtcp.Conn) -> None:
    """Answer one request; the connection is closed when a handler returns."""
    conn.send(b"> " + conn.recv(-1))


def ask(address: str, count: int, interval: float) -> None:
    """Send the time `count` times, each on a connection from the pool of the address."""
    for i in range(count):
        if i:
            time.sleep(interval)
        with gtcp.PoolConn(address) as conn:
            try:
                reply = conn.send_recv(time.strftime("%Y-%m-%d %H:%M:%S").encode(), -1)
            except gtcp.EOF as error:
                print(error, flush=True)
            else:
                print(reply.decode(), conn.local_addr(), conn.remote_addr(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", nargs="?", default="127.0.0.1:8999", help="where the server listens")
    parser.add_argument("--count", type=int, default=4, help="requests to send in each half")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds from one request to the next")
    args = parser.parse_args()

    with gtcp.Server(args.address, reply_once):
        print("check=False:", flush=True)
        with gtcp.get_pool(args.address, check=False):
            ask(args.address, args.count, args.interval)
        print("as gtcp does by default:", flush=True)
        ask(args.address, args.count, args.interval)


if __name__ == "__main__":
    main()
