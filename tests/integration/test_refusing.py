"""A process that refuses by sender: what it refuses is a receipt and in the log, and nothing else comes of it."""

from __future__ import annotations

import asyncio

import pytest
from meshes import make_mesh

import natsproc
from natsproc.errors import Refused


@pytest.fixture
async def url(server):
    await make_mesh(server.url)
    return server.url


def only_the_boss(sender, verb):
    if verb == "inspect":
        raise RuntimeError("no")
    return None if sender == "boss" else f"{sender} may not {verb}, only boss may"


async def test_a_command_is_answered_with_why_and_does_nothing(url):
    async with (
        natsproc.connect(url, sender="worker") as mesh,
        natsproc.connect(url, sender="alice") as alice,
        natsproc.connect(url, sender="boss") as boss,
    ):
        async with mesh.own("job", refuse=only_the_boss) as proc:
            handle = alice.process("job")
            for call in (handle.interrupt("stop"), handle.pause(), handle.cancel(), handle.kill()):
                receipt = await call
                assert (receipt.status, receipt.sender) == ("refused", "alice")
                assert "only boss may" in receipt.why
                assert receipt.offset
            assert (await handle.ping()).applied
            assert (await boss.process("job").pause()).applied
            assert (await boss.process("job").resume()).applied
            with pytest.raises(Refused, match="RuntimeError"):
                await boss.process("job").inspect()
            await proc.emit("said", "goes on")
        events = [item async for item in handle.tail(follow=False) if isinstance(item, natsproc.Event)]
        refused = [event.data for event in events if event.type == "refused"]
        assert [(data["sender"], data["verb"]) for data in refused] == [
            ("alice", "interrupt"), ("alice", "pause"), ("alice", "cancel"), ("alice", "kill")
        ]  # fmt: skip
        assert events[-1].data["status"] == "completed"


async def test_a_message_is_refused_in_its_turn_and_its_sender_told(url):
    async with (
        natsproc.connect(url, sender="worker") as mesh,
        natsproc.connect(url, sender="alice") as alice,
        natsproc.connect(url, sender="boss") as boss,
        mesh.own("job", refuse=only_the_boss) as proc,
    ):
        refused = [await alice.process("job").send(n, when="now") for n in range(3)]
        await boss.process("job").send("first")
        refused += [await alice.process("job").send("between", when="next")]
        await boss.process("job").send("second")
        async with proc.turn() as turn:  # which none of them interrupts
            refused += [await alice.process("job").send("now", when="now")]
            with pytest.raises(Refused, match="alice may not message"):
                await refused[-1].consumed(timeout=10)
            assert await turn.boundary() == []
        for expected in ("first", "second"):
            message = await asyncio.wait_for(proc.receive(), 10)
            assert (message.sender, message.data) == ("boss", expected)
        for sent in refused:
            for wait in (sent.consumed, sent.reply):
                with pytest.raises(Refused, match="alice may not message"):
                    await wait(timeout=10)
        with pytest.raises(natsproc.TimedOut):
            await proc.receive(timeout=0.3)


async def test_what_was_refused_is_read_when_its_owner_is_gone(url):
    """Its place in the inbox is kept, so a successor that takes everything is not given it."""
    async with natsproc.connect(url, sender="worker") as mesh, natsproc.connect(url, sender="alice") as alice:
        async with mesh.own("job", refuse=lambda sender, verb: "no") as proc:
            await alice.process("job").send("refused")
            with pytest.raises(natsproc.TimedOut):
                await proc.receive(timeout=0.5)
            await proc.flush()
        async with mesh.own("job", restart=True) as proc:
            await alice.process("job").send("taken")
            assert (await asyncio.wait_for(proc.receive(), 10)).data == "taken"


async def test_a_function_is_marked_with_what_it_refuses(url):
    @natsproc.process(refuse=lambda sender, verb: "never" if verb == "cancel" else None)
    async def job(proc):
        return (await proc.receive()).data

    async with natsproc.connect(url, sender="worker") as mesh:
        running = asyncio.create_task(mesh.run(job, id="job"))
        handle = mesh.process("job")
        async with asyncio.timeout(20):
            while not await mesh.list():
                await asyncio.sleep(0.01)
        assert (await handle.cancel()).why == "never"
        await handle.send("done")
        assert await running == "done"


async def test_a_refused_message_waits_behind_what_its_sender_has_sent_before(url):
    verdicts = iter([None, "no", None])
    async with natsproc.connect(url, sender="worker") as mesh, natsproc.connect(url, sender="alice") as alice:
        async with mesh.own("job", refuse=lambda sender, verb: next(verdicts)) as proc:
            for n in range(3):
                await alice.process("job").send(n)
            assert [(await proc.receive()).data for _ in range(2)] == [0, 2]
        events = [e async for e in alice.process("job").tail(follow=False) if isinstance(e, natsproc.Event)]
        taken = [event.data for event in events if event.type == "received"]
        assert [data["data"] for data in taken] == [0, 1, 2]
        assert [data.get("refused") for data in taken] == [None, "no", None]


async def test_a_sender_that_the_server_does_not_hold_to_its_name_is_unverified(url):
    async with (
        natsproc.connect(url, sender="worker") as mesh,
        natsproc.connect(url, sender="root") as anybody,
    ):
        async with mesh.own("job") as proc:
            receipt = await anybody.process("job").pause()
            assert (receipt.sender, receipt.verified) == ("root", False)
            assert receipt.to_json()["verified"] is False
            await anybody.process("job").resume()
            await proc.flush()
        events = [e async for e in mesh.process("job").tail(follow=False) if isinstance(e, natsproc.Event)]
        by = {event.type: event.data for event in events}
        assert by["paused"]["sender"] == "root"
        assert by["paused"]["verified"] is False
        assert "verified" not in by["exited"]
