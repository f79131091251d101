"""Reads of what a stream has stored: each entry once, in order, all of them, or an error that says so."""

import asyncio
import re
from contextlib import aclosing

import pytest
from harness import SERVERS, running
from rawlog import RawLog

from natsproc.bus import bulk, streams
from natsproc.bus.connection import Connection, Endpoint
from natsproc.bus.history import History, ReadFailed
from natsproc.bus.kv import Bucket
from natsproc.bus.parsing import ListParser
from natsproc.errors import NoMesh, NotAllowed
from natsproc.protocol.messages import Entry
from natsproc.protocol.names import Address, Names

NAMES = Names()
A, B, C = (Address("default", id) for id in "abc")
OPTIONS = {version or "newest": {"version": version} for version in SERVERS} | {
    "newest with new acks": {"extra": "feature_flags { js_ack_fc_v2: true }"}
}


@pytest.fixture(params=OPTIONS)
async def mesh(request, tmp_path):
    with running(tmp_path / "nats", **OPTIONS[request.param]) as server:
        connection = await Connection.open(Endpoint((server.url,), sender="tester"))
        await streams.setup(connection, NAMES)
        yield connection
        await asyncio.wait_for(connection.close(), 10)


@pytest.fixture
def history(connection):
    return History(connection, NAMES.event_stream)


def offsets(entries):
    return [Entry.parse(entry.payload).offset for entry in entries]


async def collect(history, subject, into=None, **options):
    entries = [] if into is None else into
    async with aclosing(history.read(subject, **options)) as batches:
        async for batch in batches:
            assert batch
            entries += batch
    return entries


async def consumers(history):
    info = await history.connection.api(f"STREAM.INFO.{history.stream}")
    return info["state"]["consumer_count"]


async def no_consumers(history):
    async with asyncio.timeout(4):  # the server would forget it by itself after five seconds
        while await consumers(history):
            await asyncio.sleep(0.01)


async def test_every_entry_once_in_order_from_anywhere_to_anywhere(mesh):
    history = History(mesh, NAMES.event_stream)
    one, other = RawLog(mesh, NAMES, A), RawLog(mesh, NAMES, B)
    await one.claim()
    await other.claim()
    for _ in range(5):
        await one.emit(700)
        await other.emit(50)
    all_of_it = await collect(history, one.subject)
    assert offsets(all_of_it) == list(range(3501))  # the mark has offset 0
    assert all(entry.time.startswith("20") and entry.subject == one.subject for entry in all_of_it)
    positions = [entry.position for entry in all_of_it]
    for start, end in [
        (0, 1),
        (0, 999),
        (0, 1000),
        (1, 1001),
        (0, 2001),
        (7, 3000),
        (2600, 3501),
        (3500, 3501),
    ]:
        upto = positions[end - 1]
        after = positions[start - 1] if start else 0
        found = await collect(history, one.subject, after=after, upto=upto)
        assert [entry.position for entry in found] == positions[start:end]
        assert [entry.payload for entry in found] == [entry.payload for entry in all_of_it[start:end]]
    assert await collect(history, one.subject, after=positions[-1]) == []
    assert await collect(history, "proc.default.nobody.events") == []
    # a bound that is another process's entry is as good
    assert len(await collect(history, one.subject, upto=positions[-1] + 40)) == 3501
    both = await collect(history, "proc.default.*.events")
    assert [entry.position for entry in both] == list(range(1, 3753))
    assert [entry.subject for entry in both].count(other.subject) == 251
    await no_consumers(history)


@pytest.mark.parametrize("after", [0, 3, 8, 9, 40])
@pytest.mark.parametrize("guess", [0, 3, 5])
async def test_what_was_fetched_ahead_is_what_a_read_begins_with(connection, history, after, guess):
    log = RawLog(connection, NAMES, A)
    await log.emit(39)
    ahead = history.ahead(log.subject, guess)
    await ahead.fetching
    await log.emit(1)
    found = await collect(history, log.subject, after=after, ahead=ahead)
    assert [entry.position for entry in found] == list(range(after + 1, 41))


