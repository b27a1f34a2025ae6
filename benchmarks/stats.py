"""Medians, their spread, and ratios taken round by round."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.plan import CaseResult, Measured, Role


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    @property
    def iqr_percent(self) -> float:
        return 100 * (self.high - self.low) / self.median if self.median else 0.0


def spread(values: Sequence[float]) -> Spread:
    if len(values) < 2:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio(one: Measured, other: Measured) -> Spread:
    """How much faster ``one`` is. Rounds are compared pairwise, so what slows the whole machine down cancels out."""
    return spread([a / b for a, b in zip(one.rates, other.rates, strict=True)])


def cost_ratio(one: Measured, other: Measured) -> Spread:
    """How much less CPU ``one`` takes, client and server together; other programs on the machine hardly change it."""
    return spread([b.cost / a.cost for a, b in zip(one.samples, other.samples, strict=True)])


def limit_of(result: CaseResult) -> Measured | None:
    return next((m for m in result.measured if m.contender.role is Role.LIMIT and m.samples), None)


def best_peer_of(result: CaseResult) -> Measured | None:
    peers = [m for m in result.measured if m.contender.role is Role.PEER and m.samples]
    return max(peers, key=lambda m: spread(m.rates).median, default=None)


def thriftiest_peer_of(result: CaseResult) -> Measured | None:
    peers = [m for m in result.measured if m.contender.role is Role.PEER and m.samples]
    return min(peers, key=lambda m: spread([s.cost for s in m.samples]).median, default=None)


def best_ours_of(result: CaseResult) -> Measured | None:
    """gtcp's first line that has numbers; the cases name the line the goal is about first."""
    return next((m for m in result.measured if m.contender.role is Role.OURS and m.samples), None)
