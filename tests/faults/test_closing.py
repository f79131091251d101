"""Ending the run of a process whose owner is gone, and of no other."""

from __future__ import annotations

import asyncio
import signal
import sys
import time

import pytest
from meshes import appears, make_mesh
from test_sdk_faults import start_owner, stop
from test_sdk_outages import log
from writing import leased
from writing import own as bus_own

import natsproc
from natsproc.bus.clock import now
from natsproc.bus.registry import Registry
from natsproc.bus.writer import Writer
from natsproc.protocol.names import Address
from natsproc.protocol.records import Record

SLEEPER = """
import asyncio, sys, natsproc
async def sleep(proc): await asyncio.sleep(3600)
try:
    natsproc.run(sleep, id=sys.argv[2], server=sys.argv[1])
except natsproc.OwnershipLost as lost:
    print(lost)
    sys.exit(5)
"""


async def sleeper(url, id):
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", SLEEPER, url, id, stdout=pipe, stderr=pipe
    )


async def test_the_run_of_a_killed_owner_is_ended_and_said_to_be_unconfirmed(server):
    await make_mesh(server.url)
    async with natsproc.connect(server.url, sender="killer") as mesh:
        child = await start_owner(server.url, 3)
        try:
            handle = await appears(mesh, "owner")
            waiting = asyncio.create_task(handle.wait())
        finally:
            await stop(child)
        receipt = await handle.kill(reason="it is gone", timeout=20)  # while its lease has not expired yet
        assert (receipt.status, receipt.sender) == ("unconfirmed", "killer")
        assert (await asyncio.wait_for(waiting, 20)).to_json() | {"offset": 0, "error": ""} == {
            "status": "killed", "code": 137, "run": 1, "offset": 0, "signal": None, "result": None, "error": "",
        }  # fmt: skip
        events = await log(mesh, "owner")
        assert [e.type for e in events][-2:] == ["killed", "exited"]
        recorded = events[receipt.offset - 1]
        assert (recorded.type, recorded.cause, recorded.epoch) == ("killed", receipt.command, receipt.epoch)
        assert (recorded.data["sender"], recorded.data["reason"]) == ("killer", "it is gone")
        assert await mesh.list() == []
        assert [info.state for info in await mesh.list(ended=True)] == ["killed"]
        assert (await handle.kill()).status == "too_late"
        with pytest.raises(natsproc.AlreadyEnded, match="--restart"):
            async with mesh.own("owner"):
                pass
        async with mesh.own("owner", restart=True) as proc:
            assert proc.run_number == 2


async def test_one_that_lives_is_never_ended_from_outside(server):
    await make_mesh(server.url)
    async with natsproc.connect(server.url, sender="killer") as mesh:
        child = await sleeper(server.url, "alive")
        try:
            handle = await appears(mesh, "alive")
            epoch = (await handle.ping()).epoch
            child.send_signal(signal.SIGSTOP)
            async with leased(mesh, (await handle.record()).node):
                with pytest.raises(natsproc.Unreachable, match="left alone"):
                    await handle.kill(timeout=5)  # which is time enough to take its id
            child.send_signal(signal.SIGCONT)
            # what was asked meanwhile reaches it now, as the last word of its owner
            assert (await handle.wait(timeout=20)).status == "killed"
            events = await log(mesh, "alive")
            assert {e.epoch for e in events} == {epoch}
            assert [e.type for e in events] == ["started", "killed", "exited"]
        finally:
            await stop(child)


async def test_a_kill_keeps_to_its_time_while_the_silent_owner_still_holds_a_lease(server):
    await make_mesh(server.url)
    async with natsproc.connect(server.url, sender="killer") as mesh:
        child = await sleeper(server.url, "silent")
        try:
            handle = await appears(mesh, "silent")
            await mesh.io.call(mesh.started_node())
            child.send_signal(signal.SIGSTOP)
            begun = time.monotonic()
            with pytest.raises(natsproc.Unreachable, match="left alone"):
                await handle.kill(timeout=3)
            assert time.monotonic() - begun < 5
            assert (await handle.kill()).status == "unconfirmed"
        finally:
            await stop(child)