async def test_single_entries(mesh):
    history = History(mesh, NAMES.event_stream)
    log = RawLog(mesh, NAMES, A)
    assert await history.last(log.subject) is None
    assert await history.first(log.subject) is None
    assert await history.last_from_leader(log.subject) is None
    before = await history.now()
    assert await history.since(log.subject, before) is None
    await log.claim()
    await log.emit(10)
    last = await history.last(log.subject)
    assert (last.position, offsets([last])) == (11, [10])
    assert (await history.last_from_leader(log.subject)).payload == last.payload
    assert (await history.last_from_leader("proc.*.*.events")).position == 11
    assert (await history.first(log.subject)).position == 1
    assert (await history.first(log.subject, 5)).position == 5
    assert await history.first(log.subject, 12) is None
    assert (await history.since(log.subject, before)).position == 1
    middle = await history.now()
    await log.emit(1)
    assert (await history.since(log.subject, middle)).position == 12


async def test_the_last_entries_of_thousands_of_subjects(mesh, monkeypatch):
    monkeypatch.setattr("natsproc.bus.history._CHUNK_BYTES", 20_000)  # so that answers come in pieces
    history = History(mesh, NAMES.event_stream)
    subjects = [f"proc.default.p{number}.events" for number in range(2300)]
    for start in range(0, 2300, 100):
        await asyncio.gather(
            *(mesh.store(subject, b"old") for subject in subjects[start : start + 100] if subject[-8] != "7")
        )
    await asyncio.gather(*(mesh.store(subject, b"new" * 100) for subject in subjects[:900]))
    found = await history.last_of(subjects)
    wanted = {
        s: b"new" * 100 if n < 900 else b"old" for n, s in enumerate(subjects) if n < 900 or s[-8] != "7"
    }
    assert {subject: entry.payload for subject, entry in found.items()} == wanted
    assert await history.last_of([]) == {}
    assert await history.last_of(["proc.default.nobody.events"]) == {}


async def test_the_last_entries_are_what_the_server_says_of_them(mesh):
    history, subject = History(mesh, NAMES.event_stream), NAMES.events(A)
    forged = {
        "Nats-Sequence": "7",
        "Nats-Last-Sequence": "5",
        "Nats-Subject": "x",
        "Status": "404",
        "Own": "a: b",
    }
    await mesh.store(subject, b"mine", headers=forged)
    alone = await history.last(subject)
    assert alone
    [together] = (await history.last_of([subject])).values()
    seen = [(entry.position, entry.payload, entry.time, entry.subject) for entry in (alone, together)]
    assert seen[0] == seen[1]
    assert alone.subject == subject
    assert (together.headers or {})["Own"] == "a: b"
    with pytest.raises(NoMesh):
        await History(mesh, "NOTHERE").last_of([subject])


@pytest.mark.parametrize("lost", [b"40", b"90"], ids=["in the middle", "the very last"])
async def test_an_entry_lost_from_the_last_ones_is_never_skipped_in_silence(mesh, monkeypatch, lost):
    subjects = [f"proc.default.p{number}.events" for number in range(1, 91)]
    for subject in subjects:
        await mesh.store(subject, subject[14:-7].encode())
    listen = mesh.nc.listen_in_lists

    async def lossy(subject, hear):
        return await listen(subject, lambda messages: hear([m for m in messages if m[2] != lost]))

    monkeypatch.setattr(mesh.nc, "listen_in_lists", lossy)
    with pytest.raises(ReadFailed, match="lost on the way"):
        await History(mesh, NAMES.event_stream).last_of(subjects)


