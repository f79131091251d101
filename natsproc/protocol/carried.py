"""What a process's log says that its next owner has to know: folded by the owner as it writes, and by claimants.

The owner writes it into the claim record with a place in the log, so that a claimant reads on from there.
Protocol: section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from .asks import Asks
from .messages import Json
from .records import Checkpoint

COMMANDED: Final = frozenset(
    {"interrupted", "paused", "resumed", "cancelled", "killed", "answered", "refused"}
)
"""The types of event that record a command."""

CARRIED: Final = COMMANDED | {"received", "asked", "checkpointed", "turn_began", "exited"}
"""The types of event that change it."""


COMMANDS: Final = 100
"""So many commands that were recorded last are carried: none of them is applied again from the inbox."""


class Carried:
    """What is carried from owner to owner, as of some event."""

    __slots__ = ("asks", "commands", "received", "turns")

    def __init__(self, record: Mapping[str, Any] | None = None) -> None:
        """Begin with what the claim record has, if anything."""
        self.received: dict[str, int] = {}  #: sender → inbox position consumed last
        for sender, position in ((record or {}).get("received") or {}).items():
            self.received[str(sender)] = int(position)
        self.commands: dict[tuple[str, str], None] = {}  #: sender and id, the latest last
        for sender, command in (record or {}).get("commands") or ():
            self.commands[str(sender), str(command)] = None
        self.asks = Asks((record or {}).get("asks") or ())  #: what was asked, and its answers
        self.turns = bool((record or {}).get("turns"))  #: whether the run has taken a turn

    def feed(self, type: str, data: Json, offset: int) -> None:
        """Take an event that counts into account."""
        if type == "received":
            with suppress(KeyError, TypeError, ValueError):
                sender, position = str(data["sender"]), int(data["position"])
                self.received[sender] = max(position, self.received.get(sender, 0))
        elif type in COMMANDED:
            with suppress(KeyError, TypeError):
                self.commands[str(data["sender"]), str(data["command"])] = None
            if len(self.commands) > COMMANDS:
                del self.commands[next(iter(self.commands))]
        elif type in ("turn_began", "exited"):
            self.turns = type == "turn_began"
        self.asks.feed(type, data, offset)

    def settle(self, checkpoint: Checkpoint | None) -> None:
        """Begin where that checkpoint was made: what was read since then goes with the state that was lost."""
        if checkpoint:
            self.received = dict(checkpoint.received)
            self.asks.settle(checkpoint.offset)

    def to_json(self) -> dict[str, Any]:
        """The fields of the claim record."""
        commands = {"commands": [list(command) for command in self.commands]} if self.commands else {}
        return {"received": dict(self.received), "asks": self.asks.to_json(), "turns": self.turns, **commands}

    def copy(self) -> Carried:
        return Carried(self.to_json())
