"""Servers and pools for a test, closed at its end."""

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import pytest

import gtcp


class Serve(Protocol):
    def __call__(self, handler: Any, address: Any = "127.0.0.1:0", **options: Any) -> gtcp.Server: ...


class MakePool(Protocol):
    def __call__(self, address: Any, **options: Any) -> gtcp.Pool: ...


@pytest.fixture
def serve(leaves_no_trace: None) -> Iterator[Serve]:
    """Start a server on a free port."""
    with contextlib.ExitStack() as stack:
        yield lambda handler, address="127.0.0.1:0", **options: stack.enter_context(
            gtcp.Server(address, handler, **options)
        )


@pytest.fixture
def make_pool(leaves_no_trace: None) -> Iterator[MakePool]:
    with contextlib.ExitStack() as stack:
        yield lambda address, **options: stack.enter_context(gtcp.Pool(address, **options))
