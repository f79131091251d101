"""The node's writer: in order, without holes, bounded, and one lane's refusal is nobody else's."""

import asyncio
import random
import threading
import time
from types import SimpleNamespace

import pytest
from harness import OLDEST, running
from writing import NAMES, SERVERS, A, B, C, connected, stored, until, writing

from natsproc.bus import ingest, streams
from natsproc.bus.direct import Beside
from natsproc.bus.wire import Wire
from natsproc.bus.writer import Writer
from natsproc.errors import Closed, NotAllowed, TooLarge

STREAM = NAMES.event_stream
DENYING = """
authorization { users: [
  { user: node, password: pw, permissions: { publish: { deny: ["proc.default.b.events"] } } }
] }
"""


@pytest.fixture(params=SERVERS)
async def connection(request, tmp_path):
    with running(tmp_path / "nats", request.param) as server:
        async with connected(server.url) as connection:
            yield connection


@pytest.fixture
def refusals():
    return []


def lane_of(writer, address, refusals):
    return writer.lane(NAMES.events(address), lambda error, number: refusals.append((address, error, number)))


async def payloads(connection, address):
    return [entry.payload for entry in await stored(connection, address)]


def numbered(count, size=0):
    return [b"%d:%s" % (n, b"x" * size) for n in range(1, count + 1)]


async def change_stream(connection, **changes):
    config = (await streams.inspect(connection, STREAM))["config"]
    await connection.api(f"STREAM.UPDATE.{STREAM}", config | changes)


async def test_several_lanes_under_load_keep_their_order_without_holes(connection, refusals):
    sizes = random.Random(7)
    load = {
        address: [b"%d:%s" % (n, b"x" * sizes.choice((0, 100, 3000))) for n in range(3000)]
        for address in (A, B, C)
    }
    async with writing(connection) as writer:
        loop = asyncio.get_running_loop()

        def produce(lane, entries):
            for number, payload in enumerate(entries, 1):
                assert lane.put(payload) == number
                if lane.full:
                    asyncio.run_coroutine_threadsafe(lane.room(), loop).result(60)

        lanes = [lane_of(writer, address, refusals) for address in load]
        await asyncio.gather(
            *(asyncio.to_thread(produce, *work) for work in zip(lanes, load.values(), strict=True))
        )
        await asyncio.gather(*(lane.stored(3000) for lane in lanes))
        for address, entries in load.items():
            assert await payloads(connection, address) == entries
        assert writer.stats.stored == 9000
        assert writer.stats.broken == 0
        assert refusals == []


