"""The Synadia Agent Protocol's SDKs: an agent streams its answer to a prompt. Nothing is stored, and nothing stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import nats
from synadia_ai.agent_service import AgentService, PromptStream
from synadia_ai.agents import Agents, Envelope, ResponseChunk

from benchmarks.roles import Body, Text


async def write(url: str, id: str, body: Body, how: str) -> None:
    nc = await nats.connect(url)
    service = AgentService(agent="bench", owner="bench", session_name=id, nc=nc, description="a benchmark")
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def answer(envelope: Envelope, stream: PromptStream) -> None:
        try:
            await body(stream.send, nc.flush)
        except BaseException as error:
            done.set_exception(error)
            raise
        done.set_result(None)

    service.on_prompt(answer)
    await service.start()
    await done
    await service.stop()
    await nc.close()


async def watch(url: str, id: str, on: Callable[[Text], None], how: str) -> None:
    nc = await nats.connect(url)
    agents = Agents(nc=nc)
    while not (found := [agent for agent in await agents.discover() if agent.session_name == id]):
        await asyncio.sleep(0.05)
    async for message in found[0].prompt("begin"):
        if isinstance(message, ResponseChunk):
            on(message.text)
