"""One process's log, from its owner's end: offsets, refusals, and when what was written counts."""

import asyncio
import gc
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import running
from writing import NAMES, SERVERS, A, B, connected, events, own, stored, until, writing

from natsproc.bus import streams
from natsproc.bus.clock import now
from natsproc.errors import AlreadyEnded, BadPayload, Closed, NotAllowed, OwnershipLost, TooLarge
from natsproc.protocol.messages import LIFECYCLE, NOTICES

DENYING = """
authorization { users: [{ user: node, password: pw, permissions: {
  publish: { deny: ["proc.default.b.events"] } } }, { user: admin, password: pw }] }
"""


@pytest.fixture(params=SERVERS)
async def connection(request, tmp_path):
    with running(tmp_path / "nats", request.param) as server:
        async with connected(server.url) as connection:
            yield connection


@pytest.fixture
async def writer(connection):
    async with writing(connection) as writer:
        yield writer


async def test_events_from_many_threads_have_offsets_without_holes(connection, writer):
    _, log = await own(connection, writer, A)

    def speak(thread):
        return [(log.append("said", {"thread": thread, "n": n}), thread, n) for n in range(500)]

    with ThreadPoolExecutor(4) as threads:
        said = [line for lines in threads.map(speak, range(4)) for line in lines]
    await log.flush()
    found = await events(connection, A)
    assert [(e.offset, e.data["thread"], e.data["n"]) for e in found] == sorted(said)
    assert log.offset == log.stored == 2000
    assert {(e.epoch, e.run, e.type) for e in found} == {(log.epoch, 1, "said")}


@pytest.mark.parametrize("where", ["before it is sent", "after"])
async def test_what_a_signal_handler_says_while_an_event_is_written_goes_behind_it(
    connection, writer, monkeypatch, where
):
    """A handler or a finalizer may run between any two steps, in the thread that has the lock."""
    _, log = await own(connection, writer, A)
    said, copy, put, inner = [], [], log._way.put, iter(["one", "two", "", "three"])

    def interrupted(payload):
        if where == "after":
            put(payload)
        for data in iter(lambda: next(inner, ""), ""):
            said.append((log.append("inner", data, copies=[copy]), data))
        if where != "after":
            put(payload)

    monkeypatch.setattr(log._way, "put", interrupted)
    said += [(log.append("outer", data), data) for data in ("first", "second")]
    await log.flush()
    found = [(e.offset, e.data) for e in await events(connection, A)]
    assert found == sorted(said)
    assert [data for _, data in found] == ["first", "one", "two", "three", "second"]
    assert (log.offset, len(copy)) == (5, 3)


async def test_what_is_said_whenever_the_garbage_collector_runs_has_offsets_of_its_own(connection, writer):
    _, log = await own(connection, writer, A)
    said, usual, enabled, runs = [], gc.get_threshold(), gc.isenabled(), 1

    def collecting(phase, _):
        nonlocal runs
        if phase == "start":
            runs -= 1
            if runs == 0:  # once for each event, sooner or later
                said.append((log.append("inner", len(said)), len(said)))

    gc.callbacks.append(collecting)
    gc.set_threshold(1, 1_000_000)
    gc.enable()
    try:
        for n in range(-300, 0):
            runs = -n % 3 + 1
            said.append((log.append("outer", n), n))
    finally:
        gc.set_threshold(*usual)
        if not enabled:  # by a command that was tried in this OS process
            gc.disable()
        gc.callbacks.remove(collecting)
    await log.flush()
    assert len(said) > 330
    assert [(e.offset, e.data) for e in await events(connection, A)] == sorted(said)


async def test_nothing_that_a_signal_handler_says_follows_the_end(connection, writer, monkeypatch):
    _, log = await own(connection, writer, A)
    put, refused = log._way.put, []

    def interrupted(payload):
        with pytest.raises(AlreadyEnded):
            log.append("too late")
        refused.append(payload)
        put(payload)

    log.append("said")
    monkeypatch.setattr(log._way, "put", interrupted)
    assert await log.end({"status": "completed", "code": 0}) == 2
    assert [e.type for e in await events(connection, A)] == ["said", "exited"]
    assert len(refused) == 1


async def test_a_log_has_no_more_attributes_than_share_their_names(connection, writer):
    """With more than 29 each of 10,000 logs has a table of its own, which takes 1.3 KB."""
    _, log = await own(connection, writer, A)
    log.append("said")
    assert len(vars(log)) <= 29


