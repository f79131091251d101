"""What the helpers for agent frameworks share: the loop of a conversation, and how the log shows what is said in it."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any, Final, NoReturn

from pydantic_core import to_jsonable_python

from natsproc.errors import AlreadyEnded, Closed, Interrupted, OwnershipLost
from natsproc.owner import Process
from natsproc.protocol.messages import Json, Message, encode
from natsproc.streamed import TextStream
from natsproc.turns import Partial, Turn

SHOWN: Final = 64 * 1024
"""Bytes of a tool's arguments or result in the log; of a longer one the log has the beginning, as text."""

QUESTION: Final = 2000  #: characters of a question that is made of something else

logger = logging.getLogger(__name__)


def text_of(data: Json) -> str:
    """What a message says: text, or the `text` of an object."""
    said = data.get("text", data) if isinstance(data, dict) else data
    return said if isinstance(said, str) else encode(said).decode()


def plain(value: Any) -> Json:
    """A value as JSON, with text for what is none."""
    return to_jsonable_python(value, fallback=str, inf_nan_mode="strings")


def shown(value: Any) -> Json:
    """A value as the log has it: its JSON, cut if it is long."""
    written = encode(plain(value))
    return plain(value) if len(written) <= SHOWN else written[:SHOWN].decode(errors="ignore") + " …"


async def show_call(proc: Process, id: str, name: str, arguments: Any) -> None:
    """Write that a tool is called: `tool_call` with `id`, `name` and `arguments`."""
    await proc.emit("tool_call", {"id": id, "name": name, "arguments": shown(arguments)})


async def show_result(proc: Process, id: str, name: str, result: Any, status: str) -> None:
    """Write what came of it: `tool_result` with `id`, `name`, `result` and `status`; `success` is the good one."""
    await proc.emit("tool_result", {"id": id, "name": name, "result": shown(result), "status": status})


class Voices:
    """Texts that are streamed, several at a time if need be, each under a key of the framework's."""

    def __init__(self, proc: Process) -> None:
        self._proc = proc
        self._open: dict[Hashable, TextStream] = {}

    def open(self, key: Hashable, stream: str) -> str:
        """Begin a text; returns the name of its stream in the log."""
        self._open[key] = self._proc.stream(stream)
        return self._open[key].name

    async def say(self, key: Hashable, text: str) -> None:
        """Stream the next piece of a text that was begun."""
        if text:
            await self._open[key].token(text)

    async def end(self, key: Hashable) -> None:
        """End a text, if it was begun."""
        if (stream := self._open.pop(key, None)) is not None:
            await stream.__aexit__()

    async def __aenter__(self) -> Voices:
        return self

    async def __aexit__(self, *_: object) -> None:
        for key in list(self._open):
            await self.end(key)


class Conversation(ABC):
    """An agent under an address. It answers one message after the other, each in a turn, and is saved after each."""

    def __init__(self, proc: Process) -> None:
        self.proc = proc

    @abstractmethod
    def hear(self, asked: Message, *, again: bool) -> None:
        """A message is to be answered, `again` if a former owner was at it when it died.

        From here on it is part of the history, however soon the answer is stopped: viewers have seen it.
        """

    @abstractmethod
    async def answer(self, turn: Turn, asked: Message) -> Any:
        """Answer the message that was heard, and return the reply."""

    @abstractmethod
    async def stopped(self, seen: Partial) -> None:
        """The answer was stopped, or failed: let the history hold what was seen of it, and nothing else."""

    @abstractmethod
    def dump(self) -> dict[str, Json]:
        """What is to be saved."""

    @abstractmethod
    def load(self, saved: dict[str, Json]) -> None:
        """Be as it was when that was saved."""

    async def run(self) -> NoReturn:
        """Converse for ever. Raises: OwnershipLost, AlreadyEnded, Closed; whatever else is raised fails the turn alone."""
        asked = await self._begin()
        again = asked is not None
        while True:
            if asked is None:
                asked = await self.proc.receive()
            asked, again = await self._exchange(asked, again), False
            await self.save(asked)

    async def save(self, asked: Message | None) -> None:
        """Save it together with what was received; `asked` is what is to be answered, or is being answered."""
        message = asked and {"id": asked.id, "sender": asked.sender, "data": asked.data, "user": asked.user}
        await self.proc.checkpoint({**self.dump(), "asked": message})

    async def _begin(self) -> Message | None:
        saved = self.proc.state
        if saved is None:
            await self.save(None)  # the first message, too, comes again if we are killed while we answer it
            return None
        self.load(saved)
        return Message(**saved["asked"]) if saved["asked"] else None

    async def _exchange(self, asked: Message, again: bool) -> Message | None:
        """Answer one message. Returns the next one, if somebody stopped the answer by saying something else."""
        turn = self.proc.turn(asked)
        self.hear(asked, again=again)
        try:
            async with turn:
                reply = await self.answer(turn, asked)
                await self.proc.reply(asked, plain(reply))
        except Interrupted as stop:
            await self.stopped(await turn.partial())
            if stop.received is not None or stop.message is None:
                return stop.received  # type: ignore[no-any-return]
            return Message(stop.command, stop.sender, stop.message, user=stop.user)
        except (OwnershipLost, AlreadyEnded, Closed):
            raise
        except Exception:
            logger.exception("turn %s of %s failed", turn.number, self.proc.address)
            await self.stopped(await turn.partial())
        return None
