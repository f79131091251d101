"""A process as an AG-UI agent: the input of a run is posted, and what becomes of it is streamed (AG-UI 1.0 over SSE)."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, ValidationError

from natsproc import errors
from natsproc.handle import ProcessHandle
from natsproc.protocol.messages import Event, Json, decode, encode
from natsproc.protocol.names import Address
from natsproc.tail import Tail

from . import responses
from .a2a_task import exchange_of, task_id
from .access import Gate
from .agui_run import Run
from .exchange import Exchange
from .following import following
from .problems import Problem
from .request import Receive, Request, Send, read_json, while_there

VERSION: Final = "1.0"
COMMAND_SECONDS: Final = 5.0
READ_SECONDS: Final = 30.0


class Message(BaseModel):
    id: str
    role: str
    content: Any = None
    toolCalls: list[dict[str, Any]] | None = None

    def data(self) -> Json:
        """As the process is given it: its text, or an object with that and all parts if there is more to it."""
        if not isinstance(self.content, list):
            return self.content
        texts = [str(part.get("text", "")) for part in self.content if isinstance(part, dict)]
        return {"text": "\n".join(filter(None, texts)), "parts": self.content}


class Resume(BaseModel):
    interruptId: str
    status: Literal["resolved", "cancelled"]
    payload: Any = None


class Input(BaseModel):
    """What is asked, as far as it matters here."""

    threadId: Annotated[str, Field(min_length=1)]
    runId: Annotated[str, Field(min_length=1)]
    messages: list[Message]
    resume: list[Resume] | None = None


async def run(
    gate: Gate, address: Address, request: Request, receive: Receive, send: Send, heartbeat: float
) -> None:
    """Answer `POST …/ag-ui`. Raises: Problem and Error as long as nothing was sent; ClientGone."""
    actor = await gate.insist(address.namespace, address.id, "watch")
    raw = await read_json(request, receive)
    try:
        wish = Input.model_validate(decode(raw, "the body"))
    except ValidationError as error:
        fields = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise Problem(422, f"this is no RunAgentInput: {fields}") from None
    handle = actor.mesh.process(address)
    if await handle.record() is None:
        raise Problem(404, f"no process {address} has run here", error="NoSuchProcess")
    async with while_there(receive):
        work, after = await (
            _resume(gate, address, wish.resume) if wish.resume else _say(gate, address, wish)
        )
        await _stream(handle, wish, work, after, send, heartbeat)


async def _say(gate: Gate, address: Address, wish: Input) -> tuple[Exchange, int]:
    """Send the user's last message, unless some of its answer is there already: then that goes on."""
    behind: list[Message] = []
    for message in reversed(wish.messages):
        if message.role == "user":
            break
        behind.append(message)
    else:
        raise Problem(422, "there is no message of the user's: that is what the process is sent")
    for answer in behind:
        if work := exchange_of(answer.id.rpartition("-")[0]):
            return work, 0
    actor = await gate.insist(address.namespace, address.id, "send")
    id = (
        message.id
        if message.id.isascii() and message.id.isprintable() and 0 < len(message.id) <= 128
        else None
    )
    sent = await actor.mesh.process(address).send(message.data(), id=id, user=actor.user)
    return Exchange(sent.run, sent.position), 0


async def _resume(gate: Gate, address: Address, entries: list[Resume]) -> tuple[Exchange, int]:
    """Answer what ended a run; one that is abandoned interrupts the turn. Raises: Problem (409, 422), Error."""
    actor = await gate.insist(address.namespace, address.id, "control")
    handle = actor.mesh.process(address)
    found: tuple[Exchange, int] | None = None
    known: dict[str, Exchange | None] = {}
    for entry in entries:
        task, _, rest = entry.interruptId.partition(".")
        offset, _, ask = rest.partition(".")
        work = exchange_of(task)
        if work is None or not (offset.isascii() and offset.isdigit() and len(offset) < 16):
            continue  # as the protocol has it: what nobody asked is passed over
        if task not in known:
            known[task] = await _as_it_is(handle, Exchange(work.run, work.position))
        open_now = known[task]
        if open_now is None:
            continue
        found = (work, int(offset))
        if ask not in open_now.asks:
            continue  # somebody was first, or it is over: which the stream will tell
        verb, about = "answer", dict[str, Any](data={"ask": ask, "value": entry.payload})
        if entry.status == "cancelled":
            verb, about = "interrupt", {"reason": "a question was abandoned", "turn": open_now.turn or None}
            del known[task]  # which ends its other questions, too
        receipt = await handle.command(verb, timeout=COMMAND_SECONDS, user=actor.user, **about)
        if receipt.status == "refused":
            raise Problem(409, f"{address}: {receipt.why}", receipt=receipt.to_json())
    if found is None:
        raise Problem(422, "none of these interrupts is of this process")
    return found


async def _as_it_is(handle: ProcessHandle, work: Exchange) -> Exchange | None:
    """What has become of it by now; None if there is no such message."""
    tail = await following(handle, work, live=False)
    if tail is None:
        return None
    try:
        async with aclosing(tail), asyncio.timeout(READ_SECONDS):
            async for item in tail:
                if isinstance(item, Event):
                    work.feed(item)
    except TimeoutError:
        raise errors.NoServer("the log cannot be read in time; try again") from None
    return work


async def _stream(
    handle: ProcessHandle, wish: Input, work: Exchange, after: int, send: Send, heartbeat: float
) -> None:
    tail = await following(handle, work)
    if tail is None:
        raise Problem(422, "that interrupt is of no message that is here")
    known = {str(call.get("id")): "" for message in wish.messages for call in message.toolCalls or ()}
    known |= {m.id: m.content if isinstance(m.content, str) else "" for m in wish.messages}
    about = {"threadId": wish.threadId, "runId": wish.runId}
    going = Run(work, task_id(work), after=after, known=known)
    async with aclosing(tail):
        await responses.start(send, 200, responses.STREAM)
        await _write(send, [{"type": "RUN_STARTED", **about, "protocolVersion": VERSION}])
        try:
            await _follow(tail, going, send, heartbeat)
            said = going.end(about)
        except errors.Error as error:
            said = [{"type": "RUN_ERROR", "message": str(error), "code": type(error).__name__}]
        await _write(send, said)
        await send({"type": "http.response.body", "body": b""})


async def _follow(tail: Tail, going: Run, send: Send, heartbeat: float) -> None:
    """Say what comes, until it is over or, once all that is stored was read, asks something."""
    work, caught_up = going.work, False
    while True:
        items = await tail.within(heartbeat)
        if items is None:
            await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
            continue
        if not items:
            raise errors.Closed("the log is not followed any more")
        said: list[dict[str, Any]] = []
        for item in items:
            if isinstance(item, Event):
                said += going.feed(item)
            else:
                work.notice(item)
                if item.type == "gap":
                    said.append({"type": "CUSTOM", "name": "gap", "value": item.data})
            caught_up = caught_up or item.type == "caught_up"
            if work.over or (caught_up and work.asks):
                return await _write(send, said)
            if caught_up and work.lost and work.position and work.message is None:
                raise errors.Refused("what became of the message is not known: that part of the log is gone")
        await _write(send, said)


async def _write(send: Send, said: list[dict[str, Any]]) -> None:
    if body := b"".join(b"data: %s\n\n" % encode(event) for event in said):
        await send({"type": "http.response.body", "body": body, "more_body": True})
