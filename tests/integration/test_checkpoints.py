"""Checkpoints: state and inbox position together, and what whoever comes next begins with."""

from __future__ import annotations

import asyncio
import contextlib

import nats
import pytest
from crashing import crashing
from meshes import events
from pydantic import BaseModel
from writing import NAMES, own, record, stored, writing

import natsproc
from natsproc.bus import checkpoints
from natsproc.bus.claims import _Claimant
from natsproc.bus.history import History
from natsproc.bus.objects import Objects
from natsproc.protocol.messages import Entry
from natsproc.protocol.names import Address


@pytest.fixture
def connection(bus_connection):
    return bus_connection


@pytest.fixture
def crash(bus, connection):
    return lambda id, **options: crashing(bus.url, connection, id, **options)


async def states_of(connection, id, count=1):
    """The names of the states that are kept of a process, once there are so many."""
    objects = Objects(connection, NAMES.states)
    async with asyncio.timeout(20):
        while len(names := await objects.names(f"default.{id}")) != count:
            await asyncio.sleep(0.01)
    return names


class Sums(BaseModel):
    total: int = 0
    seen: list[int] = []


class Named(BaseModel):
    name: str


async def test_a_new_owner_begins_with_the_state_and_the_messages_behind_it(crash, mesh):
    handle = mesh.process("both")
    async with crash("both") as proc:
        assert proc.state is None
        for number in range(3):
            await handle.send(number)
        taken = [(await proc.receive(timeout=10)).data for _ in range(2)]
        offset = await proc.checkpoint({"taken": taken})
        assert proc.state == {"taken": [0, 1]}
        assert (await proc.receive(timeout=10)).data == 2
        await proc.log("after it")
        await proc.flush()
    await handle.send(3)  # while nobody is there
    for _ in range(2):  # the second dies before it says anything
        async with crash("both") as proc:
            assert proc.state == {"taken": [0, 1]}
    async with mesh.own("both") as proc:
        assert proc.state == {"taken": [0, 1]}
        assert [(await proc.receive(timeout=10)).data for _ in range(2)] == [2, 3]
        with pytest.raises(natsproc.TimedOut):
            await proc.receive(timeout=0.2)
    seen = await events(handle, follow=False, run="all")
    assert seen[offset - 1].type == "checkpointed"
    assert [e.type for e in seen].count("recovered") == 3
    assert [e.data["data"] for e in seen if e.type == "received"] == [0, 1, 2, 2, 3]


async def test_without_a_checkpoint_nothing_that_was_taken_comes_again(crash, mesh):
    handle = mesh.process("none")
    async with crash("none") as proc:
        for number in range(3):
            await handle.send(number)
        assert [(await proc.receive(timeout=10)).data for _ in range(2)] == [0, 1]
        await proc.flush()
    async with mesh.own("none") as proc:
        assert proc.state is None
        assert (await proc.receive(timeout=10)).data == 2


async def test_a_next_run_begins_without_state_and_behind_all_that_was_taken(crash, mesh, connection):
    handle = mesh.process("next")
    async with mesh.own("next") as proc:
        for number in range(3):
            await handle.send(number)
        await proc.receive(timeout=10)
        await proc.checkpoint({"run": 1})
        await proc.receive(timeout=10)
    async with mesh.own("next", restart=True) as proc:
        assert proc.state is None
        assert (await proc.receive(timeout=10)).data == 2
        await states_of(connection, "next", 0)
        assert (await record(connection, Address("default", "next"))).checkpoint is None
        await proc.checkpoint({"run": 2})
        assert len(await states_of(connection, "next")) == 1


async def test_a_state_of_any_size_is_saved_and_the_one_before_is_removed(crash, mesh, bus, connection):
    large = {"text": ["x" * 1000] * 5000}
    async with crash("large") as proc:
        await proc.checkpoint({"small": 1})
        await proc.checkpoint(large)
        (name,) = await states_of(connection, "large")
        client = await nats.connect(bus.url)
        store = await client.jetstream().object_store(NAMES.states)
        kept = await store.get_info(name)  # as other clients see it
        assert (kept.chunks, kept.size) == (10, 5_015_010)
        await client.close()
    async with crash("large") as proc:
        assert proc.state == large
        await proc.checkpoint({"small": 2})
        await states_of(connection, "large")
    async with mesh.own("large") as proc:
        assert proc.state == {"small": 2}


