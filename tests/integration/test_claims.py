"""Winning an id: one owner at a time, whoever dies half-way, and a log that says whose words count."""

import asyncio
import contextlib
from dataclasses import replace

import pytest
from harness import running
from writing import NAMES, SERVERS, A, connected, events, own, record, stored, until, writing

from natsproc.bus import claims
from natsproc.bus.claims import claim, mark_ended, release
from natsproc.bus.control import ServedControl
from natsproc.bus.kv import Bucket, Conflict
from natsproc.bus.streams import LEASE_SECONDS
from natsproc.errors import AlreadyEnded, AlreadyRunning, OwnershipLost, TimedOut
from natsproc.protocol.messages import Entry, Receipt, encode, encode_event, encode_frame
from natsproc.protocol.names import key_of
from natsproc.protocol.records import Lease

COMPLETED = {"status": "completed", "code": 0}


@pytest.fixture(params=SERVERS)
async def connection(request, tmp_path):
    with running(tmp_path / "nats", request.param) as server:
        async with connected(server.url) as connection:
            yield connection


@pytest.fixture
async def writer(connection):
    async with writing(connection) as writer:
        yield writer


async def lease(connection, node, ttl=60, **fields):
    value = Lease(node, "host", 1, "0", "2026-01-01T00:00:00.000Z", **fields)
    await Bucket(connection, NAMES.leases).put(node, encode(value.to_json()), ttl=ttl)


@contextlib.asynccontextmanager
async def answering(connection, epoch):
    """A process that answers pings."""

    async def apply(command):
        return Receipt(command.id, command.verb, "applied", epoch=epoch)

    served = ServedControl(connection, "node", epoch, apply)
    await served.start(NAMES.control(A))
    await connection.ping()
    await connection.ping()
    yield
    await served.close()


async def test_a_fresh_id_takes_a_handful_of_round_trips(connection, writer, monkeypatch):
    requests, original = [], connection.replies

    def counting(subject, **options):
        requests.append(subject)
        return original(subject, **options)

    monkeypatch.setattr(connection, "replies", counting)
    won = await claim(connection, NAMES, A, node="n", writer=writer)
    assert len(requests) <= 6
    assert (won.run, won.next_offset, won.kind, won.carried.received) == (1, 1, "started", {})
    (mark,) = await stored(connection, A)
    entry = Entry.parse(mark.payload)
    assert (entry.epoch, entry.run, entry.data) == (won.epoch, 1, {"nonce": won.nonce, "node": "n"})
    kept = await record(connection, A)
    assert kept == won.claim
    assert [(cut.epoch, cut.run, cut.offset, cut.position) for cut in kept.cuts] == [
        (won.epoch, 1, 1, mark.position)
    ]


async def test_one_that_answers_is_left_alone(connection, writer):
    won, _ = await own(connection, writer, A, node="first")
    async with answering(connection, won.epoch):
        with pytest.raises(AlreadyRunning, match="first") as caught:
            await own(connection, writer, A, restart=True)
        assert (caught.value.node, caught.value.epoch) == ("first", won.epoch)
    assert (await record(connection, A)).nonce == won.nonce


async def test_one_that_is_silent_is_left_alone_while_its_node_holds_a_lease(connection, writer):
    await lease(connection, "first")
    won, _ = await own(connection, writer, A, node="first")
    with pytest.raises(AlreadyRunning, match=r"a does not answer, and its node first .* holds a lease"):
        await own(connection, writer, A)
    assert (await record(connection, A)).nonce == won.nonce


@pytest.mark.parametrize("left", ["never leased", "goodbye", "purged", "released"])
async def test_one_whose_node_is_gone_is_taken_over(connection, writer, left):
    won, log = await own(connection, writer, A, node="first")
    log.append("said")
    await log.flush()
    if left == "goodbye":
        await lease(connection, "first", goodbye=True)
    elif left != "never leased":
        await lease(connection, "first")
    if left == "purged":
        await Bucket(connection, NAMES.leases).purge("first")
    if left == "released":
        await release(connection, NAMES, won)
    async with asyncio.timeout(LEASE_SECONDS - 1):  # at once, without waiting for a lease
        newer, heir = await own(connection, writer, A, node="heir")
    assert newer.epoch > won.epoch
    assert (newer.run, newer.next_offset, newer.kind) == (1, 2, "recovered")
    heir.append("said by the heir")
    await heir.flush()
    assert [event.type for event in await events(connection, A)] == ["said", "said by the heir"]


