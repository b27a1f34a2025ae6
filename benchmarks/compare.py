"""Two commits side by side: ``python -m benchmarks.compare OLD NEW [--group NAME]``.

Each is built into a virtual environment of its own; the programs are those of this tree, so only gtcp differs.
Rounds are interleaved and ratios are taken round by round, as everywhere else.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.groups import all_cases
from benchmarks.plan import Case, CaseResult, Contender, Measured, Pinning, Role
from benchmarks.processes import ROOT, Toolbox
from benchmarks.report import rate_text
from benchmarks.runner import FULL, QUICK, run_case
from benchmarks.stats import cost_ratio, ratio, spread

EXTRAS = ("uvloop", "greenlet")  # what gtcp's own programs need beside it


def _commit(name: str) -> str:
    words = ["git", "rev-parse", "--short", "--verify", f"{name}^{{commit}}"]
    return subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def build(commit: str, folder: Path) -> Toolbox:
    """The commit's gtcp in a virtual environment, and a folder that holds ``benchmarks`` but no gtcp."""
    source, environment, stage = (folder / part for part in ("source", "venv", "stage"))
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(source)
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(source), *EXTRAS], check=True)
    shutil.copytree(ROOT / "benchmarks", stage / "benchmarks", ignore=shutil.ignore_patterns("results", "__pycache__"))
    return Toolbox(str(python), stage)


def _doubled(case: Case, labels: tuple[str, str]) -> Case | None:
    """The case with C and, for each line of gtcp's, one of each commit."""
    kept: list[Contender] = [c for c in case.contenders if c.role is Role.LIMIT]
    for contender in case.contenders:
        if contender.role is Role.OURS:
            kept += [replace(contender, name=f"{contender.name} @ {label}") for label in labels]
    return replace(case, contenders=tuple(kept)) if len(kept) > 1 else None


def _lines(result: CaseResult, labels: tuple[str, str]) -> list[str]:
    by_name = {m.contender.name: m for m in result.measured}
    lines = []
    for m in result.measured:
        name, _, label = m.contender.name.rpartition(" @ ")
        if label != labels[0]:
            continue
        old, new = m, by_name[f"{name} @ {labels[1]}"]
        lines.append(f"| {result.case.id}, {result.pinning.value} | {name} | {_compared(old, new)} |")
    return lines


def _compared(old: Measured, new: Measured) -> str:
    if not old.samples or not new.samples:
        return f"{old.missing or 'ran'} | {new.missing or 'ran'} | | | "
    change = ratio(new, old)
    rates = " | ".join(rate_text(spread(m.rates).median) for m in (old, new))
    cost = cost_ratio(new, old)
    return f"{rates} | {change.median:.3f} | {change.low:.3f} to {change.high:.3f} | {cost.median:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--group", action="append", default=[], metavar="NAME")
    parser.add_argument("--case", action="append", default=[], metavar="ID")
    parser.add_argument("--two-cores", action="store_true", help="client and server on different cores")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    old, new = _commit(args.old), _commit(args.new)
    labels = (old, new) if old != new else (old, f"{new} again")
    pinning = Pinning.TWO if args.two_cores else Pinning.ONE
    with tempfile.TemporaryDirectory(prefix="gtcp-compare-") as folder:
        boxes = {}
        for label, commit in zip(labels, (old, new), strict=True):
            print(f"building {label}", file=sys.stderr, flush=True)
            boxes[label] = build(commit, Path(folder) / label.replace(" ", "-"))

        def tools(contender: Contender) -> Toolbox:
            return boxes.get(contender.name.rpartition(" @ ")[2], boxes[labels[0]])

        settings = replace(QUICK, starts=3) if args.quick else replace(FULL, starts=6)
        print(f"| case | line | {labels[0]} | {labels[1]} | ratio | quartiles | by CPU |")
        print("| --- | --- | ---: | ---: | ---: | --- | ---: |")
        for case in all_cases():
            wanted = not (args.group or args.case) or case.group in args.group or case.id in args.case
            doubled = _doubled(case, labels) if wanted else None
            if doubled:
                where = pinning if pinning in case.pinnings else case.pinnings[0]
                result = run_case(doubled, where, settings, tools)
                print("\n".join(_lines(result, labels)), flush=True)


if __name__ == "__main__":
    main()
