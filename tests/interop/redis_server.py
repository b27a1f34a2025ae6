"""A Redis server of our own on a port of 127.0.0.1, which keeps nothing on disk."""

import random
import signal
import socket
from contextlib import suppress
from pathlib import Path

from interop.process import LineProcess


class RedisServer:
    """A running redis-server that can be stopped and started again on the same port."""

    def __init__(self, binary: str, folder: Path, tls: tuple[Path, Path, Path] | None = None) -> None:
        """`tls`: its certificate, the key and the authority; it speaks TLS alone then."""
        self._binary = binary
        self._folder = folder
        self._tls = tls
        self._port = _quiet_port()
        self.address = f"127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        settings = {"bind": "127.0.0.1", "port": self._port, "dir": self._folder}
        settings |= {"save": "", "appendonly": "no", "hz": 100}  # hz: how soon it sees the signal to stop
        if self._tls is not None:
            names = ("tls-cert-file", "tls-key-file", "tls-ca-cert-file")
            settings |= {"port": 0, "tls-port": self._port, "tls-auth-clients": "no"}
            settings |= dict(zip(names, self._tls, strict=True))
        words = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
        self._process: LineProcess | None = LineProcess([self._binary, *words])
        log = []
        while (line := self._process.read_line()) is not None:
            log.append(line.decode(errors="replace"))
            if "Ready to accept connections" in log[-1]:
                return
        raise AssertionError(f"redis-server ended with {self.stop()}:\n{''.join(log)}")

    def stop(self) -> int:
        """Stop the server, which closes all its connections, and return its exit status."""
        process, self._process = self._process, None
        return 0 if process is None else process.stop(signal.SIGTERM)


def _quiet_port() -> int:
    """Return a free port below those that Linux and macOS give to clients.

    While the server is down, a client that dials must not be given the very port it dials.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")
