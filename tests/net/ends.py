"""The two ends that tests of this folder need, and the types of the fixtures that make them."""

import contextlib
import socket
from typing import Any, Protocol

import pytest

import gtcp
from support.peers import listen
from support.timing import LONG


class Serve(Protocol):
    def __call__(self, handler: Any, address: Any = "127.0.0.1:0", **options: Any) -> gtcp.Server: ...


class MakePool(Protocol):
    def __call__(self, address: Any, **options: Any) -> gtcp.Pool: ...


class Host:
    """The other end of every connection to `address`, in the test's hands."""

    def __init__(self) -> None:
        self._listener = listen()
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(self._listener)
        self.address = "{}:{}".format(*self._listener.getsockname())

    def accept(self) -> socket.socket:
        """The next connection that was made."""
        self._listener.settimeout(LONG)
        far, _ = self._listener.accept()
        far.settimeout(LONG)
        return self._stack.enter_context(far)

    def nobody_came(self) -> bool:
        """No connection was made since the last `accept`."""
        self._listener.setblocking(False)
        try:
            self._listener.accept()[0].close()
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self._stack.close()


def run_by(*ways: str) -> Any:
    """A fixture for a module whose tests hold for several ways in which `serve` runs handlers: its `concurrency`."""

    @pytest.fixture(params=ways)
    def concurrency(request: pytest.FixtureRequest) -> str:
        if request.param in ("greenlets", "pkg_handler"):
            pytest.importorskip("greenlet")
        return str(request.param)

    return concurrency
