"""Servers, pools and hosts for a test, closed at its end."""

import contextlib
from collections.abc import Iterator

import pytest

import gtcp
from net.ends import Host, MakePool, Serve


@pytest.fixture
def concurrency() -> str:
    """How `serve` runs handlers; a module whose tests hold for greenlets too defines `concurrency` anew."""
    return "threads"


@pytest.fixture
def serve(leaves_no_trace: None, concurrency: str) -> Iterator[Serve]:
    """Start a server on a free port."""
    with contextlib.ExitStack() as stack:
        yield lambda handler, address="127.0.0.1:0", **options: stack.enter_context(
            gtcp.Server(address, handler, **{"concurrency": concurrency, **options})
        )


@pytest.fixture
def make_pool(leaves_no_trace: None) -> Iterator[MakePool]:
    with contextlib.ExitStack() as stack:
        yield lambda address, **options: stack.enter_context(gtcp.Pool(address, **options))


@pytest.fixture
def host(leaves_no_trace: None) -> Iterator[Host]:
    with contextlib.closing(Host()) as host:
        yield host
