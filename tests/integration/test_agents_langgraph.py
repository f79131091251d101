"""A LangGraph graph under an address: what is streamed, stopped, steered and asked, with models of langchain-core's kind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Send, interrupt
from meshes import appears, until
from pydantic import Field
from talking import ended, has, of, shown, talking, text

from natsproc.agents.langgraph import converse


class Scripted(BaseChatModel):
    """A model that streams what a script says, and remembers what it was sent; the first piece has the message's id."""

    scripts: list[Any]
    requests: list[Any] = Field(default_factory=list)

    @property
    def _llm_type(self):
        return "scripted"

    def _generate(self, *_, **__):
        raise NotImplementedError

    async def _astream(self, messages, stop=None, run_manager=None, **_):
        self.requests.append(parts(messages))
        number = len(self.requests)
        async for piece in self.scripts.pop(0)():
            chunk = (
                AIMessageChunk(piece)
                if isinstance(piece, str)
                else AIMessageChunk("", tool_call_chunks=piece)
            )
            chunk.id = f"answer-{number}" if number % 2 else None
            yield ChatGenerationChunk(message=chunk)
            number = 0


def parts(messages):
    said = []
    for message in messages:
        if message.text:
            said.append((message.type, message.text))
        said += [("call", call["name"]) for call in getattr(message, "tool_calls", ())]
    return said


def says(*pieces, then=None):
    async def script():
        for piece in pieces:
            yield piece
        if then is not None:
            await then.wait()

    return script


def call(name, args="{}", id="c1", index=0):
    return {"name": name, "args": args, "id": id, "index": index, "type": "tool_call_chunk"}


def built(model, tools=(), saver=None, **nodes):
    """START → agent ⇄ tools, and any nodes in a row behind."""

    async def agent(state):
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("agent", agent)
    builder.add_node("tools", ToolNode(list(tools)))
    builder.add_edge(START, "agent")
    builder.add_edge("tools", "agent")
    last = END
    for name, node in reversed(nodes.items()):
        builder.add_node(name, node)
        builder.add_edge(name, last)
        last = name
    builder.add_conditional_edges("agent", tools_condition, {"tools": "tools", END: last})
    return builder.compile(checkpointer=saver or InMemorySaver())


def conversing(mesh, graph, id, **options):
    return talking(mesh, lambda proc: converse(proc, graph, **options), id)


async def thread(graph, id):
    state = await graph.aget_state({"configurable": {"thread_id": id}})
    return state.values["messages"]


@tool
async def weather(city: str) -> str:
    """How the weather is."""
    return f"clear in {city}"


async def test_tokens_stream_and_tools_are_events_and_what_is_said_last_is_the_reply(mesh, viewer):
    model = Scripted(
        scripts=[says("let me ", "see", [call("weather", '{"city": "Paris"}')]), says("it is ", "sunny")]
    )
    graph = built(model, [weather])
    async with conversing(mesh, graph, "lg-weather"):
        handle = await appears(viewer, "lg-weather")
        assert await handle.request("how is it?", timeout=20) == "it is sunny"
        seen = await shown(handle, ended(1))
        called, result = of(seen, "tool_call", "tool_result")
        assert called.data == {"id": "c1", "name": "weather", "arguments": {"city": "Paris"}}
        assert result.data == {"id": "c1", "name": "weather", "result": "clear in Paris", "status": "success"}
        assert [e.data["text"] for e in of(seen, "text")] == ["let me see", "it is sunny"]
        (message,) = of(seen, "received")
        assert {e.cause for e in of(seen, "token", "tool_call", "tool_result")} == {message.data["message"]}
        assert parts(await thread(graph, "lg-weather")) == [
            ("human", "how is it?"), ("ai", "let me see"), ("call", "weather"), ("tool", "clear in Paris"),
            ("ai", "it is sunny"),
        ]  # fmt: skip


class Held(InMemorySaver):
    """One that does not answer, once it is told so, the next time it is asked."""

    hold = False

    async def aget_tuple(self, config):
        if self.hold:
            self.hold = False
            await asyncio.Event().wait()
        return await super().aget_tuple(config)


async def test_a_message_whose_answer_is_stopped_before_it_begins_is_in_the_thread(mesh, viewer):
    model, saver = Scripted(scripts=[says("one"), says("three")]), Held()
    graph = built(model, saver=saver)
    async with conversing(mesh, graph, "lg-early"):
        handle = await appears(viewer, "lg-early")
        assert await handle.request("first", timeout=20) == "one"
        await shown(handle, ended(1))
        saver.hold = True
        await handle.send("second")
        await until(lambda: asyncio.sleep(0, not saver.hold), 20)
        assert (await handle.interrupt()).applied
        await shown(handle, ended(2))
        assert await handle.request("third", timeout=20) == "three"
        said = [("human", "first"), ("ai", "one"), ("human", "second"), ("human", "third")]
        assert model.requests[-1] == said
        assert parts(await thread(graph, "lg-early")) == [*said, ("ai", "three")]


