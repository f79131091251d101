"""Owners that are gone, and those that only look as if they were."""

from __future__ import annotations

import asyncio
import time

import pytest
from meshes import appears, make_mesh
from test_sdk_faults import start_owner, stop

import natsproc
from natsproc.bus import liveness
from natsproc.bus.kv import Bucket

NOTICED = 6.0  #: seconds


async def notices(handle, seen):
    async for item in handle.tail(n=1):
        if isinstance(item, natsproc.Notice):
            seen.append((time.monotonic(), item))


async def until(condition, timeout=20.0):
    async with asyncio.timeout(timeout):
        while not await condition():
            await asyncio.sleep(0.02)


class Load:
    """How much too late things happen here, because the machine has other things to do."""

    def __init__(self):
        self.seconds = 0.0
        self.task = asyncio.create_task(self._measure())

    async def _measure(self):
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.02)
            self.seconds = max(self.seconds, time.monotonic() - before - 0.02)


@pytest.mark.parametrize("restarted", [False, True], ids=["", "just after a restart of the server"])
async def test_a_killed_owner_is_noticed_within_six_seconds(server, restarted):
    await make_mesh(server.url)
    async with natsproc.connect(server.url, sender="viewer") as mesh:
        child = await start_owner(server.url, 10)
        try:
            handle = await appears(mesh, "owner")
            seen = []
            watching = asyncio.create_task(notices(handle, seen))
            waiting = asyncio.create_task(handle.wait(told=lambda notice: seen.append((0, notice))))
            await handle.ping()
            if restarted:
                await asyncio.to_thread(server.restart)
                assert (await handle.ping(timeout=20)).applied  # it is back itself
            load = Load()
            killed = time.monotonic()
            child.kill()

            async def listed():
                return [info.state for info in await mesh.list()] == ["unreachable"]

            await until(listed)
            assert time.monotonic() - killed < NOTICED + 3 * load.seconds
            await until(lambda: asyncio.sleep(0, sum(item.type == "unreachable" for _, item in seen) == 2))
            assert (
                max(at for at, item in seen if item.type == "unreachable") - killed
                < NOTICED + 3 * load.seconds
            )
            load.task.cancel()
            assert not waiting.done()
            assert not watching.done()
            async with mesh.own("owner"):
                pass
            assert (await asyncio.wait_for(waiting, 20)).status == "completed"
            await asyncio.wait_for(watching, 20)
            assert [item.type for _, item in seen].count("unreachable") == 2  # each of them said it once
        finally:
            await stop(child)


async def test_who_is_gone_for_longer_than_a_lease_is_not_asked(server, monkeypatch):
    await make_mesh(server.url)
    asked = []
    answers = liveness.answers

    async def counted(*args):
        asked.append(args[-1])
        return await answers(*args)

    monkeypatch.setattr(liveness, "answers", counted)
    async with natsproc.connect(server.url, sender="viewer") as mesh, mesh.own("alive"):
        child = await start_owner(server.url, 1)
        try:
            await appears(mesh, "owner")
        finally:
            await stop(child)

        async def state():
            (info,) = [info for info in await mesh.list() if info.address.id == "owner"]
            return info

        async def gone(seconds=0.0):
            info = await state()
            return info.gone is not None and info.gone.seconds > seconds

        await until(gone)
        since = (await state()).gone.since
        assert asked  # as it has only just gone
        await until(lambda: gone(liveness.LEASE_SECONDS))
        asked.clear()
        info = await state()
        assert (info.gone.since, info.to_json()["unreachable_since"]) == (since, since)
        assert {info.address.id: info.state for info in await mesh.list()}["alive"] == "running"
        # longer than the server keeps markers
        stream = f"KV_{mesh.names.leases}"
        subject = f"$KV.{mesh.names.leases}.{info.record.node}"
        await mesh.io.call(mesh.connection.api(f"STREAM.PURGE.{stream}", {"filter": subject}))
        info = await state()
        assert (info.state, info.to_json()["unreachable_since"]) == ("unreachable", None)
        assert not asked


