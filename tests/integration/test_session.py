"""A wrapped command as the OS sees it: real processes, signals that reach all of them, and nothing left over."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from harness import wait_for
from wrapping import DEADLINE

from natsproc.command.pump import Pump
from natsproc.command.session import Ended, Session
from natsproc.command.stdin import Feeder
from natsproc.command.terminal import Size, Terminal


@asynccontextmanager
async def started(*argv: str, **options: object) -> AsyncIterator[Session]:
    """A session without a terminal, whose output nobody reads, that is gone at the end of the test."""
    nothing = os.open(os.devnull, os.O_RDWR)
    streams = {"stdin": nothing, "stdout": nothing, "stderr": nothing} | options
    session = await Session.start(argv, env=dict(os.environ), **streams)  # type: ignore[arg-type]
    os.close(nothing)
    try:
        yield session
    finally:
        await session.close()


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        await asyncio.sleep(0.01)


def state(pid: int) -> str:
    """A letter as in ps, or an empty string for a pid that is gone, zombies included."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return ""


def name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.NoSuchProcess:
        return ""


async def pids_in(folder: Path, count: int) -> list[int]:
    """The pids that `count` processes have written into a folder, as the names of files."""
    await until(lambda: len(list(folder.iterdir())) >= count)
    return [int(file.name) for file in folder.iterdir()]


def family(folder: Path, trap: str = "") -> tuple[str, ...]:
    """A shell with a job of its own group, a setsid child, and an escaped grandchild: four pids in `folder`."""
    one = f"{trap} touch {folder}/$BASHPID; while ((SECONDS < 120)); do sleep 0.05; done"
    return (
        "bash",
        "-c",
        f"set -m; bash -c '{one}' & setsid bash -c '{one}' & (setsid bash -c '{one}' & exit) ; {one}",
    )


async def ended(*argv: str) -> Ended:
    async with started(*argv) as session:
        async with asyncio.timeout(DEADLINE):
            result = await session.ended()
            assert await session.gone(DEADLINE)
        return result


@pytest.mark.parametrize(
    ("script", "result"),
    [
        ("exit 0", Ended(0)),
        ("exit 3", Ended(3)),
        ("exit 255", Ended(255)),
        ("kill -TERM $$", Ended(143, signal.SIGTERM)),
        ("kill -KILL $$", Ended(137, signal.SIGKILL)),
    ],
)
async def test_exit_codes_and_signals_come_through_the_guard(script: str, result: Ended) -> None:
    assert await ended("sh", "-c", script) == result


async def test_a_command_that_is_missing_or_cannot_run_says_so(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("no program")
    with pytest.raises(FileNotFoundError):
        await ended("no-such-command-of-ours")
    with pytest.raises(PermissionError):
        await ended(str(tmp_path / "plain"))


async def test_a_command_starts_with_ordinary_signals_and_its_own_session() -> None:
    ordinary = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGPIPE, signal.SIGCHLD, signal.SIGTSTP)
    status = Path("/proc/self/status").read_text()
    inherited = int(status.split("SigIgn:")[1].split()[0], 16)  # what we ignore ourselves, as under `nohup`
    for number in ordinary:
        inherited &= ~(1 << number - 1)
    check = (
        f"test $(( 0x$(sed -n 's/SigIgn:.//p' /proc/self/status) & ~{inherited} )) -eq 0"
        " && grep -q 'SigBlk:.*0000000000000000' /proc/self/status"
    )
    assert await ended("sh", "-c", check) == Ended(0)
    assert await ended(*python("import os; os._exit(0 if os.getsid(0) == os.getpid() else 1)")) == Ended(0)


async def test_pause_stops_jobs_setsid_children_and_escapees_and_resume_wakes_them(tmp_path: Path) -> None:
    async with started(*family(tmp_path)) as session:
        pids = await pids_in(tmp_path, 4)
        assert await session.pause() == 0
        assert [state(pid) for pid in pids] == ["T"] * 4
        assert all(state(pid) in "TZD" for pid in session.members())
        await session.resume()
        assert not [pid for pid in pids if state(pid) == "T"]


