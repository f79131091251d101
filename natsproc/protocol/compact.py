"""Shows a late joiner one event instead of five thousand: streamed text that is complete, without its tokens.

A `text` event closes a stream of `token` events and carries the whole text (docs: section 2.5). While history is
read, tokens wait here for the event that closes them, and all that follows waits behind them, so that order
stays. Live tokens pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .messages import Event, Notice

TOKEN: Final = "token"
TEXT: Final = "text"

LIMIT: Final = 10_000
"""Events and notices kept; above that they are let go as they are."""

Item = Event | Notice


@dataclass(slots=True)
class _Held:
    """An item in its place, until it is known whether it is shown."""

    item: Item | None  #: None: left out, a `text` event says it
    waiting: bool = False  #: a token whose closing event may come


class Compact:
    """A filter between a reader and whoever shows what it says."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._held: deque[_Held] = deque()
        self._tokens: dict[str, list[_Held]] = {}  # by stream, in order
        self._live = False

    def feed(self, item: Item) -> Sequence[Item]:
        """Take what the reader said next; returns what is to be shown now, in order."""
        if self._live:
            return (item,)
        if isinstance(item, Notice):
            if item.type in ("caught_up", "ended"):
                self._live = True
                return (*self.flush(), item)
        elif item.type == TOKEN and (stream := _stream(item)) is not None:
            held = _Held(item, waiting=True)
            self._held.append(held)
            self._tokens.setdefault(stream, []).append(held)
            return self.flush() if len(self._held) > self._limit else ()
        elif item.type == TEXT:
            self._close(item)
        elif not self._held:
            return (item,)
        self._held.append(_Held(item))
        return self.flush() if len(self._held) > self._limit else self._ready()

    def flush(self) -> list[Item]:
        """Let go of all that waits, as it is."""
        items = [held.item for held in self._held if held.item is not None]
        self._held.clear()
        self._tokens.clear()
        return items

    def _close(self, text: Event) -> None:
        """Leave out the tokens that `text` covers; older ones of its stream will not be closed any more."""
        stream = _stream(text)
        if stream is None:
            return
        first, last = text.data.get("first"), text.data.get("last")
        for held in self._tokens.pop(stream, ()):
            held.waiting = False
            covered = isinstance(first, int) and isinstance(last, int)
            if covered and isinstance(held.item, Event) and first <= held.item.offset <= last:
                held.item = None

    def _ready(self) -> list[Item]:
        """What no token holds up any longer."""
        items: list[Item] = []
        while self._held and not self._held[0].waiting:
            item = self._held.popleft().item
            if item is not None:
                items.append(item)
        return items


def _stream(event: Event) -> str | None:
    """The name of the stream that a token or text is of, if it is one of ours."""
    name = event.data.get("stream") if isinstance(event.data, dict) else None
    return name if isinstance(name, str) else None
