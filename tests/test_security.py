"""docs/security.md: each item of the checklist names tests that exist and that carry its rows."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from support.rows import ROWS
from support.table import rows_of

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "security.md"
if not PAGE.is_file():
    pytest.skip("the suite runs against an installed wheel, without the documentation", allow_module_level=True)

pytestmark = pytest.mark.timeout(240)  # the whole suite is collected once, on a busy machine too

ITEMS = {f"S{number}": line for number, line in re.findall(r"^\| S(\d+) (\|.*)$", PAGE.read_text(), re.MULTILINE)}


def shown_by(item: str) -> str:
    return ITEMS[item].split("|")[-2]


def rows_in(item: str) -> list[str]:
    return re.findall(r"\b[A-I]\d+\b", shown_by(item).partition("`")[0])


def names_of(item: str) -> list[str]:
    return re.findall(r"`([^`]+)`", shown_by(item))


def suites_of(item: str) -> list[str]:
    return [name for name in names_of(item) if name.startswith("tests/")]


@cache
def collected(*arguments: str) -> list[str]:
    """The ids of tests as pytest finds them: what a docstring or a comment says proves nothing."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


def of(name: str) -> list[str]:
    """The tests of a folder, of a file or of one function."""
    return [test for test in collected("tests") if re.match(rf"{re.escape(name)}(?![\w.-])", test)]


def test_the_checklist_is_complete() -> None:
    assert list(ITEMS) == [f"S{number}" for number in range(1, 31)]
    assert all(names_of(item) or "this page" in shown_by(item) for item in ITEMS)


@pytest.mark.parametrize("item", ITEMS)
def test_what_shows_an_item_exists(item: str) -> None:
    targets = re.findall(r"^([a-z-]+(?: [a-z-]+)*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    made = {target for line in targets for target in line.split()}
    for name in names_of(item):
        command, _, target = name.partition(" ")
        if command == "make":
            assert target in made, name
        elif name.startswith("tests/"):
            assert of(name), f"no test in {name}"
        else:
            assert (ROOT / name).exists(), name


@pytest.mark.parametrize("item", ITEMS)
def test_the_tests_that_show_an_item_carry_its_rows(item: str) -> None:
    rows = rows_in(item)
    carried = {name: {row for test in of(name) for row in rows_of(test)} for name in suites_of(item)}
    for row in rows:
        assert row in ROWS
        assert any(row in its for its in carried.values()), f"no test of {row} in {list(carried)}"
    for name, its in carried.items():
        # A test that is named itself is meant, whatever its rows: those of the hazards have a count of their own.
        assert "::" in name or not its.isdisjoint(rows), f"{name} has no test of {rows}"


def test_the_page_names_only_tests_that_exist() -> None:
    for name in re.findall(r"`(tests/[^`]+)`", PAGE.read_text()):
        assert of(name), name


def test_the_page_tells_how_to_run_the_tests_of_a_row() -> None:
    [row] = re.findall(r"`pytest --row ([A-I]\d+)`", PAGE.read_text())
    some = ("tests/net/test_pool_checkin.py", "tests/contract/test_packages.py")
    for each in (row, "B1"):
        found = collected(*some, "--row", each)
        assert sorted(found) == sorted(test for name in some for test in of(name) if each in rows_of(test))
        assert found
