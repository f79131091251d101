"""A process's events over HTTP: a tail, written as the client likes it, for as long as the client is there.

What is not taken is not kept for the client, but read from the log once it is asked for. So a slow one costs this server a
few events, and the process nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from typing import Any, Literal

from natsproc.errors import BadPayload, Error, NoServer
from natsproc.handle import ProcessHandle
from natsproc.protocol.messages import Cursor, Event

from . import query, responses
from .formats import Lines, ServerSentEvents, chosen
from .problems import Problem
from .request import Receive, Request, Send, while_there
from .shared import Line, Shared, Stream, Wish

CHUNK_BYTES = 64 * 1024  #: that are handed on before the client is waited for
FIRST_SECONDS = (
    5.0  #: after which a stream begins though nothing could be read; its status tells no more then
)
RETRY = (500, 2000)  #: milliseconds after which an EventSource comes back; not all of them at once


async def events(
    handle: ProcessHandle,
    request: Request,
    receive: Receive,
    send: Send,
    *,
    heartbeat: float,
    shared: Shared,
) -> None:
    """Answer `GET …/events`. Raises: Problem and Error as long as nothing was sent; ClientGone."""
    form = chosen(request.headers.get("accept", ""))
    if request.method == "HEAD":
        if await handle.record() is None:
            raise Problem(404, f"no process {handle.address} has run here", error="NoSuchProcess")
        await _begin(send, form, more=False)
        return
    resumed = request.headers.get("last-event-id") if isinstance(form, ServerSentEvents) else None
    stream = Stream(shared, _wish(handle, request, form, resumed))
    async with while_there(receive), aclosing(stream):
        first = await _first(stream, form)
        if resumed and first is not None and _is_over(first):
            await responses.nothing(send)  # which is how an EventSource is told to come no more
        else:
            await _begin(send, form)
            await _write(send, form, stream, first, heartbeat)


def _wish(handle: ProcessHandle, request: Request, form: Lines, resumed: str | None) -> Wish:
    """What is asked for. Where an EventSource goes on goes before what its URL says, which stays as it was."""
    begin: dict[str, Any] = {}
    if after := resumed or query.text(request, "after"):
        begin["cursor"] = Cursor.parse(after)
    if not resumed:
        rest = {
            "n": query.count(request, "n"),
            "since": query.seconds(request, "since"),
            "run": _run(request),
        }
        begin |= {name: value for name, value in rest.items() if value is not None}
    if len(begin) > 1:
        raise BadPayload("choose one of after, n, since and run: each says where the stream begins")
    follow = form.follows and query.flag(request, "follow", True)
    types = [kind for text in request.query.get("type", ()) for kind in text.split(",") if kind]
    return Wish(handle, follow, query.flag(request, "compact", False), types, begin)


def _run(request: Request) -> int | Literal["all"] | None:
    return "all" if query.text(request, "run") == "all" else query.count(request, "run")


async def _first(stream: Stream, form: Lines) -> Sequence[Line] | None:
    """What comes first, with the errors that a status can still tell; None if it takes too long to wait for."""
    try:
        async with asyncio.timeout(FIRST_SECONDS):
            return await stream.several()
    except TimeoutError:
        if not form.follows:
            raise NoServer("the log cannot be read now; try again") from None
        return None


def _is_over(lines: Sequence[Line]) -> bool:
    """Whether there is nothing but the end to be said."""
    items = [line.item for line in lines]
    return any(item.type == "ended" for item in items) and not any(isinstance(i, Event) for i in items)


async def _begin(send: Send, form: Lines, *, more: bool = True) -> None:
    await responses.start(send, 200, responses.STREAM | {"Content-Type": form.media_type})
    body = form.begin(random.randint(*RETRY)) if more else b""
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _write(
    send: Send, form: Lines, stream: Stream, first: Sequence[Line] | None, heartbeat: float
) -> None:
    lines = first
    try:
        while lines is None or lines:
            for chunk in _chunks(form, lines) if lines else (form.beat,):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            lines = await _next(stream, heartbeat if form.beat else None)
        rest = form.end()
    except Error as error:
        said = form.problem(Problem.of(error).to_json())
        if said is None:
            raise Broken(f"the response breaks off, because it cannot be completed: {error}") from error
        rest = said
    await send({"type": "http.response.body", "body": rest})


async def _next(stream: Stream, heartbeat: float | None) -> Sequence[Line] | None:
    """What comes next, nothing at the end; None after `heartbeat` quiet seconds."""
    try:
        async with asyncio.timeout(heartbeat):
            return await stream.several()
    except TimeoutError:
        return None


class Broken(Exception):
    """A response that had begun could not be completed; raised to the server, so that it cuts the connection."""


def _chunks(form: Lines, lines: Iterable[Line]) -> Iterable[bytes]:
    parts: list[bytes] = []
    size = 0
    for item, json in lines:
        parts.append(form.item(item, json))
        size += len(parts[-1])
        if size >= CHUNK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)
