"""A log with a spool in front of the writer, while the server is away and when it comes back."""

import asyncio

import pytest
from harness import running
from writing import NAMES, A, B, connected, events, own, record, stored, until, writing

from natsproc.bus import ingest, spool
from natsproc.bus.log import EventLog
from natsproc.bus.spool import Spool
from natsproc.errors import Closed, OwnershipLost, TooLarge
from natsproc.protocol.messages import Entry

BOUND = 50  # events in the writer
PLENTY = 10**9


@pytest.fixture
async def bus(tmp_path, version, monkeypatch):
    """A server, a connection to it, and a writer with a small bound."""
    monkeypatch.setattr(ingest, "SILENCE", 0.5)
    monkeypatch.setattr(spool, "_READ_BYTES", 500)  # so that it is emptied slowly
    with running(tmp_path / "nats", version) as server:
        async with connected(server.url) as connection, writing(connection, max_events=BOUND) as writer:
            yield server, connection, writer


async def spooling(bus, address, folder, size=PLENTY, **options):
    """Claim an id, and open its log with a spool."""
    _, connection, writer = bus
    won, _ = await own(connection, writer, address)
    return EventLog(
        connection, writer, NAMES, address, epoch=won.epoch, run=won.run, next_offset=won.next_offset,
        nonce=won.nonce, spool=Spool(folder, size), **options,
    )  # fmt: skip


async def away(bus):
    server, connection, _ = bus
    await asyncio.to_thread(server.kill)
    await until(lambda: not connection.connected)


def lost(start, stop):
    """What `dropped` says of events whose data are these numbers."""
    return {"count": stop - start, "bytes": sum(len(str(n)) for n in range(start, stop))}


async def said(connection, address):
    return [event.data for event in await events(connection, address) if event.type == "said"]


async def test_an_outage_blocks_nobody_and_each_event_is_stored_once_in_order(bus, tmp_path):
    server, connection, _ = bus
    logs = [await spooling(bus, address, tmp_path / "spool") for address in (A, B)]
    await away(bus)
    for n in range(20 * BOUND):
        for log in logs:
            assert log.append("said", n) == n + 1
            assert not log.full
    assert all(log.spooled for log in logs)
    flushed = [asyncio.create_task(log.flush()) for log in logs]
    await asyncio.to_thread(server.start)
    for n in range(20 * BOUND, 30 * BOUND):  # newer ones come behind
        for log in logs:
            log.append("said", n)
        await asyncio.sleep(0.001)
    await asyncio.wait_for(asyncio.gather(*flushed), 60)
    for log in logs:
        await log.end({"status": "completed", "code": 0})
        assert await said(connection, log.address) == list(range(30 * BOUND))
        assert (log.stored, log.offset, log.spooled) == (30 * BOUND + 1, 30 * BOUND + 1, 0)


async def test_what_a_finalizer_says_while_the_spool_is_emptied_goes_behind_it(bus, tmp_path, monkeypatch):
    server, connection, _ = bus
    log = await spooling(bus, A, tmp_path / "spool")
    await away(bus)
    for n in range(5 * BOUND):
        log.append("said", n)
    finalized = []

    def finalizing(call, times):
        """As if the garbage collector ran just before it, so many times."""

        def called(*args):
            nonlocal times
            if times:
                times -= 1
                finalized.append(log.append("said", "finally"))
            return call(*args)

        return called

    for name, times in (("_read_some", 20), ("clear", 3)):
        monkeypatch.setattr(Spool, name, finalizing(getattr(Spool, name), times))
    await asyncio.to_thread(server.start)
    await asyncio.wait_for(log.flush(), 60)
    await until(lambda: log.spooled == 0)
    await asyncio.wait_for(log.flush(), 60)
    assert finalized == list(range(5 * BOUND + 1, log.offset + 1))
    assert len(finalized) > 20
    assert [event.offset for event in await events(connection, A)] == list(range(1, log.offset + 1))


async def test_a_flush_promises_what_it_did(bus, tmp_path):
    server, connection, _ = bus
    log = await spooling(bus, A, tmp_path / "spool")
    await away(bus)
    offsets = [log.append("said", n) for n in range(3 * BOUND)]
    flushed = asyncio.create_task(log.flush(offsets[2 * BOUND]))
    await asyncio.sleep(0.2)
    assert not flushed.done()
    await asyncio.to_thread(server.start)
    await asyncio.wait_for(flushed, 60)
    assert (await said(connection, A))[: 2 * BOUND + 1] == list(range(2 * BOUND + 1))


async def test_a_full_spool_makes_them_wait(bus, tmp_path):
    server, connection, _ = bus
    log = await spooling(bus, A, tmp_path / "spool", size=10_000)
    await away(bus)
    n = 0
    while not log.full:
        log.append("said", n)
        n += 1
    assert BOUND < n < 10 * BOUND
    assert log.spooled <= 10_000
    waiting = asyncio.create_task(log.room())
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await asyncio.to_thread(server.start)
    await asyncio.wait_for(waiting, 60)
    log.append("said", n)
    await log.flush()
    assert await said(connection, A) == list(range(n + 1))


