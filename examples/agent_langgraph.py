"""A LangGraph graph under an address. Offline it has a scripted model, or name a real one.

    python examples/agent_langgraph.py                             # in one terminal; kill -9 it, and start it again
    python examples/agent_langgraph.py --model openai:gpt-5        # pip install langchain langchain-openai
    natsproc attach graph                                          # in another: every line that you type is sent
    natsproc send graph "note: buy milk"                           # it asks first: natsproc answer graph yes
    natsproc interrupt graph -m "no, coffee"                       # stop it, and say this instead

The thread is in threads.sqlite, where it is called (pip install langgraph-checkpoint-sqlite).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt

import natsproc
from natsproc.agents.langgraph import converse


@tool
async def note(text: str) -> str:
    """Remember something."""
    said = interrupt({"question": f"Write {text!r} down?", "choices": ["yes", "no"]})
    return f"noted: {text}" if said == "yes" else "a person said no"


class Offline(BaseChatModel):
    """Says again what was said, word by word; a `note: …` is a use of the tool."""

    @property
    def _llm_type(self) -> str:
        return "offline"

    def bind_tools(self, *_: Any, **__: Any) -> Any:
        return self

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        raise NotImplementedError

    async def _astream(
        self, messages: list[BaseMessage], *_: Any, **__: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        said = messages[-1].text
        if isinstance(messages[-1], HumanMessage) and said.startswith("note: "):
            call = {
                "name": "note",
                "args": f'{{"text": "{said[6:]}"}}',
                "id": f"note-{len(messages)}",
                "index": 0,
            }
            yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[call]))
            return
        for word in f"After {len(messages)} messages you tell me: {said}".split():
            yield ChatGenerationChunk(message=AIMessageChunk(f"{word} "))
            await asyncio.sleep(0.3)


def graph_of(model: Any) -> StateGraph[MessagesState, None, MessagesState, MessagesState]:
    """A model that may use the tool as often as it likes."""
    able = model.bind_tools([note])

    async def agent(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await able.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("agent", agent)
    builder.add_node("tools", ToolNode([note]))
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", tools_condition)
    builder.add_edge("tools", "agent")
    return builder


async def main(id: str, name: str | None) -> None:
    if name:
        from langchain.chat_models import init_chat_model

    builder = graph_of(init_chat_model(name) if name else Offline())
    async with (
        AsyncSqliteSaver.from_conn_string("threads.sqlite") as saver,
        natsproc.connect(start=True) as mesh,
        mesh.own(id, kind="chat", allow=("idle", "next", "now")) as proc,
    ):
        await converse(proc, builder.compile(checkpointer=saver))


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("id", nargs="?", default="graph")
    options.add_argument("--model")
    chosen = options.parse_args()
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(main(chosen.id, chosen.model))
    except natsproc.Cancelled:
        sys.exit(natsproc.Cancelled.code)
    except natsproc.Error as error:
        sys.exit(f"natsproc: {error}")
