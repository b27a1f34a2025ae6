"""The Redis protocol over a gtcp.Conn, as much of it as the tests speak."""

from typing import TypeAlias

import gtcp
from support.timing import LONG


class Refusal(str):
    """An error reply, without its dash."""

    __slots__ = ()


Reply: TypeAlias = str | int | bytes | list["Reply"] | None


def command(*words: str | bytes | int) -> bytes:
    """Return the command as an array of bulk strings."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


def read_reply(conn: gtcp.Conn) -> Reply:
    """Receive one whole reply: a status as str, a bulk string as bytes."""
    line = conn.recv_line(timeout=LONG)
    kind, rest = line[:1], line[1:].removesuffix(b"\r")
    if kind == b"+":
        return rest.decode()
    if kind == b"-":
        return Refusal(rest.decode())
    if kind == b":":
        return int(rest)
    size = int(rest)
    if size < 0:
        return None
    if kind == b"*":
        return [read_reply(conn) for _ in range(size)]
    assert kind == b"$", f"not the start of a reply: {line!r}"
    bulk = conn.recv(size + 2, timeout=LONG)
    assert bulk.endswith(b"\r\n")
    return bulk[:-2]


def exchange(conn: gtcp.Conn, *words: str | bytes | int) -> Reply:
    """Send one command and receive its reply."""
    conn.send(command(*words), timeout=LONG)
    return read_reply(conn)
