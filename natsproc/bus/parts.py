"""Entries in the messages that a window consists of: one each, or as the gate wants them; and what is too large for one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from natsproc.errors import TooLarge

if TYPE_CHECKING:
    from .ingest import Pipe


@dataclass
class Part:
    """One message of a window: an entry, or for the gate all of a process's, a line each."""

    subject: str
    lines: list[bytes] = field(default_factory=list)
    places: list[int] = field(default_factory=list)  #: of its entries in the window, from 1
    size: int = 0

    def add(self, line: bytes, place: int) -> None:
        self.lines.append(line)
        self.places.append(place)
        self.size += len(line) + 1


def taken(pipe: Pipe, limit: int, most: int) -> list[Part]:
    """Take up to `limit` entries, until they have `most` bytes, to be sent as one window.

    Of several gates each message goes to another, so one process's entries go in one message, to keep their order.
    """
    parts: list[Part] = []
    bundles: dict[str, Part] = {}
    count = size = 0
    while count < limit and size < most and (entries := pipe.take(1)):
        lane, _, payload = entries[0]
        part = bundles.get(lane.subject)
        if part and part.size + len(payload) > pipe.connection.max_payload:
            pipe.put_back()
            break
        if part is None:
            parts.append(part := Part(lane.subject))
            if pipe.connection.gated:
                bundles[part.subject] = part
        count, size = count + 1, size + len(payload)
        part.add(payload, count)
    return parts


def event_too_large(size: int, limit: int) -> TooLarge:
    """That an event is not even taken: a server's limit is less than what it would get."""
    text = (
        f"an event of {size} bytes is too large: the server takes {limit} at most in one (its max_payload, "
        "less what it adds). Send it in parts, or raise max_payload"
    )
    return TooLarge(text, size=size, limit=limit)


def too_large(subject: str, payload: bytes, limit: int) -> TooLarge:
    """That a server takes no message of this size."""
    size = len(payload)
    text = f"an event of {size} bytes on {subject}: the server takes {limit} in one message"
    return TooLarge(text, size=size, limit=limit)
