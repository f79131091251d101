"""Wrapped commands while the bus or their ownership fails them."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import pytest
from harness import Server, wait_for
from meshes import make_mesh
from wrapping import Job, Shell

import natsproc
from natsproc.command.run import run_command
from natsproc.command.runner import Wrapped
from natsproc.protocol.names import key_of

FLOOD = "touch {folder}/$BASHPID; exec seq 1 1000000000"


def written(pid: int) -> int:
    """How many bytes a process has written."""
    return int(Path(f"/proc/{pid}/io").read_text().split("wchar: ")[1].split()[0])


def blocked(pid: int) -> bool:
    """Whether a process that only writes waits for its reader."""
    before = written(pid)
    time.sleep(0.3)
    return 0 < before == written(pid)


def test_ctrl_c_works_while_the_bus_is_blocked(server: Server, tmp_path: Path) -> None:
    asyncio.run(make_mesh(server.url))
    folder = tmp_path / "pids"
    folder.mkdir()
    shell = Shell(server.url)
    with shell.started("bash", "-c", FLOOD.format(folder=folder), echo=False, how={"spool": 0}) as process:
        wait_for(lambda: list(folder.iterdir()), 60, "the command")
        (pid,) = [int(file.name) for file in folder.iterdir()]
        server.freeze()
        try:
            wait_for(lambda: blocked(pid), 60, "a full buffer")
            process.send_signal(signal.SIGINT)
            wait_for(lambda: not Path(f"/proc/{pid}").exists(), 30, "the end of the command")
            assert process.poll() is None  # what it said is not stored yet
        finally:
            server.thaw()
        assert process.wait(60) == 130
    assert shell.events()[-1].data["status"] == "interrupted"


async def test_a_receipt_says_what_an_end_waits_for(server: Server) -> None:
    await make_mesh(server.url)
    async with natsproc.connect(server.url) as mesh, Job(mesh, "cat") as job:
        await job.begun()

        async def full(bound: int, discard: str) -> None:
            stream = mesh.names.event_stream
            config = (await mesh.connection.api(f"STREAM.INFO.{stream}"))["config"]
            config |= {"max_bytes": bound, "discard": discard}
            await mesh.connection.api(f"STREAM.UPDATE.{stream}", config)

        await mesh.io.call(full(1, "new"))
        try:
            await job.type(None, "eof")
            (hosted,) = (await mesh.node()).hosted.values()
            async with asyncio.timeout(30):
                while not hosted.log.ended:
                    await asyncio.sleep(0.01)
                while "limit on storage" not in (receipt := await job.handle.interrupt()).why:
                    await asyncio.sleep(0.1)
        finally:
            await mesh.io.call(full(-1, "old"))
        assert receipt.status == "too_late"
        assert receipt.why.startswith("its run is over (completed), and that waits to be stored: ")
        assert (await job.ended()).code == 0
        assert (await job.handle.kill()).why.endswith("has ended (completed)")


async def test_a_command_whose_address_was_taken_over_is_ended(server: Server) -> None:
    await make_mesh(server.url)
    script = "while :; do echo tick; sleep 0.05; done"
    async with natsproc.connect(server.url) as mesh, Job(mesh, "sh", "-c", script) as job:
        await job.shows("tick")
        pid = int((await job.handle.inspect())["members"][0]["pid"])
        key = f"$KV.{mesh.names.claims}.{key_of(job.handle.address)}"
        thief = b'{"nonce":"other","node":"other","run":1,"ended":false,"cuts":[]}'
        await mesh.io.call(mesh.connection.store(key, thief))
        (hosted,) = (await mesh.node()).hosted.values()
        with pytest.raises(natsproc.OwnershipLost):
            await mesh.io.call(hosted.log.flush())
        with pytest.raises(natsproc.OwnershipLost):
            await job.ended()
        assert not Path(f"/proc/{pid}").exists()
        node = await mesh.node()
        async with asyncio.timeout(20):
            while node.hosted:  # it is left beside
                await asyncio.sleep(0.01)


async def test_a_command_is_not_taken_up_where_another_stopped(server: Server) -> None:
    await make_mesh(server.url)
    shell = Shell(server.url)
    async with natsproc.connect(server.url, sender="viewer") as mesh:
        handle = mesh.process(shell.id)
        with shell.started("sh", "-c", "echo begun; sleep 600", echo=False) as process:
            async with asyncio.timeout(60):
                while await handle.record() is None or (await handle.inspect())["offset"] < 2:
                    await asyncio.sleep(0.02)
            waiting = asyncio.create_task(handle.wait())
            process.kill()
        async with asyncio.timeout(20):
            while [info.state for info in await mesh.list()] != ["unreachable"]:
                await asyncio.sleep(0.05)
        ended = await run_command(mesh, Wrapped(("sh", "-c", "echo again"), echo=False), id=shell.id)
        assert ended.code == 0
        lost = await asyncio.wait_for(waiting, 20)
        assert (lost.run, lost.status, lost.code) == (1, "killed", 137)
        items = [item async for item in handle.tail(run="all", follow=False)]
        events = [(item.run, item.type) for item in items if isinstance(item, natsproc.Event)]
        assert events == [
            (1, "started"), (1, "output"), (1, "killed"), (1, "exited"),
            (2, "restarted"), (2, "output"), (2, "exited"),
        ]  # fmt: skip


HALF_WAY = """
import asyncio, sys, natsproc
from natsproc.command.run import run_command
from natsproc.command.runner import Wrapped

async def main(url, *argv):
    async with natsproc.connect(url, sender="owner") as mesh:
        await mesh.io.call(mesh.started_node())
        print("connected", flush=True)
        sys.stdin.readline()
        return await run_command(mesh, Wrapped(argv), id="half-way", foreground=True)

sys.exit(asyncio.run(main(*sys.argv[1:])).code)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_signal_while_the_id_is_claimed_ends_it_before_it_begins(server, tmp_path, number, code):
    await make_mesh(server.url)
    touched, pipe = tmp_path / "touched", asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HALF_WAY, server.url, "touch", str(touched), stdin=pipe, stdout=pipe
    )
    try:
        async with asyncio.timeout(60):
            assert await child.stdout.readline() == b"connected\n"
            server.freeze()
            child.stdin.write(b"\n")
            await child.stdin.drain()
            while not catches(child.pid, signal.SIGTERM):
                await asyncio.sleep(0.02)
            child.send_signal(number)
            await asyncio.sleep(0.2)  # it is to be heard first; later is no harm
            server.thaw()
            assert await child.wait() == code
        async with natsproc.connect(server.url) as mesh:
            tail = mesh.process("half-way").tail()
            events = [item async for item in tail if isinstance(item, natsproc.Event)]
        status = "cancelled" if code == 143 else "interrupted"
        assert [event.type for event in events] == ["started", status, "exited"]
        assert (events[-1].data["status"], events[-1].data["code"]) == (status, code)
        assert not touched.exists()
    finally:
        if child.returncode is None:
            child.kill()


def catches(pid, number):
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigCgt" in line)
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)
