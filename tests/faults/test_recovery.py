"""Owners that are killed between checkpoints, while two others send: state and messages agree exactly.

Everything is a real OS process. What is checked is the final state, and the log alone: a line of received
messages, cut back to its checkpoint wherever a new owner has recovered.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys

import pytest
from crashing import bury
from meshes import make_mesh
from writing import NAMES
from writing import record as record_of

import natsproc
from natsproc.bus.connection import Connection, Endpoint
from natsproc.bus.kv import Bucket
from natsproc.bus.objects import Objects
from natsproc.protocol.names import Address

MESSAGES = 120
SEEDS = [int(seed) for seed in os.environ.get("NATSPROC_TEST_SEEDS", "1").split(",")]

OWNER = """
import random, sys, natsproc
async def ledger(proc, seed):
    dice = random.Random(seed)
    state = proc.state or {"seen": {}, "padding": ""}
    if proc.state is None:
        await proc.checkpoint(state)  # what is received before the first one goes with who received it
    while True:
        message = await proc.receive()
        if message.data == "stop":
            return state["seen"]
        state["seen"].setdefault(message.sender, []).append(message.data)
        await proc.emit("did", message.data)
        if dice.random() < 0.3:
            state["padding"] = "x" * dice.choice([10, 10, 1_500_000])
            await proc.checkpoint(state)
natsproc.run(ledger, sys.argv[2], id="ledger", server=sys.argv[1])
"""

SENDER = """
import asyncio, random, sys, natsproc
async def main(url, name, count):
    dice = random.Random(name)
    async with natsproc.connect(url, sender=name) as mesh:
        handle = mesh.process("ledger")
        for number in range(count):
            while True:
                try:
                    await handle.send(number, id=f"{name}-{number}")
                    break
                except (natsproc.NoServer, natsproc.TimedOut):
                    pass
            await asyncio.sleep(dice.random() * 0.08)
asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def start(program, *arguments):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *map(str, arguments), stderr=asyncio.subprocess.PIPE
    )


@contextlib.asynccontextmanager
async def started(program, *arguments):
    child = await start(program, *arguments)
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def owned_anew(mesh, epoch):
    """Wait for an owner of a higher epoch; returns its record."""
    handle = mesh.process("ledger")
    async with asyncio.timeout(40):
        while True:
            with contextlib.suppress(natsproc.Error):
                record = await handle.record()
                if record is not None and record.epoch > epoch:
                    return record
            await asyncio.sleep(0.02)


async def senders_done(children):
    for child in children:
        _, said = await child.communicate()
        assert child.returncode == 0, said.decode()


def line_of(events):
    """What the log says that the surviving state reflects, by sender; each run of owners cut to its checkpoint."""
    line = []
    for event in events:
        if event.type == "recovered":
            line = [entry for entry in line if entry[0] <= event.data.get("checkpoint", 0)]
        elif event.type == "received" and event.data["data"] != "stop":
            line.append((event.offset, event.data["sender"], event.data["data"]))
    return {sender: [n for _, s, n in line if s == sender] for sender in ("ann", "bob")}


async def check(handle):
    """The final state and the log say the same: each message once, in order."""
    expected = {sender: list(range(MESSAGES)) for sender in ("ann", "bob")}
    assert await handle.result(timeout=40) == expected
    events = [item async for item in handle.tail(follow=False) if isinstance(item, natsproc.Event)]
    assert [event.offset for event in events] == list(range(1, len(events) + 1))
    assert line_of(events) == expected
    assert [event.type for event in events].count("exited") == 1
    return events


@pytest.mark.parametrize("seed", SEEDS)
async def test_owners_killed_between_checkpoints_lose_and_repeat_nothing(server, seed):
    await make_mesh(server.url)
    dice, epoch, kills = random.Random(seed), 0, 0
    connection = await Connection.open(Endpoint((server.url,)))
    async with natsproc.connect(server.url, sender="viewer") as mesh, contextlib.AsyncExitStack() as stack:
        handle = mesh.process("ledger")
        senders = []
        while True:
            owner = await stack.enter_async_context(started(OWNER, server.url, f"{seed}-{kills}"))
            record = await owned_anew(mesh, epoch)
            epoch = record.epoch
            if not senders:
                senders = [
                    await stack.enter_async_context(started(SENDER, server.url, name, MESSAGES))
                    for name in ("ann", "bob")
                ]
                sending = asyncio.create_task(senders_done(senders))
            await asyncio.sleep(dice.uniform(0.05, 1.2))
            if kills >= 5 and sending.done():
                break
            owner.kill()
            await owner.wait()
            kills += 1
            await bury(connection, record.node)
        await sending
        await handle.send("stop")
        events = await check(handle)
        assert [event.type for event in events].count("recovered") == kills
        assert kills >= 5
        names = await Objects(connection, NAMES.states).names("default.ledger")
        saved = (await record_of(connection, Address("default", "ledger"))).checkpoint.object
        # what owners had written when they were killed is removed by those who came after
        assert {name for name in names if f".{epoch}-" not in name} <= {saved} <= set(names)
    await connection.close()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_server_killed_during_checkpoints_costs_nothing_but_time(server, seed):
    await make_mesh(server.url)
    dice = random.Random(seed)
    async with natsproc.connect(server.url, sender="viewer") as mesh, contextlib.AsyncExitStack() as stack:
        handle = mesh.process("ledger")
        await stack.enter_async_context(started(OWNER, server.url, seed))
        await owned_anew(mesh, 0)
        senders = [
            await stack.enter_async_context(started(SENDER, server.url, name, MESSAGES))
            for name in ("ann", "bob")
        ]
        sending = asyncio.create_task(senders_done(senders))
        for _ in range(4):
            await asyncio.sleep(dice.uniform(0.2, 0.8))
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(dice.uniform(0.0, 0.3))
            await asyncio.to_thread(server.start)
        await asyncio.wait_for(sending, 90)
        await handle.send("stop")
        events = await check(handle)
        assert "recovered" not in [event.type for event in events]


async def test_a_zombie_neither_saves_nor_goes_on(server):
    await make_mesh(server.url)
    async with natsproc.connect(server.url, sender="viewer") as mesh, contextlib.AsyncExitStack() as stack:
        handle = mesh.process("ledger")
        zombie = await stack.enter_async_context(started(OWNER, server.url, "zombie"))
        record = await owned_anew(mesh, 0)
        senders = [
            await stack.enter_async_context(started(SENDER, server.url, name, MESSAGES))
            for name in ("ann", "bob")
        ]
        sending = asyncio.create_task(senders_done(senders))
        await asyncio.sleep(0.8)
        zombie.send_signal(signal.SIGSTOP)
        leases = Bucket(mesh.connection, mesh.names.leases)
        while await mesh.io.call(leases.get(record.node, leader=True)):
            await asyncio.sleep(0.05)
        heir = await stack.enter_async_context(started(OWNER, server.url, "heir"))
        await owned_anew(mesh, record.epoch)
        zombie.send_signal(signal.SIGCONT)
        _, said = await asyncio.wait_for(zombie.communicate(), 30)
        assert zombie.returncode != 0
        assert b"OwnershipLost" in said
        await sending
        await handle.send("stop")
        events = await check(handle)
        assert [event.type for event in events].count("recovered") == 1
        assert await heir.wait() == 0