async def test_an_abandoned_read_leaves_no_consumer_behind(connection, history):
    log = RawLog(connection, NAMES, A)
    await log.emit(5000)
    async with aclosing(history.read(log.subject)) as batches:
        async for batch in batches:
            if batch[-1].position > 1500:
                break
        assert await consumers(history) == 1
    await no_consumers(history)

    reading = asyncio.Event()

    async def read_and_hang():
        async for batch in history.read(log.subject):
            if batch[-1].position > 1500:
                reading.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(read_and_hang())
    await asyncio.wait_for(reading.wait(), 20)
    assert await consumers(history) == 1
    task.cancel()
    await asyncio.wait([task])
    await no_consumers(history)


async def test_a_reader_that_is_slow_holds_the_server_back(connection, history):
    log = RawLog(connection, NAMES, A)
    await log.store_all([log.payload(data="x" * 4000) for _ in range(12_000)], window=100)
    found, paused = [], 0
    async with aclosing(history.read(log.subject)) as batches:
        async for batch in batches:
            found += offsets(batch)
            if len(found) > 1000 and not paused:
                paused = len(found)
                before = connection.nc.stats["in_bytes"]
                for _ in range(200):
                    await connection.ping()
                    await asyncio.sleep(0.001)
                assert connection.nc.stats["in_bytes"] - before < 8_000_000
    assert 1000 < paused < 3000
    assert found == list(range(1, 12_001))


async def test_reads_that_pause_do_not_keep_others_waiting(connection, history):
    log = RawLog(connection, NAMES, A)
    await log.emit(4000)
    pausing = [history.read(log.subject) for _ in range(4)]
    firsts = [await asyncio.wait_for(anext(read), 20) for read in pausing for _ in range(2)]
    assert len(await asyncio.wait_for(collect(history, log.subject), 20)) == 4000
    for number, read in enumerate(pausing):
        rest = [entry async for batch in read for entry in batch]
        assert offsets(firsts[2 * number] + firsts[2 * number + 1] + rest) == list(range(1, 4001))


@pytest.mark.parametrize("lost", [2500, 4000], ids=["in the middle", "the very last"])
async def test_an_entry_lost_on_the_way_is_never_skipped_in_silence(connection, history, monkeypatch, lost):
    log = RawLog(connection, NAMES, A)
    await log.emit(4000)
    whole = ListParser._with_held
    line = re.compile(rb"MSG [^\r]*\.1\.%d\.\d+\.[^\r]* (\d+)\r\n" % lost)

    def lossy(self, data):
        data = whole(self, data)
        if (found := line.search(data)) and (end := found.end() + int(found[1]) + 2) <= len(data):
            data = data[: found.start()] + data[end:]
        return data

    monkeypatch.setattr(ListParser, "_with_held", lossy)
    found = []
    with pytest.raises(ReadFailed, match="lost on the way"):
        await collect(history, log.subject, into=found)
    found = offsets(found)
    assert found == list(range(1, lost))


@pytest.mark.parametrize("lost", [b'"offset":40,', b'"offset":90,'], ids=["in the middle", "the very last"])
async def test_an_entry_lost_from_a_direct_get_is_never_skipped_in_silence(server, names, monkeypatch, lost):
    on_reply = Connection._on_reply

    def lossy(self, msg):
        if lost not in msg.data:
            on_reply(self, msg)

    monkeypatch.setattr(Connection, "_on_reply", lossy)
    connection = await Connection.open(Endpoint((server.url,), sender="tester"))
    await streams.setup(connection, names)
    log = RawLog(connection, names, A)
    await log.emit(90)
    # the bound, because the leader's last entry is lost here as well
    with pytest.raises(ReadFailed, match="lost on the way"):
        await collect(History(connection, names.event_stream), log.subject, upto=90)
    await connection.close()


