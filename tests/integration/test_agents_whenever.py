"""Whenever an agent is stopped, among tokens or among tools, its history is what the log has, and the next answer is given."""

from __future__ import annotations

import asyncio
import random

from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool
from meshes import appears
from pydantic_ai import Agent
from pydantic_ai.messages import TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import DeltaToolCall, FunctionModel
from talking import ended, shown, talking
from test_agents_langgraph import Scripted, built, call, thread

from natsproc.agents.langgraph import converse
from natsproc.agents.pydantic_ai import AgentConversation

TIMES = 15
SECONDS = 0.12  #: within which each answer is stopped; undisturbed it takes about as long


async def moment():
    await asyncio.sleep(random.random() * 0.004)


async def pieces(numbers, asked):
    """What a model says: a text and two calls at first, and a text at the end."""
    if asked or random.random() < 0.3:
        yield "let "
        await moment()
        yield "me "
        number = next(numbers)
        yield [f"one-{number}", f"two-{number}"]
        return
    for word in range(12):
        await moment()
        yield f"{word} "


async def stopped_at_random(handle):
    """Stop each answer at some time, and return what the log has of each, as pairs."""
    for number in range(TIMES):
        await handle.send(f"message {number}")
        await asyncio.sleep(random.random() * SECONDS)
        await handle.interrupt()
        await shown(handle, ended(number + 1))
    said, streams = [], {}
    for event in await shown(handle, ended(TIMES)):
        match event.type:
            case "received":
                said.append(("user", event.data["data"]))
            case "token" if event.data["stream"] in streams:
                streams[event.data["stream"]].append(event.data["text"])
            case "token":
                streams[event.data["stream"]] = [event.data["text"]]
                said.append(("text", streams[event.data["stream"]]))
            case "tool_call" | "tool_result":
                said.append((event.type, event.data["id"]))
    return [(kind, "".join(what)) for kind, what in said]


def sorted_calls(said):
    """Calls and results of one response in one order, as they come in any."""
    ordered = []
    for kind, what in said:
        if ordered and kind.startswith("tool_") and ordered[-1][0] == kind:
            ordered[-1][1].add(what)
        else:
            ordered.append((kind, {what} if kind.startswith("tool_") else what))
    return ordered


async def test_pydantic_ai(mesh, viewer):
    numbers = iter(range(1000))

    async def speaks(messages, _):
        async for piece in pieces(numbers, isinstance(messages[-1].parts[-1], UserPromptPart)):
            yield (
                piece
                if isinstance(piece, str)
                else {
                    index: DeltaToolCall("slow", "{}", tool_call_id=id) for index, id in enumerate(piece, 1)
                }
            )

    agent = Agent(FunctionModel(stream_function=speaks))

    @agent.tool_plain
    async def slow() -> str:
        await moment()
        return "done"

    conversations = []

    async def chat(proc):
        conversations.append(AgentConversation(proc, agent, {}))
        await conversations[0].run()

    async with talking(mesh, chat, "whenever"):
        log = await stopped_at_random(await appears(viewer, "whenever"))
        history = []
        for part in [part for message in conversations[0].messages for part in message.parts]:
            match part:
                case UserPromptPart(content=content):
                    history += [
                        ("user", text) for text in ([content] if isinstance(content, str) else content)
                    ]
                case TextPart(content=content):
                    history.append(("text", content))
                case ToolCallPart(tool_call_id=id):
                    history.append(("tool_call", id))
                case ToolReturnPart(tool_call_id=id, outcome="success"):
                    history.append(("tool_result", id))
        # what no request to the model has had so far comes with the next one
        history += [("user", text) for text in conversations[0].unsent]
        assert sorted_calls(history) == sorted_calls(log)


class Speaking(Scripted):
    async def _astream(self, messages, stop=None, run_manager=None, **_):
        async for piece in pieces(self.scripts[0], messages[-1].type == "human"):
            chunk = piece if isinstance(piece, str) else ""
            calls = [] if chunk else [call("slow", id=id, index=index) for index, id in enumerate(piece)]
            yield ChatGenerationChunk(message=AIMessageChunk(chunk, tool_call_chunks=calls))


async def test_langgraph(mesh, viewer):
    @tool
    async def slow() -> str:
        """Slow."""
        await moment()
        return "done"

    graph = built(Speaking(scripts=[iter(range(1000))]), [slow])
    async with talking(mesh, lambda proc: converse(proc, graph), "lg-whenever"):
        log = await stopped_at_random(await appears(viewer, "lg-whenever"))
        history = []
        for message in await thread(graph, "lg-whenever"):
            if message.type == "tool" and message.status == "success":
                history.append(("tool_result", message.tool_call_id))
            elif message.type != "tool":
                history += (
                    [({"human": "user", "ai": "text"}[message.type], message.text)] if message.text else []
                )
                history += [("tool_call", made["id"]) for made in getattr(message, "tool_calls", ())]
        assert sorted_calls(history) == sorted_calls(log)
