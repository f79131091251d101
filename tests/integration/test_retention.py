"""What is kept, and for how long; what has ended leaves as a whole, and what was trimmed is said."""

import asyncio
import itertools
from contextlib import suppress

import pytest
from harness import running
from writing import A, own, record, until, writing

import natsproc
from natsproc import hosted
from natsproc.bus import checkpoints, limits, log, registry, retention, streams
from natsproc.bus.connection import Connection, Endpoint
from natsproc.bus.history import History
from natsproc.bus.kv import Bucket
from natsproc.bus.limits import Limits
from natsproc.protocol.records import Lease


@pytest.fixture
async def mesh(server, connection):
    """A mesh in whose node nobody prunes by itself."""
    async with natsproc.connect(server.url) as mesh:
        yield mesh


@pytest.fixture(autouse=True)
def nobody_prunes(monkeypatch):
    monkeypatch.setattr(retention, "FIRST_SECONDS", (1e6, 1e6))


async def ran(mesh, id, count=3, saves=False, **options):
    """Have a process live and end, with messages in its inbox that it has not read; returns its last cursor."""
    async with mesh.own(id, **options) as proc:
        for n in range(count):
            await proc.emit("said", n)
        await mesh.process(id).send("never read")
        if saves:
            await proc.checkpoint({"n": count})
    events = await shown(mesh, id)
    return events[-2].cursor


async def shown(mesh, id, **options):
    return [item async for item in mesh.process(id).tail(follow=False, **options)]


async def left(connection, names, id):
    """By stream, how many entries there are that name a process."""
    found = {}
    for stream in streams.configurations(names, connection.server_version):
        info = await connection.api(f"STREAM.INFO.{stream['name']}", {"subjects_filter": ">"})
        subjects = info["state"].get("subjects", {})
        found[stream["name"]] = sum(count for subject, count in subjects.items() if f".{id}" in subject)
    return {name: count for name, count in found.items() if count}


async def age(config, connection, names, stream=None):
    return (await streams.inspect(connection, stream or names.event_stream))["config"][config]


# What a mesh keeps.


async def test_a_new_mesh_keeps_as_much_as_the_defaults_say(connection, names):
    assert await age("max_age", connection, names) == 30 * 86400 * 10**9
    assert await age("max_age", connection, names, names.inbox_stream) == 30 * 86400 * 10**9
    assert await age("max_msgs_per_subject", connection, names) == 2_000_000
    assert await age("max_bytes", connection, names) == 10_000_000_000
    assert await age("max_bytes", connection, names, names.inbox_stream) == -1
    config = (await streams.inspect(connection, names.event_stream))["config"]
    assert limits.in_words(config) == ", kept 30 days, 10 GB at most, 2,000,000 of each process"
    assert limits.in_words({}) == ", kept for ever"


async def test_limits_change_when_asked_for_and_only_those(connection, names):
    assert await streams.setup(connection, names, limits=Limits(keep=86400)) == [
        names.event_stream, names.inbox_stream
    ]  # fmt: skip
    assert await streams.setup(connection, names, limits=Limits(max_events=500)) == [names.event_stream]
    assert await streams.setup(connection, names, limits=Limits(max_events=500, keep=86400)) == []
    assert await streams.setup(connection, names) == []
    assert await age("max_age", connection, names) == 86400 * 10**9
    assert await age("max_msgs_per_subject", connection, names) == 500
    assert await age("max_bytes", connection, names) == 10_000_000_000
    await streams.setup(connection, names, limits=Limits(keep=0, max_bytes=0, max_events=0))
    assert await age("max_age", connection, names) == 0
    assert await age("max_bytes", connection, names) == -1
    await streams.check(connection, names)


async def test_a_server_with_little_room_gets_what_fits_unless_it_was_asked_for(tmp_path, version, names):
    small = 'jetstream {{ store_dir: "{folder}/small", max_file_store: 1GB }}'
    extra = small.format(folder=tmp_path)
    with running(tmp_path / "nats", version, jetstream=False, extra=extra) as server:
        connection = await Connection.open(Endpoint((server.url,), sender="tester"))
        with pytest.raises(natsproc.Error, match="storage"):
            await streams.setup(connection, names, limits=Limits(max_bytes=5_000_000_000))
        await streams.setup(connection, names)
        assert 500_000_000 < await age("max_bytes", connection, names) < 1_000_000_000
        await connection.close()


# What has ended.


