"""A process that converses, served over HTTP: for the protocols of agents."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from serving import serving

import natsproc
from natsproc.protocol.names import new_id


def authorize(request, namespace, id, right):
    """Who says who they are may watch and send; alice may control."""
    user = request.headers.get("x-user")
    if user is None:
        return None
    return user if right != "control" or user == "alice" else False


@pytest.fixture
async def mesh(bus):
    async with natsproc.connect(bus.url, sender="worker") as mesh:
        yield mesh


@pytest.fixture
def base(bus, mesh):
    card = lambda record: {"provider": {"organization": "us", "url": "https://example.com"}}  # noqa: E731
    with serving(
        natsproc.asgi(server=bus.url, sender="web", authorize=authorize, heartbeat=0.2, agent_card=card)
    ) as url:
        yield url


@pytest.fixture
def id():
    """Of a process that no other test has."""
    return new_id("chat")


@contextlib.asynccontextmanager
async def chatting(mesh, id, **options):
    """A process that streams letters when asked to go on, asks when told to, fails on demand, and else echoes."""
    go = asyncio.Semaphore(0)

    async def converse(proc):
        async for message in proc.inbox():
            with contextlib.suppress(natsproc.Interrupted, ZeroDivisionError):
                async with proc.turn(message) as turn:
                    await answer(proc, turn, message)

    async def answer(proc, turn, message):
        said = message.data if isinstance(message.data, str) else message.data["text"]
        if said == "ask":
            colour = await proc.ask("Which colour?", ["red", "blue"])
            await proc.reply(message, f"it is {colour}")
        elif said == "fail":
            1 / 0  # noqa: B018
        elif said == "stream":
            async with proc.stream("answer") as stream:
                for letter in "abcdef":
                    await go.acquire()
                    await stream.token(letter)
            await proc.emit("tool_call", {"id": "c1", "name": "look", "arguments": {}})
            for more in await turn.boundary():
                await proc.emit("message", {"text": f"also {more.data}"})
        else:
            await proc.reply(message, message.data)

    async with mesh.own(id, kind="chat", **options) as proc:
        task = asyncio.create_task(converse(proc))
        go.waiting = lambda: proc._mailbox.waiting  # messages that it has not taken
        try:
            yield go
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, natsproc.Error):
                await task