async def test_a_fake_model_of_langchain_and_what_a_node_says_by_itself(mesh, viewer):
    async def adds(state):
        return {"messages": [AIMessage("by myself")]}

    graph = built(GenericFakeChatModel(messages=iter([AIMessage("one two three")])), adds=adds)
    async with conversing(mesh, graph, "lg-fake", config={"configurable": {"thread_id": "another"}}):
        handle = await appears(viewer, "lg-fake")
        assert await handle.request("count", timeout=20) == "by myself"
        seen = await shown(handle, ended(1))
        assert [e.data["text"] for e in of(seen, "text")] == ["one two three", "by myself"]
        assert len(of(seen, "token")) > 3
        assert len(await thread(graph, "another")) == 3


async def test_stop_keeps_what_was_seen_and_the_next_turn_goes_on_from_there(mesh, viewer):
    model = Scripted(scripts=[says("one ", "two ", then=asyncio.Event()), says("three")])
    graph = built(model)
    async with conversing(mesh, graph, "lg-counter"):
        handle = await appears(viewer, "lg-counter")
        await handle.send("count")
        await shown(handle, lambda seen: text(seen) == "one two ")
        assert (await handle.interrupt()).applied
        await shown(handle, ended(1))
        assert parts(await thread(graph, "lg-counter")) == [("human", "count"), ("ai", "one two ")]
        await handle.send("go on")
        seen = await shown(handle, ended(2))
        assert [e.data["status"] for e in of(seen, "turn_ended")] == ["interrupted", "completed"]
        assert model.requests[1] == [("human", "count"), ("ai", "one two "), ("human", "go on")]


async def test_stop_before_the_first_token_keeps_what_was_asked(mesh, viewer):
    asked = asyncio.Event()

    async def silent():
        asked.set()
        await asyncio.Event().wait()
        yield "never"

    model = Scripted(scripts=[silent, says("ok")])
    async with conversing(mesh, built(model), "lg-silent"):
        handle = await appears(viewer, "lg-silent")
        await handle.send("a")
        await asyncio.wait_for(asked.wait(), 20)
        assert (await handle.interrupt("b")).applied
        await shown(handle, ended(2))
        assert model.requests[1] == [("human", "a"), ("human", "b")]


async def test_a_result_that_was_seen_while_another_tool_runs_is_kept(mesh, viewer):
    """Each call in a task of its own, as agents of langchain have it."""

    @tool
    async def slow() -> str:
        """Slow."""
        await asyncio.sleep(60)
        return "never"

    async def agent(state):
        return {"messages": [await model.ainvoke(state["messages"])]}

    def each(state):
        last = state["messages"][-1]
        made = [{**made, "type": "tool_call"} for made in getattr(last, "tool_calls", ())]
        return [Send("tools", [made]) for made in made] or END

    quick = call("weather", '{"city": "Rome"}', id="q")
    model = Scripted(scripts=[says([quick, call("slow", id="s", index=1)]), says("ok")])
    builder = StateGraph(MessagesState).add_node("agent", agent).add_node("tools", ToolNode([weather, slow]))
    builder.add_edge(START, "agent").add_edge("tools", "agent").add_conditional_edges(
        "agent", each, ["tools", END]
    )
    async with conversing(mesh, builder.compile(checkpointer=InMemorySaver()), "lg-each"):
        handle = await appears(viewer, "lg-each")
        await handle.send("go")
        await shown(handle, lambda seen: of(seen, "tool_result"))
        await handle.interrupt("well?")
        await shown(handle, ended(2))
        assert model.requests[1] == [
            ("human", "go"), ("call", "weather"), ("call", "slow"), ("tool", "clear in Rome"),
            ("tool", "The tool call was interrupted before a result was produced."), ("human", "well?"),
        ]  # fmt: skip


async def test_what_the_graph_had_and_nobody_saw_is_not_in_the_thread(mesh, viewer):
    """A pause holds what is shown, not what the graph does."""
    go, said = asyncio.Event(), asyncio.Event()

    async def long():
        yield "one "
        await go.wait()
        for number in range(300):
            yield f"{number} "
        said.set()

    model = Scripted(scripts=[long, says("ok")])
    graph = built(model)
    async with conversing(mesh, graph, "lg-paused"):
        handle = await appears(viewer, "lg-paused")
        await handle.send("count")
        await shown(handle, lambda seen: of(seen, "token"))
        assert (await handle.pause()).applied
        go.set()
        await asyncio.wait_for(said.wait(), 20)
        assert (await handle.interrupt()).applied
        await handle.resume()
        saw = text(await shown(handle, ended(1)))
        assert parts(await thread(graph, "lg-paused")) == [("human", "count"), ("ai", saw)]


