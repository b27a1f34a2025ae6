"""One authority for all tests of TLS; servers and far ends that are closed at the end of a test."""

import contextlib
from collections.abc import Iterator

import pytest

import gtcp
from net.ends import Serve
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