async def test_a_model_comes_back_as_a_model(crash, mesh):
    async with crash("typed", state=Sums) as proc:
        await proc.checkpoint(Sums(total=3, seen=[1, 2]))
        with pytest.raises(natsproc.BadPayload, match="the state is no Sums"):
            await proc.checkpoint({"total": "many"})
    async with mesh.own("typed", state=Sums) as proc:
        assert proc.state == Sums(total=3, seen=[1, 2])


async def test_an_older_state_goes_through_every_migration(crash, mesh):
    async with crash("older") as proc:
        await proc.checkpoint({"n": 1})
    steps = {1: lambda old: {"first": str(old["n"])}, 2: lambda old: {"name": old["first"] + "!"}}

    @natsproc.process(kind="older", state=Named, version=3, migrate=steps)
    async def newest(proc):
        state = proc.state
        await proc.checkpoint(Named(name="new"))
        return state.model_dump()

    assert await mesh.run(newest, id="older") == {"name": "1!"}


async def test_a_state_that_no_migration_leads_from_is_refused_and_the_run_goes_on(crash, mesh):
    handle = mesh.process("refused")
    async with crash("refused", version=2) as proc:
        await proc.checkpoint({"n": 1})
    with pytest.raises(
        natsproc.StateUnfit, match=r"is of version 2, .* knows version 4: declare migrate=\{3: …\}"
    ):
        async with mesh.own("refused", version=4, migrate={2: lambda old: old}):
            pytest.fail("began")
    with pytest.raises(natsproc.StateUnfit, match="knows version 1: run the newer code"):
        async with mesh.own("refused"):
            pytest.fail("began")
    with pytest.raises(natsproc.StateUnfit, match=r"is no Named: (?s:.*)declare a migration"):
        async with mesh.own("refused", version=2, state=Named):
            pytest.fail("began")

    def broken(old):
        raise ZeroDivisionError

    with pytest.raises(natsproc.StateUnfit, match=r"of refused .*version 2.* ZeroDivisionError") as caught:
        async with mesh.own("refused", version=3, migrate={2: broken}):
            pytest.fail("began")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "exited" not in [e.type for e in await events(handle, follow=False, run="all")]
    async with mesh.own("refused", version=2) as proc:
        assert proc.state == {"n": 1}


async def test_a_damaged_state_is_refused(crash, mesh, connection):
    async with crash("damaged") as proc:
        await proc.checkpoint({"text": "x" * 2_000_000})
    (name,) = await states_of(connection, "damaged")
    purge = {"filter": f"$O.{NAMES.states}.C.{name}", "keep": 2}
    await connection.api(f"STREAM.PURGE.OBJ_{NAMES.states}", purge)
    with pytest.raises(natsproc.StateUnfit, match="is damaged"):
        async with mesh.own("damaged"):
            pytest.fail("began")


async def test_the_checkpoint_of_a_former_owner_is_refused_and_its_code_stops(
    bus, mesh, connection, monkeypatch
):
    async def zombie(proc):
        await proc.checkpoint({"by": "zombie", "n": 1})
        await taken.wait()
        with contextlib.suppress(natsproc.OwnershipLost):
            await proc.checkpoint({"by": "zombie", "n": 2})
        await asyncio.sleep(60)

    taken = asyncio.Event()
    async with natsproc.connect(bus.url, sender="zombie") as theirs:
        task = asyncio.create_task(theirs.run(zombie, id="fenced"))
        await states_of(connection, "fenced")

        async def silent(*_):
            return False

        async def gone(*_):
            return False, True

        monkeypatch.setattr(_Claimant, "_answers", silent)
        monkeypatch.setattr(_Claimant, "_lives", gone)
        async with mesh.own("fenced") as proc:
            assert proc.state == {"by": "zombie", "n": 1}
            await proc.checkpoint({"by": "heir"})
            saved = await record(connection, proc.address)
            taken.set()
            with pytest.raises(natsproc.OwnershipLost):
                await asyncio.wait_for(task, 20)
            assert await record(connection, proc.address) == saved
    seen = [(e.type, e.epoch) for e in await events(mesh.process("fenced"), follow=False, run="all")]
    assert [type for type, _ in seen].count("checkpointed") == 2
    assert [type for type, _ in seen].count("exited") == 1
    async with mesh.own("fenced", restart=True):
        await states_of(connection, "fenced", 0)  # nor is anything left of what was refused


