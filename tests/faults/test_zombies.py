"""Owners that are stopped past their lease, lose their id to another OS process, and wake up again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

import pytest
from homes import NATSPROC
from meshes import appears, listing, make_mesh
from test_sdk_faults import stop
from test_sdk_outages import log, own_soon
from writing import leased

import natsproc
from natsproc.protocol.names import key_of

CODE = """
import asyncio, sys, time, natsproc

async def asleep(proc):
    await asyncio.sleep(3600)

async def flooding(proc):
    while True:
        await proc.emit("n", 0)

async def tidying(proc):
    try:
        await proc.receive()
    finally:
        try:
            await proc.emit("tidied")
        except natsproc.OwnershipLost:
            print("told so again")

def checking(proc):
    while True:
        proc.check()
        time.sleep(0.01)

def writing(proc):
    while True:
        try:
            proc.emit("n", 0)
        except natsproc.OwnershipLost:
            print("told so")
            proc.emit("n", 0)
        time.sleep(0.001)

def receiving(proc):
    proc.receive()

try:
    natsproc.run(globals()[sys.argv[2]], id=sys.argv[2], server=sys.argv[1])
except natsproc.OwnershipLost as lost:
    print(lost)
    sys.exit(5)
"""
SAYS = {"asleep": "", "flooding": "", "tidying": "told so again", "checking": "", "writing": "told so"}
SAYS["receiving"] = ""
SCRIPT = 'trap "echo tidying; touch {file}; exit 0" TERM; while :; do echo tick; sleep 0.05; done'


async def test_a_zombie_is_stopped_and_told_and_never_counts(server, tmp_path: Path):
    """Async code, plain code and a wrapped command; none of them asks by itself whether it still owns its id."""
    await make_mesh(server.url)
    pipe = asyncio.subprocess.PIPE
    file = tmp_path / "tidied"
    command = [NATSPROC, "run", "--server", server.url, "--id", "wrapped", "--"]
    argvs = {name: [sys.executable, "-c", CODE, server.url, name] for name in SAYS}
    argvs["wrapped"] = [*command, "sh", "-c", SCRIPT.format(file=file)]
    async with natsproc.connect(server.url, sender="viewer") as mesh, contextlib.AsyncExitStack() as stack:
        zombies = {}
        for name, argv in argvs.items():
            zombies[name] = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe)
            stack.push_async_callback(stop, zombies[name])
        seen: dict[str, list[str]] = {}

        async def watch(name):
            seen[name] = [item.type async for item in mesh.process(name).tail(types=["x"])]

        for name in zombies:
            await appears(mesh, name)
        await asyncio.gather(*(log(mesh, name) for name in zombies))
        watchers = [asyncio.create_task(watch(name)) for name in zombies]
        epochs = {info.address.id: info.record.epoch for info in await listing(mesh)}
        for zombie in zombies.values():
            zombie.send_signal(signal.SIGSTOP)
        (asleep,) = [info.record.node for info in await listing(mesh) if info.address.id == "asleep"]
        async with leased(mesh, asleep):
            with pytest.raises(natsproc.AlreadyRunning) as refused:  # silent with a live lease
                await mesh.own("asleep").__aenter__()
        assert refused.value.epoch == epochs["asleep"]
        assert f"node {refused.value.node} (epoch {refused.value.epoch})" in str(refused.value)
        over = asyncio.Event()

        async def inherit(name):
            owning, proc = await own_soon(mesh, name)
            epochs[name] = (epochs[name], proc.epoch)
            await over.wait()
            await proc.emit("n", 1)
            await owning.__aexit__(None, None, None)

        heirs = [asyncio.create_task(inherit(name)) for name in zombies]
        async with asyncio.timeout(60):
            while any(isinstance(epoch, int) for epoch in epochs.values()):
                await asyncio.sleep(0.05)
        for zombie in zombies.values():
            zombie.send_signal(signal.SIGCONT)
        for name, zombie in zombies.items():
            out, err = await asyncio.wait_for(zombie.communicate(), 30)
            said = (out + err).decode()
            assert "was taken over by node" in said, (name, said)
            if name == "wrapped":
                assert zombie.returncode == 125
                assert "natsproc: wrapped was taken over by node" in err.decode()
                assert "Traceback" not in said
                assert file.exists()  # it had its time to tidy up
            else:
                assert zombie.returncode == 5, (name, said)
                assert SAYS[name] in said
        over.set()
        await asyncio.wait_for(asyncio.gather(*heirs), 20)
        await asyncio.wait_for(asyncio.gather(*watchers), 20)
        for name in zombies:
            assert seen[name].count("takeover") == 1, (name, seen[name])
            events = await log(mesh, name)
            assert [e.offset for e in events] == list(range(1, len(events) + 1))
            assert sorted({e.epoch for e in events}) == list(epochs[name])
            assert events == sorted(events, key=lambda e: e.epoch)
            assert [e.type for e in events].count("exited") == 1
            assert (events[-1].type, events[-1].epoch) == ("exited", epochs[name][1])


async def test_an_owner_that_finds_out_at_a_commit_is_stopped_though_its_code_does_not_care(server):
    await make_mesh(server.url)

    async def stubborn(proc):
        key = f"$KV.{mesh.names.claims}.{key_of(proc.address)}"
        thief = b'{"nonce":"other","node":"other","run":1,"ended":false,"cuts":[]}'
        await mesh.io.call(mesh.connection.store(key, thief))  # who has not come to write the record
        while True:
            with contextlib.suppress(natsproc.Error):
                await proc.flush()
            await asyncio.sleep(60)

    async with natsproc.connect(server.url) as mesh:
        running = asyncio.create_task(mesh.run(stubborn, id="stubborn"))
        await asyncio.wait([running], timeout=20)
        assert running.done()
        with pytest.raises(natsproc.OwnershipLost, match="taken over by node other"):
            running.result()
        assert not (await mesh.node()).hosted
