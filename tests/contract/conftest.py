"""One suite for every kind of connection: see makers.py."""

import contextlib
from collections.abc import Iterator

import pytest

from contract.makers import KINDS, Maker


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "plain: about the bare socket under a connection, which TLS does not share")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is no part of the contract of TLS connections."""
    out = [item for item in items if item.get_closest_marker("plain") and over_tls(item)]
    items[:] = [item for item in items if item not in out]
    config.hook.pytest_deselected(items=out)


def over_tls(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and getattr(callspec.params.get("make_conn"), "secure", False)


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def make_conn(request: pytest.FixtureRequest, leaves_no_trace: None) -> Iterator[Maker]:
    """Make connections of one kind, which are closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield request.param(stack)
