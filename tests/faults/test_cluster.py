"""A cluster of three nats-servers that loses servers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from harness import cluster

import natsproc
from natsproc.bus import streams
from natsproc.bus.connection import ApiError, Connection, Endpoint
from natsproc.bus.kv import Bucket, Conflict
from natsproc.bus.patience import insist
from natsproc.protocol.names import Names

INFO = f"STREAM.INFO.{Names().event_stream}"
GET = f"STREAM.MSG.GET.{Names().event_stream}"


@asynccontextmanager
async def three(folder, version):
    """Three servers with a mesh: one that does not lead the event stream, the others, and a connection to the one."""
    servers = cluster(folder, version=version)
    await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers))
    try:
        async with connected([server.url for server in servers]) as connection:
            deadline = asyncio.get_running_loop().time() + 30
            await insist(lambda: streams.setup(connection, Names(), replicas=3), deadline)
            leader = (await connection.api(INFO))["cluster"]["leader"]
        one, *others = sorted(servers, key=lambda server: server.folder.name == leader)
        async with connected([one.url]) as connection:
            yield one, others, connection
    finally:
        for server in servers:
            server.stop()


@asynccontextmanager
async def connected(urls):
    connection = await Connection.open(Endpoint(tuple(urls)))
    yield connection
    await connection.close()


async def refuses(connection, call, body):
    """Return once the server that is left has noticed that it is alone."""
    async with asyncio.timeout(40):
        while True:
            try:
                await connection.api(call, body, timeout=1.0)
            except ApiError as error:
                if error.code == 503:
                    return
            except natsproc.Error:
                pass
            await asyncio.sleep(0.1)


async def test_what_begins_while_the_cluster_has_no_leader_waits_for_one(tmp_path, version):
    async with (
        three(tmp_path, version) as (one, others, connection),
        natsproc.connect(one.url, sender="a") as mesh,
        natsproc.connect(one.url) as other,
    ):
        async with mesh.own("first") as proc:
            await proc.log("said before")
        for server in others:
            server.kill()
        await refuses(connection, GET, {"last_by_subj": "proc.default.first.events"})

        async def shown(**start):
            return [item.type async for item in mesh.process("first").tail(**start)]

        async def own():
            async with other.own("second") as proc:
                await proc.flush()

        tasks = [asyncio.create_task(work) for work in (shown(), shown(run="all"), shown(n=1), own())]
        await asyncio.wait(tasks, timeout=1)
        assert not any(task.done() for task in tasks)
        for server in others:
            server.start()
        *tails, _ = await asyncio.wait_for(asyncio.gather(*tasks), 40)
        whole = ["started", "log", "exited", "caught_up", "ended"]
        assert tails == [whole, whole, whole[2:]]


async def test_connecting_to_a_cluster_without_a_leader_waits_and_then_says_so(
    tmp_path, version, monkeypatch
):
    async with three(tmp_path, version) as (one, others, _):
        for server in (one, *others):
            server.kill()
        one.start()
        monkeypatch.setattr(streams, "ELECTION_SECONDS", 1.0)
        with pytest.raises(natsproc.NoServer, match="its JetStream does not"):
            await natsproc.connect(one.url).__aenter__()
        monkeypatch.setattr(streams, "ELECTION_SECONDS", 60.0)
        opening = asyncio.create_task(natsproc.connect(one.url).__aenter__())
        for server in others:
            server.start()
        mesh = await asyncio.wait_for(opening, 50)
        assert await mesh.list() == []
        mesh.close()


async def test_of_those_who_change_a_key_at_the_same_time_one_wins_and_the_others_hear_of_a_conflict(
    tmp_path, version
):
    async with three(tmp_path, version) as (_, others, connection), connected([others[0].url]) as second:
        buckets = [Bucket(c, Names().claims) for c in (connection, second) for _ in range(4)]
        revision = await buckets[0].create("default.a", b"0")
        for _ in range(30):
            changes = [bucket.update("default.a", b"%d" % n, revision) for n, bucket in enumerate(buckets)]
            outcomes = await asyncio.gather(*changes, return_exceptions=True)
            winners = [outcome for outcome in outcomes if isinstance(outcome, int)]
            assert len(winners) == 1
            assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == len(buckets) - 1, outcomes
            revision = winners[0]


async def test_a_message_that_is_sent_again_while_it_is_under_way_is_stored_once(tmp_path, version):
    async with three(tmp_path, version) as (_, others, connection), connected([others[0].url]) as second:
        for number in range(30):
            sending = [
                c.store("proc.default.a.inbox.b", b"{}", headers={"Nats-Msg-Id": f"m{number}"})
                for c in (connection, second) * 4
            ]
            answers = await asyncio.gather(*sending)
            assert len({answer["seq"] for answer in answers}) == 1
            assert sum(not answer.get("duplicate") for answer in answers) == 1