async def test_a_replica_that_lacks_entries_is_never_believed(connection, history):
    """A mirror answers direct gets in turn with its stream, and this one has nothing of the process."""
    log = RawLog(connection, NAMES, A)
    await log.emit(90)
    mirror = {"name": NAMES.event_stream, "filter_subject": NAMES.events(B)}
    body = {"name": "LACKING", "mirror": mirror, "mirror_direct": True, "allow_direct": True}
    await connection.api("STREAM.CREATE.LACKING", body)
    await connection.store(NAMES.events(B), b"so that it has caught up, and joins in")
    found: list[list[int]] = []
    failures: list[str] = []
    async with asyncio.timeout(30):
        while not (found and failures):
            try:
                found.append(offsets(await collect(history, log.subject)))
            except ReadFailed as error:
                failures.append(str(error))
    assert all(entries == list(range(1, 91)) for entries in found)
    assert all("lacks position" in failure for failure in failures)


async def test_a_trimmed_end_is_the_end(connection, history):
    log = RawLog(connection, NAMES, A)
    await log.emit(3000)
    body = {"seq": 3000}
    await connection.api(f"STREAM.MSG.DELETE.{NAMES.event_stream}", body)
    assert offsets(await collect(history, log.subject, upto=3000)) == list(range(1, 3000))
    assert offsets(await collect(history, log.subject, after=2500, upto=3000)) == list(range(2501, 3000))


async def test_a_dead_or_silent_server_fails_the_read_and_a_new_one_goes_on(
    server, connection, history, monkeypatch
):
    monkeypatch.setattr(bulk, "PATIENCE", 0.5)
    long = 16_000  # so that what has arrived before the fault is not all of it
    log = RawLog(connection, NAMES, A)
    await log.store_all([log.payload(data="x" * 2000) for _ in range(long)])
    found = []

    async def read_until(enough, fault):
        async for batch in history.read(log.subject, after=len(found)):
            found.extend(offsets(batch))
            if enough - 1000 < len(found) <= enough:
                fault()

    for enough, fault, mend in [(3000, server.freeze, server.thaw), (6000, server.kill, server.restart)]:
        with pytest.raises(ReadFailed):
            await read_until(enough, fault)
        assert found == list(range(1, len(found) + 1))
        assert enough - 1000 < len(found) < long
        mend()
    found += offsets(await asyncio.wait_for(collect(history, log.subject, after=len(found)), 30))
    assert found == list(range(1, long + 1))


async def test_an_offset_is_found_among_void_entries_repeats_and_cuts(connection, history):
    log = RawLog(connection, NAMES, A)
    noise = RawLog(connection, NAMES, B)
    counted: dict[int, int] = {}  # offset → position of its first entry
    before: dict[int, set[int]] = {}  # offset → positions behind which it is the next that counts

    await log.claim()
    await log.emit(40)
    zombie = log.epoch
    await log.store_all([log.payload(offset=n) for n in range(30, 41)])  # sent again, all of it
    await noise.emit(60)
    await log.emit(20)
    await log.claim()
    log.epoch, epoch = zombie, log.epoch
    await log.store_all([log.payload(offset=n) for n in range(61, 400)])  # a zombie's words
    log.epoch = epoch
    await log.emit(30)
    await log.claim(restart=True)
    await log.emit(25)

    previous = 0
    for stored in await collect(history, log.subject):
        entry = Entry.parse(stored.payload)
        cut = max((cut for cut in log.cuts if cut.position <= stored.position), key=lambda cut: cut.position)
        if entry.epoch == cut.epoch and entry.offset:
            counted.setdefault(entry.offset, stored.position)
            before.setdefault(entry.offset, set()).add(previous)
        if entry.epoch == cut.epoch:
            previous = stored.position
    assert sorted(counted) == list(range(1, 116))

    for offset in range(1, 116):
        assert await history.find_offset(log.subject, offset, log.cuts) in before[offset], offset
    assert await history.find_offset(log.subject, 10_000, log.cuts) == counted[115]
    assert await history.find_offset(log.subject, 5, []) == 0
    # trimmed past the offset: as near as it gets
    await connection.api(f"STREAM.PURGE.{NAMES.event_stream}", {"seq": counted[20]})
    assert await history.find_offset(log.subject, 10, log.cuts) < counted[20]
    assert await history.find_offset(log.subject, 100, log.cuts) in before[100]


