"""If natsproc dies, by whatever means, nothing of what it ran runs on unseen."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from harness import wait_for
from wrapping import DEADLINE

from natsproc.command.session import Ended, Session

WRAPPER = """
import asyncio, os, sys
from natsproc.command.session import Session

async def main():
    nothing = os.open(os.devnull, os.O_RDWR)
    session = await Session.start(sys.argv[2:], env=os.environ, stdin=nothing, stdout=nothing, stderr=nothing)
    if sys.argv[1] == "forks" and os.fork() == 0:
        print("forked", os.getpid(), flush=True)
        import time; time.sleep(1000)
    print("started", os.getpid(), flush=True)
    print("ended", *await session.ended(), flush=True)
    await session.gone()

asyncio.run(main())
"""

LOOP = "touch {folder}/$BASHPID; while ((SECONDS < 120)); do sleep 0.05; done"
FAMILY = "set -m; trap '' TERM INT HUP; bash -c '{loop}' & setsid bash -c '{loop}' & (setsid bash -c '{loop}' & exit); {loop}"


def is_gone(pid: int) -> bool:
    """Whether there is no such process, not even a zombie."""
    return not Path(f"/proc/{pid}").exists()


@contextmanager
def wrapper(folder: Path, forks: bool = False) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A natsproc of sorts that runs four processes, and their pids; all of it ignores gentle signals."""
    loop = LOOP.format(folder=folder)
    command = ["bash", "-c", FAMILY.format(loop=loop)]
    argv = [sys.executable, "-c", WRAPPER, "forks" if forks else "plain", *command]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)
    pids: list[int] = []
    try:
        wait_for(lambda: len(list(folder.iterdir())) == 4, what="four processes")
        pids = [int(file.name) for file in folder.iterdir()]
        yield process, pids
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        for pid in pids:
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)


def test_nothing_survives_a_natsproc_that_is_killed(tmp_path: Path) -> None:
    with wrapper(tmp_path) as (process, pids):
        guard = psutil.Process(process.pid).children()[0]
        process.kill()
        process.wait(10)
        wait_for(lambda: all(map(is_gone, pids)), DEADLINE, f"the end of {pids}")
        wait_for(lambda: not guard.is_running(), what="the end of the guard")


def test_a_forked_child_that_holds_the_socket_saves_nobody(tmp_path: Path) -> None:
    with wrapper(tmp_path, forks=True) as (process, pids):
        process.kill()
        process.wait(10)
        wait_for(lambda: all(map(is_gone, pids)), DEADLINE, f"the end of {pids}")


def test_signals_from_the_terminal_and_to_the_guard_do_not_end_it(tmp_path: Path) -> None:
    with wrapper(tmp_path) as (process, pids):
        guard = psutil.Process(process.pid).children()[0]
        assert os.getpgid(guard.pid) != os.getpgid(process.pid)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
            guard.send_signal(number)
        process.kill()
        process.wait(10)
        wait_for(lambda: all(map(is_gone, pids)), DEADLINE, f"the end of {pids}")


def test_a_stopped_command_does_not_survive_either(tmp_path: Path) -> None:
    with wrapper(tmp_path) as (process, pids):
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        process.kill()
        process.wait(10)
        wait_for(lambda: all(map(is_gone, pids)), DEADLINE, f"the end of {pids}")


async def test_a_killed_guard_takes_the_command_along_and_natsproc_notices() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    argv = ["bash", "-c", "sleep 1000 & sleep 1000"]
    session = await Session.start(argv, env=os.environ, stdin=nothing, stdout=nothing, stderr=nothing)
    os.close(nothing)
    guard = psutil.Process(session.pid).parent()
    members = [psutil.Process(pid) for pid in session.members()]
    guard.kill()
    async with asyncio.timeout(20):
        assert await session.ended() == Ended(137, signal.SIGKILL)
        assert await session.gone()
    assert not [m for m in members if m.is_running() and m.status() != psutil.STATUS_ZOMBIE]
    assert await session.kill()
    assert await session.signal(signal.SIGINT) == 0
    await session.close()


def test_a_command_that_has_ended_is_told_exactly(tmp_path: Path) -> None:
    run = [sys.executable, "-c", WRAPPER, "plain", "sh", "-c", "kill -USR1 $$"]
    done = subprocess.run(run, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1].split()[:3] == [
        "ended",
        str(128 + signal.SIGUSR1),
        str(int(signal.SIGUSR1)),
    ]


@pytest.fixture(autouse=True)
def _no_guard_is_left() -> Iterator[None]:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    yield
    wait_for(
        lambda: {p.pid for p in psutil.Process().children(recursive=True)} <= before, what="no process left"
    )
