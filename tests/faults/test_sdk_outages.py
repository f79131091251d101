"""The server away at every step of a process's life, and an owner that comes back too late."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time

import pytest
from link import Link
from meshes import make_mesh

import natsproc
from natsproc import hosted
from natsproc.bus import inbox


async def away(server, step):
    """Do a step while the server is away, which comes back meanwhile."""
    await asyncio.to_thread(server.kill)

    async def come_back():
        await asyncio.sleep(0.2)
        await asyncio.to_thread(server.start)

    back = asyncio.create_task(come_back())
    async with asyncio.timeout(30):
        result = await step
    await back
    return result


async def own_soon(mesh, id):
    """Own it as soon as the lease of whoever had it has expired."""
    async with asyncio.timeout(30):
        while True:
            try:
                owning = mesh.own(id)
                return owning, await owning.__aenter__()
            except natsproc.AlreadyRunning:
                await asyncio.sleep(0.2)


async def log(mesh, id, **options):
    return [e async for e in mesh.process(id).tail(follow=False, **options) if isinstance(e, natsproc.Event)]


async def test_a_server_that_goes_away_at_any_step_delays_it_and_costs_nothing(server):
    await make_mesh(server.url)
    async with natsproc.connect(server.url) as mesh, natsproc.connect(server.url, sender="viewer") as viewer:
        async with mesh.own("first"):
            pass  # the node has its lease
        owning = mesh.own("outage")
        proc = await away(server, owning.__aenter__())
        handle = viewer.process("outage")

        async def speak():
            for number in range(10):
                await proc.emit("n", number)
            await proc.flush()

        await away(server, speak())
        await away(server, handle.send("hello"))
        assert (await away(server, proc.receive())).data == "hello"
        assert (await away(server, handle.ping(timeout=20))).applied
        assert (await away(server, handle.pause(timeout=20))).applied
        assert (await away(server, handle.resume(timeout=20))).applied
        assert [info.address.id for info in await away(server, viewer.list())] == ["outage"]
        waiting = asyncio.create_task(handle.wait())
        await away(server, owning.__aexit__(None, None, None))
        assert (await asyncio.wait_for(waiting, 20)).status == "completed"
        seen = await log(viewer, "outage")
        assert [e.offset for e in seen] == list(range(1, len(seen) + 1))
        assert [e.data for e in seen if e.type == "n"] == list(range(10))
        assert [e.type for e in seen if e.type not in ("n", "received")] == [
            "started", "paused", "resumed", "exited",
        ]  # fmt: skip
        assert not await viewer.list()


async def test_without_a_server_calls_say_so_and_closing_does_not_hang(server):
    await make_mesh(server.url)
    mesh = await natsproc.connect(server.url).__aenter__()
    owning = mesh.own("orphan")
    await owning.__aenter__()
    await asyncio.to_thread(server.kill)
    handle = mesh.process("orphan")
    for call in (handle.ping(), handle.wait(timeout=1), handle.interrupt(timeout=1)):
        with pytest.raises((natsproc.NoServer, natsproc.TimedOut)):
            await asyncio.wait_for(call, 20)
    started = time.monotonic()
    await mesh.__aexit__(None, None, None)
    await owning.__aexit__(None, None, None)
    assert time.monotonic() - started < 40
    await asyncio.to_thread(server.start)
    async with natsproc.connect(server.url) as other:
        owning, proc = await own_soon(other, "orphan")
        assert proc.run_number == 1  # it never ended
        await owning.__aexit__(None, None, None)


async def test_an_owner_that_comes_back_after_a_takeover_is_stopped_and_never_counts(server):
    await make_mesh(server.url)
    link = Link(server.port)
    begun, lost = asyncio.Event(), asyncio.Event()
    try:
        async with (
            natsproc.connect(link.url, sender="zombie") as cut_off,
            natsproc.connect(server.url) as mesh,
        ):

            async def work(proc):
                try:
                    await proc.emit("mine", 1)
                    await proc.flush()
                    begun.set()
                    await asyncio.sleep(60)
                finally:
                    lost.set()

            task = asyncio.create_task(cut_off.run(work, id="prize"))
            await asyncio.wait_for(begun.wait(), 20)
            link.cut()
            owning, proc = await own_soon(mesh, "prize")
            await proc.emit("mine", 2)
            link.mend()
            await asyncio.wait_for(lost.wait(), 20)
            with pytest.raises(natsproc.OwnershipLost):
                await asyncio.wait_for(task, 20)
            assert (await mesh.process("prize").ping()).epoch == proc.epoch
            assert (await mesh.process("prize").pause()).applied
            assert [info.state for info in await mesh.list()] == ["paused"]
            await owning.__aexit__(None, None, None)
            seen = await log(mesh, "prize")
            assert [e.data for e in seen if e.type == "mine"] == [1, 2]
            assert [e.type for e in seen].count("exited") == 1
    finally:
        link.close()


async def test_a_message_whose_announcement_is_lost_is_read_with_the_next(server, monkeypatch):
    await make_mesh(server.url)
    hear = inbox.InboxReader._hear
    dropped = []

    def deaf(self, msg):
        if not dropped:
            dropped.append(msg)
        else:
            hear(self, msg)

    monkeypatch.setattr(inbox.InboxReader, "_hear", deaf)
    async with natsproc.connect(server.url) as mesh, mesh.own("listener") as proc:
        for number in range(3):
            await mesh.process("listener").send(number)
        assert [(await proc.receive(timeout=20)).data for _ in range(3)] == [0, 1, 2]
        assert len(dropped) == 1


async def test_a_last_message_whose_announcement_is_lost_is_read_some_time(server, monkeypatch):
    await make_mesh(server.url)
    monkeypatch.setattr(hosted, "TICK_SECONDS", 0.2)
    monkeypatch.setattr(inbox.InboxReader, "_hear", lambda self, msg: None)
    async with natsproc.connect(server.url) as mesh, mesh.own("listener") as proc:
        await mesh.process("listener").send("last")
        assert (await proc.receive(timeout=20)).data == "last"


async def test_a_message_that_comes_while_the_inbox_is_read_is_taken_after_it(server, monkeypatch):
    await make_mesh(server.url)
    read, hear = inbox.InboxReader._read, inbox.InboxReader._hear
    heard, reading = [], threading.Event()

    async def read_for_long(self):
        await read(self)
        reading.set()
        while not heard:
            await asyncio.sleep(0.01)

    def note(self, msg):
        hear(self, msg)
        heard.append(msg)

    monkeypatch.setattr(inbox.InboxReader, "_hear", note)
    async with natsproc.connect(server.url) as mesh, mesh.own("listener") as proc:
        monkeypatch.setattr(inbox.InboxReader, "_read", read_for_long)
        mesh.io.post(proc._hosted._inbox.look_again)
        await asyncio.to_thread(reading.wait, 20)
        await mesh.process("listener").send("meanwhile")
        assert (await proc.receive(timeout=20)).data == "meanwhile"


async def test_a_node_that_only_lost_its_lease_is_not_called_unreachable(server):
    await make_mesh(server.url)
    async with natsproc.connect(server.url) as mesh, natsproc.connect(server.url, sender="viewer") as viewer:
        async with mesh.own("alive") as proc:
            items = []

            async def watch():
                async for item in viewer.process("alive").tail():
                    items.append(item)

            watcher = asyncio.create_task(watch())
            node = await mesh.node()

            async def lose():
                await node.registry._leases.purge(node.name)

            for _ in range(3):
                await mesh.io.call(lose())
                assert [info.state for info in await viewer.list()] == ["running"]
                await proc.flush()
                assert (await viewer.process("alive").ping()).applied
                await asyncio.sleep(0.3)
        await asyncio.wait_for(watcher, 20)
        assert "unreachable" not in [item.type for item in items]


PROGRAMS = {
    "plain": "def work(proc):\n    proc.log('begun'); print('begun', flush=True); input()",
    "coroutine": (
        "async def work(proc):\n    await proc.log('begun'); print('begun', flush=True); "
        "await asyncio.to_thread(input)"
    ),
}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_program_that_waits_for_its_end_to_be_stored_says_so_and_can_be_left(server, kind):
    code = f"import asyncio, natsproc\n{PROGRAMS[kind]}\nnatsproc.run(work, id='left', server={server.url!r})"
    asyncio.run(make_mesh(server.url))
    program = subprocess.Popen(
        [sys.executable, "-c", code],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with program:
        try:
            assert program.stdout.readline() == "begun\n"
            server.kill()
            program.stdin.write("go\n")
            program.stdin.flush()
            said = program.stderr.readline()
            assert said.startswith("natsproc: left has ended; waiting for"), said
            program.send_signal(signal.SIGINT)
            rest = program.communicate(timeout=20)[1]
            assert rest.endswith("KeyboardInterrupt\n")
            assert "never retrieved" not in rest
        finally:
            program.kill()
