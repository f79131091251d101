"""A process's events over HTTP: a tail, written as the client likes it, for as long as the client is there.

The client's own speed is the only thing that drives it: what is not taken is not read, so a slow client costs this
server a few events, and the process nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from typing import Any, Literal

from natsproc.errors import Error, NoServer
from natsproc.handle import ProcessHandle
from natsproc.protocol.messages import Cursor, Event
from natsproc.tail import Tail, tail_one

from . import query, responses
from .formats import Item, Lines, ServerSentEvents, chosen
from .problems import Problem
from .request import Receive, Request, Send, while_there

CHUNK_BYTES = 64 * 1024  #: that are handed on before the client is waited for
AHEAD = 1  #: batches that are read before the client takes them
FIRST_SECONDS = (
    5.0  #: after which a stream begins though nothing can be read; its status can then tell no more
)
RETRY = (500, 2000)  #: milliseconds after which an EventSource comes back; not all of them at once


async def events(
    handle: ProcessHandle, request: Request, receive: Receive, send: Send, *, heartbeat: float
) -> None:
    """Answer `GET …/events`. Raises: Problem and Error as long as nothing was sent; ClientGone."""
    form = chosen(request.headers.get("accept", ""))
    if request.method == "HEAD":
        if await handle.record() is None:
            raise Problem(404, f"no process {handle.address} has run here", error="NoSuchProcess")
        await _begin(send, form, more=False)
        return
    resumed = request.headers.get("last-event-id") if isinstance(form, ServerSentEvents) else None
    tail = _tail(handle, request, form, resumed)
    async with while_there(receive), aclosing(tail):
        first = await _first(tail, form)
        if resumed and first is not None and _is_over(first):
            await responses.nothing(send)  # which is how an EventSource is told to come no more
        else:
            await _begin(send, form)
            await _write(send, form, tail, first, heartbeat)


def _tail(handle: ProcessHandle, request: Request, form: Lines, resumed: str | None) -> Tail:
    """The tail that is asked for. Where an EventSource goes on goes before what its URL says, which stays as it was."""
    begin: dict[str, Any] = {"cursor": None, "n": None, "since": None, "run": None}
    after = resumed or query.text(request, "after")
    if after:
        begin["cursor"] = Cursor.parse(after)
    if not resumed:
        begin |= {
            "n": query.count(request, "n"),
            "since": query.seconds(request, "since"),
            "run": _run(request),
        }
    return tail_one(
        handle.mesh,
        handle.address,
        follow=form.follows and query.flag(request, "follow", True),
        compact=query.flag(request, "compact", False),
        types=[kind for text in request.query.get("type", ()) for kind in text.split(",") if kind],
        models=None,
        ahead=AHEAD,
        **begin,
    )


def _run(request: Request) -> int | Literal["all"] | None:
    return "all" if query.text(request, "run") == "all" else query.count(request, "run")


async def _first(tail: Tail, form: Lines) -> Sequence[Item] | None:
    """What comes first, with the errors that a status can still tell; None if it takes too long to wait for."""
    try:
        async with asyncio.timeout(FIRST_SECONDS):
            return await tail.several()
    except TimeoutError:
        if not form.follows:
            raise NoServer("the log cannot be read now; try again") from None
        return None


def _is_over(items: Sequence[Item]) -> bool:
    """Whether there is nothing but the end to be said."""
    return any(item.type == "ended" for item in items) and not any(isinstance(i, Event) for i in items)


async def _begin(send: Send, form: Lines, *, more: bool = True) -> None:
    headers = {
        "Content-Type": form.media_type,
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",  # nginx hands on what comes at once
    }
    await responses.start(send, 200, headers)
    body = form.begin(random.randint(*RETRY)) if more else b""
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _write(send: Send, form: Lines, tail: Tail, first: Sequence[Item] | None, heartbeat: float) -> None:
    items = first
    try:
        while items is None or items:
            for chunk in _chunks(form, items) if items else (form.beat,):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            items = await _next(tail, heartbeat if form.beat else None)
        rest = form.end()
    except Error as error:
        said = form.problem(Problem.of(error).to_json())
        if said is None:
            raise Broken(f"the response breaks off, because it cannot be completed: {error}") from error
        rest = said
    await send({"type": "http.response.body", "body": rest})


async def _next(tail: Tail, heartbeat: float | None) -> Sequence[Item] | None:
    """What comes next, nothing at the end; None after `heartbeat` quiet seconds."""
    try:
        async with asyncio.timeout(heartbeat):
            return await tail.several()
    except TimeoutError:
        return None


class Broken(Exception):
    """A response that had begun could not be completed; raised to the server, so that it cuts the connection."""


def _chunks(form: Lines, items: Iterable[Item]) -> Iterable[bytes]:
    parts: list[bytes] = []
    size = 0
    for item in items:
        parts.append(form.item(item))
        size += len(parts[-1])
        if size >= CHUNK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)
