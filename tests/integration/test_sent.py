"""What becomes of messages: taken, replied to, or neither, as senders hear it."""

from __future__ import annotations

import asyncio

import pytest
from meshes import events
from pydantic import BaseModel

import natsproc


class Answer(BaseModel):
    total: int


async def test_consumed_returns_when_the_process_has_taken_the_message(mesh, viewer):
    async with mesh.own("taker") as proc:
        handle = viewer.process("taker")
        first, second = await handle.send("one"), await handle.send("two")
        waiting = asyncio.create_task(second.consumed(timeout=10))
        assert (await proc.receive()).data == "one"
        assert (await first.consumed(timeout=10)).offset == 2
        with pytest.raises(natsproc.TimedOut, match=r"has not taken message .* it is stored, and waits"):
            await second.consumed(timeout=0.2)
        await proc.log("not yet")
        assert not waiting.done()
        await proc.receive()
        taken = await waiting
        assert (taken.offset, taken.run, taken.when) == (4, 1, "idle")
        # asked late, asked again
        assert await second.consumed(timeout=10) == taken


@pytest.mark.parametrize("verb", ["cancel", "kill", "return"])
async def test_consumed_says_how_the_run_ended_without_taking_the_message(mesh, viewer, verb):
    done = asyncio.Event()

    async def deaf(proc):
        await done.wait()

    task = asyncio.create_task(mesh.run(deaf, id=f"deaf-{verb}"))
    handle = viewer.process(f"deaf-{verb}")
    async with asyncio.timeout(10):
        while await handle.record() is None:
            await asyncio.sleep(0.01)
    sent = await handle.send("never read")
    waiting = asyncio.create_task(sent.consumed(timeout=10))
    if verb == "return":
        done.set()
    else:
        await getattr(handle, verb)()
    status = {"cancel": "cancelled", "kill": "killed", "return": "completed"}[verb]
    with pytest.raises(
        natsproc.AlreadyEnded, match=rf"run 1 of deaf-{verb} ended \({status}\) without taking"
    ):
        await waiting
    await asyncio.gather(task, return_exceptions=True)


async def test_a_message_sent_again_is_known_to_have_been_taken(mesh, viewer):
    async with mesh.own("again") as proc:
        handle = viewer.process("again")
        sent = await handle.send("once", id="m1")
        await proc.receive()
        for number in range(300):
            await proc.emit("n", number)
        await proc.flush()
        repeated = await handle.send("once", id="m1")
        assert (sent.duplicate, repeated.duplicate) == (False, True)
        assert await repeated.consumed(timeout=10) == await sent.consumed(timeout=10)


async def test_of_two_senders_with_one_message_id_each_hears_of_its_own(bus, mesh, viewer):
    async with mesh.own("two") as proc, natsproc.connect(bus.url, sender="other") as other:
        mine, theirs = viewer.process("two"), other.process("two")
        await mine.send("mine", id="same")
        asked = asyncio.create_task(theirs.request("theirs", id="same", timeout=10))
        for _ in range(2):
            message = await proc.receive(timeout=10)
            await proc.reply(message, f"to {message.sender}")
        assert await asked == "to other"


async def test_a_request_gets_its_reply_from_the_log(mesh, viewer):
    async def adder(proc):
        async for message in proc.inbox():
            await proc.reply(message, Answer(total=sum(message.data)))

    task = asyncio.create_task(mesh.run(adder, id="adder"))
    handle = viewer.process("adder")
    async with asyncio.timeout(10):
        while await handle.record() is None:
            await asyncio.sleep(0.01)
    assert await handle.request([1, 2], timeout=10) == {"total": 3}
    assert await handle.request([3, 4], timeout=10, model=Answer) == Answer(total=7)
    many = [handle.request([number, 1], timeout=20, model=Answer) for number in range(20)]
    assert [answer.total for answer in await asyncio.gather(*many)] == list(range(1, 21))
    with pytest.raises(natsproc.BadPayload, match="the reply of adder is no Topic"):
        Topic = type("Topic", (BaseModel,), {"__annotations__": {"name": str}})
        await handle.request([1], timeout=10, model=Topic)
    # a reply outlives the run, and whoever asked first
    assert await handle.request([5, 6], id="kept", timeout=10) == {"total": 11}
    assert await handle.request([5, 6], id="kept", timeout=10) == {"total": 11}
    replies = [e for e in await events(handle, follow=False) if e.type == "replied"]
    assert replies[0].data == {
        "message": replies[0].cause,
        "sender": "viewer",
        "verified": False,
        "data": {"total": 3},
    }
    await handle.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_request_says_that_no_reply_will_come(mesh, viewer):
    async with mesh.own("silent") as proc:
        asked = asyncio.create_task(viewer.process("silent").request("anybody?", timeout=10))
        await proc.receive(timeout=10)
    with pytest.raises(
        natsproc.AlreadyEnded, match=r"ended \(completed\) without replying to \(taken at event 2\)"
    ):
        await asked


async def test_the_end_of_an_earlier_run_is_not_that_of_the_message(mesh, viewer):
    async with mesh.own("lives"):
        pass
    async with mesh.own("lives", restart=True) as proc:
        sent = await viewer.process("lives").send("to the second")
        await proc.receive(timeout=10)
        taken = await sent.consumed(timeout=10)
        assert taken.run == 2
        sent._stored = type(sent._stored)(sent.id, "viewer", sent.position, 2, 1)  # as from a stale replica
        assert await sent.consumed(timeout=10) == taken