async def test_what_is_pruned_leaves_nothing_behind(mesh, connection, names):
    await ran(mesh, "old", saves=True)
    await ran(mesh, "other", saves=True)
    assert set(await left(connection, names, "old")) >= {
        names.event_stream, names.inbox_stream, "KV_PROC_CLAIMS", "KV_PROC_ENDED", "OBJ_PROC_STATES"
    }  # fmt: skip
    before = await left(connection, names, "other")
    assert [str(record.address) for record in await mesh.ended()] == ["old", "other"]
    assert await mesh.ended(3600) == []
    await mesh.prune("old", dry_run=True)
    assert await left(connection, names, "old")
    await mesh.prune("old")
    assert await left(connection, names, "old") == {}
    assert await left(connection, names, "other") == before
    states = await connection.api(f"STREAM.INFO.OBJ_{names.states}")
    assert states["state"]["messages"] == 2  # of the other: its one chunk, and what describes it
    assert [str(info.address) for info in await mesh.list(ended=True)] == ["other"]
    for call in (mesh.prune("old"), shown(mesh, "old")):
        with pytest.raises(natsproc.NoSuchProcess):
            await call


async def test_what_lives_or_cannot_be_reached_is_never_pruned(mesh, connection, names):
    async with mesh.own("alive") as proc:
        await proc.flush()
        with pytest.raises(natsproc.Refused, match="has not ended"):
            await mesh.prune("alive")
    async with mesh.own("gone") as proc:
        await proc.flush()
        stored = await left(connection, names, "gone")
        (hosted,) = [h for a, h in (await mesh.node()).hosted.items() if a.id == "gone"]
        await mesh.io.call(hosted._control.close())  # nobody answers, as when its node is gone
        with pytest.raises(natsproc.Refused, match="has not ended"):
            await mesh.prune("gone")
        assert await left(connection, names, "gone") == stored


async def test_an_id_that_is_started_again_meanwhile_is_left_alone(mesh, connection, names, monkeypatch):
    await ran(mesh, "again")
    original, begun, over = Bucket.purge, asyncio.Event(), asyncio.Event()

    async def live():
        async with mesh.own("again", restart=True) as proc:
            await proc.emit("said", "again")
            await proc.flush()
            begun.set()
            await over.wait()

    async def start():
        living.append(asyncio.create_task(live()))
        await begun.wait()

    async def slowly(self, *args, **options):
        if self.name == names.claims and not living:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(start(), main))
        return await original(self, *args, **options)

    main, living = asyncio.get_running_loop(), []
    monkeypatch.setattr(Bucket, "purge", slowly)
    with pytest.raises(natsproc.Refused, match="started again"):
        await mesh.prune("again")
    over.set()
    await living[0]
    items = await shown(mesh, "again")
    assert [item.type for item in items if isinstance(item, natsproc.Event)] == [
        "restarted",
        "said",
        "exited",
    ]
    assert items[0].type == "restarted"
    assert items[0].offset == 6


async def test_an_owner_that_is_just_ending_is_left_to_see_that_the_end_is_its_own(
    mesh, connection, monkeypatch
):
    original, stored, over = log.confirm, asyncio.Event(), asyncio.Event()
    main = asyncio.get_running_loop()

    async def end():
        async with mesh.own("ending") as proc:
            await proc.emit("said", "all")
            await proc.flush()
            monkeypatch.setattr(log, "confirm", slowly)

    async def slowly(*args):  # between the storing of the terminal event and the look at the claim
        main.call_soon_threadsafe(stored.set)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(over.wait(), main))
        return await original(*args)

    ending = asyncio.create_task(end())
    await stored.wait()
    with pytest.raises(natsproc.Refused, match="just ending"):
        await mesh.prune("ending")
    over.set()
    await ending
    await mesh.prune("ending")


async def test_who_was_killed_before_it_noted_its_end_is_pruned_a_while_later(
    mesh, connection, names, monkeypatch
):
    async def never(*args):
        raise natsproc.TimedOut("killed")

    monkeypatch.setattr(hosted, "mark_ended", never)
    await ran(mesh, "killed")
    monkeypatch.setattr(retention, "ENDING_SECONDS", 0.5)
    async with asyncio.timeout(20):
        while await left(connection, names, "killed"):
            with suppress(natsproc.Refused):
                await mesh.prune("killed")


async def test_what_was_pruned_half_way_is_pruned_by_the_next(mesh, connection, names, monkeypatch):
    await ran(mesh, "half")
    original = Bucket.forget

    async def fail(self, *args):
        raise natsproc.TimedOut("cut off")

    monkeypatch.setattr(Bucket, "forget", fail)
    with pytest.raises(natsproc.TimedOut):
        await mesh.prune("half")
    monkeypatch.setattr(Bucket, "forget", original)
    assert [str(record.address) for record in await mesh.ended()] == ["half"]
    await mesh.prune("half")
    assert await left(connection, names, "half") == {}


