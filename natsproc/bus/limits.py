"""How much a mesh keeps, and for how long: what an operator may choose. Protocol: section 7."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from natsproc.protocol.names import Names

DEDUPLICATION_SECONDS = 120
CHOSEN = frozenset({"max_age", "max_bytes", "max_msgs_per_subject"})
"""The settings of a log or inbox stream that are the operator's, and never altered unless asked."""

_SECOND = 1_000_000_000
_LEAST_BYTES = 64_000_000


@dataclass(frozen=True)
class Limits:
    """How much is kept; 0 is no limit, None what there is already, or else the default."""

    keep: float | None = None  #: seconds that events, messages and ended processes are kept
    max_bytes: int | None = None  #: of all logs together
    max_events: int | None = None  #: of each process's log

    def settings(self, names: Names) -> dict[str, dict[str, Any]]:
        """By stream, the settings that these limits ask for."""
        age: dict[str, Any] = {}
        if self.keep is not None:
            seconds = int(self.keep)
            age = {
                "max_age": seconds * _SECOND,
                "duplicate_window": min(seconds or DEDUPLICATION_SECONDS, DEDUPLICATION_SECONDS) * _SECOND,
            }
        asked = {"max_bytes": self.max_bytes, "max_msgs_per_subject": self.max_events}
        bounds = {name: value or -1 for name, value in asked.items() if value is not None}
        return {names.event_stream: {**age, **bounds}, names.inbox_stream: age}

    def over(self, others: Limits) -> Limits:
        """These, and where they ask for nothing, the others."""
        return Limits(
            **{
                name: getattr(others if getattr(self, name) is None else self, name)
                for name in self.__dataclass_fields__
            }
        )


NONE = Limits()  #: nothing asked for
DEFAULT = Limits(keep=30 * 86400, max_bytes=10_000_000_000, max_events=2_000_000)


def in_words(config: dict[str, Any]) -> str:
    """What a stream keeps, to be added to a sentence on it."""
    age, size, each = (
        max(config.get(name, 0), 0) for name in ("max_age", "max_bytes", "max_msgs_per_subject")
    )
    parts = [
        f"{age / 86400 / _SECOND:.3g} days" if age else "for ever",
        f"{size / 1e9:.3g} GB at most" if size else "",
        f"{each:,} of each process" if each else "",
    ]
    return f", kept {', '.join(filter(None, parts))}"


def tight(config: dict[str, Any]) -> list[str]:
    """Which limits of a log or inbox stream are so low that something may be gone before it is read."""
    least = {
        "max_msgs": 100_000,
        "max_bytes": _LEAST_BYTES,
        "max_age": 3600 * _SECOND,
        "max_msgs_per_subject": 1000,
    }
    found = {name: config.get(name, 0) for name in least}
    return [
        f"{name} is {f'{value / _SECOND:g} s' if name == 'max_age' else f'{value:,}'}"
        for name, value in found.items()
        if 0 < value < least[name]
    ]


def with_less(config: dict[str, Any]) -> dict[str, Any] | None:
    """The same stream for a server that cannot set as many bytes aside; None if it asks for few already."""
    half = config.get("max_bytes", 0) // 2
    if half <= 0:
        return None
    return config | {"max_bytes": half if half >= _LEAST_BYTES else -1}