async def test_a_lease_that_has_just_expired_may_be_an_outage_of_the_bus(connection, writer, monkeypatch):
    monkeypatch.setattr(claims, "LEASE_SECONDS", 2.0)
    await lease(connection, "first", ttl=1)
    won, _ = await own(connection, writer, A, node="first")
    bucket = Bucket(connection, NAMES.leases)
    async with asyncio.timeout(20):
        while await bucket.get("first", leader=True):
            await asyncio.sleep(0.02)
    claiming = asyncio.create_task(own(connection, writer, A, node="heir"))
    assert not (await asyncio.wait([claiming], timeout=0.5))[0]
    async with answering(connection, won.epoch):  # it had only been cut off
        with pytest.raises(AlreadyRunning, match="is running on node first"):
            await claiming
    heir, _ = await own(connection, writer, A, node="heir")  # now it is really gone
    assert heir.epoch > won.epoch


async def test_a_former_owner_that_answers_is_not_the_owner(connection, writer):
    zombie, _ = await own(connection, writer, A, node="zombie")
    await own(connection, writer, A, node="dead")
    async with answering(connection, zombie.epoch):
        heir, _ = await own(connection, writer, A, node="heir")
    assert heir.kind in ("started", "recovered")


async def test_an_ended_run_is_followed_by_another_only_if_asked(connection, writer):
    await lease(connection, "first")
    won, log = await own(connection, writer, A, node="first")
    log.append("said")
    last = await log.end(COMPLETED)
    for hint in (False, True):  # the record's word is not needed
        if hint:
            await mark_ended(connection, NAMES, won, last)
            assert (await record(connection, A)).ended
        with pytest.raises(AlreadyEnded, match=r"run 1 of a .*--restart"):
            await own(connection, writer, A)
    newer, heir = await own(connection, writer, A, restart=True)
    assert (newer.run, newer.next_offset, newer.kind) == (2, 3, "restarted")
    assert not (await record(connection, A)).ended
    heir.append_lifecycle(newer.kind)
    assert await heir.end(COMPLETED) == 4
    assert [(e.run, e.type) for e in await events(connection, A)] == [
        (1, "said"), (1, "exited"), (2, "restarted"), (2, "exited"),
    ]  # fmt: skip
    with pytest.raises(AlreadyEnded, match="run 2"):
        await own(connection, writer, A)


async def test_restart_of_one_that_crashed_goes_on_with_its_run(connection, writer):
    _, log = await own(connection, writer, A, node="first")
    log.append("said")
    await log.flush()
    newer, _ = await own(connection, writer, A, restart=True)
    assert (newer.run, newer.kind) == (1, "recovered")


async def test_of_claimants_at_the_same_time_one_wins(connection, writer):
    for number in range(5):
        await lease(connection, f"n{number}")
    outcomes = await asyncio.gather(
        *(own(connection, writer, A, node=f"n{number}") for number in range(5)), return_exceptions=True
    )
    winners = [outcome for outcome in outcomes if isinstance(outcome, tuple)]
    assert [type(outcome) for outcome in outcomes].count(AlreadyRunning) == 4
    ((won, log),) = winners
    assert await record(connection, A) == won.claim
    assert (won.epoch, won.revision) == (1, 2)  # who lost has not written
    log.append("said")
    await log.flush()