async def test_batches_are_used_where_the_stream_takes_them(connection, refusals):
    async with writing(connection) as writer:
        lane = lane_of(writer, A, refusals)
        for payload in numbered(2000):
            last = lane.put(payload)
        await lane.stored(last)
        windows = -(-2000 // ingest.WINDOW)
        assert (writer.stats.attempts < windows) == (connection.server_version >= (2, 14))


async def test_a_batch_goes_on_while_somebody_waits_for_what_will_be_acknowledged_anyway(
    connection, refusals, monkeypatch
):
    monkeypatch.setattr(ingest, "AGE", 5.0)  # however slow the machine
    if connection.server_version < (2, 14):
        pytest.skip("this server takes no batches")
    async with writing(connection) as writer:
        lane = lane_of(writer, A, refusals)
        for payload in numbered(60_000):
            lane.put(payload)
        for number in range(250, 60_001, 250):
            await lane.stored(number)
        assert writer.stats.attempts < 10  # thirty, if each of those who waited had ended one


async def test_what_trickles_into_a_batch_is_sent_by_whoever_puts_it(connection, refusals, monkeypatch):
    if connection.server_version < (2, 14):
        pytest.skip("this server takes no batches")
    monkeypatch.setattr(
        ingest, "IDLE", 0.1
    )  # a tenth of a second without an entry, on however slow a machine
    monkeypatch.setattr(ingest, "AGE", 5.0)
    async with writing(connection) as writer:
        lane, entries, at_once, post = lane_of(writer, A, refusals), numbered(6000), 0, Beside._post
        for payload in entries[:3000]:  # which begins one
            lane.put(payload)
        await until(lambda: not writer._pipe.queue and isinstance(writer._pipe.direct, Beside))
        attempts = writer.stats.attempts

        def counting(self, *entry):
            nonlocal at_once
            at_once += (done := post(self, *entry))
            return done

        def trickle():
            for start in range(3000, 6000, 25):
                for payload in entries[start : start + 25]:
                    lane.put(payload)
                time.sleep(0.01)

        monkeypatch.setattr(Beside, "_post", counting)

        await asyncio.to_thread(trickle)
        await lane.stored(6000)
        assert at_once > 1000
        assert writer.stats.attempts - attempts < 8  # of a dozen, if each tenth of a second had ended one
        assert writer.stats.broken == 0
        assert await payloads(connection, A) == entries


async def test_bursts_and_trickles_of_many_threads_keep_their_order(connection, refusals):
    entries = numbered(4000, 50)
    async with writing(connection) as writer:

        def produce(lane, seed):
            chance, at = random.Random(seed), 0
            while at < len(entries):
                burst = chance.choice((1, 1, 2, 5, 12, 12, 40, 300))
                for payload in entries[at : at + burst]:
                    lane.put(payload)
                at += burst
                time.sleep(chance.choice((0, 0.0005, 0.001, 0.002, 0.006)))

        lanes = [lane_of(writer, address, refusals) for address in (A, B, C)]
        await asyncio.gather(*(asyncio.to_thread(produce, lane, n) for n, lane in enumerate(lanes)))
        await asyncio.gather(*(lane.stored(len(entries)) for lane in lanes))
        assert writer.stats.broken == 0
        for address in (A, B, C):
            assert await payloads(connection, address) == entries


async def test_what_a_signal_handler_puts_while_an_entry_is_sent_is_queued(connection, refusals, monkeypatch):
    """In a batch, where there is one, its place would be behind that of an entry that has not left yet."""
    async with writing(connection) as writer:
        lane, other, send, puts = lane_of(writer, A, refusals), lane_of(writer, B, refusals), Wire.send, []

        def interrupted(self, data):
            if data.startswith(b"PUB proc.default.a.") and len(puts) < 40:
                puts.append(b"%d" % len(puts))
                other.put(puts[-1])
            return send(self, data)

        monkeypatch.setattr(Wire, "send", interrupted)
        entries = numbered(2000)
        for start in range(0, 2000, 20):
            for payload in entries[start : start + 20]:
                lane.put(payload)
            await asyncio.sleep(0.001)
        assert len(puts) == 40
        await asyncio.gather(lane.stored(2000), other.stored(40))
        assert (await payloads(connection, A), await payloads(connection, B)) == (entries, puts)
        assert writer.stats.broken == 0


async def test_nothing_goes_beside_a_block_that_is_being_made(connection, refusals, monkeypatch):
    send, puts, ways = ingest.Batch._send, [], set()
    async with writing(connection) as writer:
        lane, other = lane_of(writer, A, refusals), lane_of(writer, B, refusals)

        async def meanwhile(self, taken):
            ways.add(writer._pipe.direct)
            if len(puts) < 10:
                puts.append(b"%d" % len(puts))
                other.put(puts[-1])  # as another thread may
            await send(self, taken)

        monkeypatch.setattr(ingest.Batch, "_send", meanwhile)
        entries = numbered(4000)
        for start in range(0, 4000, 100):
            for payload in entries[start : start + 100]:
                lane.put(payload)
            await asyncio.sleep(0.002)
        await lane.stored(4000)
        await other.stored(len(puts))
        assert (await payloads(connection, A), await payloads(connection, B)) == (entries, puts)
        assert (ways, writer.stats.broken) == ({None} if puts else set(), 0)


async def test_stored_means_that_a_reader_finds_it(connection, refusals):
    async with writing(connection) as writer:
        lane = lane_of(writer, A, refusals)
        for round_ in range(1, 30):
            for _ in range(round_ % 4 + 1):
                number = lane.put(b"x")
            await lane.stored(number)
            assert len(await stored(connection, A)) == number


async def test_what_nobody_waits_for_is_soon_acknowledged_too(connection, refusals):
    async with writing(connection) as writer:
        lane = lane_of(writer, A, refusals)
        for payload in numbered(20):
            lane.put(payload)
        await until(lambda: lane.stored_to == 20, 5, "an idle batch is committed")


async def test_a_full_buffer_pushes_back_until_there_is_room(tmp_path, refusals):
    with running(tmp_path) as server:
        async with (
            connected(server.url) as connection,
            writing(connection, max_events=50) as few,
            writing(connection, max_bytes=5000) as small,
        ):
            for writer, payload, bound in ((few, b"x", 50), (small, b"x" * 100, 50)):
                lane = lane_of(writer, A, refusals)
                server.freeze()
                for n in range(bound):
                    assert not lane.full, n
                    lane.put(payload)
                assert lane.full
                room = asyncio.create_task(lane.room())
                assert not (await asyncio.wait([room], timeout=0.2))[0]
                server.thaw()
                await asyncio.wait_for(room, 20)
                assert not lane.full


@pytest.mark.parametrize("version", SERVERS)
async def test_a_denied_subject_fails_its_lane_only(tmp_path, version, refusals):
    with running(tmp_path, version, extra=DENYING) as server:
        async with (
            connected(server.url, user="node", password="pw") as connection,
            writing(connection) as writer,
        ):
            a, b, c = lanes = [lane_of(writer, address, refusals) for address in (A, B, C)]
            entries = numbered(500)
            for payload in entries:
                for lane in lanes:
                    lane.put(payload)
            with pytest.raises(NotAllowed, match=r"proc\.default\.b\.events"):
                await b.stored(500)
            await asyncio.gather(a.stored(500), c.stored(500))
            assert [(address, number) for address, _, number in refusals] == [(B, 1)]
            for address in (A, C):
                assert list(dict.fromkeys(await payloads(connection, address))) == entries
            assert await payloads(connection, B) == []


@pytest.mark.parametrize("size", [300_000, 1_200_000], ids=["for-the-stream", "for-the-server"])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "crowd"])
async def test_an_entry_that_is_too_large_fails_its_lane_only(connection, refusals, alone, size):
    async with writing(connection) as writer:
        a, b = lane_of(writer, A, refusals), lane_of(writer, B, refusals)
        await change_stream(connection, max_msg_size=200_000)
        before, huge, behind = numbered(1 if alone else 300), b"x" * size, numbered(600)
        for payload in before:
            b.put(payload)
            a.put(payload)
        if alone:
            await asyncio.gather(a.stored(1), b.stored(1))
        refused = b.put(huge)
        if not alone:
            for payload in behind:
                b.put(payload)
        a.put(b"after")
        await b.stored(len(before))
        for number in (refused, b.last):
            with pytest.raises(TooLarge, match=f"{size} bytes"):
                await b.stored(number)
        assert [(address, number) for address, _, number in refusals] == [(B, refused)]
        await a.stored(a.last)
        assert list(dict.fromkeys(await payloads(connection, A))) == [*before, b"after"]
        again = b.put(b"afterwards")  # the lane itself goes on, with what is put from now on
        await b.stored(again)
        assert list(dict.fromkeys(await payloads(connection, B))) == [*before, b"afterwards"]


