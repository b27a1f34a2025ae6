"""The picture for the README: rates relative to C, work by work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from benchmarks.plan import CaseResult, Measured, Role
from benchmarks.report import rate_text
from benchmarks.stats import best_ours_of, limit_of, ratio, spread

INK, MUTED = "#24292f", "#6e7781"
COLOURS = {"gtcp": "#0969da", "Go gtcp": "#8fa1b3", "best Python peer": "#d0d7de"}
BAR = 0.26
Bar = tuple[str, Measured]


def draw(results: Sequence[CaseResult], facts: Mapping[str, str], target: Path) -> str | None:
    """Writes ``target`` as SVG and PNG; returns the name of the SVG, or None when nothing can be compared with C."""
    shown = _shown(results)
    if not shown:
        return None
    figure, axes = plt.subplots(figsize=(9, 0.8 * len(shown) + 1.4))
    for place, (result, limit) in enumerate(shown):
        _draw_case(axes, place, result, limit)
    axes.set_yticks(range(len(shown)), [_label(result, limit) for result, limit in shown], color=INK, fontsize=9)
    axes.set_ylim(len(shown) - 0.4, -0.9)
    axes.axvline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(1, -0.95, "C = 1", ha="center", va="bottom", color=INK, fontsize=9)
    axes.set_xlim(left=0)
    axes.tick_params(length=0, colors=MUTED)
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axes.xaxis.grid(visible=True, color="#eaeef2")
    axes.set_axisbelow(True)
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
    figure.legend(handles, COLOURS, loc="upper center", ncols=3, frameon=False, labelcolor=INK, fontsize=10)
    figure.text(
        0.01, 0.005, f"rates relative to C in the same run; {facts['cpu']}, {facts['date']}", color=MUTED, fontsize=8
    )
    figure.tight_layout(rect=(0, 0.02, 1, 0.96))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gtcp"}):
        figure.savefig(target.with_suffix(".svg"), facecolor="white", metadata={"Date": None})
    figure.savefig(target.with_suffix(".png"), facecolor="white", dpi=110)
    plt.close(figure)
    return target.with_suffix(".svg").name


def _shown(results: Sequence[CaseResult]) -> list[tuple[CaseResult, Measured]]:
    """Each case once, in its first pinning, when there is a C to compare with."""
    shown: dict[str, tuple[CaseResult, Measured]] = {}
    for result in results:
        limit = limit_of(result)
        if limit:
            shown.setdefault(result.case.id, (result, limit))
    return list(shown.values())


def _label(result: CaseResult, limit: Measured) -> str:
    return f"{_wrapped(result.case.title)}\nC {rate_text(spread(limit.rates).median)}/s"


def _wrapped(title: str) -> str:
    if len(title) <= 38:
        return title
    middle = min((i for i, letter in enumerate(title) if letter == " "), key=lambda i: abs(i - len(title) // 2))
    return f"{title[:middle]}\n{title[middle + 1 :]}"


def _bars(result: CaseResult) -> list[Bar]:
    bars: list[Bar] = []
    ours = best_ours_of(result)
    if ours:
        bars.append(("gtcp", ours))
    others = [m for m in result.measured if m.contender.role in {Role.PEER, Role.NOTE} and m.samples]
    go = [m for m in others if m.contender.name.startswith("Go ")]
    python = [m for m in others if not m.contender.name.startswith("Go ") and m.contender.role is Role.PEER]
    if go:
        bars.append(("Go gtcp", go[0]))
    if python:
        bars.append(("best Python peer", max(python, key=lambda m: spread(m.rates).median)))
    return bars


def _draw_case(axes: Axes, place: int, result: CaseResult, limit: Measured) -> None:
    bars = _bars(result)
    for number, (kind, m) in enumerate(bars):
        at = place + (number - (len(bars) - 1) / 2) * BAR
        value = ratio(m, limit).median
        axes.barh(at, value, height=BAR * 0.9, color=COLOURS[kind])
        name = "" if kind == "gtcp" else m.contender.name
        inside = value > 0.6  # a long bar has room for its text, and the line of C stays free
        axes.text(
            value - 0.01 if inside else value + 0.01,
            at,
            f"{name}  {value:.2f}" if inside else f"{value:.2f}  {name}",
            ha="right" if inside else "left",
            va="center",
            color="white" if inside and kind == "gtcp" else INK,
            fontsize=7.5,
        )
