"""Times as they go over the wire: RFC 3339, UTC. Protocol: section 2.

This node's clock is only ever shown; no decision compares two machines' clocks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import inf

_cached: tuple[int, str] = (0, "")  # the same for what comes within a millisecond


def now() -> str:
    """The time of this machine, in milliseconds, as in `2026-01-31T23:59:59.123Z`."""
    global _cached
    millisecond, text = _cached
    if (now := time.time_ns() // 1_000_000) != millisecond:
        seconds, part = divmod(now, 1000)
        text = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{part:03d}Z"
        _cached = (now, text)
    return text


def later(seconds: float) -> str:
    """The time of this machine in so many seconds."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="seconds")[:19] + "Z"


def seconds_between(earlier: str, later: str) -> float:
    """Seconds between two times of one and the same clock."""
    return seconds_until(later)(earlier)


def seconds_until(later: str) -> Callable[[str], float]:
    """The same for many times before one."""
    end = datetime.fromisoformat(later)
    return lambda earlier: (end - datetime.fromisoformat(earlier)).total_seconds()


Clocks = tuple[float, float]


def _clocks() -> Clocks:
    return time.monotonic(), time.time()


_LONG_AGO: Clocks = (-inf, -inf)


class Steady:
    """For how long something has gone on without a break, by the clocks of this machine.

    Of two clocks, because the one stands still while the machine sleeps, and the other may be set.
    """

    def __init__(self, most: float, clocks: Callable[[], Clocks] = _clocks) -> None:
        """`most` seconds may lie between two beats."""
        self._most = most
        self._clocks = clocks
        self._since = self._last = _LONG_AGO

    def beat(self) -> None:
        """It goes on."""
        self._since = self._since if self.seconds else self._clocks()
        self._last = self._clocks()

    def stop(self) -> None:
        """It has broken off."""
        self._since = self._last = _LONG_AGO

    @property
    def seconds(self) -> float:
        """Seconds from the first beat to now, if there was no break since; else 0."""
        now = self._clocks()
        gap = max(abs(now[0] - self._last[0]), abs(now[1] - self._last[1]))
        return 0.0 if gap > self._most else min(now[0] - self._since[0], now[1] - self._since[1])
