"""Pooled connections, basic use: one connection serves every request.

Prints the reply, the client's address and the server's. The client's port never changes: `close()`
hands the connection back to the pool, and the next `PoolConn` gets it again.
"""

import argparse
import time

import gtcp


def echo(conn: gtcp.Conn) -> None:
    """Serve one client until it goes."""
    while True:
        try:
            data = conn.recv(-1)
        except gtcp.EOF:
            return
        conn.send(b"> " + data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", nargs="?", default="127.0.0.1:8999", help="where the server listens")
    parser.add_argument("--count", type=int, default=5, help="requests to send")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds from one request to the next")
    args = parser.parse_args()

    with gtcp.Server(args.address, echo):
        for i in range(args.count):
            if i:
                time.sleep(args.interval)
            with gtcp.PoolConn(args.address) as conn:
                reply = conn.send_recv(time.strftime("%Y-%m-%d %H:%M:%S").encode(), -1)
                print(reply.decode(), conn.local_addr(), conn.remote_addr(), flush=True)


if __name__ == "__main__":
    main()