FORGED = [
    ("9.1.$FI", b'{"type":"ack","seq":900,"msgs":200}'),
    ("9.1.$FI", b'{"stream":"S","seq":1,"batch":"%s","count":900}'),
    ("900", b'{"stream":"S","seq":1}'),
    ("41", b'{"stream":"S","seq":1}'),
    ("42", b'{"stream":"S","seq":1}'),
]


@pytest.mark.parametrize("many", [10, 40, 400], ids=["direct", "direct-and-more", "many"])
@pytest.mark.parametrize("version", [None, OLDEST])
async def test_an_acknowledgement_above_what_was_sent_is_ignored(
    tmp_path, refusals, version, many, monkeypatch
):
    batch = many > 32 and version != OLDEST
    if batch:  # which is open for as long as nobody waits
        monkeypatch.setattr(ingest, "IDLE", 60.0)
        monkeypatch.setattr(ingest, "AGE", 60.0)
    with running(tmp_path, version) as server:
        async with connected(server.url) as connection, writing(connection) as writer:
            lane, pipe = lane_of(writer, A, refusals), writer._pipe
            lane.put(b"0")
            await lane.stored(1)
            entries = [b"0", *numbered(many)]
            for payload in entries[1 : many // 2]:
                lane.put(payload)
            if batch:
                await until(lambda: isinstance(pipe.direct, Beside))
                await asyncio.sleep(0.1)
            else:
                await lane.stored(many // 2)
            server.freeze()
            for payload in entries[many // 2 :]:
                lane.put(payload)
            await until(lambda: pipe.flying)
            before = lane.stored_to
            for place, answer in FORGED[: 3 if many > 32 else None]:
                data = answer.replace(b"%s", pipe._attempt.encode())
                subject = f"{pipe._prefix}{pipe._attempt}.{place}"
                pipe._on_reply(SimpleNamespace(subject=subject, data=data, headers=None))
                await asyncio.sleep(0.05)
            assert lane.stored_to == before <= many // 2
            server.thaw()
            await asyncio.wait_for(lane.stored(many + 1), 30)
            assert list(dict.fromkeys(await payloads(connection, A))) == entries


async def test_closing_stores_what_is_queued_and_then_takes_nothing(connection, refusals):
    async with writing(connection) as writer:
        lane = lane_of(writer, A, refusals)
        entries = numbered(3000)
        for payload in entries:
            lane.put(payload)
    assert await payloads(connection, A) == entries
    with pytest.raises(Closed):
        lane.put(b"x")


async def test_closing_while_the_server_hangs_tells_those_who_wait(tmp_path, refusals):
    with running(tmp_path) as server:
        async with connected(server.url) as connection:
            writer = Writer(connection, STREAM)
            await writer.start()
            lane = lane_of(writer, A, refusals)
            server.freeze()
            waiting = asyncio.create_task(lane.stored(lane.put(b"x")))
            await asyncio.sleep(0)
            await asyncio.wait_for(writer.close(timeout=0.1), 10)
            with pytest.raises(Closed):
                await waiting
            with pytest.raises(Closed):
                await lane.stored(1)
            server.thaw()


async def test_a_stream_that_takes_no_batches_any_more_gets_windows(tmp_path, refusals):
    with running(tmp_path) as server:
        async with connected(server.url) as connection, writing(connection) as writer:
            lane = lane_of(writer, A, refusals)
            await change_stream(connection, allow_batched=False)
            entries = numbered(1000)
            for payload in entries:
                lane.put(payload)
            await asyncio.wait_for(lane.stored(1000), 30)
            assert list(dict.fromkeys(await payloads(connection, A))) == entries


async def test_a_missing_stream_is_said_and_waited_for(tmp_path, refusals):
    with running(tmp_path) as server:
        async with connected(server.url) as connection, writing(connection) as writer:
            await connection.api(f"STREAM.DELETE.{STREAM}")
            lane = lane_of(writer, A, refusals)
            entries = numbered(100)
            for payload in entries:
                lane.put(payload)
            await until(lambda: writer.trouble and "natsproc setup" in writer.trouble)
            await streams.setup(connection, NAMES)
            await asyncio.wait_for(lane.stored(100), 30)
            assert writer.trouble is None
            assert await payloads(connection, A) == entries


def heard_elsewhere(url, subject, put):
    """In a thread and a loop of its own: whether what `put` puts arrives on the subject."""

    async def listen():
        async with connected(url) as other:
            heard = asyncio.Event()
            await other.nc.listen(subject, lambda msg: heard.set())
            await other.ping()
            put()
            await asyncio.wait_for(heard.wait(), 20)

    thread = threading.Thread(target=asyncio.run, args=(listen(),), daemon=True)
    thread.start()
    return thread


async def test_what_is_put_alone_is_stored_while_the_loop_does_not_turn(connection, refusals):
    async with writing(connection) as writer:
        lane = lane_of(writer, A, refusals)
        await lane.stored(lane.put(b"first"))
        await until(lambda: writer._pipe.direct)
        listening = heard_elsewhere(connection.url, NAMES.live(A), lambda: lane.put(b"second"))
        await asyncio.sleep(0)
        listening.join(30)  # blocks the loop
        assert not listening.is_alive()
        await lane.stored(2)
        assert await payloads(connection, A) == [b"first", b"second"]


async def test_what_was_dropped_is_not_sent_when_the_way_is_clear(tmp_path, refusals):
    with running(tmp_path) as server:
        async with connected(server.url) as connection, writing(connection) as writer:
            a, b = lane_of(writer, A, refusals), lane_of(writer, B, refusals)
            await a.stored(a.put(b"0"))
            server.freeze()
            for payload in numbered(40):  # more than are sent at once
                a.put(payload)
            b.put(b"dropped")
            a.put(b"last")
            b.drop()
            server.thaw()
            await a.stored(a.last)
            await b.stored(b.put(b"behind"))
            assert await payloads(connection, B) == [b"behind"]
            assert list(dict.fromkeys(await payloads(connection, A))) == [b"0", *numbered(40), b"last"]


async def test_nothing_is_sent_past_what_is_queued(connection, refusals):
    async with writing(connection) as writer:
        lane = lane_of(writer, A, refusals)
        await lane.stored(lane.put(b"1"))
        await until(lambda: writer._pipe.direct)
        direct = writer._pipe.direct
        limit, direct._limit = direct._limit, 0
        lane.put(b"2")
        direct._limit = limit
        lane.put(b"3")
        await lane.stored(3)
        assert await payloads(connection, A) == [b"1", b"2", b"3"]


async def test_what_is_sent_alone_is_sent_again_when_its_answer_is_lost(connection, refusals, monkeypatch):
    monkeypatch.setattr("natsproc.bus.direct.SILENCE", 0.3)
    async with writing(connection) as writer:
        lane = lane_of(writer, A, refusals)
        await lane.stored(lane.put(b"1"))
        for number in (2, 3):
            await until(lambda: writer._pipe.direct)
            if number == 3:  # the loop rests, and has to be told to look after something
                await until(lambda: writer._pipe.direct and not writer._pipe.direct._timed)
            monkeypatch.setattr(writer._pipe.direct, "hear", lambda *answer: True)
            lane.put(b"%d" % number)
            await until(lambda number=number: lane.stored_to == number, 20)
        assert list(dict.fromkeys(await payloads(connection, A))) == [b"1", b"2", b"3"]


async def test_a_denial_of_what_is_sent_alone_is_heard_at_once(tmp_path, refusals, monkeypatch):
    monkeypatch.setattr("natsproc.bus.direct.SILENCE", 3600)
    with running(tmp_path, extra=DENYING) as server:
        async with (
            connected(server.url, user="node", password="pw") as connection,
            writing(connection) as writer,
        ):
            a, b = lane_of(writer, A, refusals), lane_of(writer, B, refusals)
            await a.stored(a.put(b"1"))
            with pytest.raises(NotAllowed, match=r"proc\.default\.b\.events"):
                await asyncio.wait_for(b.stored(b.put(b"1")), 20)
            await a.stored(a.put(b"2"))


async def test_an_answer_to_nothing_is_ignored(connection, refusals):
    async with writing(connection) as writer:
        lane, pipe = lane_of(writer, A, refusals), writer._pipe
        await lane.stored(lane.put(b"first"))
        await until(lambda: pipe.direct)
        subject = f"{pipe._prefix}{pipe._attempt}.{pipe.direct.sent + 1}"
        pipe._on_reply(SimpleNamespace(subject=subject, data=b'{"stream":"S","seq":1}', headers=None))
        await until(lambda: not pipe.arrived)
        await lane.stored(lane.put(b"second"))
        assert await payloads(connection, A) == [b"first", b"second"]


async def test_a_burst_from_a_thread_wakes_the_loop_once(connection, refusals):
    async with writing(connection) as writer:
        lane = lane_of(writer, A, refusals)
        await asyncio.sleep(0.05)  # until the writer rests
        loop, wakes = asyncio.get_running_loop(), []
        original = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *args, **options: (wakes.append(args), original(*args, **options))[
            1
        ]
        try:
            held = threading.Thread(target=lambda: [lane.put(b"x") for _ in range(100)])
            held.start()
            held.join()  # the loop has no chance to run meanwhile
        finally:
            loop.call_soon_threadsafe = original
        assert len(wakes) == 1
        await lane.stored(100)
