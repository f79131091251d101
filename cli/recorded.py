"""Runs that were exported: what `natsproc export --format jsonl` wrote, read back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import nullcontext, suppress

from natsproc.errors import BadPayload
from natsproc.protocol.messages import NOTICES, UNREADABLE, Cursor, Entry, Event, Notice, decode_object
from natsproc_cli import exits

YIELD_EVERY = 256  # items, so that keys and the terminal get their turn


def is_file(text: str) -> bool:
    """Whether that is a file rather than a process: no id has a dot in it, or begins with a slash."""
    return text == "-" or text.startswith("/") or "." in text


async def items(name: str) -> AsyncGenerator[Event | Notice, None]:
    """What that file has, `-` being stdin. Raises: Failure."""
    for count, item in enumerate(_read(name)):
        if count % YIELD_EVERY == 0:
            await asyncio.sleep(0)
        yield item


def _read(name: str) -> Iterator[Event | Notice]:
    try:
        with nullcontext(sys.stdin.buffer) if name == "-" else open(name, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    if line.strip():
                        yield parse(line)
                except BadPayload as error:
                    raise exits.Failure(f"{name}, line {number}: {error}") from None
    except OSError as error:
        raise exits.Failure(f"{name} cannot be read: {error.strerror}") from None


def parse(line: bytes) -> Event | Notice:
    """Read one line. Raises: BadPayload."""
    raw = decode_object(line, "this")
    entry = Entry.parse(line)
    if entry is not UNREADABLE and not entry.is_mark:
        position = 0
        with suppress(BadPayload):
            position = Cursor.parse(str(raw.get("cursor"))).position
        return entry.event(position)
    kind, data = raw.get("type"), raw.get("data")
    if kind in NOTICES and isinstance(data, dict):
        return Notice(kind, data, cursor=str(raw.get("cursor", "")))
    if "version" in raw:
        raise BadPayload("this is an asciicast, which `asciinema play` shows; play takes --format jsonl")
    raise BadPayload("this is no event, as `natsproc export --format jsonl` writes them")
