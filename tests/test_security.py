"""docs/security.md: each item of the checklist names tests that exist and that carry its rows."""

import re
from pathlib import Path

import pytest

from support.rows import ROWS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "security.md"
if not PAGE.is_file():
    pytest.skip("the suite runs against an installed wheel, without the documentation", allow_module_level=True)

ITEMS = {f"S{number}": line for number, line in re.findall(r"^\| S(\d+) (\|.*)$", PAGE.read_text(), re.MULTILINE)}


def shown_by(item: str) -> str:
    return ITEMS[item].split("|")[-2]


def rows_of(item: str) -> list[str]:
    return re.findall(r"\b[A-I]\d+\b", shown_by(item).partition("`")[0])


def names_of(item: str) -> list[str]:
    return re.findall(r"`([^`]+)`", shown_by(item))


def test_the_checklist_is_complete() -> None:
    assert list(ITEMS) == [f"S{number}" for number in range(1, 31)]
    assert all(names_of(item) or "this page" in shown_by(item) for item in ITEMS)


@pytest.mark.parametrize("item", ITEMS)
def test_what_shows_an_item_exists(item: str) -> None:
    targets = re.findall(r"^([a-z-]+(?: [a-z-]+)*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    made = {target for line in targets for target in line.split()}
    for name in names_of(item):
        command, _, target = name.partition(" ")
        assert target in made if command == "make" else (ROOT / name).exists(), name


@pytest.mark.parametrize("item", ITEMS)
def test_the_tests_that_show_an_item_carry_its_rows(item: str) -> None:
    files = [
        file
        for path in (ROOT / name for name in names_of(item) if name.startswith("tests/"))
        for file in (path.rglob("*.py") if path.is_dir() else [path])
    ]
    text = "".join(file.read_text() for file in files)
    for row in rows_of(item):
        assert row in ROWS
        assert re.search(rf"(?<![A-Za-z0-9]){row}(?![A-Za-z0-9])", text.replace("_", " ")), f"no test of {row}"


def test_the_page_names_only_tests_that_exist() -> None:
    for name in re.findall(r"`(tests/[^`]+)`", PAGE.read_text()):
        assert (ROOT / name).exists(), name
