"""Code that is never idle, in an OS process of its own: commands reach it, and its lease holds."""

from __future__ import annotations

import asyncio

import pytest
from meshes import appears
from owners import owner

from natsproc.bus.liveness import nodes_gone
from natsproc.bus.streams import LEASE_SECONDS

NEVER_IDLE = """
    while True:
        try:
            async with proc.interruptible():
                while True:
                    sum(range({work}))
                    await asyncio.sleep(0)
        except natsproc.Interrupted:
            pass
"""


@pytest.mark.parametrize("work", [1000, 10_000, 100_000])
async def test_a_loop_that_is_never_idle_is_interrupted(tmp_path, bus, viewer, work):
    body = NEVER_IDLE.format(work=work)
    with owner(tmp_path, f"busy-{work}", body, server=bus.url):
        handle = await appears(viewer, f"busy-{work}")
        for _ in range(10):
            assert (await handle.interrupt(timeout=20)).applied


async def test_the_lease_of_a_loop_that_is_never_idle_holds(tmp_path, bus, viewer):
    with owner(tmp_path, "busy-lease", NEVER_IDLE.format(work=10_000), server=bus.url):
        await appears(viewer, "busy-lease")
        node = (await viewer.process("busy-lease").inspect())["node"]["name"]
        for _ in range(2 * LEASE_SECONDS):
            await asyncio.sleep(1)  # as long as a lease lasts, twice
            assert not await viewer.io.call(nodes_gone(viewer.connection, viewer.names, [node]))


async def test_where_a_process_is_owned_the_io_thread_goes_first(mesh):
    loop = asyncio.get_running_loop()
    async with mesh.own("polite"):
        assert "select" in vars(loop._selector)
    assert "select" not in vars(loop._selector)