async def test_an_event_carries_its_time_and_its_cause(connection, writer):
    _, log = await own(connection, writer, A)
    log.append("plain")
    log.append("caused", ["ünïcode", 1], cause='"quoted"')
    await log.flush()
    first, second = await events(connection, A)
    assert (first.data, first.cause) == (None, None)
    assert (second.data, second.cause) == (["ünïcode", 1], '"quoted"')
    assert len(first.time) == len("2026-01-31T23:59:59.123Z")
    assert first.time.endswith("Z")
    await asyncio.sleep(0.01)  # the passing of time is what is tested
    before = now()
    log.append("later")
    log.append("then")
    after = now()
    await log.flush()
    times = [event.time for event in await events(connection, A)]
    assert times[1] < before <= times[2] <= times[3] <= after


async def test_a_type_is_the_users_own(connection, writer):
    _, log = await own(connection, writer, A)
    for bad in [*LIFECYCLE, *NOTICES, "", "x" * 65, "new\nline", 7, None]:
        with pytest.raises(BadPayload):
            log.append(bad)
    with pytest.raises(BadPayload):
        log.append("fine", object())
    assert log.append("fine") == 1
    assert log.append_lifecycle("started") == 2


async def test_what_is_too_large_uses_no_offset(connection, writer):
    _, log = await own(connection, writer, A)
    with pytest.raises(TooLarge, match="max_payload") as caught:
        log.append("said", "x" * connection.max_payload)
    limit = caught.value.limit
    assert limit < connection.max_payload < caught.value.size
    body = limit - (caught.value.size - connection.max_payload)
    with pytest.raises(TooLarge):
        log.append("said", "x" * (body + 1))
    assert log.append("said", "x" * body) == 1  # the very largest is stored
    await log.flush()
    assert [len(event.data) for event in await events(connection, A)] == [body]


async def test_the_streams_own_limit_is_known_before_an_offset_is_used(connection):
    config = (await streams.inspect(connection, NAMES.event_stream))["config"]
    await connection.api(f"STREAM.UPDATE.{NAMES.event_stream}", config | {"max_msg_size": 5000})
    async with writing(connection) as writer:
        _, log = await own(connection, writer, A)
        with pytest.raises(TooLarge, match="5"):
            log.append("said", "x" * 4900)
        assert log.append("said", "x" * 4000) == 1
        await log.flush()


async def test_a_refused_event_is_said_in_its_place_and_ends_the_run(connection, writer):
    _, log = await own(connection, writer, A)
    _, other = await own(connection, writer, B)
    log.append("before")
    await log.flush()
    config = (await streams.inspect(connection, NAMES.event_stream))["config"]
    await connection.api(f"STREAM.UPDATE.{NAMES.event_stream}", config | {"max_msg_size": 200_000})
    refused = log.append("huge", "x" * 300_000)
    for n in range(20):
        log.append("behind", n)
        other.append("other", n)
    with pytest.raises(TooLarge):
        await log.flush(refused)
    await other.flush()
    with pytest.raises(TooLarge):
        log.append("more")
    with pytest.raises(TooLarge):
        await log.end({"status": "completed", "code": 0})
    assert log.ended
    before, failed, exited = await events(connection, A)
    assert (before.type, failed.type, exited.type) == ("before", "failed", "exited")
    assert failed.offset == refused
    assert "300" in failed.data["why"]
    assert exited.data["status"] == "failed"
    assert [event.data for event in await events(connection, B)] == list(range(20))


@pytest.mark.parametrize("version", SERVERS)
async def test_a_denied_log_fails_and_says_so(tmp_path, version):
    with running(tmp_path, version, extra=DENYING) as server:
        async with (
            connected(server.url, user="admin", password="pw") as admin,
            connected(server.url, user="node", password="pw") as node,
            writing(admin) as trusted,
            writing(node) as writer,
        ):
            won, _ = await own(admin, trusted, B)  # claimed by one who may, written by one who may not
            log = _log_like(node, writer, won)
            _, other = await own(node, writer, A)
            log.append("said")
            other.append("said")
            for wait in (log.flush(), log.end({"status": "completed", "code": 0})):
                with pytest.raises(NotAllowed, match=r"proc\.default\.b\.events"):
                    await wait
            with pytest.raises(NotAllowed):
                log.append("more")
            assert not log.ended
            await other.flush()
            assert len(await events(admin, A)) == 1
            assert await events(admin, B) == []