async def test_an_id_that_is_used_anew_is_a_stranger(mesh, connection, names):
    cursor = await ran(mesh, "name", count=3)
    first = (await shown(mesh, "name"))[0]
    await mesh.prune("name")
    async with mesh.own("name") as proc:
        assert proc.epoch > first.epoch
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await proc.receive()  # what was sent to the one before is not for it
        for n in range(20):
            await proc.emit("said", n)
    with pytest.raises(natsproc.BadPayload, match="another log"):
        await shown(mesh, "name", after=cursor)
    items = await shown(mesh, "name")
    assert [item.offset for item in items if isinstance(item, natsproc.Event)] == list(range(1, 23))
    # nor where its own beginning was trimmed, and with it what tells by the offsets
    async with mesh.own("name", restart=True) as proc:
        for n in range(20):
            await proc.emit("said", n)
    entry = await History(connection, names.event_stream).last(names.events(proc.address))
    await connection.api(
        f"STREAM.PURGE.{names.event_stream}", {"filter": entry.subject, "seq": entry.position - 3}
    )
    async with mesh.own("name", restart=True) as proc:
        pass
    with pytest.raises(natsproc.BadPayload, match="another log"):
        await shown(mesh, "name", after=cursor)


# Nodes do it by themselves.


async def test_nodes_prune_what_is_older_than_the_mesh_keeps_one_at_a_time(
    mesh, connection, names, monkeypatch
):
    monkeypatch.setattr(retention, "FIRST_SECONDS", (0.0, 0.1))
    monkeypatch.setattr(retention, "EVERY_SECONDS", 0.1)
    monkeypatch.setattr(retention, "TURN_SECONDS", 2)
    await ran(mesh, "old")
    turns = []
    original = retention.Retention.kept

    async def kept(self):
        turns.append(asyncio.get_running_loop().time())
        return await original(self)

    monkeypatch.setattr(retention.Retention, "kept", kept)
    await streams.setup(connection, names, limits=Limits(keep=3))
    nodes = [
        asyncio.create_task(retention.Retention(connection, names).now_and_then(f"node{n}")) for n in range(5)
    ]
    try:
        await until(lambda: turns, 20)
        assert [record.address.id for record in await mesh.ended()] == ["old"]
        async with asyncio.timeout(30):
            while await mesh.ended():
                await asyncio.sleep(0.1)
        assert await left(connection, names, "old") == {}
        assert all(later - earlier > 1 for earlier, later in itertools.pairwise(turns))
    finally:
        for node in nodes:
            node.cancel()


async def test_a_mesh_that_keeps_for_ever_prunes_nothing_by_itself(mesh, connection, names):
    await ran(mesh, "old")
    await streams.setup(connection, names, limits=Limits(keep=0))
    await retention.Retention(connection, names)._take_a_turn("node")
    assert [record.address.id for record in await mesh.ended()] == ["old"]


# What was trimmed.


async def test_events_beyond_the_bound_of_a_process_are_a_gap(mesh, connection, names):
    await streams.setup(connection, names, limits=Limits(max_events=10))
    async with mesh.own("other") as other, mesh.own("long") as proc:
        await other.emit("said", 0)
        for n in range(100):
            await proc.emit("said", n)
        await proc.flush()
        first, *rest = await shown(mesh, "long")
    assert (first.type, first.data) == ("gap", {"from": 1, "to": 91})
    assert [item.offset for item in rest if isinstance(item, natsproc.Event)] == list(range(92, 102))
    assert [item.type for item in await shown(mesh, "other")][:2] == ["started", "said"]


async def test_a_viewer_that_was_away_is_told_what_was_trimmed_meanwhile(mesh, connection, names):
    await streams.setup(connection, names, limits=Limits(max_events=10))
    async with mesh.own("long") as proc:
        await proc.emit("said", 0)
        await proc.flush()
        cursor = [item.cursor for item in await shown(mesh, "long") if isinstance(item, natsproc.Event)][-1]
        for n in range(1, 100):
            await proc.emit("said", n)
        await proc.flush()
        items = await shown(mesh, "long", after=cursor)
    assert (items[0].type, items[0].data) == ("gap", {"from": 3, "to": 91})
    assert [item.offset for item in items if isinstance(item, natsproc.Event)] == list(range(92, 102))


