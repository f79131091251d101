"""The owner's side: what code uses to speak, listen, and be interrupted under its own address.

One core, two faces: `Process` for coroutines, `BlockingProcess` (its `sync`) with the same names for plain
functions and threads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from natsproc import hard
from natsproc.bus.thread import IOThread
from natsproc.errors import Closed, TimedOut
from natsproc.interruptions import Interruptions
from natsproc.protocol.messages import Json, Message
from natsproc.protocol.names import Address

from .asking import TIMED_OUT, WITHDRAWN, Asked
from .hosted import Hosted
from .speaking import BlockingSpeaking, Speaking, as_model, typed
from .streamed import STREAM_PART, BlockingTextStream, TextStream
from .turns import BlockingTurn, Turn, open_turns

if TYPE_CHECKING:
    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")

YIELD_EVERY = 64  # events after which other tasks have a turn,
TURN = 0.001  # but not more often than after so many seconds


class Core:
    """What both faces share: everything that neither waits nor blocks."""

    def __init__(self, io: IOThread, hosted: Hosted, interruptions: Interruptions) -> None:
        self._io = io
        self._hosted = hosted
        self._log = hosted.log
        self._mailbox = hosted.mailbox
        self._interruptions = interruptions
        self._appended = 0
        self._turn_due = 0.0
        self._streams: dict[str, int] = {}

    @property
    def address(self) -> Address:
        """Where others find this process."""
        return self._hosted.spec.address

    @property
    def id(self) -> str:
        return self.address.id

    @property
    def namespace(self) -> str:
        return self.address.namespace

    @property
    def kind(self) -> str:
        return self._hosted.spec.kind

    @property
    def labels(self) -> dict[str, str]:
        return dict(self._hosted.spec.labels)

    @property
    def epoch(self) -> int:
        """The fencing token: higher than that of every owner before."""
        return self._hosted.epoch

    @property
    def run_number(self) -> int:
        """Which life of the id this is: 1, 2, …"""
        return self._hosted.run

    @property
    def paused(self) -> bool:
        """Whether somebody has paused it; it waits at its next call that may wait."""
        return self._interruptions.paused

    @property
    def viewers(self) -> Mapping[str, int]:
        """Who watches it now: by sender, in how many places. Nobody may mean that streaming is for nobody.

        Whoever begins to watch, or stops, is in it at once; who vanishes without a word, within 25 seconds. It is
        about people and programs that follow its tail, as far as they may and like to be seen.
        """
        return self._hosted.audience.senders

    @property
    def state(self) -> Any:
        """What the last `checkpoint` of the run has saved, by whichever owner; None if none has."""
        return self._hosted.state

    def _checkpoint(self, state: Any) -> Coroutine[Any, Any, int]:
        """What saves the state as of now."""
        self._refuse_child()
        payload = self._hosted.spec.shape.write(state)
        with hard.shield:
            offset, carried = self._log.snapshot()
        self._hosted.asking.saved()
        return self._hosted.checkpoint(payload, offset, carried)

    @hard.shielded  # a hard interrupt in here would leave the log's lock locked
    def _append(self, type: str | BaseModel, data: Json, cause: str | None) -> int:
        if self._io.forked:
            return 0  # a forked child neither hangs nor writes
        self._appended += 1
        if not isinstance(type, str):
            type, data = typed(type, data)
        if self._interruptions.begun and (turns := open_turns(self._interruptions)):
            cause = turns[0].cause if cause is None else cause
            return self._log.append(type, data, cause, [turn.written for turn in turns])
        return self._log.append(type, data, cause)

    def _refuse_child(self) -> None:
        if self._io.forked:
            raise Closed(f"this is a forked child: the inbox of {self.address} belongs to its parent")

    def _reply(self, message: Message, data: Json) -> int:
        self._refuse_child()
        said = {"message": message.id, "sender": message.sender, "data": data}
        with hard.shield:
            return self._log.append_lifecycle("replied", said, cause=message.id)

    def _begin(self, question: str, choices: Sequence[Json] | None, id: str | None) -> Asked:
        self._refuse_child()
        turns = open_turns(self._interruptions)
        after = (turns[0].cause if turns else None) or self._mailbox.last
        return self._hosted.asking.begin(question, choices, id, after)

    def _leave(self, asked: Asked, timed_out: bool) -> None:
        stopped = self._interruptions.being_stopped()
        self._hosted.asking.leave(
            asked, TIMED_OUT if timed_out else "it was interrupted" if stopped else WITHDRAWN
        )

    def _open_stream(self, name: str) -> tuple[str, int, Callable[[Json], int]]:
        count = self._streams[name] = self._streams.get(name, 0) + 1
        most = min(STREAM_PART, self._hosted.node.writer.limit // 2)
        return name if count == 1 else f"{name}-{count}", most, partial(self._append, "text", cause=None)


class Process(Core, Speaking):
    """A process as its own code sees it, in coroutines.

    Every method that writes returns the event's offset once the event has its place in the log's queue;
    `flush` returns when all of it is stored. Writing waits only while the queue is full or the process paused.
    """

    def __init__(self, io: IOThread, hosted: Hosted, interruptions: Interruptions) -> None:
        super().__init__(io, hosted, interruptions)
        #: what the run returns, recorded in its terminal event: any JSON, or a pydantic model
        self.result_data: Any = None
        self._sync: BlockingProcess | None = None

    @property
    def sync(self) -> BlockingProcess:
        """The blocking twin, with the same names, for plain functions and other threads."""
        if self._sync is None:
            self._sync = BlockingProcess(self._io, self._hosted, self._interruptions, self._streams)
        return self._sync

    async def emit(self, type: str | BaseModel, data: Json = None, *, cause: str | None = None) -> int:
        """Write an event of any type that is not one of natsproc's own; returns its offset.

        `type` may be a pydantic model instead: its class name in snake case is the type, its fields the data.
        `data` is JSON, or what pydantic makes JSON of: a datetime becomes ISO 8601 text, bytes UTF-8 text, a set or
        tuple an array, a dataclass an object; it comes back as that JSON, not as what it was.
        Raises: BadPayload, TooLarge (no offset is used), OwnershipLost, AlreadyEnded, Interrupted (outside a
        scope, when resuming from a pause).
        """
        if not self._interruptions.clear:
            await self._interruptions.gate()
        offset = self._append(type, data, cause)
        if self._log.full:
            await self._interruptions.heed(self._io.call(self._log.room()))
        elif self._appended % YIELD_EVERY == 0 and time.monotonic() >= self._turn_due:
            self._turn_due = time.monotonic() + TURN
            await self._interruptions.heed(
                asyncio.sleep(0)
            )  # a loop that only writes can be interrupted, too
        return offset

    def stream(self, name: str = "text") -> TextStream:
        """Stream text piece by piece, as `async with proc.stream("answer") as s: await s.token("…")`.

        Every piece is an event that names the stream; one closing event has the whole text and the offsets it
        covers, so that a late joiner reads one event in place of thousands (`tail(compact=True)`).
        """
        return TextStream(self, *self._open_stream(name))

    async def receive(self, model: type[M] | None = None, *, timeout: float | None = None) -> Message:
        """Take the next message from the inbox, waiting for it; its data as `model` if one is given.

        Taking it is recorded in the log. Messages of one sender come in the order in which they were stored.
        Raises: TimedOut after `timeout` seconds; BadPayload; Closed once the process has ended.
        """
        self._refuse_child()
        await self._interruptions.gate()
        try:
            async with asyncio.timeout(timeout):
                message = await self._interruptions.heed(self._mailbox.take())
        except TimeoutError:
            raise TimedOut(f"{self.address} received nothing within {timeout:g} s") from None
        self._mailbox.record(self._log, message)
        return as_model(message, model)

    async def inbox(self, model: type[M] | None = None) -> AsyncIterator[Message]:
        """Take one message after the other, for ever."""
        while True:
            yield await self.receive(model)

    async def reply(self, message: Message, data: Json = None) -> int:
        """Answer a message, with any JSON or a pydantic model: its sender's `request` returns it.

        The reply is an event of the log; the first one counts. Returns its offset. Raises: as `emit`.
        """
        await self._interruptions.gate()
        return self._reply(message, data)

    async def ask(
        self,
        question: str,
        choices: Sequence[Json] | None = None,
        *,
        id: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Ask people something, wait for the first answer, and return it: one of `choices`, if there are any.

        Any number of tasks may ask. A recovered process that asks the same again goes on waiting for that question,
        or gets the answer that was given meanwhile, or before if it is at the same message again. With `id` it is the
        same question wherever it is asked in the run, until a checkpoint. Being interrupted takes the question back.
        Raises: TimedOut after `timeout` seconds; Interrupted; BadPayload, TooLarge; OwnershipLost.
        """
        await self._interruptions.gate()
        asked, timed_out = self._begin(question, choices, id), False
        try:
            async with asyncio.timeout(timeout):
                return await self._interruptions.heed(asyncio.shield(asyncio.wrap_future(asked.answer)))
        except TimeoutError:
            timed_out = True
            raise TimedOut(f"nobody answered {question!r} within {timeout:g} s") from None
        finally:
            self._leave(asked, timed_out)

    def turn(self, message: Message | None = None) -> Turn:
        """One exchange of a conversation, as `async with proc.turn(message) as turn: …`, and what Stop stops.

        It is in the log, with the message that it answers, if any; whatever is written inside names that message as
        its cause. An interrupt ends the turn, not the process, and raises Interrupted at its exit, with what was said
        in it as `partial`; from the first turn of the run on, whoever owns it, none interrupts what lies between turns.
        Before that one ends the function, unless it declares `allow=`: see `natsproc.process`.
        """
        return Turn(self, message)

    def interruptible(self) -> AbstractAsyncContextManager[Any]:
        """Scope what an interrupt stops: `async with proc.interruptible(): …`.

        A scope that was interrupted raises Interrupted at its exit. Outside any scope an interrupt ends the
        whole function.
        """
        return self._interruptions.scope()

    async def check(self) -> None:
        """Wait while paused, and let an interrupt land here. Raises: Interrupted."""
        await self._interruptions.gate()
        await self._interruptions.heed(asyncio.sleep(0))

    async def checkpoint(self, state: Any) -> int:
        """Save a state, together with what was received so far; returns the offset of the event that says so.

        Returns once both are stored and count: all of it, or nothing. Whoever recovers the run begins with it as
        `state`, and receives the messages behind it; those taken since then come again. Before a run's first
        checkpoint a message that was taken stays taken, so save the beginning before you receive anything. `state` is
        any JSON or a pydantic model, of any size. It waits for as long as the server is away.
        Raises: BadPayload; OwnershipLost, and nothing was saved; AlreadyEnded; NotAllowed.
        """
        await self._interruptions.gate()
        offset = await self._interruptions.heed(self._io.call(self._checkpoint(state)))
        self._hosted.state = state
        return offset

    async def flush(self) -> None:
        """Return when everything written so far is stored, and still counts. Raises: OwnershipLost."""
        if not self._io.forked:
            await self._interruptions.heed(self._io.call(self._log.flush()))


