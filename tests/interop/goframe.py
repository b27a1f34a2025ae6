"""GoFrame's gtcp, server and client, each in a process of the program in gopeer/."""

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from interop.process import LineProcess


class GoServer:
    """A running server of one mode (gopeer/serve.go lists them); `address` is where it listens."""

    def __init__(self, binary: str, mode: str, **flags: int | str) -> None:
        options = [f"-{name}={value}" for name, value in flags.items()]
        self._process = LineProcess([binary, "serve", f"-mode={mode}", *options])
        ready = self._process.read_line()
        assert ready is not None, f"gopeer ended with {self._process.stop()}"
        self.address = f"127.0.0.1:{json.loads(ready)['port']}"

    def close(self) -> None:
        assert self._process.stop() == 0


class StartGoServer(Protocol):
    """Start a server and return its address."""

    def __call__(self, mode: str, **flags: int | str) -> str: ...


class GoError(Exception):
    """An operation of GoFrame's client failed."""


@dataclass(frozen=True)
class GoReply:
    """What an operation gave, and the local address of the connection it used."""

    data: bytes
    items: list[bytes]
    local: str


class GoClient:
    """A running client that holds one connection at a time (gopeer/call.go lists the operations)."""

    def __init__(self, binary: str) -> None:
        self._process = LineProcess([binary, "call"])

    def call(
        self,
        op: str,
        data: bytes = b"",
        *,
        addr: str = "",
        items: Sequence[bytes] = (),
        n: int = 0,
        header: int = 0,
        limit: int = 0,
    ) -> GoReply:
        """Run one operation; 0 for header and limit means Go's default.

        GoError with GoFrame's own words when it fails.
        """
        command = {
            "op": op,
            "addr": addr,
            "data": b64encode(data).decode(),
            "list": [b64encode(item).decode() for item in items],
            "n": n,
            "header": header,
            "max": limit,
        }
        self._process.write_line(json.dumps(command).encode())
        line = self._process.read_line()
        assert line is not None, f"gopeer ended with {self._process.stop()} at {op}"
        reply = json.loads(line)
        if reply["error"]:
            raise GoError(reply["error"])
        return GoReply(
            data=b64decode(reply["data"] or ""),  # Go's RecvPkg gives nil for an empty package
            items=[b64decode(item or "") for item in reply["list"] or ()],
            local=reply["local"],
        )

    def close(self) -> None:
        assert self._process.stop() == 0
