"""Questions to people against a real server: asked, listed, answered, taken back."""

from __future__ import annotations

import asyncio

import pytest
from meshes import appears, events, until

import natsproc


async def in_state(handle, state, asks=0):
    async def found():
        record = await handle.record()
        return record if record and (record.state, len(record.asks)) == (state, asks) else None

    return await until(found)


def about(seen, *types):
    return [(e.type, e.data) for e in seen if e.type in types]


async def test_a_question_is_listed_and_its_first_answer_wins(bus, mesh, viewer):
    async with mesh.own("deploy") as proc:
        handle = viewer.process("deploy")
        asking = asyncio.create_task(proc.ask("Deploy?", ["yes", "no"]))
        record = await in_state(handle, "waiting", 1)
        (shown,) = record.asks
        assert (shown["question"], shown["choices"]) == ("Deploy?", ["yes", "no"])
        (info,) = [i for i in await viewer.list() if i.address.id == "deploy"]
        assert (info.state, info.record.asks) == ("waiting", record.asks)
        wrong = await handle.answer("maybe")
        assert (wrong.status, wrong.why) == ("refused", "'maybe' is not among the choices: yes, no")
        receipt = await handle.answer("yes")
        assert (receipt.status, receipt.data["question"], receipt.sender) == ("applied", "Deploy?", "viewer")
        assert await asyncio.wait_for(asking, 10) == "yes"
        late = await handle.answer("no", shown["ask"])
        assert (late.status, late.why) == ("too_late", "viewer has answered 'Deploy?' already: yes")
        await in_state(handle, "running")
    seen = await events(handle)
    assert about(seen, "asked", "answered") == [
        ("asked", {"ask": shown["ask"], "question": "Deploy?", "choices": ["yes", "no"]}),
        (
            "answered",
            {
                "ask": shown["ask"],
                "value": "yes",
                "sender": "viewer",
                "command": receipt.command,
                "verified": False,
            },
        ),
    ]
    assert next(e for e in seen if e.type == "answered").offset == receipt.offset
    assert [e.data["verb"] for e in seen if e.type == "refused"] == ["answer", "answer"]


async def test_under_one_name_it_is_the_same_question_until_a_checkpoint(mesh, viewer):
    async with mesh.own("named") as proc:
        handle = viewer.process("named")
        for answer in ("yes", "no"):
            asking = asyncio.create_task(proc.ask("Go on?", id="go"))
            await in_state(handle, "waiting", 1)
            assert (await handle.answer(answer)).applied
            assert await asyncio.wait_for(asking, 10) == answer
            assert await asyncio.wait_for(proc.ask("Go on?", id="go"), 10) == answer
            await proc.checkpoint({"went": answer})
        assert (await handle.answer("late", "go")).status == "too_late"


async def test_several_tasks_ask_at_once_and_each_gets_its_answer(mesh, viewer):
    async with mesh.own("several") as proc:
        handle = viewer.process("several")
        asking = [asyncio.create_task(proc.ask(f"Number {n}?")) for n in range(5)]
        record = await in_state(handle, "waiting", 5)
        unnamed = await handle.answer(1)
        assert unnamed.status == "refused"
        assert all(ask["ask"] in unnamed.why for ask in record.asks)
        for ask in reversed(record.asks):
            assert (await handle.answer([ask["question"]], ask["ask"])).applied
        assert await asyncio.gather(*asking) == [[f"Number {n}?"] for n in range(5)]


async def test_of_answers_at_the_same_time_one_wins_and_all_others_hear_whose(bus, mesh):
    async with mesh.own("race") as proc, natsproc.connect(bus.url, sender="bob") as bob:
        asking = asyncio.create_task(proc.ask("Who?", id="who"))
        handle = mesh.process("race")
        await in_state(handle, "waiting", 1)
        others = [bob.process("race").answer(n, "who") for n in range(10)]
        receipts = await asyncio.gather(*others, *(handle.answer(n, "who") for n in range(10, 20)))
        (winner,) = [r for r in receipts if r.applied]
        assert await asking == winner.data["value"]
        whose = f"{winner.sender} has answered 'Who?' already: {winner.data['value']}"
        assert {r.why for r in receipts if not r.applied} == {whose}