async def test_nobody_is_called_unreachable_after_an_outage_longer_than_a_lease(server):
    await make_mesh(server.url)
    async with (
        natsproc.connect(server.url, sender="owner") as mesh,
        natsproc.connect(server.url, sender="viewer") as viewer,
    ):
        seen = []
        async with mesh.own("alive"):
            watching = asyncio.create_task(notices(viewer.process("alive"), seen))
            await viewer.process("alive").ping()
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(liveness.LEASE_SECONDS + 1.5)
            await asyncio.to_thread(server.start)
            back = time.monotonic()
            while time.monotonic() - back < liveness.LEASE_SECONDS + 3:
                assert [info.state for info in await viewer.list()] == ["running"]
                await asyncio.sleep(0.1)
        await asyncio.wait_for(watching, 20)
        assert [item.type for _, item in seen] == ["caught_up", "ended"]


async def test_a_clean_stop_is_noticed_at_once(server):
    await make_mesh(server.url)
    async with natsproc.connect(server.url, sender="viewer") as viewer:
        mesh = await natsproc.connect(server.url, sender="owner").__aenter__()
        owning = mesh.own("tidy")
        await owning.__aenter__()
        waiting = asyncio.create_task(viewer.process("tidy").wait())
        await viewer.process("tidy").ping()
        await mesh.__aexit__(None, None, None)
        ended = await asyncio.wait_for(waiting, liveness.LEASE_SECONDS - 1)
        assert (ended.status, await viewer.list()) == ("cancelled", [])
        await owning.__aexit__(None, None, None)


async def test_each_owner_that_is_lost_is_said_and_nothing_is_heard_of_other_nodes(server):
    await make_mesh(server.url)
    async with natsproc.connect(server.url, sender="viewer") as mesh:
        seen, nodes = [], []
        watching = None
        for _ in range(2):
            child = await start_owner(server.url, 1)
            try:
                handle = await appears(mesh, "owner")
                watching = watching or asyncio.create_task(notices(handle, seen))

                async def owned(handle=handle):
                    info = await handle.info()
                    return info.state == "running" and info.record.node not in nodes

                await until(owned)
                nodes.append((await handle.info()).record.node)
                before = mesh.connection.nc.stats["in_msgs"]
                leases = Bucket(mesh.connection, mesh.names.leases)
                for number in range(300):
                    await mesh.io.call(leases.put(f"other-{number}", b"{}"))
                assert (
                    mesh.connection.nc.stats["in_msgs"] - before < 400
                )  # their acknowledgements, and little else
            finally:
                await stop(child)
            await until(lambda: asyncio.sleep(0, [item.type for _, item in seen][-1:] == ["unreachable"]))
            assert seen[-1][1].data["node"] == nodes[-1]
        assert [item.type for _, item in seen] == ["caught_up", "unreachable", "takeover", "unreachable"]
        watching.cancel()


async def test_a_lease_whose_expiry_the_server_has_lost_is_gone_all_the_same(server):
    """nats-server 2.15 was seen to lose the TTL of a message when it was killed twice within seconds."""
    await make_mesh(server.url)
    async with natsproc.connect(server.url, sender="viewer") as mesh:
        child = await start_owner(server.url, 1)
        try:
            handle = await appears(mesh, "owner")
        finally:
            await stop(child)
        record = await handle.record()
        leases = Bucket(mesh.connection, mesh.names.leases)
        held = await mesh.io.call(leases.get(record.node, leader=True))
        await mesh.io.call(leases.put(record.node, held.payload))  # without a TTL
        assert [info.state for info in await mesh.list()] == ["running"]

        async def listed():
            return [info.state for info in await mesh.list()] == ["unreachable"]

        await until(listed)
        seen = []
        watching = asyncio.create_task(notices(handle, seen))
        await until(lambda: asyncio.sleep(0, [item.type for _, item in seen] == ["caught_up", "unreachable"]))
        watching.cancel()
        async with asyncio.timeout(20), mesh.own("owner") as proc:
            assert proc.run_number == 1
