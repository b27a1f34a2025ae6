"""Tests of the asyncio face run on every kind of loop, in debug mode; what the loop logs fails them."""

import contextlib
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import pytest

from net.ends import Host
from support.loops import LOOPS, run
from support.tls import Authority

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=LOOPS)
def loop_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(name="run")
def run_on(loop_kind: str, leaves_no_trace: None) -> Run:
    """Run a coroutine to its end, as asyncio.run does."""
    return partial(run, loop_kind)


@pytest.fixture
def host(leaves_no_trace: None) -> Iterator[Host]:
    with contextlib.closing(Host()) as host:
        yield host


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()
