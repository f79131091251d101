"""What becomes of one message, or of one run, as the log tells it: for protocols that think in tasks. Pure.

A message is taken (`received`), answered in a turn or by a `replied`, and that is the end of it. One that landed `next`
has joined a turn that was under way, and ends with that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from natsproc.protocol.messages import EXITED, Event, Notice

State = Literal["submitted", "working", "input-required", "completed", "failed", "canceled", "rejected"]

OVER: Final = frozenset({"completed", "failed", "canceled", "rejected"})

_ENDS: Final[Mapping[str, State]] = {
    "completed": "completed",
    "failed": "failed",
    "interrupted": "canceled",
    "cancelled": "canceled",
    "killed": "canceled",
}


def fields(event: Event) -> dict[str, Any]:
    """The data of an event, if it is an object."""
    return event.data if isinstance(event.data, dict) else {}


class Exchange:
    """A message by its position in the inbox, or with position 0 the whole run."""

    def __init__(self, run: int, position: int = 0) -> None:
        self.run = run
        self.position = position
        self.state: State = "submitted"
        self.why = ""  #: it failed, or was rejected
        self.asks: dict[str, Event] = {}  #: what it waits for, by `ask`
        self.turn = 0  #: the turn it is answered in, if it is known
        self.joined = False  #: it landed in a turn that was under way
        self.message: str | None = None  #: its id, once it was taken
        self.time = ""  #: of the event that changed the state last
        self.lost = False  #: some of the log is gone, so it may have been taken there
        self._sender = ""

    @property
    def over(self) -> bool:
        return self.state in OVER

    def notice(self, notice: Notice) -> None:
        self.lost = self.lost or notice.type == "gap"

    def feed(self, event: Event) -> bool:
        """Take the next event of the log into account; whether it belongs here."""
        if self.over or event.run < self.run or (event.run > self.run and not self.position):
            return False
        before = self.state
        mine = self._whole_run(event) if not self.position else self._message(event)
        if self.state != before:
            self.time = event.time
        return mine

    def _whole_run(self, event: Event) -> bool:
        if event.type == EXITED:
            self._end(fields(event))
        else:
            self._ask(event)
        return True

    def _message(self, event: Event) -> bool:
        data, known = fields(event), self.message is not None
        match event.type:
            case "received" if data.get("position") == self.position:
                self._taken(event, data)
                return True
            case "exited":
                self._end(data)
                if not known:
                    self.state, self.why = "rejected", self.why or "the process ended without taking it"
                return known
            case _ if not known:
                return False
            case "turn_began" if self._is_about(data):
                self.turn = event.offset
                return True
            case "turn_ended" if self.joined or data.get("turn") == self.turn:
                self._end(data)
                return True
            case "recovered":
                self.turn = 0  # it is begun anew, or waits
            case "replied" if self._is_about(data) and not self.turn and not self.joined:
                self.state = "completed"
                return True
        mine = self.joined or event.cause == self.message
        return self._ask(event, asks=mine) or mine

    def _is_about(self, data: dict[str, Any]) -> bool:
        return data.get("message") == self.message and data.get("sender") == self._sender

    def _taken(self, event: Event, data: dict[str, Any]) -> None:
        self.message, self._sender = event.cause, str(data.get("sender", ""))
        self.joined = data.get("when") == "next"
        self.state = "working"
        if refused := data.get("refused"):
            self.state, self.why = "rejected", str(refused)

    def _end(self, data: dict[str, Any]) -> None:
        self.asks.clear()
        self.state = _ENDS.get(str(data.get("status")), "failed")
        self.why = str(data.get("error") or "")

    def _ask(self, event: Event, *, asks: bool = True) -> bool:
        """Keep what is open; whether the event answers something of that."""
        ask, answers = str(fields(event).get("ask", "")), False
        if event.type == "asked" and asks:
            self.asks[ask] = event
        elif event.type == "answered":
            answers = self.asks.pop(ask, None) is not None
        self.state = "input-required" if self.asks else "working"
        return answers
