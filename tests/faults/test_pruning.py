"""Pruning an id while somebody starts it anew, again and again: nothing of the run that lives is lost."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import natsproc
from natsproc.errors import NoSuchProcess, Refused

RUNS = 40


async def test_pruning_never_takes_anything_from_who_starts_the_id_meanwhile(server, connection):
    pruned = refused = 0

    async def prune(mesh):
        nonlocal pruned, refused
        while True:
            try:
                await mesh.prune("busy")
                pruned += 1
            except Refused:
                refused += 1
            except NoSuchProcess:
                await asyncio.sleep(0)

    async with natsproc.connect(server.url) as mesh, natsproc.connect(server.url) as other:
        pruning = asyncio.create_task(prune(other))
        epochs = []
        for n in range(RUNS):
            async with mesh.own("busy", restart=True) as proc:
                for word in range(5):
                    await proc.emit("said", [n, word])
                await proc.flush()
                handle = mesh.process("busy")
                found = [item async for item in handle.tail(follow=False) if isinstance(item, natsproc.Event)]
                assert [item.data for item in found if item.type == "said"] == [[n, w] for w in range(5)]
                assert {item.epoch for item in found} == {proc.epoch}
                assert (await handle.record()).state == "running"
                epochs.append(proc.epoch)
        pruning.cancel()
        with suppress(asyncio.CancelledError):
            await pruning
    assert epochs == sorted(set(epochs))
    assert refused > RUNS
    assert pruned > RUNS / 4
