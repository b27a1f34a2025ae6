"""One suite for every kind of connection: see makers.py."""

import contextlib
from collections.abc import Iterator

import pytest

from contract.makers import KINDS, Maker


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def make_conn(request: pytest.FixtureRequest, leaves_no_trace: None) -> Iterator[Maker]:
    """Make connections of one kind, which are closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield request.param(stack)