async def test_stop_among_tools_keeps_the_results_that_were_seen(mesh, viewer):
    @tool
    async def quick() -> str:
        """Quick."""
        return "done"

    @tool
    async def slow() -> str:
        """Slow."""
        await asyncio.sleep(60)
        return "never"

    model = Scripted(scripts=[says([call("quick", id="q"), call("slow", id="s", index=1)]), says("ok")])
    graph = built(model, [quick, slow])
    async with conversing(mesh, graph, "lg-tools"):
        handle = await appears(viewer, "lg-tools")
        await handle.send("go")
        await shown(handle, lambda seen: len(of(seen, "tool_call")) == 2)
        await handle.interrupt("well?")
        await shown(handle, ended(2))
        assert model.requests[1][:3] == [("human", "go"), ("call", "quick"), ("call", "slow")]
        assert model.requests[1][-1] == ("human", "well?")
        results = [message for message in await thread(graph, "lg-tools") if message.type == "tool"]
        assert {result.tool_call_id: result.status for result in results} == {"q": "error", "s": "error"}


async def test_double_texting_follows_when(mesh, viewer):
    go = asyncio.Event()

    async def looks():
        yield "let me see"
        await go.wait()
        yield [call("weather", '{"city": "Rome"}')]

    model = Scripted(scripts=[looks, says("steered"), says("later ", then=asyncio.Event()), says("now this")])
    async with conversing(mesh, built(model, [weather]), "lg-texted") as waiting:
        handle = await appears(viewer, "lg-texted")
        await handle.send("begin")
        await shown(handle, text)
        await mesh.process("lg-texted").send("for later", when="idle")
        await handle.send("by the way", when="next")
        await until(lambda: has(waiting, 2))
        go.set()  # it calls a tool next, and no message comes between that and its result
        await shown(handle, lambda seen: "later" in text(seen))
        await handle.send("stop", when="now")
        seen = await shown(handle, ended(3))
        began = [
            ("human", "begin"), ("ai", "let me see"), ("call", "weather"), ("tool", "clear in Rome"),
            ("human", "by the way"),
        ]  # fmt: skip
        later = [*began, ("ai", "steered"), ("human", "for later")]
        assert model.requests[1:] == [began, later, [*later, ("ai", "later "), ("human", "stop")]]
        assert [e.data["status"] for e in of(seen, "turn_ended")] == ["completed", "interrupted", "completed"]


async def test_what_a_node_asks_a_person_answers(mesh, viewer):
    async def ask(state):
        where = interrupt("Where to?")
        sure = interrupt({"question": f"Really to {where}?", "choices": ["yes", "no"]})
        return {"messages": [AIMessage(f"{where}: {sure}")]}

    graph = built(Scripted(scripts=[says("deploying"), says("again")]), ask=ask)
    async with conversing(mesh, graph, "lg-asks"):
        handle = await appears(viewer, "lg-asks")
        sent = await handle.send("deploy")
        await shown(handle, lambda seen: of(seen, "asked"))
        assert (await handle.answer("staging")).applied
        (_, second) = of(await shown(handle, lambda seen: len(of(seen, "asked")) == 2), "asked")
        assert (second.data["question"], second.data["choices"]) == ("Really to staging?", ["yes", "no"])
        assert (await handle.answer("yes")).applied
        assert await sent.reply(timeout=20) == "staging: yes"
        await handle.send("deploy")
        await shown(handle, lambda seen: len(of(seen, "asked")) == 3)  # the same words, and another question
        await handle.interrupt()
        await shown(handle, ended(2))
        assert parts(await thread(graph, "lg-asks"))[-2:] == [("human", "deploy"), ("ai", "again")]
        assert not (await graph.aget_state({"configurable": {"thread_id": "lg-asks"}})).next


async def test_what_fails_ends_the_turn_and_not_the_conversation(mesh, viewer):
    async def breaks():
        yield "half "
        raise RuntimeError("the model is away")

    model = Scripted(scripts=[breaks, says("whole")])
    async with conversing(mesh, built(model), "lg-fails"):
        handle = await appears(viewer, "lg-fails")
        await handle.send("a")
        await shown(handle, ended(1))
        await handle.send("b")
        seen = await shown(handle, ended(2))
        assert [e.data["status"] for e in of(seen, "turn_ended")] == ["failed", "completed"]
        assert model.requests[1] == [("human", "a"), ("ai", "half "), ("human", "b")]


async def test_a_graph_that_never_ends_is_held_to_its_recursion_limit(mesh, viewer):
    model = Scripted(scripts=[says([call("weather", '{"city": "Rome"}', id=f"c{n}")]) for n in range(9)])
    async with conversing(mesh, built(model, [weather]), "lg-endless", config={"recursion_limit": 4}):
        handle = await appears(viewer, "lg-endless")
        await handle.send("go")
        seen = await shown(handle, ended(1))
        assert "after 4 steps" in of(seen, "turn_ended")[0].data["error"]
        assert len(of(seen, "tool_result")) == 2


async def test_a_graph_without_a_checkpointer_is_refused(mesh):
    async with mesh.own("lg-none") as proc:
        with pytest.raises(ValueError, match="checkpointer"):
            await converse(
                proc, StateGraph(MessagesState).add_node("a", lambda _: {}).add_edge(START, "a").compile()
            )
