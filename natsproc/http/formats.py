"""How events and notices are written: as Server-Sent Events, as a JSON object a line, or as one JSON array. Pure."""

from __future__ import annotations

from typing import Any, Final

from natsproc.protocol.messages import Event, Notice, encode

from .problems import Problem

Item = Event | Notice


class Lines:
    """A JSON object a line, as `natsproc tail -o json` prints them. Nothing else comes between."""

    media_type = "application/x-ndjson"
    beat = b""  #: what is sent when there is nothing to say, if anything
    follows = True  #: whether it can be written without an end

    def begin(self, retry: int) -> bytes:
        """What comes first; a client that is cut off is to come back after `retry` milliseconds."""
        return b""

    def item(self, item: Item, json: bytes) -> bytes:
        return json + b"\n"

    def problem(self, problem: dict[str, Any]) -> bytes | None:
        """What is last when the stream cannot go on; None where nothing can be said."""
        return encode(problem) + b"\n"

    def end(self) -> bytes:
        return b""


class ServerSentEvents(Lines):
    """For a browser's EventSource. The id of an event is its cursor; a notice has none, and moves nothing.

    Events have no `event:` field, so that one handler, `onmessage`, sees all of them, notices included, and no type
    that somebody has chosen, such as `error`, meets EventSource's own.
    """

    media_type = "text/event-stream"
    beat = b":\n\n"

    def begin(self, retry: int) -> bytes:
        return b"retry: %d\n\n" % retry

    def item(self, item: Item, json: bytes) -> bytes:
        head = b"id: %s\n" % item.cursor.encode() if isinstance(item, Event) else b""
        return b"%sdata: %s\n\n" % (head, json)

    def problem(self, problem: dict[str, Any]) -> bytes | None:
        return b"event: problem\ndata: %s\n\n" % encode(problem)


class Array(Lines):
    """One JSON array of what is stored. One that cannot be completed breaks off, and so is no JSON."""

    media_type = "application/json"
    follows = False

    def __init__(self) -> None:
        self._before = b"["

    def item(self, item: Item, json: bytes) -> bytes:
        before, self._before = self._before, b",\n"
        return before + json

    def problem(self, problem: dict[str, Any]) -> bytes | None:
        return None

    def end(self) -> bytes:
        return b"[]\n" if self._before == b"[" else b"]\n"


MEDIA_TYPES: Final = ("text/event-stream", "application/x-ndjson", "application/json")
_FORMATS: Final[dict[str, type[Lines]]] = {
    "*/*": ServerSentEvents,
    "text/*": ServerSentEvents,
    "text/event-stream": ServerSentEvents,
    "application/x-ndjson": Lines,
    "application/ndjson": Lines,
    "application/jsonl": Lines,
    "application/*": Array,
    "application/json": Array,
}


def chosen(accept: str) -> Lines:
    """The format that an `Accept` header likes best; Server-Sent Events where it does not care. Raises: Problem (406)."""
    liked: list[tuple[float, type[Lines]]] = []
    for text in accept.split(",") if accept.strip() else ["*/*"]:
        name, *parameters = (part.strip().lower() for part in text.split(";"))
        quality = next((_number(part[2:]) for part in parameters if part.startswith("q=")), 1.0)
        if name in _FORMATS and quality > 0:
            liked.append((quality, _FORMATS[name]))
    if not liked:
        raise Problem(406, f"events come as {', '.join(MEDIA_TYPES)}")
    return max(liked, key=lambda pair: pair[0])[1]()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
