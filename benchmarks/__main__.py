"""The one command: ``python -m benchmarks [--quick] [--group NAME] [--json FILE]``."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.groups import all_cases
from benchmarks.machine import describe
from benchmarks.plan import Case, CaseResult, Pinning, Table
from benchmarks.processes import Toolbox
from benchmarks.report import case_markdown, markdown, table_markdown, to_json
from benchmarks.runner import FULL, QUICK, Settings, run_case
from benchmarks.tables import TABLES
from benchmarks.tools import absent

RESULTS = Path(__file__).parent / "results"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="gtcp beside its peers")
    parser.add_argument("--quick", action="store_true", help="about two minutes: fewer cases, shorter rounds")
    parser.add_argument("--group", action="append", default=[], metavar="NAME", help="only this group (repeatable)")
    parser.add_argument("--case", action="append", default=[], metavar="ID", help="only this case (repeatable)")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="only C and contenders named so")
    parser.add_argument("--rounds", type=int, help="rounds for each contender and start")
    parser.add_argument("--starts", type=int, help="how often everything is started afresh")
    parser.add_argument("--seconds", type=float, help="length of a round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON here as well")
    parser.add_argument("--list", action="store_true", help="show groups and cases and stop")
    return parser.parse_args()


def _settings(args: argparse.Namespace) -> Settings:
    base = QUICK if args.quick else FULL
    return Settings(args.starts or base.starts, args.rounds or base.rounds, args.seconds or base.seconds, base.quick)


def _chosen(args: argparse.Namespace) -> list[tuple[Case, Pinning]]:
    asked = bool(args.group or args.case)
    chosen = []
    for case in all_cases():
        if asked and case.group not in args.group and case.id not in args.case:
            continue
        quick = case.quick or (case.pinnings[:1] if asked else ())
        chosen += [(case, pinning) for pinning in (quick if args.quick else case.pinnings)]
    return chosen


def _narrowed(case: Case, only: Sequence[str]) -> Case:
    if not only:
        return case
    kept = [c for c in case.contenders if c.role.value == "C" or any(text in c.name for text in only)]
    return Case(**(vars(case) | {"contenders": tuple(kept)}))


def _stem(args: argparse.Namespace) -> str:
    """Parts of a run never overwrite the whole one."""
    parts = ["quick" if args.quick else "full", *args.group, *args.case]
    return "-".join(parts + (["part"] if args.only else []))


def _list() -> None:
    for case in all_cases():
        print(f"{case.group:10} {case.id:22} {case.title}")
    for table in TABLES:
        print(f"{table.group:10} {table.id:22} {table.title}")


def _run(args: argparse.Namespace, tools: Toolbox, results: list[CaseResult], tables: list[Table]) -> None:
    settings = _settings(args)
    chosen = _chosen(args)
    for number, (case, pinning) in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {case.id}, {pinning.value}", file=sys.stderr, flush=True)
        result = run_case(_narrowed(case, args.only), pinning, settings, lambda _: tools)
        results.append(result)
        print(case_markdown(result) + "\n", flush=True)
    for table in TABLES:
        if table.group in args.group or table.id in args.case or not (args.group or args.case):
            print(f"[table] {table.id}", file=sys.stderr, flush=True)
            tables.append(table.make(tools, quick=settings.quick))
            print(table_markdown(tables[-1]) + "\n", flush=True)


def _write(args: argparse.Namespace, facts: dict[str, str], results: list[CaseResult], tables: list[Table]) -> None:
    how = " ".join(["python -m benchmarks", *sys.argv[1:]])
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / _stem(args)
    chart = None
    try:
        from benchmarks.chart import draw

        chart = draw(results, facts, target)
    except ImportError:
        print("no chart: matplotlib is not installed", file=sys.stderr)
    text = to_json(facts, results, tables, how=how)
    target.with_suffix(".json").write_text(text)
    if args.json:
        args.json.write_text(text)
    page = markdown(facts, results, tables, how=how, chart=chart)
    target.with_suffix(".md").write_text(page)
    print(
        f"written: {target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target}.*", file=sys.stderr
    )


def main() -> None:
    args = _arguments()
    if args.list:
        _list()
        return
    for sentence in absent():
        print(sentence, file=sys.stderr, flush=True)
    start, tools = time.monotonic(), Toolbox()
    facts = describe(tools)
    results: list[CaseResult] = []
    tables: list[Table] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _run(args, tools, results, tables)
    finally:  # also when it is interrupted: what has been measured is kept
        facts["took"] = f"{time.monotonic() - start:.0f} s, {_settings(args)}"
        _write(args, facts, results, tables)


if __name__ == "__main__":
    main()
