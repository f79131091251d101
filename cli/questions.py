"""What processes ask, as a view reads it in their logs."""

from __future__ import annotations

from natsproc.protocol.messages import Event, Notice


class Questions:
    """Finds the questions that are open: of what a log says of the past, once all of it was read."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], Event] = {}  # by process and ask; those that were not told of yet
        self._known: set[tuple[str, str]] = set()
        self._live: set[str] = set()

    def feed(self, item: Event | Notice) -> list[Event]:
        """Take what a tail yields; returns the questions to tell people of now."""
        who = str(item.address)
        if item.type == "caught_up":
            self._live.add(who)
        elif item.type == "exited":
            self._open = {key: event for key, event in self._open.items() if key[0] != who}
        elif item.type in ("asked", "answered") and isinstance(item, Event) and isinstance(item.data, dict):
            key = who, str(item.data.get("ask"))
            if item.type == "answered":
                self._open.pop(key, None)
            elif key not in self._known:
                self._open[key] = item
            self._known.add(key)
        if who not in self._live or not self._open:
            return []
        found = [key for key in self._open if key[0] == who]
        return [self._open.pop(key) for key in found]
