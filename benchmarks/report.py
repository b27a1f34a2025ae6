"""The results as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.plan import CaseResult, Measured, Role, Table
from benchmarks.stats import Spread, best_ours_of, best_peer_of, cost_ratio, limit_of, ratio, spread, thriftiest_peer_of


def rate_text(rate: float) -> str:
    """Three digits: ``97.3 k``, ``3.21 M``."""
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if rate >= size:
            return f"{rate / size:.3g}{letter}"
    return f"{rate:.3g}"


def time_text(seconds: float) -> str:
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _ratio_text(value: Spread | None) -> str:
    return f"{value.median:.2f}" if value else ""


def _row_of(result: CaseResult, m: Measured) -> list[str]:
    rates = spread(m.rates)
    limit, best = limit_of(result), best_peer_of(result)
    row = [
        f"**{m.contender.name}**" if m.contender.role is Role.OURS else m.contender.name,
        rate_text(rates.median),
        f"{rates.iqr_percent:.0f} %",
        time_text(1 / rates.median),
        time_text(spread([sample.client_cost for sample in m.samples]).median),
        time_text(spread([sample.cost for sample in m.samples]).median),
        _ratio_text(ratio(m, limit)) if limit else "",
        _ratio_text(cost_ratio(m, limit)) if limit else "",
        _ratio_text(ratio(m, best)) if best else "",
    ]
    if any(sample.latencies_ns for sample in m.samples):
        row += [
            time_text(spread(values).median / 1e9) for values in zip(*(s.latencies_ns for s in m.samples), strict=True)
        ]
    return row


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Names to the left, numbers to the right."""
    rule = ["---"] + ["---:"] * (len(columns) - 1)
    return [f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows)]


def case_markdown(result: CaseResult) -> str:
    """One case: contenders by speed, then those that are missing."""
    present = sorted((m for m in result.measured if m.samples), key=lambda m: -spread(m.rates).median)
    columns = [
        result.case.unit,
        "per second",
        "IQR",
        "each",
        "client CPU",
        "both CPU",
        "to C",
        "by CPU",
        "to best peer",
    ]
    if any(sample.latencies_ns for m in present for sample in m.samples):
        columns += ["p50", "p99", "p99.9"]
    lines = [f"### {result.case.title} ({result.pinning.value})", ""]
    lines += _table(columns, [_row_of(result, m) for m in present]) if present else ["Nobody could run."]
    if result.case.note:
        lines += ["", result.case.note]
    missing = [f"{m.contender.name} ({m.missing})" for m in result.measured if m.missing]
    if missing:
        lines += ["", f"Not measured: {'; '.join(missing)}."]
    return "\n".join(lines)


def _goal_text(goal: float | None) -> str:
    return f"{goal:g}" if goal is not None else ""


def _summary_row(result: CaseResult) -> list[str]:
    ours, limit, best = best_ours_of(result), limit_of(result), best_peer_of(result)
    thrifty = thriftiest_peer_of(result)
    return [
        f"{result.case.title} ({result.pinning.value})",
        f"{ours.contender.name}, {rate_text(spread(ours.rates).median)}/s" if ours else "not measured",
        _ratio_text(ratio(ours, limit)) if ours and limit else "",
        _ratio_text(cost_ratio(ours, limit)) if ours and limit else "",
        _goal_text(result.case.goal.to_limit),
        _ratio_text(ratio(ours, best)) if ours and best else "",
        _ratio_text(cost_ratio(ours, thrifty)) if ours and thrifty else "",
        _goal_text(result.case.goal.to_best),
        f"{best.contender.name}, {rate_text(spread(best.rates).median)}/s" if best else "",
    ]


def summary_markdown(results: Sequence[CaseResult]) -> str:
    columns = ["work", "gtcp", "to C", "by CPU", "goal", "to best peer", "by CPU", "goal", "best peer that is not C"]
    return "\n".join(_table(columns, [_summary_row(result) for result in results]))


def table_markdown(table: Table) -> str:
    lines = [f"### {table.title}", "", *_table(table.columns, table.rows)]
    return "\n".join([*lines, "", table.note] if table.note else lines)


def markdown(
    facts: Mapping[str, str], results: Sequence[CaseResult], tables: Sequence[Table], *, how: str, chart: str | None
) -> str:
    parts = ["# gtcp beside its peers", f"Made by `{how}`; what the columns mean is in benchmarks/README.md."]
    parts.append("\n".join(f"- {name}: {fact}" for name, fact in facts.items()))
    if chart:
        parts.append(f"![Rates relative to C]({chart})")
    if results:
        parts += ["## Summary", summary_markdown(results), "## All numbers"]
    parts += [case_markdown(result) for result in results]
    parts += [table_markdown(table) for table in tables]
    return "\n\n".join(parts) + "\n"


def to_json(facts: Mapping[str, str], results: Sequence[CaseResult], tables: Sequence[Table], *, how: str) -> str:
    """Every round of everybody: medians and ratios can be computed again."""
    document: dict[str, Any] = {
        "command": how,
        "machine": dict(facts),
        "cases": [_case_json(result) for result in results],
        "tables": [vars(table) for table in tables],
    }
    return json.dumps(document, indent=1) + "\n"


def _case_json(result: CaseResult) -> dict[str, Any]:
    limit, best = limit_of(result), best_peer_of(result)
    return {
        "id": result.case.id,
        "group": result.case.group,
        "title": result.case.title,
        "unit": result.case.unit,
        "pinning": result.pinning.value,
        "goal": {"to_limit": result.case.goal.to_limit, "to_best": result.case.goal.to_best},
        "best_peer": best.contender.name if best else None,
        "contenders": [_contender_json(m, limit, best) for m in result.measured],
    }


def _contender_json(m: Measured, limit: Measured | None, best: Measured | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": m.contender.name, "role": m.contender.role.value}
    if m.missing:
        return entry | {"missing": m.missing}
    return entry | {
        "rate": vars(spread(m.rates)),
        "to_limit": vars(ratio(m, limit)) if limit else None,
        "to_limit_by_cpu": vars(cost_ratio(m, limit)) if limit else None,
        "to_best": vars(ratio(m, best)) if best else None,
        "to_best_by_cpu": vars(cost_ratio(m, best)) if best else None,
        "rounds": [vars(sample) for sample in m.samples],
    }
