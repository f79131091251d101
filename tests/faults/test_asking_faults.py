"""Questions that outlive who asked them: kills of the owner and of the server while somebody is to answer."""

from __future__ import annotations

import asyncio
import sys

from link import Link
from meshes import appears, make_mesh
from test_sdk_faults import stop

import natsproc
from natsproc.protocol.messages import Command

OWNER = """
import asyncio, sys, natsproc
async def deploy(proc):
    first = await proc.ask("Where to?", ["staging", "production"])
    second = await proc.ask("Sure?", ["yes", "no"])
    return [first, second]
natsproc.run(deploy, id="deploy", server=sys.argv[1])
"""


async def start(url):
    return await asyncio.create_subprocess_exec(sys.executable, "-c", OWNER, url)


async def waits_for(handle, question):
    async with asyncio.timeout(30):
        while not (
            (record := await handle.record()) and [a for a in record.asks if a["question"] == question]
        ):
            await asyncio.sleep(0.02)
        return record.asks[0]["ask"]


async def kill(mesh, child):
    child.kill()
    await child.wait()
    async with asyncio.timeout(30):
        while [info.state for info in await mesh.list()] != ["unreachable"]:
            await asyncio.sleep(0.02)
    (info,) = await mesh.list()
    return info.record


async def taken_over(handle, before):
    async with asyncio.timeout(30):
        while (await handle.record()).epoch == before.epoch:
            await asyncio.sleep(0.02)


async def test_a_question_outlives_its_owner_and_an_answer_is_given_once(server):
    await make_mesh(server.url)
    async with natsproc.connect(server.url, sender="viewer") as mesh:
        child = await start(server.url)
        try:
            handle = await appears(mesh, "deploy")
            first = await waits_for(handle, "Where to?")
            record = await kill(mesh, child)
            assert [a["ask"] for a in record.asks] == [first]  # what waits for a person is still found
            child = await start(server.url)
            await taken_over(handle, record)
            assert await waits_for(handle, "Where to?") == first
            assert (await handle.answer("staging", first)).applied
            second = await waits_for(handle, "Sure?")
            record = await kill(mesh, child)
            held = await handle.answer("yes", second, hold=60)
            assert "held_until" in held.data
            child = await start(server.url)
            assert await handle.result(timeout=30) == ["staging", "yes"]
            late = await handle.answer("production", first)
            assert late.status == "too_late"
        finally:
            await stop(child)
        seen = [item async for item in handle.tail() if isinstance(item, natsproc.Event)]
        said = [(e.type, e.data["ask"]) for e in seen if e.type in ("asked", "answered")]
        assert said.count(("answered", first)) == said.count(("answered", second)) == 1
        assert {ask for _, ask in said} == {first, second}


async def test_a_question_outlives_a_restart_of_the_server(server):
    await make_mesh(server.url)
    async with natsproc.connect(server.url, sender="viewer") as mesh:
        child = await start(server.url)
        try:
            handle = await appears(mesh, "deploy")
            await waits_for(handle, "Where to?")
            await asyncio.to_thread(server.kill)
            answering = asyncio.create_task(handle.answer("production", timeout=30))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.start)
            assert (await answering).applied
            await waits_for(handle, "Sure?")
            assert (await handle.answer("no")).applied
            assert await handle.result(timeout=30) == ["production", "no"]
        finally:
            await stop(child)


async def test_an_answer_reaches_the_code_only_once_it_is_stored(server):
    await make_mesh(server.url)
    link = Link(server.port)
    try:
        async with (
            natsproc.connect(link.url, sender="owner") as mine,
            natsproc.connect(server.url, sender="viewer") as mesh,
            mine.own("deploy") as proc,
        ):
            asking = asyncio.create_task(proc.ask("Where to?"))
            handle = mesh.process("deploy")
            await waits_for(handle, "Where to?")
            link.cut()
            answering = proc._hosted.apply(Command("c1", "answer", "owner", data={"value": "production"}))
            answered = asyncio.create_task(mine.io.call(answering))
            await asyncio.wait([asking, answered], timeout=0.5)
            assert not asking.done()
            assert not answered.done()
            link.mend()
            assert await asyncio.wait_for(asking, 20) == "production"
            assert (await answered).applied
    finally:
        link.close()
