"""What a FaultProxy can do to the bytes of one direction."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Fault:
    """What all faults have in common: they are immutable, and their numbers are finite and not negative."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name} must be a finite number from 0 on, got {value!r}")


@dataclass(frozen=True, slots=True)
class Latency(Fault):
    """Bytes arrive `delay` seconds late, plus up to `jitter` more; never out of order."""

    delay: float
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class Bandwidth(Fault):
    """At most `rate` bytes per second."""

    rate: float

    def __post_init__(self) -> None:
        Fault.__post_init__(self)
        if self.rate == 0:
            raise ValueError("rate must be above 0; Blackhole() lets nothing through")


@dataclass(frozen=True, slots=True)
class Slicer(Fault):
    """Segments of `size` bytes, give or take `variation`, with `pause` seconds between them."""

    size: int
    variation: int = 0
    pause: float = 0.0

    def __post_init__(self) -> None:
        Fault.__post_init__(self)
        if self.size <= self.variation:
            raise ValueError(f"size must be above variation, got {self.size} and {self.variation}")


@dataclass(frozen=True, slots=True)
class LimitData(Fault):
    """The connection is closed after `size` more bytes."""

    size: int


@dataclass(frozen=True, slots=True)
class SlowClose(Fault):
    """The end of the stream arrives `delay` seconds late."""

    delay: float


@dataclass(frozen=True, slots=True)
class Blackhole(Fault):
    """Bytes are swallowed; after `timeout` seconds the connection is closed, None: never."""

    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class ResetPeer(Fault):
    """Both ends get a reset `after` so many seconds."""

    after: float = 0.0