async def test_only_the_claim_record_commits_a_checkpoint(connection):
    """A former owner that has not heard of it yet is refused where it would commit, and changes nothing."""
    address = Address("default", "unheard")
    async with writing(connection) as writer:
        won, log = await own(connection, writer, address, node="first")
        former = checkpoints.Checkpoints(connection, NAMES, won, log)
        await former.save(b"1", 1, *log.snapshot())
        newer, heir = await own(connection, writer, address, node="second")
        assert await checkpoints.load(connection, NAMES, newer) == b"1"
        for _ in range(2):
            with pytest.raises(natsproc.OwnershipLost, match="second"):
                await former.save(b"2", 1, *log.snapshot())
        assert await record(connection, address) == newer.claim
        await checkpoints.Checkpoints(connection, NAMES, newer, heir).save(b"3", 1, *heir.snapshot())
        await former.tidy()
        third, _ = await own(connection, writer, address, node="third")
        assert await checkpoints.load(connection, NAMES, third) == b"3"


async def test_a_checkpoint_that_counts_forgets_answers_though_nothing_says_so_yet(connection):
    address = Address("default", "answers")
    async with writing(connection) as writer:
        won, log = await own(connection, writer, address)
        for ask in ("a1", "a2"):
            log.append_lifecycle("asked", {"ask": ask, "question": "Approve?"})
        log.append_lifecycle("answered", {"ask": "a1", "value": "yes", "sender": "ann"})
        snapshot = log.snapshot()
        await log.reach(log.append_lifecycle("answered", {"ask": "a2", "value": "no", "sender": "ann"}))
        await checkpoints.Checkpoints(connection, NAMES, won, log).save(b"1", 1, *snapshot)
        assert (await record(connection, address)).place is None
        won, _ = await own(connection, writer, address)  # its owner was killed before it could say more
        assert list(won.carried.asks.by_id) == ["a2"]


async def test_an_interrupted_checkpoint_is_whole_and_the_last_one_stays(crash, mesh, connection):
    async with crash("interrupted") as proc:
        for number in range(20):
            task = asyncio.create_task(proc.checkpoint({"n": number, "text": "x" * 600_000}))
            await asyncio.sleep(0.002)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.gather(*(proc.checkpoint({"last": number}) for number in range(10)))
        saved = (await record(connection, proc.address)).checkpoint
        assert (await states_of(connection, "interrupted")) == [saved.object]
    async with mesh.own("interrupted") as proc:
        assert proc.state == {"last": 9}


async def test_the_blocking_twin_saves_as_well(crash, mesh):
    def work(proc, fail):
        if proc.state:
            return proc.state["n"]
        assert proc.receive(timeout=10).data == "go"
        assert proc.checkpoint({"n": 7}) == 3

    await asyncio.gather(
        mesh.run(work, True, id="blocking"), _send_when_there(mesh.process("blocking"), "go")
    )
    seen = await events(mesh.process("blocking"), follow=False, run="all")
    assert [e.type for e in seen] == ["started", "received", "checkpointed", "exited"]
    assert seen[2].data == {"offset": 2, "size": 7, "version": 1}


async def _send_when_there(handle, data):
    async with asyncio.timeout(20):
        while await handle.record() is None:
            await asyncio.sleep(0.01)
    await handle.send(data)


@pytest.mark.parametrize("checkpoints_too", [False, True])
async def test_a_claimant_reads_on_from_the_last_place(crash, mesh, monkeypatch, connection, checkpoints_too):
    id, reads, original = f"long-{checkpoints_too}", [], History.read
    monkeypatch.setattr(checkpoints, "PLACE_EVERY", 500)
    handle = mesh.process(id)
    async with crash(id) as proc:
        await handle.send("early")
        await proc.receive(timeout=10)
        for number in range(1600):
            await proc.emit("n", number)
        await proc.flush()
        if checkpoints_too:
            await proc.checkpoint({"here": True})
        address, least = proc.address, 1600 if checkpoints_too else 1000
        async with asyncio.timeout(20):
            while not (place := (await record(connection, address)).place) or place.offset < least:
                await asyncio.sleep(0.01)
        await proc.emit("n", "last")
        await proc.flush()
    place = (await record(connection, address)).place  # it may have made another one since
    assert least <= place.offset <= place.sent

    def read(self, subject, after=0, upto=None):
        if subject == NAMES.events(address):
            reads.append(after)
        return original(self, subject, after, upto)

    monkeypatch.setattr(History, "read", read)
    async with mesh.own(id) as proc:
        assert min(reads) == place.position
        assert (proc.state, await proc.log("on")) == (
            {"here": True} if checkpoints_too else None,
            proc._log.offset,
        )
        with pytest.raises(natsproc.TimedOut):
            await proc.receive(timeout=0.2)
    monkeypatch.undo()
    seen = await events(handle, follow=False, run="all")
    assert [e.data for e in seen if e.type == "n"] == [*range(1600), "last"]


