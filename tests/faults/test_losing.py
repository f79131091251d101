"""What the code of a former owner is told, wherever it is when the loss is noticed."""

from __future__ import annotations

import asyncio
import signal
import sys

from meshes import appears, make_mesh
from test_sdk_faults import stop
from test_sdk_outages import own_soon

import natsproc

CODE = """
import asyncio, contextlib, sys, natsproc

async def checkpoint(proc):
    while True:
        await proc.checkpoint("x" * 1000)

async def emit(proc):
    while True:
        await proc.emit("n", 0)
        await asyncio.sleep(0)

async def flush(proc):
    while True:
        await proc.flush()

async def receive(proc):
    await proc.receive()

async def ask(proc):
    await proc.ask("Well?")

async def check(proc):
    while True:
        await proc.check()

async def turn(proc):
    async with proc.turn():
        await asyncio.sleep(3600)

async def boundary(proc):
    async with proc.turn() as turn:
        while True:
            await turn.boundary()

async def scope(proc):
    async with proc.interruptible():
        await asyncio.sleep(3600)

async def stubborn(proc):
    while True:
        with contextlib.suppress(natsproc.OwnershipLost):
            async with proc.interruptible():
                await asyncio.sleep(3600)

async def live(mesh, work):
    async with mesh.own(work.__name__) as proc:
        try:
            await work(proc)
        except BaseException as error:
            print(work.__name__, type(error).__name__, flush=True)
            raise

async def main(url, *names):
    async with natsproc.connect(url, sender="zombie") as mesh:
        living = (live(mesh, globals()[name]) for name in names)
        for outcome in await asyncio.gather(*living, return_exceptions=True):
            assert isinstance(outcome, natsproc.OwnershipLost), repr(outcome)

asyncio.run(main(*sys.argv[1:]))
"""
NAMES = ("checkpoint", "emit", "flush", "receive", "ask", "check", "turn", "boundary", "scope", "stubborn")


async def inherit(mesh, name):
    owning, _ = await own_soon(mesh, name)
    await owning.__aexit__(None, None, None)


async def test_code_of_a_zombie_meets_the_loss_and_no_bare_cancellation(server):
    await make_mesh(server.url)
    async with natsproc.connect(server.url, sender="viewer") as mesh:
        zombie = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CODE, server.url, *NAMES, stdout=asyncio.subprocess.PIPE
        )
        try:
            for name in NAMES:
                await appears(mesh, name)
            zombie.send_signal(signal.SIGSTOP)
            await asyncio.gather(*(inherit(mesh, name) for name in NAMES))
            zombie.send_signal(signal.SIGCONT)
            out, _ = await asyncio.wait_for(zombie.communicate(), 30)
        finally:
            await stop(zombie)
        said = dict(line.split() for line in out.decode().splitlines())
        assert said == dict.fromkeys(NAMES, "OwnershipLost") | {"stubborn": "CancelledError"}
        assert zombie.returncode == 0
