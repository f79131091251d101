"""Python code that swallows whatever is to stop it: its run ends all the same, and its program with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time

import pytest
from meshes import appears, make_mesh
from test_sdk_faults import stop
from test_sdk_outages import log

import natsproc

PAST = {"kill": "killed", "cancel": "cancelled"}

STUBBORN = """
import asyncio, sys, time, natsproc
async def loop(proc):
    while True:
        try: await asyncio.sleep(0.1)
        except BaseException: pass
def thread(proc):
    while True:
        try: time.sleep(0.1)
        except BaseException: pass
natsproc.run(globals()[sys.argv[2]], id="stubborn", server=sys.argv[1])
"""


@pytest.mark.parametrize(
    ("function", "verb", "code"), [("loop", "kill", 137), ("thread", "kill", 137), ("loop", "cancel", 143)]
)
async def test_a_program_whose_code_stops_for_nothing_exits(server, function, verb, code):
    await make_mesh(server.url)
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", STUBBORN, server.url, function)
    try:
        async with natsproc.connect(server.url) as mesh:
            handle = await appears(mesh, "stubborn")
            order = handle.kill() if verb == "kill" else handle.cancel(grace=0.2)
            receipt = await order
            assert receipt.status == "unconfirmed"
            assert "its OS process exits" in receipt.why
            assert await asyncio.wait_for(child.wait(), 20) == code
            events = await log(mesh, "stubborn")
            assert [event.type for event in events][-2:] == [PAST[verb], "exited"]
            assert events[-1].data["code"] == code
    finally:
        await stop(child)


@pytest.mark.parametrize("verb", ["kill", "cancel"])
async def test_code_inside_another_program_is_left_behind(server, verb, monkeypatch):
    """`own` and `Mesh.run` are guests: the run ends, the receipt says what is not certain, the program goes on."""
    await make_mesh(server.url)
    over = time.monotonic() + 60
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)

    async def stubborn(proc: natsproc.Process) -> None:
        while time.monotonic() < over:
            with contextlib.suppress(BaseException):
                await asyncio.sleep(0.1)

    async with natsproc.connect(server.url) as mesh, natsproc.connect(server.url) as viewer:
        running = asyncio.create_task(mesh.run(stubborn, id="guest"))
        handle = await appears(viewer, "guest")
        receipt = await (handle.kill() if verb == "kill" else handle.cancel(grace=0.2))
        assert receipt.status == "unconfirmed"
        assert "has not stopped" in receipt.why
        assert (await handle.wait(timeout=20)).status == PAST[verb]
        over = 0
        await asyncio.wait([running])
        assert exits == []
