"""An older and a newer natsproc on one mesh: what one left, the other goes on with; what it does not know, it passes over."""

import asyncio
import json
import subprocess

import pytest
from homes import NATSPROC, natsproc
from rawlog import TIME, RawLog
from recorded import VERSIONS, Recorded

import natsproc as sdk
from natsproc.bus.connection import Connection, Endpoint
from natsproc.bus.history import History
from natsproc.bus.kv import Bucket
from natsproc.errors import AlreadyEnded
from natsproc.protocol.messages import COMMAND, Command, encode
from natsproc.protocol.names import Address, Names
from natsproc.protocol.records import Lease

AGENT, DONE = Address("default", "agent"), Address("chat", "done")
KEY = "default.agent"


@pytest.fixture(params=VERSIONS)
def recorded(request) -> Recorded:
    return Recorded.load(request.param)


@pytest.fixture
async def mesh(server, recorded):
    """A server on which a version of natsproc has left what was recorded of it."""
    connection = await Connection.open(Endpoint((server.url,), sender="loader"))
    await recorded.put(connection)
    await connection.close()
    async with sdk.connect(server.url, sender="viewer") as mesh:
        yield mesh


async def test_what_it_left_is_found_and_read(mesh, recorded):
    assert {(str(i.address), i.state) for i in await mesh.list(namespace="*", ended=True)} == {
        ("agent", "unreachable"), ("build", "completed"), ("chat/done", "completed"),
    }  # fmt: skip
    handle = mesh.process("chat/done")
    written = recorded.events(mesh.names.events(DONE))
    shown = [item async for item in handle.tail() if isinstance(item, sdk.Event)]
    assert [(e.offset, e.type, e.data) for e in shown] == [
        (w["offset"], w["type"], w["data"]) for w in written
    ]
    later = [item async for item in handle.tail(after=recorded.cursor) if isinstance(item, sdk.Event)]
    assert [event.offset for event in later] == [w["offset"] for w in written][3:]
    last = [item async for item in handle.tail(n=2) if isinstance(item, sdk.Event)]
    assert [event.type for event in last] == ["checkpointed", "exited"]
    assert (await mesh.process("build").wait()).run == 2
    info = await mesh.process("agent").info()
    assert [ask["question"] for ask in info.record.asks] == ["Go on?"]


async def test_what_it_left_undone_is_taken_up(mesh, recorded):
    handle = mesh.process("agent")
    before = recorded.events(mesh.names.events(AGENT))
    async with mesh.own("agent", kind="agent") as proc:
        assert proc.state == {"seen": ["first"]}
        assert [(await proc.receive()).data for _ in range(2)] == ["second", "third"]
        await proc.checkpoint({"seen": ["first", "second", "third"]})
    shown = [item async for item in handle.tail() if isinstance(item, sdk.Event)]
    assert [event.offset for event in shown] == [*range(1, len(shown) + 1)]
    assert [event.type for event in shown[: len(before)]] == [event["type"] for event in before]
    assert [event.type for event in shown[len(before) :]] == [
        "recovered", "received", "received", "checkpointed", "exited",
    ]  # fmt: skip


async def test_its_question_is_the_same_when_it_is_asked_again(mesh, recorded):
    (asked,) = [e["data"]["ask"] for e in recorded.events(mesh.names.events(AGENT)) if e["type"] == "asked"]
    assert (await mesh.process("agent").answer("yes", hold=60)).status == "accepted"
    async with mesh.own("agent", kind="agent") as proc:
        await proc.receive()
        assert await proc.ask("Go on?", choices=["yes", "no"]) == "yes"
    events = [item async for item in mesh.process("agent").tail() if isinstance(item, sdk.Event)]
    assert [e.data["ask"] for e in events if e.type == "answered"] == [asked]


async def test_the_next_run_begins_behind_its_log_with_what_was_held_for_it(mesh, recorded):
    written = recorded.events(mesh.names.events(DONE))
    with pytest.raises(AlreadyEnded):
        async with mesh.own("chat/done"):
            pass
    with pytest.raises(sdk.Interrupted) as caught:
        async with mesh.own("chat/done", restart=True) as proc:
            assert (proc.run_number, proc.state) == (2, None)
            await asyncio.sleep(30)
    assert (caught.value.message, caught.value.reason) == ({"instead": 1}, "held")
    shown = [item async for item in mesh.process("chat/done").tail(run=2) if isinstance(item, sdk.Event)]
    assert [event.type for event in shown] == ["restarted", "interrupted", "exited"]
    assert shown[0].offset == len(written) + 1


async def test_its_run_is_ended_and_what_has_ended_is_pruned(mesh):
    receipt = await mesh.process("agent").kill()
    assert receipt.status == "unconfirmed"
    assert (await mesh.process("agent").wait()).status == "killed"
    for process in ("agent", "build", "chat/done"):
        await mesh.prune(process)
    assert await mesh.list(namespace="*", ended=True) == []


# What a newer one may write


