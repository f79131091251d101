"""From samples to what is shown: medians, percentiles, ratios and goals. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Rounds = Sequence[Sequence[float]]
"""The samples of one figure, a list for each round."""

Statistic = Literal["p50", "p99"]


def percentile(values: Sequence[float], q: float) -> float:
    """The `q`-th percentile (0 to 100) of at least one value, interpolated between the nearest two."""
    return _percentile(sorted(values), q)


def _percentile(ordered: Sequence[float], q: float) -> float:
    if not ordered:
        raise ValueError("there is no percentile of nothing")
    place = (len(ordered) - 1) * q / 100
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def median(values: Sequence[float]) -> float:
    return percentile(values, 50)


def value(values: Sequence[float], statistic: Statistic) -> float:
    return percentile(values, 50 if statistic == "p50" else 99)


def thin(values: Sequence[float], most: int = 1001) -> list[float]:
    """The values, or as many of their quantiles, evenly spaced and with both extremes, in order."""
    if len(values) <= most:
        return list(values)
    ordered = sorted(values)
    return [_percentile(ordered, 100 * place / (most - 1)) for place in range(most)]


@dataclass(frozen=True)
class Summary:
    """All rounds of one figure together."""

    count: int
    p50: float
    p99: float
    least: float
    most: float

    @classmethod
    def of(cls, rounds: Rounds) -> Summary:
        pooled = [sample for samples in rounds for sample in samples]
        return cls(len(pooled), median(pooled), percentile(pooled, 99), min(pooled), max(pooled))


def ratio(ours: Rounds, theirs: Rounds, statistic: Statistic = "p50") -> float:
    """How many times theirs ours is: the median of what it is in each round that both took part in.

    Both of a round were measured within seconds, so what else the machine did falls out of it.
    """
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=False) if a and b]
    if not pairs:
        raise ValueError("they took part in no round together")
    return median([value(a, statistic) / (value(b, statistic) or math.nan) for a, b in pairs])


@dataclass(frozen=True)
class Goal:
    """A bound on one figure of a contender: on its ratio to another's, or in its own unit."""

    contender: str
    figure: str
    bound: float
    at: Literal["most", "least"] = "most"
    versus: str = ""  #: the contender to compare with; "" for an absolute bound
    statistic: Statistic = "p50"
    versus_figure: str = ""  #: of the other one, if it is another figure
    versus_statistic: Statistic | None = None

    def text(self) -> str:
        sign = "≤" if self.at == "most" else "≥"
        bound = f"{self.bound:g} × {self.versus}" if self.versus else f"{self.bound:g}"
        return f"{self.contender}: {self.figure}, {self.statistic} {sign} {bound}"

    def met(self, found: float) -> bool:
        return found <= self.bound if self.at == "most" else found >= self.bound

    def found(self, ours: Rounds, theirs: Rounds | None) -> float:
        """What the bound is on, from the samples. Raises: ValueError where there are none."""
        if not self.versus:
            return value([sample for samples in ours for sample in samples], self.statistic)
        if theirs is None:
            raise ValueError(f"{self.versus} was not measured")
        if self.versus_statistic in (None, self.statistic):
            return ratio(ours, theirs, self.statistic)
        return median(
            [
                value(a, self.statistic) / (value(b, self.versus_statistic or "p50") or math.nan)
                for a, b in zip(ours, theirs, strict=False)
                if a and b
            ]
        )
