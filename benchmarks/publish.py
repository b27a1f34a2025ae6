"""The page for readers: puts what a run measured into ``docs/performance.md``, and the chart beside it.

``python -m benchmarks.publish FILE...`` reads the JSON of one run or more, where a later one replaces what it has
measured again; what is written by hand stays.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.chart import draw
from benchmarks.plan import Case, CaseResult, Command, Contender, Goal, Measured, Pinning, Role, Sample, Table
from benchmarks.processes import ROOT
from benchmarks.report import case_markdown, summary_markdown, table_markdown

PAGE = ROOT / "docs" / "performance.md"
MEASURED = re.compile(r"(<!-- measured -->\n).*(<!-- by hand -->\n)", re.DOTALL)
NOBODY = Command("")  # who was started does not matter any more


def _measured(entry: Mapping[str, Any]) -> Measured:
    samples = [
        Sample(**(values | {"latencies_ns": tuple(values["latencies_ns"])})) for values in entry.get("rounds", ())
    ]
    contender = Contender(entry["name"], Role(entry["role"]), NOBODY, NOBODY)
    return Measured(contender, samples, entry.get("missing", ""))


def _result(entry: Mapping[str, Any]) -> CaseResult:
    measured = [_measured(each) for each in entry["contenders"]]
    contenders = tuple(m.contender for m in measured)
    case = Case(entry["id"], entry["group"], entry["title"], entry["unit"], contenders, Goal(**entry["goal"]))
    return CaseResult(case, Pinning(entry["pinning"]), measured)


def _table(entry: Mapping[str, Any]) -> Table:
    return Table(**(entry | {"columns": tuple(entry["columns"]), "rows": tuple(map(tuple, entry["rows"]))}))


def _several_ways(results: Sequence[CaseResult]) -> list[CaseResult]:
    """Work for which gtcp has more than one way, on the first pinning of each."""
    firsts = {result.case.id: result for result in reversed(results)}
    ours = [sum(m.contender.role is Role.OURS for m in result.measured) for result in results]
    return [result for result, n in zip(results, ours, strict=True) if n > 1 and firsts[result.case.id] is result]


def _section(facts: Mapping[str, str], results: Sequence[CaseResult], tables: Sequence[Table], commands: str) -> str:
    chart = draw(results, facts, PAGE)
    parts = [f"![Rates relative to C]({chart})"] if chart else []
    parts += [summary_markdown(results)] if results else []
    parts += [case_markdown(result) for result in _several_ways(results)]
    parts += [table_markdown(table) for table in tables]
    parts += ["### Where this was measured", "\n".join(f"- {name}: {fact}" for name, fact in facts.items()), commands]
    return "\n\n".join(["", *parts, ""]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    documents = [json.loads(file.read_text()) for file in parser.parse_args().files]
    cases = {(entry["id"], entry["pinning"]): entry for document in documents for entry in document["cases"]}
    tables = {entry["title"]: entry for document in documents for entry in document["tables"]}
    facts = documents[0]["machine"]
    facts["gtcp"] = ", then ".join(dict.fromkeys(document["machine"]["gtcp"] for document in documents))
    commands = "Made by " + ", then ".join(f"`{document['command']}`" for document in documents) + "."
    section = _section(facts, [*map(_result, cases.values())], [*map(_table, tables.values())], commands)
    PAGE.write_text(MEASURED.sub(lambda found: found[1] + section + found[2], PAGE.read_text()))


if __name__ == "__main__":
    main()