async def test_interrupt_reaches_jobs_and_setsid_children(tmp_path: Path) -> None:
    told = tmp_path / "told"
    told.mkdir()
    (tmp_path / "pids").mkdir()
    # children of `&` ignore SIGINT by POSIX where there is no job control; python takes it back
    code = f"""
import os, signal, time
def heard(*_):
    open(f'{told}/{{os.getpid()}}', 'w').close()
    os._exit(0)
signal.signal(signal.SIGINT, heard)
open(f'{tmp_path}/pids/{{os.getpid()}}', 'w').close()
for _ in range(120): time.sleep(1)
"""
    script = tmp_path / "heard.py"
    script.write_text(code)
    run = f"{sys.executable} {script}"
    async with started(
        "bash", "-c", f"set -m; {run} & setsid {run} & (setsid {run} & exit); exec {run}"
    ) as session:
        pids = await pids_in(tmp_path / "pids", 4)
        await session.signal(signal.SIGINT)
        assert sorted(await pids_in(told, 4)) == sorted(pids)
        assert await session.gone(DEADLINE)


async def test_cancel_kills_what_ignores_sigterm_after_the_grace(tmp_path: Path) -> None:
    async with started(*family(tmp_path, 'trap "" TERM;')) as session:
        pids = await pids_in(tmp_path, 4)
        assert await session.cancel(grace=0.3)
        assert not [pid for pid in pids if state(pid)]
        assert (await session.ended()).code == 137


async def test_cancel_leaves_time_to_end_in_order() -> None:
    out, write = os.pipe()
    argv = (
        "bash",
        "-c",
        'trap "sleep 0.3; echo saved; exit 7" TERM; echo ready; while :; do sleep 0.01; done',
    )
    async with started(*argv, stdout=write) as session:
        os.close(write)
        assert os.read(out, 100) == b"ready\n"
        assert await session.cancel(grace=DEADLINE)
        assert os.read(out, 100) == b"saved\n"
        assert await session.ended() == Ended(7)
    os.close(out)


async def test_how_it_ended_is_not_lost_to_a_guard_that_is_gone_before_it_is_told_something():
    """As under load: all of it happens between two turns of our loop, and then a line is written to nobody."""
    async with started("sleep", "1000") as session:
        os.kill(session.pid, signal.SIGTERM)
        wait_for(lambda: state(session._guard.pid) in ("Z", ""))  # our loop stands still
        await session.resume()
        assert await session.ended() == Ended(143, signal.SIGTERM)


async def test_cancel_reaches_what_is_paused(tmp_path: Path) -> None:
    async with started(*family(tmp_path)) as session:
        pids = await pids_in(tmp_path, 4)
        await session.pause()
        assert await session.cancel(grace=DEADLINE)
        assert not [pid for pid in pids if state(pid)]
        assert (await session.ended()).signal == signal.SIGTERM


async def test_kill_ends_what_is_paused_and_leaves_no_zombie(tmp_path: Path) -> None:
    async with started(*family(tmp_path)) as session:
        pids = await pids_in(tmp_path, 4)
        await session.pause()
        assert await session.kill()
        assert not [pid for pid in pids if state(pid)]


async def test_kill_outruns_a_program_that_keeps_forking(tmp_path: Path) -> None:
    code = f"""
import os, time
for _ in range(40):
    if os.fork() == 0:
        os.setsid()
        while True:
            time.sleep(0.002)
            if os.fork() == 0:
                os.setsid()
            else:
                os._exit(0)
open({str(tmp_path / "ready")!r}, "w").close()
time.sleep(100)
"""
    async with started(*python(code)) as session:
        await until((tmp_path / "ready").exists)
        assert await session.kill(timeout=DEADLINE)
        everything = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
        assert not [cmdline for cmdline in everything if code in cmdline and "-I" not in cmdline]


async def test_gone_waits_for_what_the_command_leaves_behind(tmp_path: Path) -> None:
    async with started(
        "bash", "-c", f"(setsid bash -c 'touch {tmp_path}/$$; sleep 100' & exit); sleep 0.2"
    ) as session:
        (pid,) = await pids_in(tmp_path, 1)
        assert await session.ended() == Ended(0)
        assert not await session.gone(timeout=0.2)
        assert pid in session.members()
        assert await session.cancel(grace=DEADLINE)
        assert not state(pid)


# Under a terminal.


