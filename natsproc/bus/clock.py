"""Times as they go over the wire: RFC 3339, UTC. Protocol: section 2.

This node's clock is only ever shown; no decision compares two machines' clocks.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_cached: tuple[int, str] = (0, "")


def now() -> str:
    """The time of this machine, in milliseconds, as in `2026-01-31T23:59:59.123Z`."""
    global _cached
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    second, text = _cached
    if second != seconds:  # the part before the milliseconds is the same for a thousand events
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        _cached = (seconds, text)
    return f"{text}.{nanoseconds // 1_000_000:03d}Z"


def later(seconds: float) -> str:
    """The time of this machine in so many seconds."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="seconds")[:19] + "Z"


def seconds_between(earlier: str, later: str) -> float:
    """Seconds between two times of one and the same clock."""
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
