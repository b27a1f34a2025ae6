"""One suite for every kind of connection: see makers.py."""

import contextlib
from collections.abc import Iterator

import pytest

from contract.makers import KINDS, Maker


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "plain: about the bare socket under a connection, which TLS does not share")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is no part of the contract of TLS connections, and what other kinds show already."""
    out = {item for item in items if is_left_out(item)}
    items[:] = [item for item in items if item not in out]
    config.hook.pytest_deselected(items=list(out))


def is_left_out(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    kind = None if callspec is None else callspec.params.get("make_conn")
    if kind is None:
        return False
    no_part = kind.secure and item.get_closest_marker("plain") is not None
    return no_part or (kind.modules is not None and item.path.stem not in kind.modules)


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def make_conn(request: pytest.FixtureRequest, leaves_no_trace: None) -> Iterator[Maker]:
    """Make connections of one kind, which are closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield request.param(stack)
