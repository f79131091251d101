"""Turns: the exchanges of a conversation, which an interrupt ends, and what was said in each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from natsproc import hard
from natsproc.errors import Error, Interrupted
from natsproc.protocol.messages import Entry, Event, Message

from .endings import how
from .scopes import innermost
from .speaking import as_model

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .interruptions import Interruptions
    from .owner import BlockingProcess, Core, Process

M = TypeVar("M", bound="BaseModel")

MAX_ERROR = 1000  #: characters


@dataclass(frozen=True, slots=True)
class Partial:
    """What was said in a turn: all of it is stored and counts, so it is what viewers have seen, or will."""

    events: tuple[Event, ...]  #: in order, as they are in the log; without positions, which only readers know

    @property
    def streams(self) -> dict[str, str]:
        """The text of each stream, by name."""
        found: dict[str, str] = {}
        for event in self.events:
            if event.type == "token":
                found[event.data["stream"]] = found.get(event.data["stream"], "") + event.data["text"]
        return found

    @property
    def text(self) -> str:
        """The text of its streams and messages, in the order in which they began, each on lines of its own."""
        streams = self.streams
        said = []
        for event in self.events:
            if event.type == "token":
                said.append(streams.pop(event.data["stream"], ""))
            elif event.type == "message":
                data = event.data.get("text") if isinstance(event.data, dict) else event.data
                said.append(data if isinstance(data, str) else "")
        return "\n".join(filter(None, said))


class Gathered:
    """A turn as it is in the log, and what has been written in it."""

    number = 0  #: the offset of its first event, once it has begun

    def __init__(self, process: Core, message: Message | None) -> None:
        self.message = message  #: what it answers
        self.cause = message.id if message else None
        self.written: list[bytes] = []
        self._core = process
        self._ended = False

    def begin(self) -> None:
        message = self.message
        data = {"message": message.id, "sender": message.sender} if message else {}
        self.number = self._core._log.append_lifecycle("turn_began", data, cause=self.cause)

    def end(self, error: BaseException | None) -> None:
        """Write that it has ended, with that exception or without one."""
        if self._ended or not self.number:
            return
        self._ended = True
        status, _, text = how(error)
        data = {"turn": self.number, "status": status}
        if status == "failed" and text:
            data["error"] = text[:MAX_ERROR].encode(errors="backslashreplace").decode()
        try:
            with hard.shield:
                self._core._log.append_lifecycle("turn_ended", data, cause=self.cause)
        except Error:
            if error is None:
                raise

    def as_partial(self, written: Sequence[bytes]) -> Partial:
        return Partial(tuple(Entry.parse(raw).event(0, self._core.address) for raw in written))

    def take_next(self, model: type[M] | None) -> list[Message]:
        taken = self._core._mailbox.take_next()
        for message in taken:
            self._core._mailbox.record(self._core._log, message, "next")
        return [as_model(message, model) for message in taken]


class Turn(Gathered):
    """One exchange of a conversation; made by `Process.turn`. `number` is the offset of its first event."""

    def __init__(self, process: Process, message: Message | None) -> None:
        super().__init__(process, message)
        self._process = process
        self._scope = process._interruptions.scope()
        self._scope.turn = self

    async def __aenter__(self) -> Turn:
        self._process._refuse_child()
        await self._process._interruptions.gate()
        await self._scope.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._scope.__aexit__(kind, error, trace)
        except BaseException as raised:
            await self._close(raised)
            raise
        await self._close(error)

    async def _close(self, error: BaseException | None) -> None:
        self.end(error)
        while isinstance(error, Interrupted) and error.partial is None:
            try:
                error.partial = await self.partial()
            except asyncio.CancelledError:
                if not self._scope.interrupted_outside():  # that one is raised at its own scope's exit
                    raise

    async def partial(self) -> Partial:
        """What has been said in it so far, once all of it is stored and counts. Raises: OwnershipLost."""
        written = self.written[:]
        await self._process.flush()
        return self.as_partial(written)

    async def boundary(self, model: type[M] | None = None) -> Sequence[Message]:
        """Stand between two steps: where interrupts land, a pause holds, and messages for `next` come in.

        Returns those messages, none as a rule, each behind all that its sender has sent before; their data as `model`
        if one is given. Taking them is recorded in the log. Raises: Interrupted; BadPayload.
        """
        await self._process.check()
        return self.take_next(model)


class BlockingTurn(Gathered):
    """See `Turn`; made by `BlockingProcess.turn`."""

    def __init__(self, process: BlockingProcess, message: Message | None) -> None:
        super().__init__(process, message)
        self._process = process
        self._scope = process._interruptions.thread_scope()
        self._scope.turn = self

    def __enter__(self) -> BlockingTurn:
        self._process._refuse_child()
        self._process.check()
        self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._scope.__exit__(kind, error, trace)
        except BaseException as raised:
            self._close(raised)
            raise
        self._close(error)

    def _close(self, error: BaseException | None) -> None:
        self.end(error)
        if isinstance(error, Interrupted) and error.partial is None:
            error.partial = self.partial()

    def partial(self) -> Partial:
        """See `Turn.partial`."""
        written = self.written[:]
        self._process.flush()
        return self.as_partial(written)

    def boundary(self, model: type[M] | None = None) -> Sequence[Message]:
        """See `Turn.boundary`."""
        self._process.check()
        return self.take_next(model)


def open_turns(interruptions: Interruptions) -> list[Gathered]:
    """The turns around the code that runs now, the innermost first."""
    turns = []
    scope = innermost.get()
    while scope is not None:
        if scope.turn is not None and scope.open and scope.owner is interruptions:
            turns.append(scope.turn)
        scope = scope.outer
    return turns
