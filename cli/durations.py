"""Durations as people write them: `10s`, `1h30m`, `1.5h`, or plain seconds."""

from __future__ import annotations

import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_LONGEST = 100 * 365 * 86400.0


def parse_duration(text: str) -> float:
    """Read `10m`, `1h30m`, `500ms`, `2d` or plain seconds, as seconds.

    Raises: ValueError, with a sentence for the reader.
    """
    value = text.strip().lower()
    if _NUMBER.fullmatch(value):
        seconds = float(value)
    elif value and not _PART.sub("", value):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(value))
    else:
        raise ValueError(f"{text!r} is not a duration: write 10s, 5m, 1h30m, 2d, or plain seconds")
    if seconds > _LONGEST:
        raise ValueError(f"{text!r} is longer than a century")
    return seconds


def format_age(seconds: float) -> str:
    """Write a duration in at most two units, as in `4s`, `12m`, `3h05m` or `2d04h`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s" if whole < 600 else f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
