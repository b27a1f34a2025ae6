"""Rules that hold for every test.

A test leaves the descriptors and threads of the process as it found them. Warnings are errors, also
those of finalizers and threads (pyproject.toml). Durations come from `support.timing`, other ends
from `support.peers`; what needs a process of its own (signals, fork, limits, the interpreter's end)
lives in tests/isolated.
"""

import contextlib
import os
import random
import sys
from collections.abc import Iterator
from typing import Protocol

import hypothesis
import pytest

from support import guard
from support.collector import sweep
from support.leaks import Baseline
from support.peers import Peer, Script
from support.table import Table, rows_of

hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.register_profile("long", parent=hypothesis.settings.get_profile("default"), max_examples=5000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", action="store_true", help="print the table of faults with the outcome of each row")
    parser.addoption("--row", action="append", default=[], help="only the tests of a row, as in --row E5")
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run the tests in an order drawn by this number")
    parser.addoption("--sample", type=int, metavar="N", default=sys.maxsize, help="with --shuffle: N tests, no more")


def pytest_configure(config: pytest.Config) -> None:
    guard.start()
    if config.getoption("--faults"):
        config.pluginmanager.register(Table(), "faults")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those of some rows; the files in any order, and the tests of each: what those of a file share is made once."""
    rows = set(config.getoption("--row"))
    if rows:
        others = [item for item in items if rows.isdisjoint(rows_of(item.nodeid))]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if not rows.isdisjoint(rows_of(item.nodeid))]
    seed = config.getoption("--shuffle")
    if seed is not None:
        chance = random.Random(seed)
        chance.shuffle(items)
        del items[config.getoption("--sample") :]
        places = {item.path: chance.random() for item in items}
        items.sort(key=lambda item: places[item.path])


@pytest.fixture(autouse=True)
def leaves_no_trace() -> Iterator[None]:
    """Compare open descriptors and threads before and after each test.

    Each begins with a sweep: what pytest keeps of those before takes the collector a third of a second to look at, in
    which no deadline is kept.
    """
    sweep()
    before = Baseline()
    yield
    differences = before.differences()
    if differences:
        pytest.fail("\n".join(differences), pytrace=False)


class MakePeer(Protocol):
    def __call__(self, script: Script, **options: object) -> Peer: ...


@pytest.fixture
def peer(leaves_no_trace: None) -> Iterator[MakePeer]:
    """Make a peer that is closed, and complains, at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda script, **options: stack.enter_context(Peer(script, **options))  # type: ignore[arg-type]
