"""When a replay shows what: pure arithmetic over the times of events and the clock of who watches."""

from __future__ import annotations

import re
from datetime import datetime
from math import inf, isfinite
from typing import Final

SLOWEST: Final = 1 / 64
FASTEST: Final = 1024.0
SLACK: Final = 1.0
"""Seconds that a replay which lags behind makes up for; more is forgotten, as after a wait for a live run."""

_SPEED: Final = re.compile(r"(\d+(?:\.\d+)?)x?")


def parse_speed(text: str) -> float:
    """Read `10x`, `0.5x` or `max`. Raises: ValueError, with a sentence for the reader."""
    word = text.strip().lower()
    if word == "max":
        return inf
    found = _SPEED.fullmatch(word)
    speed = float(found[1]) if found else 0.0
    if not SLOWEST <= speed <= FASTEST:
        raise ValueError(f"{text!r} is no speed: write 10x, 0.5x or max; from {SLOWEST:.4f}x to {FASTEST:g}x")
    return speed


def format_speed(speed: float) -> str:
    return f"{speed:.3g}x" if speed < 1000 else f"{speed:.0f}x" if isfinite(speed) else "max"


def moment(time: str) -> float | None:
    """An event's time in seconds since 1970; None if it has none that can be read."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


class Pace:
    """Decides how long to wait for the next event: `longest` seconds at most, `speed` times as fast as it was.

    Nothing here looks at a clock: `now` is that of who watches, in seconds.
    """

    def __init__(self, speed: float = 1.0, longest: float = inf) -> None:
        self.speed = speed
        self._longest = longest
        self._reached: float | None = None  # the time of the event that comes next
        self._gap = 0.0  # of the run, before it
        self._due = -inf
        self._skipping = 0.0  # of the run
        self._paused: float | None = None  # how long there was to wait when it was

    def reach(self, time: float | None, now: float) -> None:
        """The event that happened at `time` comes next. A clock that went back counts as no time at all."""
        if time is None:
            return
        if self._reached is None:
            self._reached, self._due = time, now
        gap = max(0.0, time - self._reached)
        self._reached = time
        skipped = min(gap, self._skipping)
        self._skipping -= skipped
        self._gap = gap - skipped
        self._due = max(self._due, now - SLACK) + self._wait()

    def left(self, now: float) -> float:
        """Seconds until it is to be shown; infinite while paused."""
        return inf if self._paused is not None else max(0.0, self._due - now)

    @property
    def paused(self) -> bool:
        return self._paused is not None

    def pause(self, now: float) -> None:
        """Pause, or go on with what there was left to wait."""
        if self._paused is None:
            self._paused = self.left(now)
        else:
            self._due, self._paused = now + self._paused, None

    def faster(self, now: float) -> None:
        self._change(self.speed * 2 if self.speed < FASTEST else inf, now)

    def slower(self, now: float) -> None:
        self._change(max(SLOWEST, min(self.speed / 2, FASTEST)), now)

    def skip(self, seconds: float, now: float) -> None:
        """Leave out the next `seconds` of waiting: what happens in them is shown at once."""
        left = min(self._left(now), seconds)
        self._set(self._left(now) - left, now)
        self._skipping += (seconds - left) * min(self.speed, FASTEST)

    def _change(self, speed: float, now: float) -> None:
        whole = self._wait()
        share = self._left(now) / whole if whole else 0.0
        self.speed = speed
        self._set(share * self._wait(), now)

    def _wait(self) -> float:
        return min(self._gap / self.speed, self._longest)

    def _left(self, now: float) -> float:
        return self.left(now) if self._paused is None else self._paused

    def _set(self, left: float, now: float) -> None:
        if self._paused is None:
            self._due = now + left
        else:
            self._paused = left
