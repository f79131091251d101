"""Turns when the server is away or the owner dies: what is given as said is stored, and nothing sent is lost."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest
from meshes import appears, make_mesh
from test_sdk_faults import stop

import natsproc

AGENT = """
import asyncio, sys, natsproc
async def agent(proc):
    async for message in proc.inbox():
        async with proc.turn(message) as turn:
            while message.data == "work":
                await asyncio.sleep(0.01)
                for more in await turn.boundary():
                    await proc.message(more.data)
        if message.data == "bye":
            return
natsproc.run(agent, id="agent", server=sys.argv[1])
"""


async def test_what_a_turn_has_said_is_given_only_once_it_is_stored(server):
    await make_mesh(server.url)
    async with natsproc.connect(server.url) as mesh, mesh.own("agent") as proc:

        async def turn():
            with pytest.raises(natsproc.Interrupted) as stopped:
                async with proc.turn():
                    server.freeze()
                    await proc.message("unseen")
                    await asyncio.sleep(60)
            return proc._log.stored, stopped.value.partial

        task = asyncio.create_task(turn())
        while not proc._interruptions.turns():
            await asyncio.sleep(0.01)
        stopping = proc._interruptions.interrupt(natsproc.Interrupted("stop"))
        assert (await asyncio.wrap_future(stopping)).status == "applied"
        await asyncio.wait([task], timeout=0.5)
        assert not task.done()
        server.thaw()
        stored, partial = await asyncio.wait_for(task, 30)
        assert partial.text == "unseen"
        assert partial.events[-1].offset <= stored


async def test_after_a_kill_every_message_is_there_whenever_it_was_to_land(server):
    await make_mesh(server.url)
    async with natsproc.connect(server.url, sender="viewer") as mesh:
        start = [sys.executable, "-c", AGENT, server.url]
        child = await asyncio.create_subprocess_exec(*start)
        try:
            handle = await appears(mesh, "agent")
            await (await handle.send("work")).consumed(timeout=20)
            waiting = [await handle.send("later", when="idle")]
            taken = await handle.send("more", when="next")
            assert (await taken.consumed(timeout=20)).when == "next"
            waiting += [await handle.send("at last", when="idle"), await handle.send("bye", when="idle")]
            child.send_signal(signal.SIGKILL)
            await child.wait()
            while [info.state for info in await mesh.list()] != ["unreachable"]:
                await asyncio.sleep(0.05)
            child = await asyncio.create_subprocess_exec(*start)
            assert (await handle.wait(timeout=30)).status == "completed"
        finally:
            await stop(child)
        received = [
            item
            async for item in handle.tail()
            if isinstance(item, natsproc.Event) and item.type == "received"
        ]
        assert [e.data["data"] for e in received] == ["work", "later", "more", "at last", "bye"]
        assert [e.data["message"] for e in received if e.data["data"] in ("at last", "bye")] == [
            sent.id for sent in waiting[1:]
        ]