async def newer_log(connection: Connection, names: Names) -> list[tuple[str, object]]:
    """The log and the records of an owner that writes what this version does not know, and is gone."""
    log = RawLog(connection, names, AGENT)
    await log.claim()
    events = [
        {"type": "hologram", "data": {"depth": 3}, "layers": ["a"]},
        {"type": "output", "data": {"stream": "stdout", "text": "x", "colour": 9}, "seen_by": "y"},
        {"type": "log", "data": ["not", "an", "object"]},
        {"type": "turn_began", "data": {"message": "m", "sender": "s", "branch": "b"}},
    ]
    for offset, event in enumerate(events, 1):
        await log.store(encode({"offset": offset, "epoch": log.epoch, "run": 1, "time": TIME, **event}))
    claims, registry = Bucket(connection, names.claims), Bucket(connection, names.registry)
    claim = json.loads((await claims.get(KEY)).payload)
    await claims.put(KEY, encode(claim | {"constellation": [1, 2]}))
    record = {
        "namespace": "default",
        "id": "agent",
        "kind": "agent",
        "node": "raw",
        "epoch": log.epoch,
        "run": 1,
    }
    record |= {"state": "hibernating", "started": TIME, "updated": TIME, "labels": {}, "mood": "calm"}
    await registry.put(KEY, encode(record))
    return [(event["type"], event["data"]) for event in events]


async def test_unknown_events_and_fields_are_shown_as_they_are_and_carried_over(server, connection, names):
    written = await newer_log(connection, names)
    await connection.store(
        f"$KV.{names.leases}.raw",
        encode(Lease("raw", "moon", 1, "9.0", TIME).to_json() | {"orbit": "low"}),
        headers={"Nats-TTL": "60"},
    )
    async with sdk.connect(server.url) as mesh:
        (info,) = await mesh.list()
        assert info.state == "hibernating"
        await connection.api(f"STREAM.PURGE.KV_{names.leases}", {})
        async with mesh.own("agent", kind="agent") as proc:
            assert proc.run_number == 1
        handle = mesh.process("agent")
        events = [(item.type, item.data) async for item in handle.tail() if isinstance(item, sdk.Event)]
        assert events[:4] == written
        assert [kind for kind, _ in events[4:]] == ["recovered", "exited"]
    assert json.loads((await Bucket(connection, names.claims).get(KEY)).payload)["constellation"] == [1, 2]
    shown = natsproc("logs", "agent", "--server", server.url)
    assert (shown.returncode, "hologram" in shown.stdout) == (0, True), shown.stderr


async def test_an_unknown_kind_of_message_is_passed_over_and_said(server, connection, names):
    async with sdk.connect(server.url, sender="viewer") as mesh, mesh.own("agent") as proc:
        for message in (
            {"id": "1", "data": "thumb", "kind": "reaction"},
            {"id": "2", "data": "plain", "when": "someday", "mood": "calm"},
        ):
            await connection.store(names.inbox(AGENT, "newer"), encode(message))
        assert (await proc.receive()).data == "plain"
        await proc.flush()
        tail = mesh.process("agent").tail(follow=False, types=["log"])
        (warned,) = [event async for event in tail if isinstance(event, sdk.Event)]
        assert "'reaction'" in warned.data["text"]


async def test_an_unknown_kind_of_message_is_not_typed_into_a_command(server, connection, names):
    command = subprocess.Popen(
        [NATSPROC, "run", "--server", server.url, "--id", "agent", "--", "head", "-n1"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    async with sdk.connect(server.url) as mesh:
        while not await mesh.process("agent").record():
            await asyncio.sleep(0.02)
    reaction = {"id": "1", "data": "thumb", "kind": "reaction"}
    await connection.store(names.inbox(AGENT, "newer"), encode(reaction))
    await connection.store(names.inbox(AGENT, "newer"), b"plain")
    assert (await asyncio.to_thread(command.communicate, timeout=60))[0] == "plain\n"


async def test_an_unknown_verb_is_refused_now_and_dropped_where_it_was_held(server, connection, names):
    held = Command("held", "teleport", "tester")
    async with sdk.connect(server.url) as mesh:
        handle = mesh.process("agent")
        await connection.store(
            names.inbox(AGENT, "tester"),
            encode({"id": "held", "kind": COMMAND, "data": held.to_json() | {"to": "mars"}}),
            headers={"Nats-TTL": "600"},
        )
        async with mesh.own("agent"):
            receipt = await handle.command("teleport")
            assert (receipt.status, receipt.why) == ("refused", "this version does not know 'teleport'")
            assert (await handle.pause()).applied
            subject = names.inbox(AGENT, "tester")
            while await History(connection, names.inbox_stream).last(subject):
                await asyncio.sleep(0.01)


async def test_an_unknown_answer_to_a_command_counts_as_a_refusal(server, connection, names):
    await newer_log(connection, names)

    async def answer(message):
        asked = json.loads(message.data)
        for status in ("accepted", "postponed"):
            receipt = {"command": asked["id"], "verb": asked["verb"], "status": status, "until": "monday"}
            await connection.publish(message.reply, encode(receipt))

    await connection.subscribe(names.control(AGENT), answer)
    await connection.ping()
    async with sdk.connect(server.url) as mesh:
        receipt = await mesh.process("agent").interrupt()
        assert (receipt.status, receipt.why) == ("refused", "unknown status 'postponed'")
