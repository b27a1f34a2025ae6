"""One authority for all tests of TLS; servers and far ends that are closed at the end of a test."""

import contextlib
from collections.abc import Iterator

import pytest

import gtcp
from net.ends import MakePool, Serve
from support.faces import pool_maker
from support.tls import Authority, Ends


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def ends(leaves_no_trace: None, authority: Authority) -> Iterator[Ends]:
    with Ends(authority) as ends:
        yield ends


@pytest.fixture
def serve(leaves_no_trace: None, authority: Authority) -> Iterator[Serve]:
    """Start a TLS server on a free port."""
    with contextlib.ExitStack() as stack:

        def start(handler: object, address: object = "127.0.0.1:0", **options: object) -> gtcp.Server:
            options.setdefault("tls", authority.server())
            return stack.enter_context(gtcp.Server(address, handler, **options))  # type: ignore[arg-type]

        yield start


@pytest.fixture
def face() -> str:
    """Whose pools `make_pool` makes; tests that hold for those of event loops too have `face` as a parameter."""
    return "threads"


@pytest.fixture
def make_pool(leaves_no_trace: None, face: str) -> Iterator[MakePool]:
    with contextlib.ExitStack() as stack:
        yield pool_maker(face, stack)