async def test_finding_an_offset_takes_a_few_round_trips_however_long_the_log(
    connection, history, monkeypatch
):
    log = RawLog(connection, NAMES, A)
    await log.claim()
    await log.emit(20_000)
    asked = 0
    request = Connection.request

    async def counting(self, *args, **options):
        nonlocal asked
        asked += 1
        return await request(self, *args, **options)

    monkeypatch.setattr(Connection, "request", counting)
    assert await history.find_offset(log.subject, 12_345, log.cuts) == 12_345
    assert asked < 25


async def test_all_keys_of_a_large_bucket_while_some_of_them_change(connection):
    bucket = Bucket(connection, NAMES.registry)
    log = RawLog(connection, NAMES, A)
    log.subject = "unused"
    for number in range(0, 4000, 500):
        await asyncio.gather(*(bucket.put(f"default.k{n}", b"%d" % n) for n in range(number, number + 500)))
    await bucket.purge("default.k17")
    await bucket.put("other.k1", b"elsewhere")
    stop = asyncio.Event()

    async def churn():
        number = 0
        while not stop.is_set():
            number = (number + 7) % 4000
            if number != 17:
                await bucket.put(f"default.k{number}", b"%d" % number)

    churning = asyncio.create_task(churn())
    try:
        for _ in range(5):
            found = await bucket.all("default.*")
            assert {key: value.payload for key, value in found.items()} == {
                f"default.k{n}": b"%d" % n for n in range(4000) if n != 17
            }
    finally:
        stop.set()
        await churning
    assert len(await bucket.all()) == 4000


async def test_ends_are_asked_for_together_and_where_that_is_denied_one_by_one(tmp_path, version, names):
    direct = f"$JS.API.DIRECT.GET.{names.event_stream}"
    denied = f'"{direct}", "{direct}.{names.events(C)}"'
    permissions = (
        'authorization { users = [ { user: "all", password: "x" }, '
        f'{{ user: "some", password: "x", permissions {{ publish {{ deny: [{denied}] }} }} }} ] }}'
    )
    with running(tmp_path / "nats", version, extra=permissions) as server:
        everyone, some = [
            await Connection.open(
                Endpoint((server.url,), sender=user, options={"user": user, "password": "x"})
            )
            for user in ("all", "some")
        ]
        await streams.setup(everyone, names)
        for address in (A, B, C, A):
            await everyone.store(names.events(address), b"x")
        nobody = names.events(Address("default", "nobody"))
        subjects = [*map(names.events, (A, B, C)), nobody, names.events(A)]
        asked, publish = [], everyone.publish

        async def counted(subject, *args, **options):
            asked.append(subject)
            await publish(subject, *args, **options)

        everyone.publish = counted
        history = History(everyone, names.event_stream)
        ends = await asyncio.gather(*map(history.end_of, subjects))
        assert ends == [4, 2, 3, 0, 4]
        assert len(asked) == 1
        history = History(some, names.event_stream)
        ends = await asyncio.gather(*map(history.end_of, [*subjects, subjects[2]]), return_exceptions=True)
        assert [*ends[:2], *ends[3:5]] == [4, 2, 0, 4]
        assert isinstance(ends[2], NotAllowed)
        assert isinstance(ends[5], NotAllowed)
        assert ends[2] is not ends[5]
        for connection in (everyone, some):
            await connection.close()


async def test_the_end_of_a_log_does_not_wait_for_long_reads(mesh):
    for address in (A, B):
        await mesh.store(NAMES.events(address), b"x")
    history = History(mesh, NAMES.event_stream)
    async with mesh.reads, mesh.reads, asyncio.timeout(10):
        ends = await asyncio.gather(*(history.end_of(NAMES.events(address)) for address in (A, B)))
    assert ends == [1, 2]