@asynccontextmanager
async def on_terminal(
    *argv: str,
) -> AsyncIterator[tuple[Session, Terminal, Feeder, Callable[[str], Awaitable[None]]]]:
    """A session on a terminal of 30 rows of 100; `shows(text)` waits until it has written that."""
    terminal = Terminal(Size(30, 100))
    said: list[str | bytes] = []
    pump = Pump(os.dup(terminal.master), "stdout", lambda chunk, _: said.append(chunk))
    feeder = Feeder(os.dup(terminal.master), terminal)
    slave = terminal.slave
    pump.start()
    env = os.environ | {"PS1": "$ ", "TERM": "xterm"}
    session = await Session.start(argv, stdin=slave, stdout=slave, stderr=slave, env=env, terminal=True)
    os.close(slave)

    async def shows(text: str) -> None:
        await until(lambda: text in "".join(map(str, said)))

    try:
        yield session, terminal, feeder, shows
    finally:
        await session.close()
        feeder.close()
        os.close(terminal.master)
        await asyncio.to_thread(pump.join, DEADLINE)


async def test_a_terminal_is_the_controlling_one_and_has_a_size() -> None:
    async with on_terminal("sh", "-c", "stty size; tty < /dev/tty >/dev/null && echo is a tty; cat") as (
        _,
        tty,
        _,
        shows,
    ):
        await shows("30 100")
        await shows("is a tty")
        tty.resize(Size(10, 20))
    code = """
import os, signal, time
signal.signal(signal.SIGWINCH, lambda *_: print('now', *os.get_terminal_size(), flush=True))
print('ready', flush=True)
while True: time.sleep(0.1)
"""
    async with on_terminal(*python(code)) as (_, tty, _, shows):
        await shows("ready")
        tty.resize(Size(10, 20))
        await shows("now 20 10")


async def test_interrupt_under_a_terminal_reaches_the_foreground_job_only() -> None:
    async with on_terminal("bash", "--norc", "-i") as (session, tty, feeder, shows):
        await shows("$ ")
        feeder.put(b"PS1='re''ady> '; sleep 1000\n")
        await until(lambda: name(os.tcgetpgrp(tty.master)) == "sleep")
        assert tty.interrupt() == b""
        await shows("ready> ")
        feeder.put(b"echo code-$?\n")
        await shows("code-130")
        assert not session.is_gone


async def test_interrupt_of_a_program_that_reads_raw_keys_is_the_key() -> None:
    code = "import tty, os; tty.setraw(0); os.write(1, b'ready'); os.write(1, b'got %r' % os.read(0, 1))"
    async with on_terminal(*python(code)) as (_, tty, feeder, shows):
        await shows("ready")
        feeder.put(tty.interrupt())
        await shows(r"got b'\x03'")


async def test_a_shell_with_job_control_does_not_notice_a_pause() -> None:
    async with on_terminal("bash", "--norc", "-i") as (session, tty, feeder, shows):
        await shows("$ ")
        feeder.put(b"sleep 1; echo finished-$?\n")
        await until(lambda: name(os.tcgetpgrp(tty.master)) == "sleep")
        for _ in range(5):
            assert await session.pause() == 0
            await session.resume()
        await shows("finished-0")


async def test_end_of_input_under_a_terminal_also_within_a_line() -> None:
    async with on_terminal("cat") as (session, _, feeder, shows):
        feeder.put(b"no newline")
        await shows("no newline")
        feeder.end()
        async with asyncio.timeout(DEADLINE):
            assert await session.ended() == Ended(0)


# Its input.


async def test_input_and_its_end_arrive_and_a_command_that_does_not_read_blocks_nothing() -> None:
    read, write = os.pipe()
    out, stdout = os.pipe()
    async with started(
        "bash", "-c", "read go < <(sleep 0.5; echo); wc -c", stdin=read, stdout=stdout
    ) as session:
        os.close(read)
        os.close(stdout)
        feeder = Feeder(write)
        assert feeder.put(b"x" * 500_000)  # more than a pipe holds, and nobody reads yet
        await feeder.room()
        feeder.end()
        assert await session.ended() == Ended(0)
        assert os.read(out, 100).split() == [b"500000"]
        assert not feeder.put(b"late")
        feeder.close()
    os.close(out)