async def test_an_ended_id_is_restarted_by_one_of_many(connection, writer):
    _, log = await own(connection, writer, A, node="first")
    await log.end(COMPLETED)
    for number in range(4):
        await lease(connection, f"n{number}")
    outcomes = await asyncio.gather(
        *(own(connection, writer, A, node=f"n{number}", restart=True) for number in range(4)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes].count(AlreadyRunning) == 3
    (won,) = [outcome[0] for outcome in outcomes if isinstance(outcome, tuple)]
    assert (won.run, won.kind) == (2, "restarted")


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("step", [0, 1], ids=["the claim", "the cuts"])
async def test_a_write_whose_answer_was_lost_is_made_once(connection, writer, monkeypatch, applied, step):
    calls, original = [], Bucket.update

    async def flaky(self, *write):
        calls.append(write)
        if len(calls) != step + 1:
            return await original(self, *write)
        if applied:
            await original(self, *write)
        raise TimedOut("lost")

    monkeypatch.setattr(Bucket, "update", flaky)
    won, log = await own(connection, writer, A)
    assert (won.epoch, won.revision) == (1, 2)  # nothing was written twice
    assert await record(connection, A) == won.claim
    log.append("said")
    await log.flush()


@pytest.mark.parametrize("step", ["_mark", "_read", "_record"])
@pytest.mark.parametrize("fresh", [True, False])
async def test_a_claimant_that_dies_half_way_costs_an_epoch_and_nothing_else(
    connection, writer, monkeypatch, step, fresh
):
    if not fresh:
        _, log = await own(connection, writer, A, node="first")
        log.append("said")
        await log.flush()
    with monkeypatch.context() as patch:
        steps, original = [], getattr(claims._Claimant, step)

        async def die(self, *args):
            steps.append(step)
            if step != "_read" or fresh or len(steps) == 2:
                raise SystemError("killed")
            return await original(self, *args)

        async def no_last_words(*args):
            pass

        patch.setattr(claims._Claimant, step, die)
        patch.setattr(claims, "_amend", no_last_words)
        with pytest.raises(SystemError):
            await own(connection, writer, A, node="dying")
    unused = (await record(connection, A)).nonce
    won, log = await own(connection, writer, A, node="heir")
    assert won.nonce != unused
    assert (won.next_offset, won.kind) == ((1, "started") if fresh else (2, "recovered"))
    log.append("said")
    await log.flush()
    assert len(await events(connection, A)) == won.next_offset


async def test_a_claimant_that_gives_up_leaves_the_id_to_the_next(connection, writer, monkeypatch):
    await lease(connection, "hasty")

    async def never(*args):
        await asyncio.sleep(3600)

    with monkeypatch.context() as patch:
        patch.setattr(claims._Claimant, "_mark", never)
        claiming = asyncio.create_task(own(connection, writer, A, node="hasty"))
        found = Bucket(connection, NAMES.claims)
        async with asyncio.timeout(20):
            while not await found.get(key_of(A), leader=True):
                await asyncio.sleep(0.01)
        claiming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await claiming
    won, _ = await own(connection, writer, A, node="hasty")
    assert won.kind == "started"


async def test_words_of_a_zombie_and_late_marks_do_not_count(connection, writer):
    zombie, log = await own(connection, writer, A, node="zombie")
    log.append("said")
    await log.flush()
    newer, heir = await own(connection, writer, A, node="heir")
    subject = NAMES.events(A)
    for offset in (2, 3):  # stored behind the heir's mark, and acknowledged
        await connection.store(
            subject,
            encode_event(
                offset, encode_frame(zombie.epoch, 1, zombie.nonce), encode("exited"), encode(COMPLETED)
            ),
        )
    first = (await stored(connection, A))[0]
    await connection.store(subject, first.payload)
    heir.append_lifecycle(newer.kind)
    await heir.flush()
    third, _ = await own(connection, writer, A, node="third")
    assert (third.run, third.next_offset, third.kind) == (1, 3, "recovered")
    assert [event.type for event in await events(connection, A)] == ["said", "recovered"]


async def test_a_run_that_ends_while_it_is_taken_over_stays_ended(connection, writer, monkeypatch):
    _, log = await own(connection, writer, A, node="first")
    original = claims._Claimant._write
    for restart in (False, True):
        ends = [log.end]

        async def write(self, record, revision, ends=ends):
            if ends:
                await ends.pop()(COMPLETED)  # between the claimant's look at the log and its claim
            return await original(self, record, revision)

        monkeypatch.setattr(claims._Claimant, "_write", write)
        if not restart:
            with pytest.raises(AlreadyEnded, match="run 1"):
                await own(connection, writer, A, node="second")
            monkeypatch.setattr(claims._Claimant, "_write", original)
            won, log = await own(connection, writer, A, node="second", restart=True)
            assert won.run == 2
            log.append_lifecycle(won.kind)
            await log.flush()
        else:
            won, log = await own(connection, writer, A, node="third", restart=True)
            assert (won.run, won.kind) == (3, "restarted")
            assert log.append_lifecycle(won.kind) == 4
            await log.flush()
    assert [(e.run, e.type) for e in await events(connection, A)] == [
        (1, "exited"), (2, "restarted"), (2, "exited"), (3, "restarted"),
    ]  # fmt: skip


async def test_what_was_consumed_is_known_to_every_later_owner(connection, writer):
    expected = {}
    for epoch in range(4):
        won, log = await own(connection, writer, A, node=f"n{epoch}")
        assert won.carried.received == expected
        log.append_lifecycle("received", {"message": "m", "sender": "alice", "position": 10 + epoch})
        log.append_lifecycle("received", {"message": "m", "sender": f"bob{epoch}", "position": epoch + 1})
        log.append("received-by-hand", {"sender": "mallory", "position": 99})
        await log.flush()
        expected = expected | {"alice": 10 + epoch, f"bob{epoch}": epoch + 1}


async def test_offsets_go_on_when_the_log_was_trimmed(connection, writer):
    won, log = await own(connection, writer, A, node="first")
    for n in range(10):
        log.append("said", n)
    await log.flush()
    last = await log.end(COMPLETED)
    await mark_ended(connection, NAMES, won, last)
    await connection.api(f"STREAM.PURGE.{NAMES.event_stream}", {"filter": NAMES.events(A), "keep": 3})
    won, log = await own(connection, writer, A, node="second", restart=True)
    assert (won.run, won.next_offset) == (2, 12)
    last = await log.end(COMPLETED)
    await mark_ended(connection, NAMES, won, last)
    await connection.api(f"STREAM.PURGE.{NAMES.event_stream}", {"filter": NAMES.events(A)})
    won, log = await own(connection, writer, A, node="third", restart=True)
    assert (won.run, won.next_offset, won.kind) == (3, 13, "restarted")


async def test_a_hint_after_a_takeover_is_refused(connection, writer):
    won, _ = await own(connection, writer, A, node="first")
    newer, _ = await own(connection, writer, A, node="second")
    for late in (mark_ended(connection, NAMES, won), release(connection, NAMES, won)):
        with pytest.raises(OwnershipLost, match="second"):
            await late
    assert await record(connection, A) == newer.claim
    with pytest.raises(Conflict):
        await Bucket(connection, NAMES.claims).update(key_of(A), b"{}", won.revision)
    changed = replace(newer.claim, extra={"more": 1})  # what a checkpoint would have written meanwhile
    await Bucket(connection, NAMES.claims).update(key_of(A), encode(changed.to_json()), newer.revision)
    await mark_ended(connection, NAMES, newer, 7)
    assert await record(connection, A) == replace(changed, ended=True, extra={"more": 1, "last": 7})


async def test_claiming_outlasts_a_restart_of_the_server(tmp_path):
    with running(tmp_path) as server:
        async with connected(server.url) as connection, writing(connection) as writer:
            await own(connection, writer, A, node="first")
            await asyncio.to_thread(server.kill)
            claiming = asyncio.create_task(own(connection, writer, A, node="second"))
            await until(lambda: not connection.connected)
            await asyncio.to_thread(server.start)
            won, _ = await asyncio.wait_for(claiming, 40)
            assert won.kind == "started"


async def test_a_zombie_that_floods_its_subject_keeps_nobody_out(connection, writer):
    zombie, log = await own(connection, writer, A, node="zombie")
    log.append("said")
    await log.flush()
    flooded = 0

    async def flood():
        nonlocal flooded
        words = [
            encode_event(n, encode_frame(zombie.epoch, 1, ""), encode("n"), b"0") for n in range(2, 2000)
        ]
        while True:
            for _ in range(100):
                await connection.publish(NAMES.events(A), words[flooded % len(words)])
                flooded += 1
            await connection.ping(60)  # as fast as the server takes it, and leaves the loop to others

    flooding = asyncio.create_task(flood())
    try:
        for name in ("heir", "heir's heir"):
            heir, log = await asyncio.wait_for(own(connection, writer, A, node=name), 60)
            log.append("said", name)
            await asyncio.wait_for(log.flush(), 60)
    finally:
        flooding.cancel()
    assert flooded >= 100
    assert heir.epoch > zombie.epoch
    kept = [event for event in await events(connection, A) if event.type == "said"]
    assert [event.data for event in kept] == [None, "heir", "heir's heir"]
