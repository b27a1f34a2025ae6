"""Servers, pools and hosts for a test, closed at its end."""

import contextlib
from collections.abc import Iterator

import pytest

import gtcp
from net.ends import Host, MakePool, Serve
from support.faces import pool_maker, server_maker
from support.loops import LOOPS


@pytest.fixture
def concurrency() -> str:
    """How `serve` runs handlers; tests that hold for other ways too have `concurrency` as a parameter."""
    return "threads"


@pytest.fixture
def face() -> str:
    """Whose pools `make_pool` makes; tests that hold for those of event loops too have `face` as a parameter."""
    return "threads"


@pytest.fixture
def serve(leaves_no_trace: None, concurrency: str) -> Iterator[Serve]:
    """Start a server on a free port."""
    with contextlib.ExitStack() as stack:
        if concurrency in LOOPS:
            make = server_maker(concurrency, stack)
        else:
            make = lambda *args, **options: stack.enter_context(  # noqa: E731
                gtcp.Server(*args, **{"concurrency": concurrency, **options})  # type: ignore[arg-type]
            )
        yield lambda handler, address="127.0.0.1:0", **options: make(address, handler, **options)


@pytest.fixture
def make_pool(leaves_no_trace: None, face: str) -> Iterator[MakePool]:
    with contextlib.ExitStack() as stack:
        yield pool_maker(face, stack)


@pytest.fixture
def host(leaves_no_trace: None) -> Iterator[Host]:
    with contextlib.closing(Host()) as host:
        yield host
