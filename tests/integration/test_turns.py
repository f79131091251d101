"""Turns against a real server: what an interrupt ends, what was seen, and when messages land."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import pytest
from crashing import crashing
from meshes import appears, events, until

import natsproc
from natsproc.bus import inbox


async def last(handle, kind, count=1):
    """The event of that type, once there are so many of them."""

    async def found():
        return [e for e in await events(handle, follow=False, run="all") if e.type == kind][count - 1 :]

    return (await until(found))[0]


def kinds(seen):
    return [e.type for e in seen if e.type not in ("started", "exited")]


async def test_an_interrupt_ends_the_turn_with_what_was_seen_and_the_conversation_goes_on(mesh, viewer):
    async def agent(proc):
        partials = []
        async for message in proc.inbox():
            if message.data == "bye":
                return partials
            try:
                async with proc.turn(message) as turn:
                    await proc.log("thinking")
                    async with proc.stream("answer") as answer:
                        for word in ("one ", "two ", "three"):
                            await answer.token(word)
                        await proc.message("by the way")
                        await asyncio.sleep(60)
            except natsproc.Interrupted as stop:
                partial = stop.partial
                partials.append(
                    (turn.number, partial.text, partial.streams, [e.offset for e in partial.events])
                )

    task = asyncio.create_task(mesh.run(agent, id="agent"))
    handle = await appears(viewer, "agent")
    sent = await handle.send("count")
    said = await last(handle, "message")
    began = await last(handle, "turn_began")
    assert (await handle.inspect())["turns"] == [began.offset]
    receipt = await handle.interrupt({"do": "less"}, reason="enough", turn=began.offset)
    assert receipt.applied
    await handle.send("bye")
    [(number, text, streams, offsets)] = await asyncio.wait_for(task, 20)
    assert number == began.offset
    assert text == "one two three\nby the way"
    assert streams == {"answer": "one two three"}
    seen = await events(handle)
    assert kinds(seen) == [
        "received", "turn_began", "log", "token", "token", "token", "message", "text", "interrupted", "turn_ended",
        "received",
    ]  # fmt: skip
    assert began.data == {"message": sent.id, "sender": "viewer", "verified": False}
    assert [e.offset for e in seen if began.offset < e.offset < receipt.offset] == offsets
    assert {e.cause for e in seen if began.offset <= e.offset < receipt.offset} == {sent.id}
    ended = next(e for e in seen if e.type == "turn_ended")
    assert ended.data == {"turn": began.offset, "status": "interrupted"}
    assert said.cause == sent.id


async def test_an_interrupt_for_a_turn_that_is_over_and_one_between_turns_come_too_late(mesh, viewer):
    async with mesh.own("late") as proc:
        handle = viewer.process("late")
        async with proc.turn() as first:
            pass
        async with proc.turn() as second:
            assert first.number < second.number
            late = await handle.interrupt(turn=first.number)
            assert (late.status, late.why) == ("too_late", f"turn {first.number} is over")
            never = await handle.interrupt(turn=second.number + 1)
            assert (never.status, never.why.partition(";")[0]) == (
                "too_late",
                f"there has been no turn {second.number + 1} under this owner",
            )
            await asyncio.sleep(0.05)
        idle = await handle.interrupt()
        assert (idle.status, idle.why) == ("too_late", "no turn is under way")
        hard = await handle.interrupt(hard=True, turn=second.number)
        assert hard.status == "too_late"
        await asyncio.sleep(0.05)
    assert (await handle.wait()).status == "completed"
    seen = await events(handle)
    assert [e.data["status"] for e in seen if e.type == "turn_ended"] == ["completed"] * 2
    assert [e.data["why"] for e in seen if e.type == "refused"] == [
        receipt.why for receipt in (late, never, idle, hard)
    ]


async def test_before_its_first_turn_a_function_is_interrupted_as_any_other(mesh, viewer):
    async def plain(proc):
        await asyncio.sleep(60)

    task = asyncio.create_task(mesh.run(plain, id="no-turns"))
    handle = await appears(viewer, "no-turns")
    assert (await handle.interrupt()).applied
    with pytest.raises(natsproc.Interrupted):
        await task


async def test_who_recovers_a_run_that_has_taken_a_turn_is_not_ended_between_turns(
    bus, mesh, viewer, bus_connection
):
    handle = viewer.process("recovered")
    async with crashing(bus.url, bus_connection, "recovered") as proc:
        async with proc.turn():
            pass
        await proc.flush()
    for _ in range(2):  # the second knows it from the claim record alone
        async with crashing(bus.url, bus_connection, "recovered") as proc:
            assert (await handle.interrupt()).why == "no turn is under way"
            await proc.check()
    async with mesh.own("recovered") as proc:
        assert (await handle.interrupt()).status == "too_late"
        await proc.check()
    with pytest.raises(natsproc.Interrupted):  # the next run has taken none
        async with mesh.own("recovered", restart=True):
            assert (await handle.interrupt()).applied
            await asyncio.sleep(60)


async def test_of_two_turns_at_once_the_one_that_is_named_ends(mesh, viewer):
    async def converse(proc, name, number):
        async with proc.turn() as turn:
            number.set_result(turn.number)
            await proc.message(name)
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0.3))
        return name

    async with mesh.own("two") as proc:
        handle = viewer.process("two")
        loop = asyncio.get_running_loop()
        numbers = [loop.create_future() for _ in range(2)]
        tasks = [asyncio.create_task(converse(proc, n, f)) for n, f in zip("ab", numbers, strict=True)]
        receipt = await handle.interrupt(turn=await numbers[0])
        assert receipt.applied
        with pytest.raises(natsproc.Interrupted) as stop:
            await tasks[0]
        assert [e.data for e in stop.value.partial.events] == ["a"]
        assert await tasks[1] == "b"


async def test_a_turn_that_fails_or_is_cancelled_says_so(mesh, viewer):
    async with mesh.own("failing") as proc:
        with pytest.raises(ValueError, match="no such tool"):
            async with proc.turn():
                raise ValueError("no such tool")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), proc.turn():
                await asyncio.sleep(60)
        with pytest.raises(natsproc.Interrupted) as stop:
            async with proc.turn():
                await proc.log("in here")
                raise natsproc.Interrupted("by itself")
        assert [e.type for e in stop.value.partial.events] == ["log"]
    seen = [e.data for e in await events(viewer.process("failing")) if e.type == "turn_ended"]
    assert [d["status"] for d in seen] == ["failed", "cancelled", "interrupted"]
    assert seen[0]["error"] == "ValueError: no such tool"


async def test_what_is_said_by_tasks_of_a_turn_is_of_it_and_nothing_else_is(mesh, viewer):
    async with mesh.own("tasks") as proc:

        async def tick(text):
            while True:
                await proc.log(text)
                await asyncio.sleep(0.01)

        background = asyncio.create_task(tick("outside"))
        async with proc.turn() as turn, asyncio.timeout(None):
            inside = asyncio.create_task(tick("inside"))
            await asyncio.sleep(0.1)
            partial = await turn.partial()
            inside.cancel()
        background.cancel()
    assert {e.data["text"] for e in partial.events} == {"inside"}
    stored = {e.offset: e for e in await events(viewer.process("tasks"))}
    for event in partial.events:
        assert stored[event.offset].to_json() | {"cursor": ""} == event.to_json() | {"cursor": ""}


async def test_messages_land_after_the_turn_at_a_boundary_or_now(mesh, viewer):
    steps = []

    async def agent(proc):
        message = await proc.receive()
        while message.data != "bye":
            try:
                async with proc.turn(message) as turn:
                    steps.append(("turn", message.data))
                    while True:
                        await asyncio.sleep(0.01)
                        steps.extend(("next", m.data) for m in await turn.boundary())
                        if ("next", "enough") in steps and message.data == "a":
                            break
                message = await proc.receive()
            except natsproc.Interrupted as stop:
                steps.append(("stopped", stop.message))
                message = stop.received
        return "done"

    task = asyncio.create_task(mesh.run(agent, id="lands"))
    handle = await appears(viewer, "lands")
    await handle.send("a")
    await last(handle, "turn_began")
    await handle.send("b", when="next")
    await last(handle, "received", 2)
    await handle.send("c")
    await handle.send("enough", when="next")
    await handle.send("d", when="idle")
    await last(handle, "turn_began", 2)
    assert steps == [("turn", "a"), ("next", "b"), ("next", "c"), ("next", "enough"), ("turn", "d")]
    await handle.send("e", when="now")
    await last(handle, "turn_began", 3)
    assert steps[-2:] == [("stopped", "e"), ("turn", "e")]
    await handle.send("bye", when="now")
    assert await asyncio.wait_for(task, 20) == "done"
    seen = await events(handle)
    received = [(e.data["data"], e.data.get("when")) for e in seen if e.type == "received"]
    assert received == [
        ("a", None), ("b", "next"), ("c", "next"), ("enough", "next"), ("d", "idle"), ("e", "now"), ("bye", "now"),
    ]  # fmt: skip
    where = next(i for i, e in enumerate(seen) if e.type == "interrupted")
    assert kinds(seen[where : where + 4]) == ["interrupted", "received", "turn_ended", "turn_began"]
    assert seen[where].data == {
        "command": seen[where + 1].data["message"],
        "sender": "viewer",
        "verified": False,
        "reason": "a message",
    }


async def test_what_lands_now_waits_its_turn_behind_what_its_sender_sent_before(mesh, viewer):
    async with mesh.own("double") as proc:
        handle = viewer.process("double")
        with pytest.raises(natsproc.Interrupted) as stop:
            async with proc.turn():
                await handle.send("first")
                await handle.send("second", when="now")
                await asyncio.sleep(60)
        assert (stop.value.message, stop.value.received) == (None, None)
        assert [(await proc.receive(timeout=10)).data for _ in range(2)] == ["first", "second"]


def both_come(proc, handle):
    """Two messages that are to land now are there before the code is reached."""
    for word in ("first", "second"):
        sending = handle.mesh.io.submit(
            inbox.send(handle.mesh.connection, handle.mesh.names, handle.address, word, when="now")
        )
        sending.result(10)
    while len(proc._mailbox) < 2:
        time.sleep(0.01)


async def test_of_two_that_land_now_the_first_ends_the_turn_and_the_second_comes_at_a_boundary(mesh, viewer):
    async with mesh.own("quick") as proc:
        handle = viewer.process("quick")
        with pytest.raises(natsproc.Interrupted) as stop:
            async with proc.turn():
                both_come(proc, handle)
                await asyncio.sleep(60)
        assert stop.value.message == "first"
        async with proc.turn(stop.value.received) as turn:
            assert [m.data for m in await turn.boundary()] == ["second"]


async def converse(proc):
    """Take whatever comes, whichever way, until each of two senders has said `bye`."""
    taken, message = [], await proc.receive()
    while True:
        taken.append((message.sender, message.data))
        if sum(data == "bye" for _, data in taken) == 2:
            return taken
        try:
            async with proc.turn(message) as turn:
                for _ in range(random.randrange(4)):
                    await asyncio.sleep(random.random() / 200)
                    taken += [(m.sender, m.data) for m in await turn.boundary()]
            message = None
        except natsproc.Interrupted as stop:
            message = stop.received
        if sum(data == "bye" for _, data in taken) == 2:
            return taken
        message = message or await proc.receive()


async def test_whoever_texts_while_it_answers_is_heard_once_and_in_order(bus, mesh, viewer):
    async with natsproc.connect(bus.url, sender="other") as other:
        task = asyncio.create_task(mesh.run(converse, id="texted"))
        await appears(viewer, "texted")

        async def text(mesh):
            for number in range(150):
                await mesh.process("texted").send(number, when=random.choice(("idle", "next", "now")))
                await asyncio.sleep(random.random() / 100)
            await mesh.process("texted").send("bye", when="idle")

        await asyncio.gather(text(viewer), text(other))
        taken = await asyncio.wait_for(task, 60)
    expected = [*range(150), "bye"]
    for sender in ("viewer", "other"):
        assert [data for who, data in taken if who == sender] == expected
        seen = await events(viewer.process("texted"))
        received = [e.data for e in seen if e.type == "received" and e.data["sender"] == sender]
        assert [data["data"] for data in received] == expected
    assert {data["when"] for data in received} == {"idle", "next", "now"}
    turns = [e for e in seen if e.type in ("turn_began", "turn_ended")]
    assert [e.type for e in turns] == ["turn_began", "turn_ended"] * (len(turns) // 2)


async def test_what_lands_now_between_turns_is_the_next_message(mesh, viewer):
    async with mesh.own("between") as proc:
        handle = viewer.process("between")
        async with proc.turn():
            pass
        waiting = asyncio.create_task(proc.receive(timeout=10))
        await handle.send("hello", when="now")
        assert (await waiting).data == "hello"
    assert kinds(await events(handle)) == ["turn_began", "turn_ended", "received"]


async def test_a_process_says_when_it_takes_messages(mesh, viewer):
    @natsproc.process(allow=("next",))
    async def steady(proc):
        async with proc.turn() as turn:
            got = []
            while len(got) < 2:
                await asyncio.sleep(0.01)
                got += await turn.boundary()
        return [m.data for m in got]

    task = asyncio.create_task(mesh.run(steady, id="steady"))
    handle = await appears(viewer, "steady")
    with pytest.raises(natsproc.Refused, match="takes no message 'idle', only next"):
        await handle.send("x", when="idle")
    with pytest.raises(natsproc.BadPayload, match="choose from idle, next, now"):
        await handle.send("x", when="later")
    await handle.send("as you like")
    await handle.send("now", when="now")
    assert await asyncio.wait_for(task, 20) == ["as you like", "now"]
    seen = await events(handle)
    assert [e.data.get("when") for e in seen if e.type == "received"] == ["next", "next"]
    with pytest.raises(natsproc.BadPayload):
        async with mesh.own("bad", allow=("soon",)):
            pass


async def test_turns_of_a_plain_function(mesh, viewer):
    def agent(proc):
        partial = None
        for message in proc.inbox():
            if message.data == "bye":
                return partial
            try:
                with proc.turn(message) as turn:
                    with proc.stream() as stream:
                        stream.token("thinking")
                    while True:
                        time.sleep(0.01)
                        for more in turn.boundary():
                            proc.message(more.data)
            except natsproc.Interrupted as stop:
                partial = stop.partial.text, stop.message
        return None

    task = asyncio.create_task(mesh.run(agent, id="plain"))
    handle = await appears(viewer, "plain")
    await handle.send("go")
    await handle.send("more", when="next")
    await last(handle, "message")
    await handle.send("other", when="now")
    await handle.send("bye")
    assert await asyncio.wait_for(task, 20) == ("thinking\nmore", "other")
    assert kinds(await events(handle)) == [
        "received", "turn_began", "token", "text", "received", "message", "interrupted", "received", "turn_ended",
        "received",
    ]  # fmt: skip


@pytest.mark.parametrize("main", [True, False], ids=["main thread", "another thread"])
async def test_a_hard_interrupt_for_another_turn_spares_the_code_that_spins(bus, mesh, viewer, main):
    async def agent(proc):
        async with proc.turn() as turn:
            over = turn.number
        async with proc.turn():
            await proc.message(over)
            await proc.flush()
            deadline = time.monotonic() + 1.5
            while time.monotonic() < deadline and not answered.is_set():
                pass
        return over

    async def command():
        async with natsproc.connect(bus.url, sender="commander") as commander:
            handle = await appears(commander, id)
            over = (await last(handle, "message")).data
            receipt = await handle.interrupt(turn=over, hard=True, timeout=20)
            answered.set()
            return receipt.status

    id, answered = f"spins-{main}", threading.Event()
    commanding = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(command())))
    if main:
        await mesh.run(agent, id=id)
    else:
        await asyncio.to_thread(lambda: asyncio.run(mesh.run(agent, id=id)))
    assert await commanding == "too_late"
    assert (await viewer.process(id).wait()).status == "completed"


async def test_a_message_that_lands_by_an_interrupt_which_another_overtakes_reaches_the_code(mesh, viewer):
    taken, partials = [], []

    async def agent(proc):
        while "end" not in taken:
            try:
                async with proc.interruptible():
                    message = await proc.receive()
                    taken.append(message.id)
                    async with proc.turn(message):
                        await asyncio.sleep(0.01)
            except natsproc.Interrupted as stop:
                partials.append(stop.partial)
                if stop.received:
                    taken.append(stop.received.id)

    agent = natsproc.process(agent, allow=("idle", "now"))
    task = asyncio.create_task(mesh.run(agent, id="overtaken"))
    handle = await appears(viewer, "overtaken")
    commands = []
    for number in range(150):
        await handle.send(number, id=f"m{number}", when="now" if number % 3 else "idle")
        commands.append(asyncio.create_task(handle.interrupt()))
        await asyncio.sleep(0.003 * (number % 4))
    await asyncio.gather(*commands)
    await handle.send("last", id="end")
    await asyncio.wait_for(task, 20)
    assert taken == [event.cause for event in await events(handle) if event.type == "received"]
    assert any(partials)
