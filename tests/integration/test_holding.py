"""Commands that are held until somebody owns the process: applied once, by whoever starts it, and never too late."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest
from crashing import crashing
from meshes import events, until

import natsproc
from natsproc.bus.history import History
from natsproc.bus.holding import HeldCommands, hold
from natsproc.errors import TimedOut
from natsproc.protocol.messages import COMMAND, Command, Message
from natsproc.protocol.names import Address, new_token


async def idle(proc):
    await proc.emit("begun")
    await asyncio.sleep(0.2)
    return "done"


async def held(mesh, address):
    """What the inbox of a process has."""
    inbox = History(mesh.connection, mesh.names.inbox_stream)
    return await mesh.io.call(inbox.last_from_leader(mesh.names.inbox(address, "*")))


@pytest.fixture
def id():
    return f"held-{new_token(8)}"


async def test_a_command_for_an_id_that_never_ran_is_applied_when_it_starts(mesh, viewer, id):
    handle = viewer.process(id)
    with pytest.raises(natsproc.NoSuchProcess):
        await handle.interrupt()
    receipt = await handle.interrupt({"instead": 1}, reason="not today", hold=600)
    assert receipt.status == "accepted"
    assert receipt.data["held_until"] in receipt.why
    for _ in range(2):
        repeated = await handle.command("interrupt", id=receipt.command, hold=600)
        assert repeated.data["position"] == receipt.data["position"]
    with pytest.raises(natsproc.Interrupted, match="not today") as caught:
        await mesh.run(idle, id=id)
    assert (caught.value.message, caught.value.sender) == ({"instead": 1}, "viewer")
    log = await events(handle)
    assert [e.type for e in log] == ["started", "interrupted", "exited"]
    assert log[1].cause == receipt.command
    assert (log[1].data["sender"], log[1].data["command"]) == ("viewer", receipt.command)
    assert await mesh.run(idle, id=id, restart=True) == "done"  # once is enough
    assert await held(viewer, handle.address) is None


@pytest.mark.parametrize(("verb", "status"), [("cancel", "cancelled"), ("kill", "killed")])
async def test_it_comes_before_anything_that_the_code_does(mesh, viewer, id, verb, status):
    handle = viewer.process(id)
    assert (await handle.command(verb, hold=60)).status == "accepted"
    with pytest.raises((asyncio.CancelledError, natsproc.Cancelled)):
        await mesh.run(idle, id=id)
    assert (await handle.wait()).status == status
    assert "begun" not in [e.type for e in await events(handle)]


async def test_between_runs_it_is_kept_for_the_next_one(mesh, viewer, id):
    handle = viewer.process(id)
    await mesh.run(idle, id=id)
    assert (await handle.pause(timeout=60)).status == "too_late"
    assert (await handle.pause(timeout=60, hold=60)).status == "accepted"
    running = asyncio.create_task(mesh.run(idle, id=id, restart=True))

    async def paused():
        return (await handle.info()).state == "paused"

    await until(paused)
    assert not running.done()
    assert (await handle.resume(timeout=60, hold=60)).applied  # it is there, so nothing is held
    assert await running == "done"
    types = [e.type for e in await events(handle)]
    assert types[:2] == ["restarted", "paused"]  # before anything that it does
    assert sorted(types[2:]) == ["begun", "exited", "resumed"]


async def test_a_command_whose_time_is_over_is_never_applied(mesh, viewer, id):
    handle = viewer.process(id)
    await handle.interrupt(hold=0.01)
    await until(lambda: gone(viewer, handle.address), 20)
    assert await mesh.run(idle, id=id) == "done"


async def gone(mesh, address):
    return await held(mesh, address) is None


async def test_an_owner_that_was_sent_it_and_slept_does_not_apply_it(viewer, id):
    address, applied = Address("default", id), []

    async def take(command):
        applied.append(command.id)

    async def keep_and_hear(seconds, asleep):
        command = Command(new_token(), "interrupt", "viewer")
        receipt = await hold(viewer.connection, viewer.names, address, command, seconds)
        message = Message(command.id, "viewer", command.to_json(), "", receipt.data["position"], kind=COMMAND)
        commands = HeldCommands(viewer.connection, viewer.names, address, take, ())
        if asleep:
            await until(lambda: gone(viewer, address), 20)
        commands.hear(message)
        await commands.examined()
        return [command.id]

    assert applied == await viewer.io.call(keep_and_hear(600, False)) != []
    await until(lambda: gone(viewer, address))
    applied.clear()
    await viewer.io.call(keep_and_hear(1, True))
    assert applied == []


async def test_the_time_counts_though_the_server_has_not_removed_it_yet(viewer, id, monkeypatch):
    """As just after a restart of the server."""
    address = Address("default", id)

    async def in_time(later):
        receipt = await hold(viewer.connection, viewer.names, address, Command(new_token(), "pause"), 600)
        message = Message("", "viewer", {}, "", receipt.data["position"], kind=COMMAND)
        commands = HeldCommands(viewer.connection, viewer.names, address, None, ())
        time = await commands._inbox.now()
        then = datetime.fromisoformat(time) + timedelta(seconds=later)

        async def now():
            return then.isoformat()

        monkeypatch.setattr(commands._inbox, "now", now)
        return await commands._in_time(message)

    assert await viewer.io.call(in_time(590))
    assert not await viewer.io.call(in_time(610))


async def test_one_that_stays_in_the_inbox_is_not_applied_by_the_next_owner(mesh, viewer, id, monkeypatch):
    """As after a crash between the event that records it and its removal."""
    handle = viewer.process(id)
    api = type(mesh.connection).api

    async def without_removal(self, call, *args, **options):
        if call.startswith("STREAM.MSG.DELETE"):
            raise TimedOut("lost")
        return await api(self, call, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(mesh.connection), "api", without_removal)
        receipt = await handle.interrupt(hold=600)
        with pytest.raises(natsproc.Interrupted):
            await mesh.run(idle, id=id)
        assert await mesh.run(idle, id=id, restart=True) == "done"
        assert (await held(viewer, handle.address)).position == receipt.data["position"]
        assert await mesh.run(idle, id=id, restart=True) == "done"
    assert await mesh.run(idle, id=id, restart=True) == "done"
    await until(lambda: gone(viewer, handle.address))
    log = await events(handle, run="all")
    assert [e.type for e in log].count("interrupted") == 1


async def test_an_answer_is_held_for_a_question_that_is_open_and_for_nothing_else(
    bus, mesh, viewer, bus_connection, id
):
    handle = viewer.process(id)
    with pytest.raises(natsproc.Refused, match="asks nothing"):
        await handle.answer("yes", hold=60)

    async def asked():
        return (record := await handle.record()) and record.asks

    async with crashing(bus.url, bus_connection, id) as proc:
        asking = asyncio.create_task(proc.ask("Sure?"))
        [ask] = await until(asked)
    asking.cancel()
    with pytest.raises(natsproc.Refused, match="no open question 'other'"):
        await handle.answer("yes", "other", hold=60)
    assert "held_until" in (await handle.answer("yes", hold=60)).data
    kept = await held(viewer, handle.address)
    assert Message.parse(kept.payload, "viewer", 1).data["data"]["ask"] == ask["ask"]
    async with mesh.own(id) as proc:
        assert await proc.ask("Sure?", timeout=20) == "yes"
    with pytest.raises(natsproc.Refused, match="asks nothing"):
        await handle.answer("yes", hold=60)


async def test_messages_sent_before_a_held_command_are_not_lost_with_it(mesh, viewer, id):
    handle = viewer.process(id)
    async with mesh.own(id):
        await handle.send("before")
    await handle.pause(hold=600)

    running = asyncio.create_task(mesh.run(idle, id=id, restart=True))

    async def paused():
        return (await handle.info()).state == "paused"

    await until(paused)
    await handle.cancel()
    with pytest.raises((asyncio.CancelledError, natsproc.Cancelled)):
        await running
    async with mesh.own(id, restart=True) as proc:
        assert (await proc.receive(timeout=10)).data == "before"


async def test_what_cannot_be_a_command_is_left_out(mesh, viewer, id):
    handle = viewer.process(id)
    subject = viewer.names.inbox(handle.address, "viewer")
    for raw in (b'{"id":"x","data":5,"kind":"command"}', b'{"id":"x","data":{"verb":5},"kind":"command"}'):
        await viewer.io.call(viewer.connection.store(subject, raw))
    assert await mesh.run(idle, id=id) == "done"
