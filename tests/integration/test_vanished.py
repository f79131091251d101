"""A stream that somebody has deleted under those who are at work with it."""

from __future__ import annotations

import asyncio

import pytest
from crashing import crashing

import natsproc


async def delete(connection, stream):
    await connection.api(f"STREAM.DELETE.{stream}")


async def test_whoever_needs_a_stream_that_is_gone_is_told_what_makes_it(server, connection, names):
    async with (
        crashing(server.url, connection, "agent") as proc,
        natsproc.connect(server.url, sender="viewer") as mesh,
    ):
        handle, told = mesh.process("agent"), "natsproc setup` makes it"

        async def watch():
            async for item in handle.tail():
                if item.type == "caught_up":
                    quiet.set()

        quiet = asyncio.Event()
        watching, waiting = asyncio.create_task(watch()), asyncio.create_task(handle.wait())
        await asyncio.wait_for(quiet.wait(), 20)
        await delete(connection, names.event_stream)
        for call in (watching, waiting, handle.wait(), handle.info(), mesh.list()):
            with pytest.raises(natsproc.NoMesh, match=told):
                await asyncio.wait_for(call, 20)
        with pytest.raises(natsproc.NoMesh, match=told):
            [event async for event in handle.tail()]
        await delete(connection, names.inbox_stream)
        with pytest.raises(natsproc.NoMesh, match=told):
            await asyncio.wait_for(handle.send("hello"), 5)
        assert (await handle.inspect())["offset"] == 1  # its owner answers
        await delete(connection, f"KV_{names.registry}")
        for call in (handle.info(), handle.send("hello"), mesh.list()):
            with pytest.raises(natsproc.NoMesh, match=told):
                await asyncio.wait_for(call, 5)
        assert proc.epoch == 1
    with pytest.raises(natsproc.NoMesh, match=told):
        await natsproc.connect(server.url).__aenter__()