class BlockingProcess(Core, BlockingSpeaking):
    """The blocking twin of `Process`: the same names, for plain functions and threads."""

    def __init__(
        self,
        io: IOThread,
        hosted: Hosted,
        interruptions: Interruptions,
        streams: dict[str, int] | None = None,
    ) -> None:
        super().__init__(io, hosted, interruptions)
        if streams is not None:
            self._streams = streams

    def emit(self, type: str | BaseModel, data: Json = None, *, cause: str | None = None) -> int:
        """See `Process.emit`."""
        if not self._io.forked:
            self._interruptions.check()
        offset = self._append(type, data, cause)
        if offset and self._log.full:
            self._io.wait(self._log.room())
        return offset

    def stream(self, name: str = "text") -> BlockingTextStream:
        """See `Process.stream`; used as `with proc.stream("answer") as s: s.token("…")`."""
        return BlockingTextStream(self, *self._open_stream(name))

    def receive(self, model: type[M] | None = None, *, timeout: float | None = None) -> Message:
        """See `Process.receive`. An interrupt lands here, too."""
        self._refuse_child()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            nudges = self._mailbox.nudges
            self._interruptions.check()
            left = None if deadline is None else deadline - time.monotonic()
            message = self._mailbox.take_blocking(left, nudges=nudges)
            if message is not None:
                break
            if deadline is not None and time.monotonic() >= deadline:
                raise TimedOut(f"{self.address} received nothing within {timeout:g} s")
        self._mailbox.record(self._log, message)
        return as_model(message, model)

    def inbox(self, model: type[M] | None = None) -> Iterator[Message]:
        """See `Process.inbox`."""
        while True:
            yield self.receive(model)

    def reply(self, message: Message, data: Json = None) -> int:
        """See `Process.reply`."""
        self._interruptions.check()
        return self._reply(message, data)

    def ask(
        self,
        question: str,
        choices: Sequence[Json] | None = None,
        *,
        id: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """See `Process.ask`. An interrupt lands here, too."""
        self._interruptions.check()
        asked, timed_out = self._begin(question, choices, id), False
        asked.answer.add_done_callback(lambda _: self._interruptions.wake())
        try:
            timed_out = not self._interruptions.wait(asked.answer.done, timeout)
            if timed_out:
                raise TimedOut(f"nobody answered {question!r} within {timeout:g} s")
            return asked.answer.result()
        finally:
            self._leave(asked, timed_out)

    def turn(self, message: Message | None = None) -> BlockingTurn:
        """See `Process.turn`; used as `with proc.turn(message) as turn: …`, it is interrupted at the next `check`."""
        return BlockingTurn(self, message)

    def interruptible(self) -> AbstractContextManager[Any]:
        """See `Process.interruptible`; used as `with proc.interruptible(): …`, it ends at the next `check`."""
        return self._interruptions.thread_scope()

    def check(self) -> None:
        """Wait while paused; where an interrupt lands in plain code. Raises: Interrupted."""
        self._interruptions.check()

    def checkpoint(self, state: Any) -> int:
        """See `Process.checkpoint`."""
        self._interruptions.check()
        offset = self._io.wait(self._checkpoint(state))
        self._hosted.state = state
        return offset

    def flush(self) -> None:
        """See `Process.flush`."""
        if not self._io.forked:
            self._io.wait(self._log.flush())
