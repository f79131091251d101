"""A pydantic-ai agent under an address: what is streamed, stopped, steered and asked, with the framework's own test models."""

from __future__ import annotations

import asyncio

import pytest
from crashing import crashing
from meshes import appears, until
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.messages import (
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import DeltaThinkingPart, DeltaToolCall, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.tools import DeferredToolRequests, ToolDefinition
from pydantic_ai.toolsets import ExternalToolset
from talking import ALLOW, ended, has, of, shown, talking, text

from natsproc.agents.pydantic_ai import converse


def conversing(mesh, agent, id):
    return talking(mesh, lambda proc: converse(proc, agent), id)


def parts(messages):
    """A history as `(kind of part, what it says)`."""
    said = []
    for message in messages:
        for part in message.parts:
            match part:
                case SystemPromptPart(content=content):
                    said.append(("system", content))
                case UserPromptPart(content=content):
                    said.append(("user", content))
                case TextPart(content=content):
                    said.append(("text", content))
                case ThinkingPart(content=content):
                    said.append(("thinking", content))
                case ToolCallPart(tool_name=name):
                    said.append(("call", name))
                case ToolReturnPart(tool_name=name, content=content):
                    said.append(("return", name, content))
    return said


class Scripted:
    """A model that streams what a script says, one generator after the other, and remembers what it was sent."""

    def __init__(self, *scripts):
        self.scripts = list(scripts)
        self.requests = []

    async def __call__(self, messages, info):
        self.requests.append(parts(messages))
        async for piece in self.scripts.pop(0)():
            yield piece

    @property
    def model(self):
        return FunctionModel(stream_function=lambda messages, info: self(messages, info))


def says(*pieces, then=None):
    async def script():
        for piece in pieces:
            yield piece
        if then is not None:
            await then.wait()

    return script


def calls(name, args="{}", id="c1"):
    async def script():
        yield {0: DeltaToolCall(name, args, tool_call_id=id)}

    return script


async def test_tokens_stream_and_tools_are_events_and_the_output_is_the_reply(mesh, viewer):
    agent = Agent(TestModel(custom_output_text="it is sunny in Paris"))

    @agent.tool_plain
    async def weather(city: str) -> dict[str, str]:
        return {"city": city, "sky": "clear"}

    async with conversing(mesh, agent, "weather"):
        handle = await appears(viewer, "weather")
        assert await handle.request("how is it?", timeout=20) == "it is sunny in Paris"
        seen = await shown(handle, ended(1))
        call, result = of(seen, "tool_call", "tool_result")
        assert call.data == {"id": call.data["id"], "name": "weather", "arguments": {"city": "a"}}
        assert result.data == {
            "id": call.data["id"],
            "name": "weather",
            "result": {"city": "a", "sky": "clear"},
            "status": "success",
        }
        assert text(seen) == "it is sunny in Paris"
        assert len(of(seen, "token")) > 1
        assert {e.data["stream"] for e in of(seen, "token", "text")} == {"answer"}
        (message,) = of(seen, "received")
        assert {e.cause for e in of(seen, "token", "tool_call", "tool_result")} == {message.data["message"]}


async def test_stop_keeps_what_was_seen_and_the_next_turn_goes_on_from_there(mesh, viewer):
    never = asyncio.Event()
    script = Scripted(says("one ", "two ", then=never), says("three"))
    async with conversing(mesh, Agent(script.model, system_prompt="Count."), "counter"):
        handle = await appears(viewer, "counter")
        await handle.send("count")
        await shown(handle, lambda seen: text(seen) == "one two ")
        assert (await handle.interrupt()).applied
        await shown(handle, ended(1))
        await handle.send("go on")
        seen = await shown(handle, ended(2))
        assert [e.data["status"] for e in of(seen, "turn_ended")] == ["interrupted", "completed"]
        assert script.requests[1] == [
            ("system", "Count."), ("user", "count"), ("text", "one two "), ("user", "go on"),
        ]  # fmt: skip
        assert [e.data["text"] for e in of(seen, "text")] == ["one two ", "three"]


async def test_stop_before_the_first_token_keeps_what_was_asked_and_how_it_was_set_up(mesh, viewer):
    asked = asyncio.Event()

    async def silent():
        asked.set()
        await asyncio.Event().wait()
        yield "never"

    script = Scripted(silent, says("ok"))
    async with conversing(mesh, Agent(script.model, system_prompt="Be brief."), "silent"):
        handle = await appears(viewer, "silent")
        await handle.send("a")
        await asyncio.wait_for(asked.wait(), 20)
        assert (await handle.interrupt("b")).applied
        seen = await shown(handle, ended(2))
        assert of(seen, "turn_ended")[0].data["status"] == "interrupted"
        assert script.requests[1] == [("system", "Be brief."), ("user", "a"), ("user", "b")]


async def test_calls_that_are_left_to_others_do_not_stand_in_the_way(mesh, viewer):
    script = Scripted(calls("elsewhere"), says("ok"))
    elsewhere = ExternalToolset([ToolDefinition(name="elsewhere")])
    agent = Agent(script.model, toolsets=[elsewhere], output_type=[str, DeferredToolRequests])
    async with conversing(mesh, agent, "external"):
        handle = await appears(viewer, "external")
        reply = await handle.request("a", timeout=20)
        assert [call["tool_name"] for call in reply["calls"]] == ["elsewhere"]
        assert await handle.request("b", timeout=20) == "ok"


async def test_what_it_thinks_is_a_stream_of_its_own_and_is_remembered_when_it_is_stopped(mesh, viewer):
    async def thinks():
        yield {0: DeltaThinkingPart(content="hm")}
        yield "so "
        await asyncio.Event().wait()

    script = Scripted(thinks, says("ok"))
    async with conversing(mesh, Agent(script.model), "thinker"):
        handle = await appears(viewer, "thinker")
        await handle.send("a")
        seen = await shown(handle, lambda seen: "so" in text(seen))
        assert [e.data["stream"] for e in of(seen, "token")] == ["thinking", "answer"]
        await handle.interrupt("b")
        await shown(handle, ended(2))
        assert script.requests[1] == [("user", "a"), ("thinking", "hm"), ("text", "so "), ("user", "b")]


async def test_what_the_framework_had_and_nobody_saw_is_not_in_the_history(mesh, viewer):
    """A pause holds what is shown, not what the model sends."""

    async def endless():
        for number in range(100_000):
            yield f"{number} "

    script = Scripted(endless, says("ok"))
    async with conversing(mesh, Agent(script.model), "paused"):
        handle = await appears(viewer, "paused")
        await handle.send("count")
        await shown(handle, lambda seen: of(seen, "token"))
        assert (await handle.pause()).applied
        assert (await handle.interrupt()).applied
        await handle.resume()
        saw = text(await shown(handle, ended(1)))
        await handle.send("and?")
        await shown(handle, ended(2))
        assert script.requests[1] == [("user", "count"), ("text", saw), ("user", "and?")]


async def test_an_interrupt_with_a_message_redirects(mesh, viewer):
    script = Scripted(says("the linear ", then=asyncio.Event()), says("the neural"))
    async with conversing(mesh, Agent(script.model), "redirected"):
        handle = await appears(viewer, "redirected")
        await handle.send("train")
        await shown(handle, lambda seen: text(seen))
        assert (await handle.interrupt("no, another")).applied
        seen = await shown(handle, ended(2))
        assert text(seen) == "the linear the neural"
        assert script.requests[1] == [("user", "train"), ("text", "the linear "), ("user", "no, another")]


async def test_double_texting_follows_when(mesh, viewer):
    going, go, never = asyncio.Event(), asyncio.Event(), asyncio.Event()
    script = Scripted(calls("wait"), says("steered"), says("later ", then=never), says("now this"))
    agent = Agent(script.model)

    @agent.tool_plain
    async def wait() -> str:
        going.set()
        await go.wait()
        return "waited"

    async with conversing(mesh, agent, "texted") as waiting:
        handle = await appears(viewer, "texted")
        await handle.send("begin")
        await asyncio.wait_for(going.wait(), 20)
        other = mesh.process("texted")  # of another sender, as what one sends keeps its order
        await other.send("for later", when="idle")
        await handle.send("by the way", when="next")
        await until(lambda: has(waiting, 2))
        go.set()
        await shown(handle, lambda seen: "later" in text(seen))
        await handle.send("stop", when="now")
        seen = await shown(handle, ended(3))
        began = [("user", "begin"), ("call", "wait"), ("return", "wait", "waited"), ("user", "by the way")]
        assert script.requests[1:] == [
            began,
            [*began, ("text", "steered"), ("user", "for later")],
            [*began, ("text", "steered"), ("user", "for later"), ("text", "later "), ("user", "stop")],
        ]
        assert [e.data["status"] for e in of(seen, "turn_ended")] == ["completed", "interrupted", "completed"]


async def test_what_comes_in_while_the_last_answer_is_given_is_answered_in_the_same_turn(mesh, viewer):
    go = asyncio.Event()

    async def held():
        yield "first"
        await go.wait()

    script = Scripted(held, says("second"))
    async with conversing(mesh, Agent(script.model), "redirecting") as waiting:
        handle = await appears(viewer, "redirecting")
        await handle.send("a")
        await shown(handle, text)
        await handle.send("b", when="next")
        await until(lambda: has(waiting, 1))
        go.set()
        seen = await shown(handle, ended(1))
        assert text(seen) == "firstsecond"
        assert script.requests[1] == [("user", "a"), ("text", "first"), ("user", "b")]


async def test_stop_among_tools_keeps_the_results_that_were_seen(mesh, viewer):
    async def both():
        yield "let me see"
        yield {
            1: DeltaToolCall("quick", "{}", tool_call_id="q"),
            2: DeltaToolCall("slow", "{}", tool_call_id="s"),
        }

    script = Scripted(both, says("ok"))
    agent = Agent(script.model)

    @agent.tool_plain
    async def quick() -> str:
        return "done"

    @agent.tool_plain
    async def slow() -> str:
        await asyncio.sleep(60)
        return "never"

    async with conversing(mesh, agent, "tools"):
        handle = await appears(viewer, "tools")
        await handle.send("go")
        await shown(handle, lambda seen: of(seen, "tool_result"))
        await handle.interrupt()
        await shown(handle, ended(1))
        await handle.send("well?")
        await shown(handle, ended(2))
        assert script.requests[1] == [
            ("user", "go"),
            ("text", "let me see"),
            ("call", "quick"),
            ("call", "slow"),
            ("return", "quick", "done"),
            ("return", "slow", "The tool call was interrupted before a result was produced."),
            ("user", "well?"),
        ]


@pytest.mark.parametrize(("said", "result"), [("yes", "written"), ("no", "A person said no.")])
async def test_a_tool_that_needs_approval_asks_a_person(mesh, viewer, said, result):
    agent = Agent(TestModel())
    written = []

    @agent.tool_plain(requires_approval=True)
    async def note(text: str) -> str:
        written.append(text)
        return "written"

    async with conversing(mesh, agent, f"asks-{said}"):
        handle = await appears(viewer, f"asks-{said}")
        await handle.send("remember")
        (asked,) = of(await shown(handle, lambda seen: of(seen, "asked")), "asked")
        assert asked.data["question"] == 'May it call note with {"text":"a"}?'
        assert (await handle.answer(said)).applied
        seen = await shown(handle, ended(1))
        (returned,) = of(seen, "tool_result")
        assert returned.data["result"] == result
        assert written == (["a"] if said == "yes" else [])


async def test_what_fails_ends_the_turn_and_not_the_conversation(mesh, viewer):
    async def breaks():
        yield "half "
        raise RuntimeError("the model is away")

    script = Scripted(breaks, says("whole"))
    async with conversing(mesh, Agent(script.model), "fails"):
        handle = await appears(viewer, "fails")
        await handle.send("a")
        await shown(handle, ended(1))
        await handle.send("b")
        seen = await shown(handle, ended(2))
        failed, completed = of(seen, "turn_ended")
        assert failed.data["status"] == "failed"
        assert "the model is away" in failed.data["error"]
        assert completed.data["status"] == "completed"
        assert script.requests[1] == [("user", "a"), ("text", "half "), ("user", "b")]


class City(BaseModel):
    name: str


async def test_the_reply_of_an_agent_with_a_typed_output_is_that_output(mesh, viewer):
    agent = Agent(TestModel(custom_output_args={"name": "Paris"}), output_type=City)
    async with conversing(mesh, agent, "typed"):
        handle = await appears(viewer, "typed")
        assert await handle.request("where?", model=City, timeout=20) == City(name="Paris")


async def test_a_successor_goes_on_behind_the_tools_that_were_used(bus, mesh, viewer, bus_connection):
    used = []
    dying = Scripted(calls("first", id="1"), calls("second", id="2"), says("unseen"))
    heir = Scripted(says("both done"), says("yes"))

    def agent(script):
        agent = Agent(script.model)

        @agent.tool_plain
        async def first() -> str:
            used.append("first")
            return "1"

        @agent.tool_plain(requires_approval=True)
        async def second() -> str:
            used.append("second")
            return "2"

        return agent

    handle = viewer.process("heir")
    async with crashing(bus.url, bus_connection, "heir", allow=ALLOW) as proc:
        task = asyncio.create_task(converse(proc, agent(dying)))
        sent = await handle.send("go")
        await shown(handle, lambda seen: of(seen, "asked"))
        question = (await handle.record()).asks
    task.cancel()
    async with conversing(mesh, agent(heir), "heir"):
        await until(lambda: same_question(handle, question))
        assert (await handle.answer("yes")).applied
        assert await sent.reply(timeout=20) == "both done"
        assert used == ["first", "second"]
        assert heir.requests == [
            [
                ("user", "go"),
                ("call", "first"),
                ("return", "first", "1"),
                ("call", "second"),
                ("return", "second", "2"),
            ]
        ]
        await handle.send("sure?")
        await shown(handle, lambda seen: text(seen).endswith("yes"))
        assert heir.requests[1] == [*heir.requests[0], ("text", "both done"), ("user", "sure?")]


async def same_question(handle, asks):
    record = await handle.record()
    return record is not None and record.epoch > 1 and list(record.asks) == list(asks)
