"""Questions to people: what the log of a run says was asked and answered, and which answers are for code that asks again.

Folded by owners as they write and by claimants as they read, as part of what is carried. Protocol: section 5.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from .messages import Json, encode

CARRIED_BYTES: Final = 32 * 1024
"""What is carried of questions and answers, at most; above that the oldest answered ones go, then the oldest.

Every flush reads the record that carries them."""


@dataclass(slots=True)
class Ask:
    """A question, and its answer once there is one."""

    ask: str  #: its id
    question: str
    choices: list[Json] = field(default_factory=list)  #: what it may be answered with; empty: anything
    after: str = ""  #: the message that the code was at
    answered: bool = False
    value: Json = None
    sender: str = ""  #: who answered; empty: nobody, the code asks no longer
    why: str = ""  #: why nobody did
    unheard: bool = False  #: no code waited when the answer came
    at: int = 0  #: offset at which code had the answer

    @property
    def open(self) -> bool:
        return not self.answered

    @property
    def heard(self) -> bool:
        """Whether code has had the answer."""
        return self.answered and not self.unheard

    def is_asked_again(self, question: str, choices: Sequence[Json], after: str) -> bool:
        """Whether recovered code that asks this is at this question again.

        An answer that its code has had is only for code that is at the same message again.
        """
        same = (self.question, self.choices) == (question, list(choices))
        return same and (self.open or self.unheard or self.after == after)

    def choose(self, value: Json) -> Json:
        """The choice that is meant by a value, which may be its text. Raises: ValueError."""
        if not self.choices:
            return value
        for choice in self.choices:
            if encode(choice) == encode(value) or text_of(choice) == value:
                return choice
        raise ValueError(
            f"{text_of(value)!r} is not among the choices: {', '.join(map(text_of, self.choices))}"
        )


class Asks:
    """All that a run has asked since its last checkpoint, and that was not taken back."""

    __slots__ = ("by_id",)

    def __init__(self, raw: Iterable[dict[str, Any]] = ()) -> None:
        self.by_id: dict[str, Ask] = {}
        for one in raw:
            with suppress(TypeError):  # of a newer version
                self.by_id[one["ask"]] = Ask(**one)

    def feed(self, type: str, data: Json, offset: int) -> None:
        """Take an event that counts into account."""
        if type == "exited":
            if not (isinstance(data, dict) and data.get("again")):
                self.by_id.clear()
        elif type == "checkpointed":
            self.settle(data.get("offset", 0) if isinstance(data, dict) else 0)
        elif isinstance(data, dict) and isinstance(id := data.get("ask"), str):
            if type == "asked":
                self._asked(id, data, offset)
            elif type == "answered" and (ask := self.by_id.get(id)) is not None and ask.open:
                self._answered(ask, data, offset)

    def settle(self, offset: int) -> None:
        """What code has heard by that offset is in a state that was saved: code that begins with it asks anew."""
        self.by_id = {id: ask for id, ask in self.by_id.items() if not ask.heard or ask.at > offset}

    def _asked(self, id: str, data: dict[str, Any], offset: int) -> None:
        after = str(data.get("after", ""))
        if (known := self.by_id.get(id)) is not None:
            known.at = offset if known.unheard else known.at
            known.after, known.unheard = after, False
        else:
            self.by_id[id] = Ask(id, str(data.get("question", "")), list(data.get("choices") or ()), after)
        self._forget()

    def _answered(self, ask: Ask, data: dict[str, Any], offset: int) -> None:
        if not data.get("sender"):
            del self.by_id[ask.ask]
            return
        ask.answered, ask.value, ask.at = True, data.get("value"), offset
        ask.sender, ask.unheard = str(data["sender"]), bool(data.get("unheard"))
        self._forget()

    def _forget(self) -> None:
        sizes = {id: len(encode(ask)) for id, ask in self.by_id.items()}
        left = sum(sizes.values())
        for id in sorted(self.by_id, key=lambda id: self.by_id[id].open):
            if left <= CARRIED_BYTES:
                return
            left -= sizes[id]
            del self.by_id[id]

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {name: value for name, value in asdict(ask).items() if value or name == "value"}
            for ask in self.by_id.values()
        ]


def text_of(value: Json) -> str:
    """A value as people write it: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else encode(value).decode()
