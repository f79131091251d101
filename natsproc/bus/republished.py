"""Live entries as nats-server republishes them: what its headers say of where they lie in the log."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .bulk import parse_header_block
from .parsing import Raw

Live = tuple[int, bytes, int]
"""Position and payload of an entry, and the position of the one before it on its subject."""

_HEADERS = re.compile(
    rb"NATS/1\.0\r\nNats-Stream: [^\r\n]*\r\nNats-Subject: [^\r\n]*\r\nNats-Sequence: (\d+)\r\n"
    rb"Nats-Time-Stamp: [^\r\n]*\r\nNats-Last-Sequence: (\d+)\r\n\r\n"
)


def placed(messages: Iterable[Raw]) -> list[Live]:
    """Each with its position and that of the one before it; without what is not from the stream, so not stored."""
    return [entry for _, _, payload, block in messages if (entry := _placed(payload, block))]


def _placed(payload: bytes, block: bytes) -> Live | None:
    try:
        if found := _HEADERS.fullmatch(block):  # as nats-server writes them
            position, previous = found.groups()
            return int(position), payload, int(previous)
        headers = parse_header_block(block)
        return int(headers["Nats-Sequence"]), payload, int(headers["Nats-Last-Sequence"])
    except (KeyError, ValueError):
        return None