async def test_an_interrupt_takes_the_question_back(mesh, viewer):
    async with mesh.own("interrupted") as proc:
        handle = viewer.process("interrupted")
        with pytest.raises(natsproc.Interrupted):
            async with proc.turn():
                stopping = asyncio.create_task(stop_once_waiting(handle))
                await proc.ask("Run it?", ["yes", "no"])
        assert (await stopping).applied
        late = await handle.answer("yes")
        assert (late.status, late.why) == (
            "too_late",
            "'Run it?' waits for no answer any more: it was interrupted",
        )
        await in_state(handle, "running")
    seen = about(await events(handle), "asked", "answered", "interrupted", "turn_ended")
    assert [kind for kind, _ in seen] == ["asked", "answered", "interrupted", "turn_ended"]
    assert seen[1][1] == {"ask": seen[0][1]["ask"], "why": "it was interrupted"}


async def stop_once_waiting(handle):
    await in_state(handle, "waiting", 1)
    return await handle.interrupt()


async def test_a_question_times_out(mesh, viewer):
    async with mesh.own("timeout") as proc:
        with pytest.raises(natsproc.TimedOut, match=r"nobody answered 'Anybody\?' within 0.05 s"):
            await proc.ask("Anybody?", timeout=0.05)
        with pytest.raises(natsproc.TimedOut):
            await asyncio.to_thread(proc.sync.ask, "Anybody?", timeout=0.05)
    whys = [data["why"] for _, data in about(await events(viewer.process("timeout")), "answered")]
    assert whys == ["it timed out"] * 2


async def test_a_paused_process_is_answered_all_the_same(mesh, viewer):
    async with mesh.own("paused") as proc:
        handle = viewer.process("paused")
        asking = asyncio.create_task(proc.ask("Go on?"))
        await in_state(handle, "waiting", 1)
        assert (await handle.pause()).applied
        await in_state(handle, "paused", 1)
        assert (await handle.answer("yes")).applied
        assert await asking == "yes"
        assert (await handle.resume()).applied
        await in_state(handle, "running")


async def test_plain_functions_ask_and_are_interrupted_while_they_do(mesh, viewer):
    def work(proc):
        try:
            with proc.turn():
                proc.ask("First?")
        except natsproc.Interrupted as stop:
            return [stop.reason, proc.ask("Second?", [1, 2])]

    task = asyncio.create_task(mesh.run(work, id="plain-asks"))
    handle = await appears(viewer, "plain-asks")
    await in_state(handle, "waiting", 1)
    assert (await handle.interrupt(reason="not so fast")).applied
    await until(lambda: asked_second(handle))
    assert (await handle.answer("2")).applied
    assert await asyncio.wait_for(task, 10) == ["not so fast", 2]


async def asked_second(handle):
    record = await handle.record()
    return record and any(ask["question"] == "Second?" for ask in record.asks)


async def test_what_ends_while_it_asks_waits_for_nobody(mesh, viewer):
    async def worker(proc):
        await proc.ask("Still there?")

    task = asyncio.create_task(mesh.run(worker, id="ends"))
    handle = await appears(viewer, "ends")
    await in_state(handle, "waiting", 1)
    assert (await handle.cancel()).applied
    with pytest.raises(natsproc.Cancelled):
        await task
    assert (await handle.record()).asks == ()
    assert (await handle.answer("yes")).status == "too_late"


async def test_a_next_run_knows_nothing_of_the_answers_of_the_last(mesh, viewer):
    handle = viewer.process("again")
    for restart in (False, True):
        async with mesh.own("again", restart=restart) as proc:
            asking = asyncio.create_task(proc.ask("Approve?"))
            await in_state(handle, "waiting", 1)
            assert (await handle.answer(restart)).applied
            assert await asking == restart


async def test_nothing_is_asked(mesh, viewer):
    async with mesh.own("silent"):
        receipt = await viewer.process("silent").answer("yes")
        assert (receipt.status, receipt.why) == ("refused", "it asks nothing")
