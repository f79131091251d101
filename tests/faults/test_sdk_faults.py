"""Owners, viewers and servers that die, as seen through the SDK."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading

from link import Link
from meshes import appears, make_mesh

import natsproc

OWNER = """
import asyncio, sys, natsproc
async def count(proc, total, pause):
    for number in range(1, total + 1):
        await proc.output(f"line {number}\\n")
        if pause:
            await asyncio.sleep(pause)
    await proc.receive()
natsproc.run(count, int(sys.argv[2]), float(sys.argv[3]), id="owner", server=sys.argv[1], restart=True)
"""


async def start_owner(url, total, pause=0.0):
    return await asyncio.create_subprocess_exec(sys.executable, "-c", OWNER, url, str(total), str(pause))


async def stop(child):
    if child.returncode is None:
        child.kill()
    await child.wait()


async def test_a_killed_owner_is_noticed_shown_and_taken_over(server):
    await make_mesh(server.url)
    async with natsproc.connect(server.url, sender="viewer") as mesh:
        child = await start_owner(server.url, 10)
        handle = await appears(mesh, "owner")
        items = []

        async def watch():
            async for item in handle.tail():
                items.append(item)

        watcher = asyncio.create_task(watch())

        async def until(found):
            async with asyncio.timeout(20):
                while not found():
                    await asyncio.sleep(0.02)

        await until(lambda: sum(i.type == "output" for i in items) == 10)
        child.send_signal(signal.SIGKILL)
        await child.wait()
        await until(lambda: any(i.type == "unreachable" for i in items))
        assert [info.state for info in await mesh.list()] == ["unreachable"]
        assert not watcher.done()
        async with mesh.own("owner") as proc:
            await proc.log("here now")
        await asyncio.wait_for(watcher, 20)
        types = [item.type for item in items]
        assert types.count("takeover") == 1
        assert types[-3:] == ["log", "exited", "ended"]
        offsets = [item.offset for item in items if isinstance(item, natsproc.Event)]
        assert offsets == list(range(1, len(offsets) + 1))


async def test_lines_at_full_speed_survive_kills_of_the_server_in_order_for_every_viewer(server):
    await make_mesh(server.url)
    total = 6000
    async with natsproc.connect(server.url, sender="viewer") as mesh:
        child = await start_owner(server.url, total, 0.001)
        try:
            handle = await appears(mesh, "owner")

            async def watch(cursor=None):
                seen = []
                async for item in handle.tail(after=cursor):
                    if isinstance(item, natsproc.Event) and item.type == "output":
                        seen.append(item.data["text"])
                        if len(seen) == total:
                            return seen

            async def bounce():
                for _ in range(3):
                    await asyncio.sleep(0.8)
                    await asyncio.to_thread(server.kill)
                    await asyncio.sleep(0.3)
                    await asyncio.to_thread(server.start)

            *seen, _ = await asyncio.wait_for(asyncio.gather(watch(), watch(), watch(), bounce()), 90)
            expected = [f"line {number}\n" for number in range(1, total + 1)]
            assert seen == [expected] * 3
            await handle.send("end")
            assert (await handle.wait(timeout=20)).status == "completed"
        finally:
            await stop(child)


async def test_commands_and_waits_go_on_over_a_restart_of_the_server(server):
    await make_mesh(server.url)
    async with natsproc.connect(server.url, sender="viewer") as mesh:
        child = await start_owner(server.url, 10)
        try:
            handle = await appears(mesh, "owner")
            waiting = asyncio.create_task(handle.wait(timeout=60))
            await asyncio.to_thread(server.kill)
            asked = asyncio.create_task(handle.interrupt(reason="stop", timeout=30))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.start)
            receipt = await asked
            assert receipt.applied
            assert (await waiting).status == "interrupted"
            log = [e async for e in handle.tail() if isinstance(e, natsproc.Event)]
            assert [e.type for e in log].count("interrupted") == 1
            assert log[receipt.offset - 1].type == "interrupted"
        finally:
            await stop(child)


async def test_messages_stored_while_the_owner_was_cut_off_are_found(server):
    await make_mesh(server.url)
    link = Link(server.port)
    try:
        async with (
            natsproc.connect(link.url, sender="owner") as mine,
            natsproc.connect(server.url) as mesh,
            mine.own("cut-off") as proc,
        ):
            handle = mesh.process("cut-off")
            await handle.send("before")
            assert (await proc.receive(timeout=10)).data == "before"
            link.cut()
            for number in range(3):
                await handle.send(number)
            link.mend()
            assert [(await proc.receive(timeout=20)).data for _ in range(3)] == [0, 1, 2]
    finally:
        link.close()


async def test_a_viewer_that_sleeps_past_every_bound_still_sees_each_event_once(server):
    await make_mesh(server.url)
    total = 60_000
    async with (
        natsproc.connect(server.url, sender="viewer") as mesh,
        natsproc.connect(server.url) as owner,
        owner.own("firehose") as proc,
    ):
        tail = mesh.process("firehose").tail(types=["n"])
        first = await anext(tail)
        while not isinstance(first, natsproc.Event):
            await proc.emit("n", 0)
            first = await anext(tail)
        awake = threading.Event()

        async def speak():
            for number in range(1, total):
                await proc.emit("n", number)
            await proc.flush()
            awake.set()

        speaking = asyncio.create_task(speak())
        await asyncio.wait_for(asyncio.to_thread(awake.wait, 60), 60)
        await speaking
        seen = [first.data]
        async with asyncio.timeout(60):
            async for item in tail:
                if isinstance(item, natsproc.Event):
                    seen.append(item.data)
                    if item.data == total - 1:
                        break
        assert seen == list(range(total))
        await tail.aclose()


async def test_a_disconnected_viewer_and_controller_change_nothing(server):
    await make_mesh(server.url)
    async with natsproc.connect(server.url, sender="viewer") as mesh:
        child = await start_owner(server.url, 5)
        try:
            handle = await appears(mesh, "owner")
            program = (
                "import asyncio, sys, natsproc\n"
                "async def main():\n"
                "    async with natsproc.connect(sys.argv[1]) as mesh:\n"
                "        async for item in mesh.process('owner').tail(): print(item.type, flush=True)\n"
                "asyncio.run(main())\n"
            )
            viewer = await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, server.url, stdout=asyncio.subprocess.PIPE
            )
            assert (await viewer.stdout.readline()).strip() == b"started"
            os.kill(viewer.pid, signal.SIGKILL)
            await viewer.wait()
            assert (await handle.ping()).applied
            await handle.send("end")
            assert (await handle.wait(timeout=20)).status == "completed"
        finally:
            await stop(child)
