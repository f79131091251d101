"""Questions to people, asked by a process's code from any thread, and answered by commands on the I/O thread.

What was asked and answered is in the log. An answer reaches the code once it counts; the first one wins.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from natsproc import hard
from natsproc.bus.log import EventLog
from natsproc.errors import BadPayload, Error, TooLarge
from natsproc.protocol.asks import Ask, Asks, text_of
from natsproc.protocol.messages import Command, Json, Outcome, decode, encode
from natsproc.protocol.names import new_token

QUESTION_BYTES = 8 * 1024  #: of a question with its choices
ANSWER_BYTES = 16 * 1024
SHOWN = 300  #: characters of a question in the registry

TIMED_OUT, WITHDRAWN = "it timed out", "it was taken back"


class Asked:
    """A question that code of this owner waits for, or has waited for."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.answer: concurrent.futures.Future[Json] = concurrent.futures.Future()
        self.waiting = 1  # calls of the code
        self.past = False  # its answer is in a state that was saved
        if ask.answered:
            self.answer.set_result(ask.value)


class Asking:
    """What one process asks. `changed` is called, in any thread, when what it waits for has changed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = threading.RLock()
        self._before = Asks()  # of former owners, and not asked again yet
        self._asked: dict[str, Asked] = {}
        self._log: EventLog

    def open(self, log: EventLog, before: Asks) -> None:
        """Write to this log; `before` is what it says already."""
        self._log, self._before = log, Asks(before.to_json())

    @property
    def waiting(self) -> list[Ask]:
        """What code waits for."""
        with self._lock:
            return [asked.ask for asked in self._asked.values() if asked.waiting and asked.ask.open]

    def shown(self) -> tuple[dict[str, Any], ...]:
        """The same for lists, shortened."""
        return tuple(
            {"ask": ask.ask, "question": ask.question[:SHOWN]}
            | ({"choices": ask.choices} if ask.choices and len(encode(ask.choices)) <= SHOWN else {})
            for ask in self.waiting
        )

    # For the code.

    def begin(
        self, question: str, choices: Sequence[Json] | None, id: str | None, after: str | None
    ) -> Asked:
        """Ask, or go on with what a former owner, or other code under the same `id`, has asked.

        Raises: BadPayload, TooLarge, and as `EventLog.append`.
        """
        chosen = _checked(question, choices)
        with hard.shield, self._lock:
            asked = self._asked.get(id or "")
            if asked is not None and not asked.ask.why and not asked.past:
                if (asked.ask.question, asked.ask.choices) != (question, chosen):
                    raise BadPayload(f"{id!r} names another question already: {asked.ask.question}")
                asked.waiting += 1
                return asked
            ask = self._former(question, chosen, id, after or "") or Ask(id or new_token(6), question, chosen)
            data: dict[str, Json] = {"ask": ask.ask, "question": question}
            data |= {"choices": chosen} if chosen else {}
            data |= {"after": after} if after else {}
            self._log.append_lifecycle("asked", data, cause=after)
            self._before.by_id.pop(ask.ask, None)
            asked = self._asked[ask.ask] = Asked(ask)
        self._changed()
        return asked

    def _former(self, question: str, choices: list[Json], id: str | None, after: str) -> Ask | None:
        for ask in self._before.by_id.values():
            if ask.ask == id or (id is None and ask.is_asked_again(question, choices, after)):
                return ask if (ask.question, ask.choices) == (question, choices) else None
        return None

    def saved(self) -> None:
        """The code saves what it knows: what it was at before, and was answered, it is past now."""
        with self._lock:
            for id in [ask.ask for ask in self._before.by_id.values() if ask.heard]:
                del self._before.by_id[id]
            for asked in self._asked.values():
                asked.past = asked.ask.answered and not asked.waiting

    def leave(self, asked: Asked, why: str) -> None:
        """A call of the code waits no longer; if it was the last and there is no answer, nobody is to give one."""
        with hard.shield, self._lock:
            asked.waiting -= 1
            if not asked.waiting and asked.ask.open and not asked.answer.done():
                asked.ask.why = why
                asked.answer.cancel()
                with suppress(Error):  # the run has ended, and its questions with it
                    self._log.append_lifecycle("answered", {"ask": asked.ask.ask, "why": why})
        self._changed()

    # For people, on the I/O thread.

    def answer(self, command: Command) -> tuple[Outcome, int, Asked | None]:
        """Write an answer to the log, if it is the first one and may be given: what became of it, its offset, and
        the code that is to be given it, once it counts.
        """
        value, data = command.data.get("value"), command.data
        with self._lock:
            try:
                ask = self._meant(data.get("ask"))
                if not ask.open or ask.why:
                    return Outcome("too_late", _over(ask)), 0, None
                if "value" not in data:
                    return Outcome("refused", "an answer has a value"), 0, None
                value = ask.choose(value)
                if (size := len(encode(value))) > ANSWER_BYTES:
                    raise ValueError(f"an answer of {size} bytes is too large: {ANSWER_BYTES} are allowed")
            except ValueError as error:
                return Outcome("refused", str(error)), 0, None
            asked = self._asked.get(ask.ask)
            said = {"ask": ask.ask, "value": value, "sender": command.sender, "command": command.id}
            said |= {"user": command.user} if command.user else {}
            said |= {} if asked else {"unheard": True}
            offset = self._log.append_lifecycle("answered", said, cause=command.id)
            ask.answered, ask.value, ask.sender, ask.unheard = True, value, command.sender, asked is None
        self._changed()
        return Outcome(data={"ask": ask.ask, "question": ask.question, "value": value}), offset, asked

    def _meant(self, id: Any) -> Ask:
        """The question that an answer is for. Raises: ValueError."""
        known = self._before.by_id | {id: asked.ask for id, asked in self._asked.items()}
        still = [ask for ask in known.values() if ask.open and not ask.why]
        if id is not None:
            if str(id) not in known:
                raise ValueError(f"it has not asked {str(id)!r}" + _list(still))
            return known[str(id)]
        if not known:
            raise ValueError("it asks nothing")
        if len(still) > 1:
            raise ValueError("it asks more than one thing: name the one that is meant" + _list(still))
        return still[0] if still else list(known.values())[-1]

    def close(self, error: Error) -> None:
        """No answer counts any more: code that waits is told so."""
        with self._lock:
            waiting = [asked.answer for asked in self._asked.values() if asked.waiting]
        for answer in waiting:
            with suppress(concurrent.futures.InvalidStateError):
                answer.set_exception(error)


def _checked(question: str, choices: Sequence[Json] | None) -> list[Json]:
    """The choices as they will be read. Raises: BadPayload, TooLarge."""
    if not isinstance(question, str) or not question.strip():
        raise BadPayload("a question is a text")
    if isinstance(choices, str):
        raise BadPayload("choices are a list, as in choices=['yes', 'no']")
    raw = encode(list(choices or ()), "choices")
    chosen: list[Json] = decode(raw)
    if len(set(map(text_of, chosen))) < len(chosen):
        raise BadPayload("two choices read the same")
    if (size := len(raw) + len(encode(question))) > QUESTION_BYTES:
        raise TooLarge(
            f"a question of {size} bytes with its choices is too large: write what it is about before, and ask briefly",
            size=size,
            limit=QUESTION_BYTES,
        )
    return chosen


def _over(ask: Ask) -> str:
    if ask.why:
        return f"{ask.question!r} waits for no answer any more: {ask.why}"
    return f"{ask.sender} has answered {ask.question!r} already: {text_of(ask.value)[:SHOWN]}"


def _list(asks: Sequence[Ask]) -> str:
    return "".join(f"; {ask.ask}: {ask.question[:80]}" for ask in asks)
