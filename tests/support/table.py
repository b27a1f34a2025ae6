"""The table of faults: every row with what its tests said. `make faults` runs the suite with this plugin."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from support.rows import ROWS

if TYPE_CHECKING:
    import pytest

LEAST = 120
_ID = re.compile(r"(?<![A-Za-z0-9])([A-I][1-9][0-9]?)(?![A-Za-z0-9])")


def rows_of(nodeid: str) -> list[str]:
    """The rows that a test names."""
    path, _, name = nodeid.partition("::")
    if "hazards/" in path:
        return []  # their ids are those of the original's hazards
    return [row for row in _ID.findall(name.replace("_", " ")) if row in ROWS]


class Table:
    """Collects outcomes by row and prints them above the closing line."""

    def __init__(self) -> None:
        self._outcomes: dict[str, Counter[str]] = {row: Counter() for row in ROWS}
        self._reasons: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome = report.outcome
        if report.when != "call" and outcome == "passed":
            return
        for row in rows_of(report.nodeid):
            self._outcomes[row][outcome] += 1
            if outcome == "skipped" and isinstance(report.longrepr, tuple):
                self._reasons[row] = report.longrepr[2].removeprefix("Skipped: ")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._outcomes["I7"]["failed"] += 1

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        config = session.config
        chosen = config.getoption("keyword") or config.getoption("row")
        whole = config.args_source is config.ArgsSource.TESTPATHS and not chosen
        if session.exitstatus == 0 and whole and len(self._covered()) < LEAST:
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("faults")
        for line in self.lines():
            terminalreporter.write_line(line)

    def _covered(self) -> list[str]:
        return [row for row, seen in self._outcomes.items() if seen["passed"] and not seen["failed"]]

    def lines(self) -> Iterable[str]:
        for row, title in ROWS.items():
            yield f"{row:4} {title:58} {self._verdict(row)}"
        failed = sum(1 for seen in self._outcomes.values() if seen["failed"])
        covered = len(self._covered())
        yield f"{covered} of {len(ROWS)} rows passed, {failed} failed, {len(ROWS) - covered - failed} not covered here"

    def _verdict(self, row: str) -> str:
        seen = self._outcomes[row]
        if seen["failed"]:
            return f"FAILED ({seen['failed']} of {seen.total()})"
        if seen["passed"]:
            return f"passed ({seen['passed']})"
        return f"not covered: {self._reasons.get(row, 'no test')}"
