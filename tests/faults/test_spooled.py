"""A wrapped command while the server is away: never stalled, nothing lost, and nothing left on disk."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from cli_harness import Cli
from harness import Server, small_disk, wait_for
from meshes import make_mesh
from wrapping import Job, Shell
from writing import until

import natsproc

OUTAGE = float(os.environ.get("NATSPROC_TEST_OUTAGE", 600))

# says at its end how long it had to wait for its reader at most, in seconds
STEADY = """
import os, sys, time
worst, n, until = 0.0, 0, os.environ["UNTIL"]
while not os.path.exists(until):
    before = time.monotonic()
    os.write(1, b"line %d %s\\n" % (n, b"x" * int(sys.argv[1])))
    worst = max(worst, time.monotonic() - before)
    n += 1
    time.sleep(float(sys.argv[2]))
os.write(1, b"%d lines, the longest pause %f\\n" % (n, worst))
"""
FLOOD = "import os\nwhile True: os.write(1, (b'x' * 999 + b'\\n') * 16)"


def read_lines(written: str) -> tuple[int, float]:
    """How many lines there were, each once and in order, and the longest pause."""
    *lines, last = written.splitlines()
    count, pause = int(last.split()[0]), float(last.split()[-1])
    assert [line.split()[1] for line in lines] == [str(n) for n in range(count)]
    return count, pause


@pytest.mark.parametrize("room", ["spool", "drop"])
async def test_an_outage_of_a_few_seconds_stalls_nobody(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: str
) -> None:
    monkeypatch.setenv("NATSPROC_HOME", str(tmp_path / "home"))
    await make_mesh(server.url)
    env = {**os.environ, "UNTIL": str(tmp_path / "done")}
    argv = (sys.executable, "-c", STEADY, "100", "0.002")
    async with natsproc.connect(server.url) as mesh:
        (await mesh.node()).writer._max_events = 100
        how = {} if room == "spool" else {"spool": 0, "drop": True}
        async with Job(mesh, *argv, env=env, how=how) as job:
            await job.shows("line 10 ")
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(4)
            await asyncio.to_thread(server.start)
            await asyncio.sleep(1)
            (tmp_path / "done").touch()
            assert (await job.ended()).code == 0
        found = await job.events()
        assert [event.offset for event in found] == list(range(1, len(found) + 1))
        written = "".join(event.data["text"] for event in found if event.type == "output")
        dropped = sum(event.data["count"] for event in found if event.type == "dropped")
    if room == "spool":
        count, pause = read_lines(written)
        assert count > 1000
        assert not dropped
    else:
        assert dropped > 100
        pause = float(written.split()[-1])
    assert pause < 2  # without a spool it is most of the outage
    assert list((tmp_path / "home" / "spool").glob("*")) == []


@pytest.mark.parametrize("when_full", ["wait", "spool", "drop"])
async def test_code_chooses_to_wait_to_spool_or_to_drop(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when_full: Any
) -> None:
    monkeypatch.setenv("NATSPROC_HOME", str(tmp_path / "home"))
    await make_mesh(server.url)
    said = []

    @natsproc.process(when_full=when_full)
    async def speaker(proc: natsproc.Process) -> None:
        proc._hosted.node.writer._max_events = 100
        await proc.flush()
        await asyncio.to_thread(server.kill)
        for n in range(1000):
            await proc.emit("said", n)
            said.append(n)

    async with natsproc.connect(server.url) as mesh:
        with pytest.raises(natsproc.BadName, match="'spool'"):
            await mesh.run(speaker, when_full="never")  # type: ignore[arg-type]
        running = asyncio.create_task(mesh.run(speaker, id="speaker"))
        await until(lambda: len(said) == 1000 or (when_full == "wait" and len(said) > 90))
        await asyncio.sleep(0.3)
        assert not running.done()
        assert (len(said) == 1000) == (when_full != "wait")
        await asyncio.to_thread(server.start)
        await asyncio.wait_for(running, 60)
        found = [event async for event in mesh.process("speaker").tail() if isinstance(event, natsproc.Event)]
    kept = [event.data for event in found if event.type == "said"]
    dropped = sum(event.data["count"] for event in found if event.type == "dropped")
    assert kept == list(range(1000 - dropped))
    assert bool(dropped) == (when_full == "drop")


async def test_a_disk_without_room_makes_the_command_wait_and_says_so(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with small_disk(tmp_path / "home", "2m") as home:
        monkeypatch.setenv("NATSPROC_HOME", str(home))
        await make_mesh(server.url)
        env = {**os.environ, "UNTIL": str(tmp_path / "done")}
        async with natsproc.connect(server.url) as mesh:
            (await mesh.node()).writer._max_events = 100
            argv, how = (sys.executable, "-c", STEADY, "5000", "0.001"), {"troubled": said.append}
            async with Job(mesh, *argv, env=env, how=how) as job:
                await job.shows("line 10 ")
                await asyncio.to_thread(server.kill)
                await until(lambda: said, 60)
                await asyncio.to_thread(server.start)
                (tmp_path / "done").touch()
                assert (await job.ended()).code == 0
            found = await job.events()
        assert list((home / "spool").iterdir()) == []
    assert "No space left" in said[0]
    warnings = [event.data["text"] for event in found if event.type == "log"]
    assert warnings == said[:1]
    read_lines("".join(event.data["text"] for event in found if event.type == "output"))


def spooled(pid: int) -> int:
    """Bytes in the nameless spool files that a process holds."""
    sizes = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if "/spool/" in os.readlink(descriptor):
                assert descriptor.stat().st_nlink == 0
                sizes.append(descriptor.stat().st_size)
        except FileNotFoundError:
            continue
    return sum(sizes)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_nothing_is_left_of_a_spool_whose_process_was_killed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATSPROC_HOME", str(tmp_path / "home"))
    asyncio.run(make_mesh(server.url))
    shell = Shell(server.url)
    with shell.started(sys.executable, "-c", FLOOD, echo=False) as process:
        wait_for(lambda: psutil.Process(process.pid).children(recursive=True), 60, "the command")
        time.sleep(0.5)
        server.kill()
        wait_for(lambda: spooled(process.pid) > 5_000_000, 60, "the spool")
        process.kill()
        process.wait(20)
    assert list((tmp_path / "home" / "spool").iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_server_that_is_down_for_ten_minutes_stalls_no_command(server: Server, tmp_path: Path) -> None:
    """Prints what it measured."""
    asyncio.run(make_mesh(server.url))
    cli, done, shown = Cli(tmp_path, server.url), tmp_path / "done", tmp_path / "shown"
    cli.env["UNTIL"] = str(done)
    command = (sys.executable, "-c", STEADY, "200", "0.004")
    with shown.open("wb") as file, cli.started("run", "--id", "steady", "--", *command, stdout=file) as run:
        wait_for(lambda: shown.stat().st_size > 10_000, 60, "the first lines")
        memory = psutil.Process(run.pid)
        before = memory.memory_info().rss
        server.kill()
        sizes, ends = [], time.monotonic() + OUTAGE
        while time.monotonic() < ends:
            time.sleep(1)
            assert run.poll() is None
            sizes.append(memory.memory_info().rss)
        on_disk = spooled(run.pid)
        server.start()
        back = time.monotonic()
        done.touch()
        assert run.wait(300) == 0
        took = time.monotonic() - back
    events = [event for event in cli.json("logs", "steady") if event.get("offset")]
    assert [event["offset"] for event in events] == list(range(1, len(events) + 1))
    written = "".join(event["data"]["text"] for event in events if event["type"] == "output")
    assert written == shown.read_text()
    count, pause = read_lines(written)
    print(
        f"{OUTAGE:g} s away: {count} lines in {len(events)} events, longest pause {pause * 1000:.0f} ms; "
        f"{on_disk / 1e6:.1f} MB on disk, {(max(sizes) - before) / 1e6:.1f} MB more memory; "
        f"ended {took:.1f} s after the server was back"
    )
    assert pause < 5
    assert list((tmp_path / "natsproc" / "spool").glob("*")) == []
