"""Handlers that several tests need."""

import gtcp


def echo(conn: gtcp.Conn) -> None:
    """Send back what comes, until the client closes."""
    while True:
        conn.send(conn.recv())


def echo_packages(conn: gtcp.Conn) -> None:
    for package in conn.packages():
        conn.send_pkg(package)


def reply_once(conn: gtcp.Conn) -> None:
    """Answer one request and hang up."""
    conn.send(b"> " + conn.recv())


def address_of(server: gtcp.Server) -> str:
    return str(server.get_listened_address())
