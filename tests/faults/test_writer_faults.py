"""The writing side under real faults: killed, frozen and shrunk servers, and a full disk."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import running, small_disk
from writing import NAMES, SERVERS, A, B, C, connected, events, own, stored, until, writing

from natsproc.bus import ingest
from natsproc.bus.history import History
from natsproc.errors import TimedOut, TooLarge

LOGS = (A, B, C)


@pytest.fixture(params=SERVERS)
def server(request, tmp_path):
    with running(tmp_path / "nats", request.param) as server:
        yield server


async def emit(log, count, pause):
    """Append events one after the other, as a user's code does, pushed back by a full buffer."""
    for n in range(count):
        log.append("said", {"n": n, "pad": "x" * (n % 7) * 100})
        if log.full:
            await log.room()
        if not n % 50:
            await asyncio.sleep(pause)


@pytest.mark.parametrize("pause", [0, 0.005], ids=["flat out", "paced"])
async def test_a_server_killed_in_the_middle_loses_and_reorders_nothing(server, pause):
    count = 4000
    async with connected(server.url) as connection, writing(connection, max_events=2000) as writer:
        logs = [(await own(connection, writer, address))[1] for address in LOGS]
        emitting = [asyncio.create_task(emit(log, count, pause)) for log in logs]
        for share in (0.2, 0.5, 0.8):
            before = writer.stats.broken
            await until(lambda share=share: logs[0].stored >= share * count, 60)
            await asyncio.to_thread(server.kill)
            await until(lambda before=before: writer.stats.broken > before or not writer._waiting, 20)
            await asyncio.to_thread(server.start)
        await asyncio.gather(*emitting)
        await asyncio.gather(*(log.flush() for log in logs))
        assert writer.stats.broken >= 3
        for address in LOGS:
            assert [event.data["n"] for event in await events(connection, address)] == list(range(count))


async def test_what_was_acknowledged_before_a_kill_is_there_after_it(server):
    async with connected(server.url) as connection, writing(connection) as writer:
        _, log = await own(connection, writer, A)
        emitting = asyncio.create_task(emit(log, 3000, 0.001))
        await until(lambda: log.stored >= 1000, 60)
        acknowledged = log.stored
        await asyncio.to_thread(server.kill)
        emitting.cancel()
        await asyncio.to_thread(server.start)
        async with connected(server.url) as other:
            assert len(await events(other, A)) >= acknowledged


async def test_a_frozen_server_is_waited_for_and_said(server, monkeypatch):
    monkeypatch.setattr(ingest, "SILENCE", 0.3)
    async with connected(server.url) as connection, writing(connection) as writer:
        logs = [(await own(connection, writer, address))[1] for address in LOGS]
        server.freeze()
        for n in range(500):
            for log in logs:
                log.append("said", {"n": n})
        await until(lambda: writer.trouble and "does not answer" in writer.trouble)
        assert "1500 events wait" in writer.trouble
        server.thaw()
        await asyncio.wait_for(asyncio.gather(*(log.flush() for log in logs)), 60)
        assert writer.trouble is None
        for address in LOGS:
            assert [event.data["n"] for event in await events(connection, address)] == list(range(500))


async def test_events_that_a_restarted_server_finds_too_large_fail_their_process_only(server):
    async with connected(server.url) as connection, writing(connection) as writer:
        logs = [(await own(connection, writer, address))[1] for address in LOGS]
        await asyncio.to_thread(server.kill)
        await until(lambda: not connection.connected)
        server.config.write_text(server.config.read_text().replace("max_payload: 1MB", "max_payload: 64KB"))
        for n in range(200):
            for log in logs:
                log.append("said", {"n": n, "pad": "x" * 500_000 * (log is logs[1] and n == 20)})
        await asyncio.to_thread(server.start)
        with pytest.raises(TooLarge):
            await asyncio.wait_for(logs[1].flush(), 60)
        await asyncio.gather(logs[0].flush(), logs[2].flush())
        for address in (A, C):
            assert [event.data["n"] for event in await events(connection, address)] == list(range(200))
        with pytest.raises(TooLarge):
            await logs[1].end({"status": "completed", "code": 0})
        found = await events(connection, B)
        assert [event.type for event in found] == ["said"] * 20 + ["failed", "exited"]


