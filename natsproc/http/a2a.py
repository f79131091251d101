"""A process as an agent of the Agent2Agent protocol (A2A 1.0, JSON-RPC): what is sent to it becomes tasks.

Nothing is kept here: a task is what the log says of a message, so that any replica, and one started later, tells the same.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import quote

from natsproc import errors
from natsproc.handle import GRACE_SECONDS, ProcessHandle
from natsproc.protocol.messages import Event, Receipt, encode
from natsproc.protocol.names import Address
from natsproc.protocol.records import Record
from natsproc.tail import Tail

from . import responses, rpc
from .a2a_page import Page
from .a2a_params import ListParams, Message, SendParams, TaskParams
from .a2a_task import Task, exchange_of
from .access import Gate
from .exchange import Exchange
from .following import following
from .problems import Problem
from .request import Receive, Request, Send, read_json, while_there
from .rpc import Call, Refusal

AgentCard = Callable[[Record], Mapping[str, Any]]

VERSION: Final = "1.0"
READ_SECONDS: Final = 30.0  #: for what the log has
END_SECONDS: Final = 5.0  #: for the end of a turn that was interrupted
_MODES: Final = ["text/plain", "application/json"]
_OUR_ID: Final = re.compile(r"[!-~]{1,128}")
_REASON: Final = "canceled over A2A"


async def card(
    gate: Gate, address: Address, request: Request, send: Send, base: str, more: AgentCard | None
) -> None:
    """Answer `GET …/a2a/.well-known/agent-card.json`. Raises: Problem, Error."""
    actor = await gate.insist(address.namespace, address.id, "watch")
    record = await _record(actor.mesh.process(address))
    about = record.title or f"{record.kind} {address}"
    said: dict[str, Any] = {
        "name": record.address.id,
        "description": about,
        "version": record.labels.get("version", "1"),
        "supportedInterfaces": [
            {"url": request.origin + quote(base), "protocolBinding": "JSONRPC", "protocolVersion": VERSION}
        ],
        "capabilities": {"streaming": True, "pushNotifications": False, "extendedAgentCard": False},
        "defaultInputModes": _MODES,
        "defaultOutputModes": _MODES,
        "skills": [{"id": record.kind, "name": record.kind, "description": about, "tags": [record.kind]}],
    }
    said |= dict(more(record)) if more else {}
    await responses.reply(send, said, head=request.method == "HEAD")


async def call(
    gate: Gate, address: Address, request: Request, receive: Receive, send: Send, heartbeat: float
) -> None:
    """Answer `POST …/a2a`. Raises: Problem; NotAllowed; ClientGone."""
    actor = await gate.insist(address.namespace, address.id, "watch")
    raw, asked = await read_json(request, receive), Call()
    try:
        asked.read(raw)
        versions = (
            request.headers.get("a2a-version") or "".join(request.query.get("A2A-Version", ())) or "0.3"
        )
        if versions != VERSION:
            raise Refusal(rpc.VERSION, f"this speaks A2A {VERSION}, not {versions[:20]}: see `A2A-Version`")
        handle = actor.mesh.process(address)
        agent = _Agent(gate, handle, await _record(handle), asked)
        async with while_there(receive):
            await agent.answer(send, heartbeat)
    except errors.NotAllowed:
        raise
    except (Refusal, errors.Error) as error:
        refusal = error if isinstance(error, Refusal) else Refusal.of(error)
        await responses.reply(send, asked.error(refusal))


async def _record(handle: ProcessHandle) -> Record:
    record = await handle.record()
    if record is None:
        raise Problem(404, f"no process {handle.address} has run here", error="NoSuchProcess")
    return record


class _Agent:
    """One call to a process."""

    def __init__(self, gate: Gate, handle: ProcessHandle, record: Record, asked: Call) -> None:
        self._gate = gate
        self._handle = handle
        self._record = record
        self._asked = asked
        self._address = handle.address

    async def answer(self, send: Send, heartbeat: float) -> None:
        """Do what is asked, and say what came of it. Raises: Refusal, Error, as long as nothing was sent; Problem."""
        asked = self._asked
        match asked.method:
            case "SendStreamingMessage":
                wish = asked.params(SendParams)
                return await self._stream(await self._deliver(wish), send, heartbeat)
            case "SubscribeToTask":
                work = self._exchange(asked.params(TaskParams).id)
                return await self._stream(work, send, heartbeat, begun=True)
            case "SendMessage":
                wish = asked.params(SendParams)
                waits = not wish.configuration.returnImmediately
                task = await self._read(await self._deliver(wish), settled=waits)
                result: Any = {"task": task.to_json(history=wish.configuration.historyLength)}
            case "GetTask":
                about = asked.params(TaskParams)
                result = (await self._read(self._exchange(about.id))).to_json(history=about.historyLength)
            case "ListTasks":
                result = await self._list(asked.params(ListParams))
            case "CancelTask":
                result = (await self._cancel(asked.params(TaskParams).id)).to_json()
            case method if "PushNotificationConfig" in method:
                raise Refusal(rpc.NO_PUSH, "push notifications are not sent: stream, or ask again")
            case "GetExtendedAgentCard":
                raise Refusal(rpc.UNSUPPORTED, "there is no other card than the public one")
            case method:
                raise Refusal(rpc.METHOD, f"there is no {method[:60]!r} in A2A {VERSION}")
        return await responses.reply(send, asked.result(result))

    def _exchange(self, id: str) -> Exchange:
        work = exchange_of(id)
        if work is None or work.run > self._record.run:
            raise Refusal(rpc.NOT_FOUND, f"{self._address} has no task {id[:80]!r}")
        return work

    async def _deliver(self, wish: SendParams) -> Exchange:
        """Hand on a message: as a new task, or for one that there is, as an answer or as something to take in."""
        message = wish.message
        if wish.configuration.taskPushNotificationConfig is not None:
            raise Refusal(rpc.NO_PUSH, "push notifications are not sent: stream, or ask again")
        if message.contextId not in ("", str(self._address)):
            raise Refusal(rpc.PARAMS, f"the only context here is {str(self._address)!r}")
        if not message.taskId:
            return await self._send(message, message.metadata.when)
        task = await self._read(self._exchange(message.taskId))
        if task.work.over:
            raise Refusal(rpc.UNSUPPORTED, f"{task.id} is over: send it without `taskId`, for a new task")
        if task.work.asks:
            await self._answer(message, next(iter(task.work.asks)))
        elif not task.work.position:
            await self._send(message, message.metadata.when)
        elif task.work.state == "submitted" or "next" not in (self._record.allow or ("next",)):
            raise Refusal(
                rpc.UNSUPPORTED, f"{task.id} takes nothing now: send it without `taskId`, for a new task"
            )
        else:
            await self._send(message, "next")
        return self._exchange(message.taskId)

    async def _send(self, message: Message, when: Any) -> Exchange:
        await self._gate.insist(
            self._address.namespace, self._address.id, "control" if when == "now" else "send"
        )
        actor = await self._gate.insist(self._address.namespace, self._address.id, "send")
        id = message.messageId if _OUR_ID.fullmatch(message.messageId) else None
        handle = actor.mesh.process(self._address)
        sent = await handle.send(message.data(), id=id, when=when, user=actor.user)
        return Exchange(sent.run, sent.position)

    async def _command(self, verb: str, timeout: float, **fields: Any) -> Receipt:
        actor = await self._gate.insist(self._address.namespace, self._address.id, "control")
        handle = actor.mesh.process(self._address)
        return await handle.command(verb, timeout=timeout, user=actor.user, **fields)

    async def _answer(self, message: Message, first: str) -> None:
        value, ask = message.answer()
        receipt = await self._command("answer", 5.0, data={"value": value, "ask": ask or first})
        if receipt.status in ("refused", "too_late"):
            raise Refusal(rpc.PARAMS if receipt.status == "refused" else rpc.UNSUPPORTED, receipt.why)

    async def _cancel(self, id: str) -> Task:
        work = (await self._read(self._exchange(id))).work
        if work.over:
            raise Refusal(rpc.NOT_CANCELABLE, f"{id} is {work.state} already")
        if not work.position:
            receipt = await self._command("cancel", GRACE_SECONDS + 5.0, grace=GRACE_SECONDS, reason=_REASON)
        elif work.turn or work.joined:
            receipt = await self._command("interrupt", 5.0, turn=work.turn or None, reason=_REASON)
        else:
            raise Refusal(rpc.NOT_CANCELABLE, f"{id} is not in a turn, which is what can be interrupted")
        if receipt.status in ("refused", "too_late"):
            raise Refusal(rpc.NOT_CANCELABLE, receipt.why)
        task = Task(self._address, self._exchange(id))
        async with self._following(task) as tail:
            await _catch_up(tail, task)
            with suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await _settle(tail, task, lambda: task.work.over)
        return task

    async def _read(self, work: Exchange, *, settled: bool = False) -> Task:
        """A task as it is now, or, with `settled`, once it is over or asks something. Raises: Refusal, Error."""
        task = Task(self._address, work)
        async with self._following(task, live=settled) as tail:
            await _catch_up(tail, task)
            if settled:
                await _settle(tail, task, lambda: work.over or bool(work.asks))
        return task

    async def _stream(self, work: Exchange, send: Send, heartbeat: float, *, begun: bool = False) -> None:
        """Say what the task is now, and then all that comes, from one tail: so nothing is missing between, or twice."""
        task = Task(self._address, work)
        async with self._following(task) as tail:
            await _catch_up(tail, task)
            if begun and work.over:
                raise Refusal(rpc.UNSUPPORTED, f"{task.id} is {work.state}: GetTask has all of it")
            await responses.start(send, 200, responses.STREAM)
            await self._say(send, {"task": task.to_json()})
            try:
                while not work.over:
                    items = await tail.within(heartbeat)
                    if items is None:
                        await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
                    elif not items:
                        raise errors.Closed("the log is not followed any more")
                    for item in items or ():
                        said = task.feed(item) if isinstance(item, Event) else task.notice(item)
                        await self._say(send, *said)
            except errors.Error as error:
                await self._write(send, self._asked.error(Refusal.of(error)))
            await send({"type": "http.response.body", "body": b""})

    async def _say(self, send: Send, *results: Any) -> None:
        await self._write(send, *map(self._asked.result, results))

    async def _write(self, send: Send, *said: Any) -> None:
        if body := b"".join(b"data: %s\n\n" % encode(value) for value in said):
            await send({"type": "http.response.body", "body": body, "more_body": True})

    @asynccontextmanager
    async def _following(self, task: Task, *, live: bool = True) -> AsyncIterator[Tail]:
        """The log, from where the task begins. Raises: Refusal, if there is no such task; Error."""
        tail = await following(self._handle, task.work, live=live)
        if tail is None:
            raise Refusal(rpc.NOT_FOUND, f"{self._address} has no task {task.id!r}")
        async with aclosing(tail):
            yield tail

    async def _list(self, wish: ListParams) -> dict[str, Any]:
        """The tasks of the latest run: its messages, or if it has taken none, itself."""
        page = Page(wish)
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._collect(page, lean=not wish.includeArtifacts)
        except TimeoutError:
            raise errors.NoServer("the log cannot be read in time; try again") from None
        return page.to_json()

    async def _collect(self, page: Page, lean: bool) -> None:
        run = self._record.run
        whole = Task(self._address, Exchange(run))
        whole.lean = lean
        going = [whole]  # itself, until it takes a message
        async with self._following(whole, live=False) as tail:
            async for item in tail:
                if not isinstance(item, Event) or item.run != run:
                    continue
                position = item.data.get("position") if item.type == "received" else None
                if isinstance(position, int):
                    going = [task for task in going if task is not whole]
                    if all(task.work.position != position for task in going):  # else it came once more
                        going.append(task := Task(self._address, Exchange(run, position)))
                        task.lean = lean
                for task in going:
                    task.feed(item)
                    if task.work.over:
                        page.add(task)
                going = [task for task in going if not task.work.over]
        for task in going:
            page.add(task)


async def _catch_up(tail: Tail, task: Task) -> None:
    """Read what the log has. Raises: Refusal, if the task is not there any more; NoServer."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            await _settle(tail, task, lambda: task.work.over, until="caught_up")
    except TimeoutError:
        raise errors.NoServer("the log cannot be read now; try again") from None
    except errors.NoSuchProcess as error:
        raise Refusal(rpc.NOT_FOUND, str(error)) from None
    if task.work.lost and task.work.position and task.work.message is None:
        raise Refusal(rpc.NOT_FOUND, f"{task.id} is forgotten: that part of the log is gone")


async def _settle(tail: Tail, task: Task, settled: Callable[[], bool], until: str = "") -> None:
    while not settled():
        item = await anext(tail, None)
        if item is None or item.type == until:
            return
        if isinstance(item, Event):
            task.feed(item)
        else:
            task.notice(item)