async def test_of_several_killers_one_ends_it(server):
    await make_mesh(server.url)
    ids = [f"gone-{number}" for number in range(4)]
    async with (
        natsproc.connect(server.url, sender="a") as a,
        natsproc.connect(server.url, sender="b") as b,
        natsproc.connect(server.url, sender="c") as c,
    ):
        children = [await sleeper(server.url, id) for id in ids]
        for id, child in zip(ids, children, strict=True):
            await appears(a, id)
            await stop(child)
        killing = [mesh.process(id).kill(timeout=30) for id in ids for mesh in (a, b, c)]
        receipts = await asyncio.wait_for(asyncio.gather(*killing), 60)
        for number, id in enumerate(ids):
            statuses = sorted(receipt.status for receipt in receipts[3 * number : 3 * number + 3])
            assert statuses == ["too_late", "too_late", "unconfirmed"]
            assert [e.type for e in await log(a, id)] == ["started", "killed", "exited"]


async def test_a_zombie_that_was_ended_from_outside_learns_it(server):
    await make_mesh(server.url)
    async with natsproc.connect(server.url, sender="killer") as mesh:
        child = await sleeper(server.url, "zombie")
        try:
            handle = await appears(mesh, "zombie")
            child.send_signal(signal.SIGSTOP)
            async with asyncio.timeout(20):
                while (await handle.info()).state != "unreachable":
                    await asyncio.sleep(0.05)
            assert (await handle.kill(timeout=10)).status == "unconfirmed"
            child.send_signal(signal.SIGCONT)
            out, _ = await asyncio.wait_for(child.communicate(), 20)
            assert child.returncode == 5
            assert "zombie was taken over by node" in out.decode()
            assert [e.type for e in await log(mesh, "zombie")].count("exited") == 1
        finally:
            await stop(child)


async def test_a_run_that_had_ended_is_ended_in_the_registry_too(server):
    await make_mesh(server.url)
    async with natsproc.connect(server.url, sender="killer") as mesh:

        async def die_before_the_record():
            address = Address("default", "nearly")
            writer = Writer(mesh.connection, mesh.names.event_stream)
            await writer.start()
            won, events = await bus_own(mesh.connection, writer, address, node="dead")
            record = Record(address, "k", "dead", won.epoch, 1, "running", now(), now())
            await Registry(mesh.connection, mesh.names).put(record)
            events.append_lifecycle("started")
            await events.end({"status": "completed", "code": 0})
            await writer.close(timeout=5)

        await mesh.io.call(die_before_the_record())
        handle = mesh.process("nearly")
        assert (await handle.info()).state == "unreachable"
        assert (await handle.kill(timeout=20)).status == "too_late"
        assert (await handle.info()).state == "completed"
        assert [e.type for e in await log(mesh, "nearly")] == ["started", "exited"]


async def test_a_command_held_for_an_owner_that_is_gone_is_applied_by_the_next_and_by_no_other(server):
    await make_mesh(server.url)
    async with (
        natsproc.connect(server.url, sender="controller") as mesh,
        natsproc.connect(server.url, sender="heir") as heir,
    ):
        child = await sleeper(server.url, "gone")
        try:
            handle = await appears(mesh, "gone")
        finally:
            await stop(child)
        receipt = await handle.pause(reason="wait for me", hold=600)
        assert receipt.status == "accepted"
        assert receipt.data["held_until"]
        await asyncio.to_thread(server.restart)  # it is kept as durably as any message
        owning = await own_soon_paused(heir, handle)
        events = await log(mesh, "gone")
        assert [e.type for e in events] == ["started", "recovered", "paused"]
        assert (events[-1].data["sender"], events[-1].cause) == ("controller", receipt.command)
        assert (await handle.kill()).applied
        with pytest.raises((asyncio.CancelledError, natsproc.Cancelled)):
            await owning
        async with mesh.own("gone", restart=True):
            await asyncio.sleep(0.2)
        assert [e.type for e in await log(mesh, "gone", run="all")].count("paused") == 1


async def own_soon_paused(mesh, handle):
    """Own it as soon as it can be had; what it runs waits before its first step."""

    async def sleep(proc):
        await asyncio.sleep(3600)

    async def run():
        while True:
            try:
                return await mesh.run(sleep, id="gone")
            except natsproc.AlreadyRunning:
                await asyncio.sleep(0.2)

    running = asyncio.create_task(run())
    async with asyncio.timeout(40):
        while (await handle.info()).state != "paused":
            await asyncio.sleep(0.05)
    return running