async def test_events_that_grew_too_old_are_a_gap(mesh, connection, names):
    await streams.setup(connection, names, limits=Limits(keep=1))
    async with mesh.own("slow") as proc:
        for n in range(10):
            await proc.emit("said", n)
        await proc.flush()
        history = History(connection, names.event_stream)
        async with asyncio.timeout(20):
            while await history.last(names.events(proc.address)):
                await asyncio.sleep(0.1)
        for n in range(10, 20):
            await proc.emit("said", n)
        await proc.flush()
        items = await shown(mesh, "slow")
    assert (items[0].type, items[0].data) == ("gap", {"from": 1, "to": 11})
    assert [item.data for item in items if isinstance(item, natsproc.Event)] == list(range(10, 20))


# A node's goodbye.


async def test_a_goodbye_does_not_stay_for_ever(tmp_path, version, names, monkeypatch):
    monkeypatch.setattr(registry, "MARKER_SECONDS", 1)
    monkeypatch.setattr(streams, "MARKER_SECONDS", 1)
    with running(tmp_path / "nats", version) as server:
        connection = await Connection.open(Endpoint((server.url,), sender="tester"))
        await streams.setup(connection, names)
        keeper = registry.LeaseKeeper(connection, names, Lease("node", "host", 1, "0", "now"))
        await keeper.start()
        await keeper.stop()
        leases = Bucket(connection, names.leases)
        assert await leases.get("node", leader=True) is None
        async with asyncio.timeout(20):
            while (await leases.last("node"))[0]:
                await asyncio.sleep(0.1)
        await connection.close()


async def test_offsets_go_on_though_all_of_a_quiet_log_is_trimmed(connection, names):
    trimmed = f"STREAM.PURGE.{names.event_stream}"
    async with writing(connection) as writer:
        won, log = await own(connection, writer, A)
        made = checkpoints.Checkpoints(connection, names, won, log)
        for n in range(100):
            log.append("said", n)
        await log.flush()
        assert not made.quiet()
        assert made.quiet()
        await made.make_place(quiet=True)
        assert not made.quiet()
        for node in ("heir", "heir's heir"):  # the one after has a cut to tell it, and no place
            await connection.api(trimmed, {"filter": names.events(A)})
            won, _ = await own(connection, writer, A, node=node)
            assert won.next_offset == 101


async def test_a_process_that_has_been_quiet_for_a_while_has_a_place(mesh, server, connection, monkeypatch):
    monkeypatch.setattr(hosted, "TICK_SECONDS", 0.1)
    async with mesh.own("quiet") as proc:
        for count in (3, 4):
            for n in range(count):
                await proc.emit("said", n)
            await proc.flush()
            async with asyncio.timeout(20):
                while (
                    place := (await record(connection, proc.address)).place
                ) is None or place.offset < proc._log.offset:
                    await asyncio.sleep(0.05)


async def test_what_a_slow_viewer_is_shown_and_told_is_gone_is_all_there_was(mesh, server, connection, names):
    await streams.setup(connection, names, limits=Limits(max_events=100))
    written, count = asyncio.Event(), 4000  # more megabytes than a viewer keeps
    async with natsproc.connect(server.url) as watching:
        seen, gaps = [], []

        async def watch():
            async for item in watching.process("flood").tail():
                if item.type == "gap":
                    gaps.append(range(item.data["from"], item.data["to"] + 1))
                elif isinstance(item, natsproc.Event):
                    seen.append(item.offset)
                    await written.wait()

        async with mesh.own("flood") as proc:
            await proc.flush()
            viewer = asyncio.create_task(watch())
            await until(lambda: seen)
            for _ in range(count):
                await proc.emit("said", "x" * 10_000)
            await proc.flush()
        written.set()
        await asyncio.wait_for(viewer, 60)
    assert gaps
    assert seen == sorted(seen)
    assert sorted([*seen, *(offset for gap in gaps for offset in gap)]) == list(range(1, count + 3))


@pytest.mark.parametrize("options", [{}, {"run": "all"}, {"run": 1}, {"follow": False}], ids=str)
async def test_an_end_that_was_trimmed_with_all_else_is_still_said(mesh, connection, names, options):
    await ran(mesh, A.id)
    cursor = (await shown(mesh, A.id))[1].cursor
    await connection.api(f"STREAM.PURGE.{names.event_stream}", {"filter": names.events(A)})
    handle = mesh.process(A.id)
    async with asyncio.timeout(20):
        items = [item async for item in handle.tail(**options)]
        behind = [item async for item in handle.tail(after=cursor)]
        end = await handle.wait()
    assert [item.type for item in items] == ["caught_up", "gap", "ended"]
    assert (items[1].data["from"], items[2].data["run"]) == (1, 1)
    assert behind[1].data == {"from": 3, "to": items[1].data["to"]}
    assert items[1].data["to"] == 5
    assert items[2].data["status"] == "completed"
    assert (end.status, end.code, end.run) == ("completed", 0, 1)
