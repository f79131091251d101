"""How long it takes to take over an owner that is gone, and why; and that an outage of the bus makes nobody look gone."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time

import pytest
from link import Link
from meshes import appears, make_mesh
from test_sdk_faults import start_owner, stop
from test_sdk_outages import own_soon
from test_unreachable import Load

import natsproc
from natsproc.bus import registry
from natsproc.bus.kv import Bucket
from natsproc.bus.streams import LEASE_SECONDS, OVERDUE_SECONDS


async def steady(mesh, seconds):
    """Wait until the mesh's node has kept its lease for so long."""
    node = await mesh.node()
    async with asyncio.timeout(60):
        while node.steady.seconds < seconds:
            await asyncio.sleep(0.05)


async def expiry(mesh, node):
    """Return when the lease of a node has expired."""
    leases = Bucket(mesh.connection, mesh.names.leases)
    async with asyncio.timeout(20):
        while await mesh.io.call(leases.get(node, leader=True)):
            await asyncio.sleep(0.02)
    return time.monotonic()


@pytest.mark.parametrize(
    ("witness", "number"),
    [(True, signal.SIGKILL), (False, signal.SIGKILL), (True, signal.SIGSTOP)],
    ids=["killed, who has been there", "killed, who has just come", "stopped, who has been there"],
)
async def test_who_saw_that_the_bus_was_there_takes_over_the_dead_as_soon_as_the_lease_has_expired(
    server, witness, number, monkeypatch
):
    """Who has just come cannot tell it from an outage, and who is still connected is perhaps only slow: so they wait."""
    monkeypatch.setattr(
        registry, "BREAK_SECONDS", 10
    )  # a busy machine may renew late, and there is no outage here
    await make_mesh(server.url)
    async with natsproc.connect(server.url) as mesh, natsproc.connect(server.url) as viewer:
        child = await start_owner(server.url, 3)
        try:
            record = await (await appears(viewer, "owner")).record()
            if witness:
                await steady(mesh, OVERDUE_SECONDS + 1)
            child.send_signal(number)
            load = Load()
            expired = asyncio.create_task(expiry(viewer, record.node))
            if not witness:
                await asyncio.wait([expired])
            owning, proc = await own_soon(mesh, "owner")
            took = time.monotonic() - await expired
            load.task.cancel()
            slow = 1 + 5 * load.seconds
            assert proc.run_number == 1
            if witness and number == signal.SIGKILL:
                assert took < slow
            else:
                assert LEASE_SECONDS - 1 < took < LEASE_SECONDS + 1 + slow
            await owning.__aexit__(None, None, None)
        finally:
            await stop(child)


async def claim(mesh, id):
    async with mesh.own(id):
        pass


@pytest.mark.parametrize("away", ["kill", "freeze"])
async def test_after_an_outage_who_comes_back_later_than_others_is_not_taken_over(server, away):
    """The claimant has been connected for long; if the server only hangs it even stays so."""
    await make_mesh(server.url)
    link = Link(server.port)
    async with (
        contextlib.AsyncExitStack() as stack,
        natsproc.connect(server.url) as mesh,
        natsproc.connect(link.url, sender="owner") as cut_off,
    ):
        stack.callback(link.close)
        await steady(mesh, 2 * OVERDUE_SECONDS)
        async with cut_off.own("alive"):
            node = (await cut_off.node()).name
            await asyncio.to_thread(getattr(server, away))
            link.cut()
            await asyncio.sleep(LEASE_SECONDS + 1.5)
            await asyncio.to_thread(server.thaw if away == "freeze" else server.start)
            await expiry(mesh, node)
            claiming = asyncio.create_task(claim(mesh, "alive"))
            await asyncio.sleep(1.5)
            link.mend()
            with pytest.raises(natsproc.AlreadyRunning, match="is running"):
                await asyncio.wait_for(claiming, 20)