class Placing:
    """An owner that looks for its place in its own log."""

    def __init__(self, connection, writer, won, log):
        self.connection, self.writer, self.won, self.log, self.address = (
            connection,
            writer,
            won,
            log,
            log.address,
        )
        self.made = checkpoints.Checkpoints(connection, NAMES, won, log)

    async def write(self, count):
        for number in range(count):
            self.log.append("n", number)
        await self.log.flush()

    async def place(self, offset, repeats):
        """Where that event is, if sent when so much had been sent again."""
        return await self.made._place(offset, self.won.claim.cuts[-1].position, repeats)

    async def copies(self, offset):
        """Where all entries of that event are."""
        entries = await stored(self.connection, self.address)
        return [entry.position for entry in entries if Entry.parse(entry.payload).offset == offset]


@contextlib.asynccontextmanager
async def placing(connection, id):
    async with writing(connection) as writer:
        yield Placing(connection, writer, *await own(connection, writer, Address("default", id)))


async def test_the_end_of_a_log_is_never_a_place(connection):
    async with placing(connection, "ended-place") as owner:
        made, log = owner.made, owner.log
        said = log.append("said")
        assert (await made._place(said)).offset == said
        assert await made._place(await log.end({"status": "completed", "code": 0})) is None


@pytest.mark.parametrize("others", [0, 3])
async def test_the_place_of_an_event_is_found_without_reading_what_lies_behind_it(
    connection, monkeypatch, others
):
    async with placing(connection, f"found-{others}") as owner:
        log = owner.log
        between = [
            owner.writer.lane(NAMES.events(Address("default", f"by-{n}")), print) for n in range(others)
        ]
        for number in range(600):
            log.append("n", number)
            for lane in between[: number % (others + 1)]:
                lane.put(b"{}")
        await log.flush()
        entries = await stored(connection, owner.address)
        positions = {Entry.parse(entry.payload).offset: entry.position for entry in entries}
        monkeypatch.delattr(History, "read")
        for offset in (1, 2, 77, 300, 598, 599, 600):
            place = await owner.place(offset, log.repeats)
            assert (place.offset, place.position) == (offset, positions[offset])


async def test_the_place_of_an_event_that_was_sent_again_is_its_last_copy(connection):
    async with placing(connection, "twice") as owner:
        before = owner.log.repeats
        await owner.write(60)
        for entry in (await stored(connection, owner.address))[-40:]:
            await connection.store(NAMES.events(owner.address), entry.payload)
            await connection.store(NAMES.events(Address("default", "between")), b"{}")
        owner.writer.stats.broken += 1  # as it is with each attempt of which something is sent again
        place, copies = await owner.place(30, before), await owner.copies(30)
        assert place.position == copies[1] > copies[0]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_an_event_that_may_have_been_sent_twice_is_looked_for_among_all(connection, monkeypatch, when):
    async with placing(connection, f"twice-{when}") as owner:
        address, log, made = owner.address, owner.log, owner.made
        await owner.write(9)
        entries, reach, reached = await stored(connection, address), log.reach, []
        looked, seen = made._last, []

        async def twice():
            await reach(log.append("n", "twice"))
            for _ in range(30):
                await connection.store(NAMES.events(address), (await stored(connection, address))[-1].payload)
            owner.writer.stats.broken += 1

        async def reaching(offset):
            reached.append(offset)
            if when == "meanwhile" and len(reached) == 1:
                await twice()
            if len(reached) == 2:  # the event is chosen
                for _ in range(3):
                    await reach(log.append("n", "later"))
                    await connection.store(NAMES.events(Address("default", "between")), b"{}")
            await reach(offset)

        async def last():
            seen.append(await looked())
            return seen[-1] if len(seen) > 1 else [entries[5]]  # as if it had been asked before all that

        if when == "before":
            await twice()
        monkeypatch.setattr(log, "reach", reaching)
        monkeypatch.setattr(made, "_last", last)
        await made.make_place(quiet=True)
        place, said = (await record(connection, address)).place, reached[1]
        copies = await owner.copies(said)
        assert (place.offset, place.position, len(copies)) == (said, copies[-1], 31)