@pytest.mark.parametrize("size", [0, 10_000])
async def test_what_is_dropped_is_counted_in_its_place(bus, tmp_path, size):
    server, connection, _ = bus
    log = await spooling(bus, A, tmp_path / "spool", size=size, drop=True)
    await away(bus)
    for n in range(20 * BOUND):
        offset = log.append("said", n)
        assert offset <= log.offset + 1
        assert not log.full
    log.append_lifecycle("paused")
    for n in range(20 * BOUND, 30 * BOUND):
        log.append("said", n)
    ending = asyncio.create_task(log.end({"status": "completed", "code": 0}))
    await asyncio.to_thread(server.start)
    await asyncio.wait_for(ending, 60)
    found = await events(connection, A)
    kept = [event.data for event in found if event.type == "said"]
    assert kept == list(range(len(kept)))
    assert [event.type for event in found[len(kept) :]] == ["dropped", "paused", "dropped", "exited"]
    first, _, second, _ = found[len(kept) :]
    assert first.data == lost(len(kept), 20 * BOUND)
    assert second.data == lost(20 * BOUND, 30 * BOUND)


async def test_that_something_was_dropped_is_said_though_nothing_more_comes(bus, tmp_path):
    server, connection, _ = bus
    log = await spooling(bus, A, tmp_path / "spool", size=0, drop=True)
    await away(bus)
    for n in range(3 * BOUND):
        log.append("said", n)
    await asyncio.to_thread(server.start)
    await until(lambda: log.stored > BOUND, 60)
    assert (await events(connection, A))[-1].data == lost(BOUND, 3 * BOUND)


async def test_a_spool_that_cannot_be_used_falls_back_to_waiting_and_says_so(bus, tmp_path):
    server, connection, _ = bus
    (tmp_path / "file").touch()
    troubles = []
    log = await spooling(bus, A, tmp_path / "file" / "spool", on_trouble=troubles.append)
    await away(bus)
    n = 0
    while not log.full:
        log.append("said", n)
        n += 1
    assert n == BOUND + 1
    await until(lambda: troubles)
    assert "Not a directory" in troubles[0]
    waiting = asyncio.create_task(log.room())
    await asyncio.to_thread(server.start)
    await asyncio.wait_for(waiting, 60)
    await log.flush()
    assert await said(connection, A) == list(range(n))
    assert len(troubles) == 1


async def test_an_event_in_the_spool_that_is_refused_fails_its_process_only(bus, tmp_path):
    server, connection, _ = bus
    logs = [await spooling(bus, address, tmp_path / "spool") for address in (A, B)]
    await away(bus)
    server.config.write_text(server.config.read_text().replace("max_payload: 1MB", "max_payload: 64KB"))
    for n in range(10 * BOUND):
        logs[0].append("said", n)
        logs[1].append("said", "x" * 100_000 if n == 5 * BOUND else n)
    await asyncio.to_thread(server.start)
    await asyncio.wait_for(logs[0].flush(), 60)
    with pytest.raises(TooLarge):
        await asyncio.wait_for(logs[1].flush(), 60)
    with pytest.raises(TooLarge):
        await asyncio.wait_for(logs[1].end({"status": "completed", "code": 0}), 60)
    assert await said(connection, A) == list(range(10 * BOUND))
    found = await events(connection, B)
    assert [event.type for event in found] == ["said"] * 5 * BOUND + ["failed", "exited"]
    assert not logs[1].spooled
    offsets = [Entry.parse(entry.payload).offset or 0 for entry in await stored(connection, B)]
    assert max(offsets) == found[-1].offset  # nothing of what was behind it comes after all


async def test_who_lost_the_id_forgets_what_was_spooled(bus, tmp_path):
    server, connection, _ = bus
    log = await spooling(bus, A, tmp_path / "spool")
    await away(bus)
    for n in range(10 * BOUND):
        log.append("said", n)
    await asyncio.to_thread(server.start)
    async with connected(server.url) as other, writing(other) as writer:
        won, heir = await own(other, writer, A, node="heir")
        heir.append("said", "heir")
        await heir.flush()
    with pytest.raises(OwnershipLost):
        await asyncio.wait_for(log.flush(), 60)
    assert not log.spooled
    assert (await record(connection, A)).epoch == won.epoch


async def test_closing_the_writer_wakes_whoever_waits(bus, tmp_path):
    _, _, writer = bus
    log = await spooling(bus, A, tmp_path / "spool", size=10_000)
    await away(bus)
    n = 0
    while not log.full:
        n = log.append("said", n)
    waiting = [asyncio.create_task(log.room()), asyncio.create_task(log.flush())]
    await asyncio.sleep(0)
    await writer.close(timeout=0.1)
    await asyncio.wait_for(waiting[0], 10)
    with pytest.raises(Closed):
        await asyncio.wait_for(waiting[1], 10)
    with pytest.raises(Closed):
        log.append("said", n)
