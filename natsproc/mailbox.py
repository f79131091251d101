"""The messages that wait in a process: taken in the order in which they came, at a turn's boundary, or by an interrupt.

Whichever way, the messages of one sender are taken in the order in which they were stored: what the log says of the
last one says it of all before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from natsproc import hard
from natsproc.bus.handoff import Handoff
from natsproc.bus.log import EventLog
from natsproc.errors import Error, TooLarge
from natsproc.protocol.landing import When, landing
from natsproc.protocol.messages import KINDS, Message


def passed_over(log: EventLog, message: Message) -> bool:
    """Whether a message is of a kind that only a newer version knows; the log says so, and no code gets it."""
    if message.kind in KINDS:
        return False
    text = f"a message of {message.sender} was passed over: {message.kind!r} is for a newer version"
    with suppress(Error):
        log.append("log", {"level": "warning", "text": text})
    return True


class Mailbox(Handoff[Message]):
    """What the inbox has handed over and nobody has taken yet; `allow` is when messages may land."""

    def __init__(self, allow: Sequence[str] = ()) -> None:
        super().__init__()
        self._allow = allow
        self.last: str | None = None  #: id of the message that was taken last
        self.log: EventLog  #: where it is written that a message was refused; set before any comes
        self.interrupt: Callable[[Message], None] = lambda _: None  #: called for what is to land now

    def put(self, message: Message) -> None:
        """Add a message, wake who waits for one, and interrupt if it is to land now.

        One that is refused only waits behind those that its sender has sent before.
        """
        if message.refused and not any(earlier.sender == message.sender for earlier in self.waiting):
            self.record(self.log, message)
            return
        if self._lands(message) != "now":
            super().put(message)
            return
        with self._lock:  # the code that this stops finds the message here, and nobody takes it meanwhile
            if self._closed:
                return
            self.interrupt(message)
            self._add(message)
            wakers = self._nudged()
        for wake in wakers:
            wake()

    @property
    def waiting(self) -> list[Message]:
        """What nobody has taken yet."""
        with self._lock:
            return list(self._items)

    def take_nowait(self, *, nudges: int | None = None) -> Message | None:
        """As of any handoff, but for messages that are refused, each in its turn: that is all that comes of them."""
        while (message := super().take_nowait(nudges=nudges)) is not None and message.refused:
            self.record(self.log, message)
        return message

    def take_next(self) -> list[Message]:
        """Take what is to land at the next boundary, each behind all that its sender has sent before."""
        with self._lock:
            last = {m.sender: m.position for m in self._items if self._lands(m) != "idle"}
            taken = [m for m in self._items if m.position <= last.get(m.sender, 0)]
            for message in taken:
                self._items.remove(message)
        for message in taken:
            if message.refused:
                self.record(self.log, message)
        return [message for message in taken if not message.refused]

    def take_now(self, sender: str) -> Message | None:
        """Take the first message of that sender that waits here, if it is one that is to land now."""
        with self._lock:
            first = next((m for m in self._items if m.sender == sender), None)
            if first is None or self._lands(first) != "now":
                return None
            self._items.remove(first)
        return first

    def record(self, log: EventLog, message: Message, landed: When = "idle") -> None:
        """Write that a message was taken; and when it landed, if that is of interest."""
        what = {"message": message.id, "sender": message.sender, "position": message.position}
        if message.user:
            what["user"] = message.user
        if message.when or landed != "idle":
            what["when"] = landed
        if message.refused:
            what["refused"] = message.refused
        else:
            self.last = message.id
        with hard.shield:
            try:
                log.append_lifecycle("received", {**what, "data": message.data}, cause=message.id)
            except TooLarge:  # as a message it fits, as a part of an event it does not
                log.append_lifecycle("received", what, cause=message.id)

    def _lands(self, message: Message) -> When:
        return landing("idle" if message.refused else message.when, self._allow)