async def test_a_stream_without_a_leader_is_waited_for(server, monkeypatch):
    """An empty reply, as a stream without a leader gives it, is not taken for an acknowledgement."""
    async with connected(server.url) as connection, writing(connection) as writer:
        _, log = await own(connection, writer, A)
        pipe, original, emptied = writer._pipe, writer._pipe._on_reply, []

        def leaderless(msg):
            if len(emptied) < 3:
                emptied.append(msg)
                msg.data = b""
            original(msg)

        monkeypatch.setattr(pipe._subscription, "handler", leaderless)
        for n in range(100):
            log.append("said", {"n": n})
        await asyncio.wait_for(log.flush(), 30)
        assert len(emptied) == 3
        assert writer.stats.broken
        assert [event.data["n"] for event in await events(connection, A)] == list(range(100))


@pytest.mark.parametrize("version", SERVERS)
async def test_a_full_disk_is_suspected_aloud_and_loses_nothing(tmp_path, version, monkeypatch):
    monkeypatch.setattr(ingest, "SILENCE", 0.5)
    with small_disk(tmp_path / "nats" / "store") as store, running(tmp_path / "nats", version) as server:
        async with connected(server.url) as connection, writing(connection) as writer:
            _, log = await own(connection, writer, A)
            log.append("said", {"n": 0})
            await log.flush()
            filler = store / "filler"
            filler.write_bytes(b"x" * (shutil.disk_usage(store).free - 300_000))
            for n in range(1, 1000):
                log.append("said", {"n": n, "pad": "x" * 1000})
            await until(lambda: writer.trouble and "disk full" in writer.trouble, 30)
            acknowledged = log.stored
            assert acknowledged < 1000
            assert "wait" in writer.trouble
            filler.unlink()
            await asyncio.to_thread(server.restart)
            assert len(await stored(connection, A)) > acknowledged
            await asyncio.wait_for(log.flush(), 60)
            assert writer.trouble is None
            assert [event.data["n"] for event in await events(connection, A)] == list(range(1000))


async def test_a_ping_that_was_answered_late_leaves_the_connection_alive(server):
    async with connected(server.url) as connection:
        server.freeze()
        with pytest.raises(TimedOut):
            await connection.ping(0.1)
        server.thaw()
        reconnects = connection.nc.stats["reconnects"]
        await asyncio.wait_for(stored(connection, A), 10)
        assert connection.nc.stats["reconnects"] == reconnects


EMITTER = """
import asyncio, sys
from writing import A, connected, own, writing

async def main():
    async with connected(sys.argv[1]) as connection, writing(connection) as writer:
        _, log = await own(connection, writer, A, node="victim")
        for n in range(10**9):
            log.append("said", {"n": n})
            if log.full:
                await log.room()
            if not n % 100:
                await asyncio.sleep(0)

asyncio.run(main())
"""


async def test_the_heir_of_a_killed_process_goes_on_where_its_log_ends(server):
    async with connected(server.url) as connection, writing(connection) as writer:
        tests = os.fspath(Path(__file__).parent.parent)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([tests, *sys.path])}
        victim = subprocess.Popen([sys.executable, "-c", EMITTER, server.url], env=environment)
        try:
            history, last = History(connection, NAMES.event_stream), None
            async with asyncio.timeout(60):
                while last is None or last.position < 5000:
                    last = await history.last(NAMES.events(A))
                    assert victim.poll() is None
        finally:
            victim.kill()
            await asyncio.to_thread(victim.wait)
        won, log = await own(connection, writer, A, node="heir")
        log.append("said", {"n": won.next_offset - 1})
        await log.flush()
        found = await events(connection, A)
        assert len(found) > 4000
        assert [event.data["n"] for event in found] == list(range(won.next_offset))
        assert {event.epoch for event in found[:-1]} == {1}
        assert found[-1].epoch == won.epoch
