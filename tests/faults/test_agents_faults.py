"""An owner of a LangGraph thread that is killed: the thread is the checkpointer's, and the conversation goes on."""

from __future__ import annotations

import asyncio
import sys

from crashing import bury
from meshes import appears, make_mesh
from talking import of, shown, text
from test_asking_faults import waits_for
from test_sdk_faults import stop

import natsproc
from natsproc.bus.connection import Connection, Endpoint

OWNER = """
import asyncio, sys, natsproc
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt
from natsproc.agents.langgraph import converse

url, file = sys.argv[1:]
model = GenericFakeChatModel(messages=iter([AIMessage("said once"), AIMessage("and later")]))

async def agent(state):
    return {"messages": [await model.ainvoke(state["messages"])]}

async def ask(state):
    first = interrupt("Where to?")
    return {"messages": [AIMessage(first + interrupt("Sure?"))]}

async def main():
    async with AsyncSqliteSaver.from_conn_string(file) as saver:
        builder = StateGraph(MessagesState).add_node(agent).add_node(ask)
        graph = builder.add_edge(START, "agent").add_edge("agent", "ask").compile(checkpointer=saver)
        async with natsproc.connect(url) as mesh, mesh.own("thread") as proc:
            await converse(proc, graph)

asyncio.run(main())
"""


async def start(server, folder):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, server.url, str(folder / "threads.sqlite")
    )


async def successor(server, folder, handle, child):
    """Kill the owner, so that nobody has to wait for its lease to expire, and start the next one."""
    node = (await handle.record()).node
    child.kill()
    await child.wait()
    connection = await Connection.open(Endpoint((server.url,), sender="tester"))
    await bury(connection, node)
    await connection.close()
    return await start(server, folder)


async def test_a_thread_outlives_its_owner_and_its_question_stays_the_same(server, tmp_path):
    await make_mesh(server.url)
    async with natsproc.connect(server.url, sender="viewer") as mesh:
        child = await start(server, tmp_path)
        try:
            handle = await appears(mesh, "thread")
            sent = await handle.send("deploy")
            first = await waits_for(handle, "Where to?")
            child = await successor(server, tmp_path, handle, child)
            await shown(handle, lambda seen: len(of(seen, "asked")) == 2)
            assert await waits_for(handle, "Where to?") == first
            assert (await handle.answer("staging ", first)).applied
            second = await waits_for(handle, "Sure?")
            child = await successor(server, tmp_path, handle, child)
            await shown(handle, lambda seen: len(of(seen, "asked")) == 4)
            assert await waits_for(handle, "Sure?") == second
            assert (await handle.answer("yes", second)).applied
            assert await sent.reply(timeout=30) == "staging yes"
            seen = await shown(handle, lambda seen: of(seen, "turn_ended"))
            assert text(seen) == "said oncestaging yes"  # nothing was said twice
            assert len({e.data["ask"] for e in of(seen, "asked")}) == 2
        finally:
            await stop(child)