def _log_like(connection, writer, won):
    from natsproc.bus.log import EventLog

    return EventLog(
        connection, writer, NAMES, won.address,
        epoch=won.epoch, run=won.run, next_offset=won.next_offset, nonce=won.nonce,
    )  # fmt: skip


async def test_flush_notices_that_the_claim_was_lost(connection, writer):
    _, log = await own(connection, writer, A)
    log.append("said")
    await log.flush()
    newer, heir = await own(connection, writer, A, node="heir")
    log.append("said too late")
    with pytest.raises(OwnershipLost, match="heir"):
        await log.flush()
    for call in (lambda: log.append("more"), lambda: log.append_lifecycle("paused")):
        with pytest.raises(OwnershipLost):
            call()
    with pytest.raises(OwnershipLost):
        await log.end({"status": "completed", "code": 0})
    assert not log.ended
    assert heir.append_lifecycle(newer.kind) == 2
    await heir.flush()
    assert [event.type for event in await events(connection, A)] == ["said", "recovered"]


async def test_an_end_that_was_stored_too_late_is_no_end(connection, writer):
    _, log = await own(connection, writer, A)
    log.append("said")
    await log.flush()
    await own(connection, writer, A, node="heir")
    with pytest.raises(OwnershipLost):
        await log.end({"status": "completed", "code": 0})
    assert not log.ended
    assert [event.type for event in await events(connection, A)] == ["said"]


async def test_many_flushes_share_a_read_of_the_claim(connection, writer):
    _, log = await own(connection, writer, A)
    reads, original = [], log._claims.get

    async def counting(*args, **options):
        reads.append(args)
        return await original(*args, **options)

    log._claims.get = counting

    async def speak():
        await log.flush(log.append("said"))

    await asyncio.gather(*(speak() for _ in range(100)))
    assert 1 <= len(reads) < 10
    await log.flush()
    assert len(reads) > 1  # a read that began before is never taken for a later flush


async def test_the_end_is_written_once(connection, writer):
    _, log = await own(connection, writer, A)
    log.append("said")
    outcomes = await asyncio.gather(
        *(log.end({"status": "completed", "code": n}) for n in range(5)), return_exceptions=True
    )
    assert outcomes[0] == 2
    assert all(isinstance(outcome, AlreadyEnded) for outcome in outcomes[1:])
    with pytest.raises(AlreadyEnded):
        await log.end({"status": "failed", "code": 1})
    with pytest.raises(AlreadyEnded):
        log.append("more")
    await log.flush()
    assert log.ended
    assert [(event.type, event.data) for event in await events(connection, A)][1:] == [
        ("exited", {"status": "completed", "code": 0})
    ]


async def test_an_end_that_is_too_large_can_be_said_again(connection, writer):
    _, log = await own(connection, writer, A)
    with pytest.raises(TooLarge):
        await log.end({"status": "completed", "code": 0, "result": "x" * connection.max_payload})
    assert not log.ended
    assert await log.end({"status": "failed", "code": 1}) == 1


async def test_an_end_whose_waiter_was_cancelled_is_written_all_the_same(tmp_path):
    with running(tmp_path) as server:
        async with connected(server.url) as connection, writing(connection) as writer:
            _, log = await own(connection, writer, A)
            server.freeze()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(log.end({"status": "completed", "code": 0}), 0.2)
            server.thaw()
            await until(lambda: log.stored == 1)
            assert log.ended
            assert [event.type for event in await events(connection, A)] == ["exited"]


async def test_flush_outlasts_a_restart_of_the_server(tmp_path):
    with running(tmp_path) as server:
        async with connected(server.url) as connection, writing(connection) as writer:
            _, log = await own(connection, writer, A)
            server.kill()
            flush = asyncio.create_task(log.flush(log.append("said")))
            assert not (await asyncio.wait([flush], timeout=0.3))[0]
            await asyncio.to_thread(server.start)
            await asyncio.wait_for(flush, 30)
            assert len(await events(connection, A)) == 1


async def test_a_forked_child_neither_hangs_nor_writes(connection, writer):
    _, log = await own(connection, writer, A)
    with log._lock, writer._lock:  # as another thread may have held them at the fork
        child = os.fork()
        if not child:
            try:
                log.append("said")
            except Closed:
                os._exit(7)
            finally:
                os._exit(1)
    async with asyncio.timeout(20):
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            await asyncio.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 7
    await log.flush()
    assert await stored(connection, A) != []
    assert await events(connection, A) == []
