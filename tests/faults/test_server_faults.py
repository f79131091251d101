"""The embedded server through kills, reboots, hang-ups and many starters at once."""

import asyncio
import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import pytest
from harness import binary, wait_for
from homes import NATSPROC, a_home, connect, is_gone, natsproc, servers_of
from wrapping import DEADLINE

import natsproc as sdk
from natsproc.errors import Error, NoServer
from natsproc.protocol.names import Address, Names
from natsproc.server import embedded
from natsproc.server.find import find

EVENTS = Names().events(Address("default", "a-process"))


@pytest.fixture
def home(tmp_path, monkeypatch):
    with a_home(tmp_path / "home", monkeypatch) as home:
        yield home


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: is_gone(pid), what=f"the end of {pid}")


def wait_for_restart(home, times: int) -> None:
    wait_for(
        lambda: (now := embedded.status(home))["running"] and now["restarts"] == times, what="the restart"
    )


async def store(home, payload: bytes) -> int:
    """Store an event and return its position."""
    connection = await connect(home)
    try:
        return (await connection.store(EVENTS, payload))["seq"]
    finally:
        await connection.close()


async def test_a_killed_server_is_back_on_the_same_port_with_what_was_acknowledged(home):
    embedded.start(home)
    before = embedded.status(home)
    await store(home, b"kept")
    for restarts in (1, 2):
        kill(embedded.status(home)["pid"])
        wait_for_restart(home, restarts)
    after = embedded.status(home)
    assert after["running"]
    assert (after["url"], after["supervisor"]) == (before["url"], before["supervisor"])
    assert servers_of(home) == [after["pid"]]
    assert after["pid"] != before["pid"]
    assert await store(home, b"next") == 2


async def test_a_killed_supervisor_takes_nothing_with_it_and_up_recovers(home):
    embedded.start(home)
    before = embedded.status(home)
    await store(home, b"kept")
    kill(before["supervisor"])
    # a child that it was just starting, its gate, has the lock until it is one
    wait_for(lambda: embedded.status(home)["supervisor"] is None, what="the supervisor's lock to be let go")
    orphaned = embedded.status(home)
    assert (orphaned["running"], orphaned["pid"], orphaned["supervisor"]) == (True, before["pid"], None)
    assert find().servers == (before["url"],)  # it still serves

    assert embedded.start(home)
    after = embedded.status(home)
    assert servers_of(home) == [after["pid"]]
    assert after["url"] == before["url"]
    assert is_gone(before["pid"])
    kill(after["pid"])  # and it is supervised again
    wait_for_restart(home, 1)
    assert await store(home, b"next") == 2


def test_down_stops_an_orphan(home):
    embedded.start(home)
    status = embedded.status(home)
    kill(status["supervisor"])
    assert embedded.stop(home)
    assert servers_of(home) == []


def test_a_reboot_leaves_nothing_that_misleads(home):
    embedded.start(home)
    status = embedded.status(home)
    kill(status["supervisor"])
    kill(status["pid"])
    wait_for(lambda: not home.running, what="both locks to be let go")
    with pytest.raises(NoServer, match="natsproc up"):
        find()
    assert embedded.status(home) == {"running": False, "home": str(home.folder)}

    # the system has given their process ids to somebody else
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    for lock in (home.supervisor, home.server):
        lock.path.write_text(str(bystander.pid))
    try:
        assert not embedded.stop(home)
        assert embedded.start(home)
        assert embedded.status(home)["url"] == status["url"]
        assert embedded.stop(home)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_many_starters_start_one_server(home):
    with ThreadPoolExecutor(5) as pool:
        done = list(pool.map(lambda _: natsproc("up"), range(5)))
    assert [each.returncode for each in done] == [0] * 5, [each.stderr for each in done]
    assert sorted("started a nats-server" in each.stderr for each in done) == [False] * 4 + [True]
    assert servers_of(home) == [embedded.status(home)["pid"]]


def test_homes_that_start_at_once_do_not_share_a_port(tmp_path, monkeypatch):
    with contextlib.ExitStack() as stack:
        homes = [stack.enter_context(a_home(tmp_path / name, monkeypatch)) for name in "abc"]
        with ThreadPoolExecutor(3) as pool:  # all three with the same default ports
            assert list(pool.map(embedded.start, homes)) == [True] * 3
        assert len({embedded.status(home)["url"] for home in homes}) == 3
        assert all(embedded.status(home)["running"] for home in homes)


def test_it_outlives_the_terminal_that_started_it(home):
    terminal, other_end = pty.openpty()
    shell = subprocess.Popen(
        ["sh", "-c", f"{NATSPROC} up; exec sleep 1000"],
        stdin=other_end, stdout=other_end, stderr=other_end, start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # the controlling terminal
    )  # fmt: skip
    os.close(other_end)
    try:
        wait_for(lambda: embedded.status(home)["running"], what="the server")
        status = embedded.status(home)
        sessions = {os.getsid(pid) for pid in (status["pid"], status["supervisor"])}
        assert os.getsid(shell.pid) not in sessions
        wait_for(lambda: psutil.Process(shell.pid).name() == "sleep", what="the end of `natsproc up`")
    finally:
        os.close(terminal)  # hangs up
        assert shell.wait(10) == -signal.SIGHUP
    for pid in (status["pid"], status["supervisor"]):
        os.kill(pid, signal.SIGHUP)  # what a hang-up at the wrong moment sends
    assert embedded.status(home) == status
    time.sleep(0.3)  # no condition to wait for: it must not end
    assert embedded.status(home) == status


def test_a_supervisor_that_is_told_to_stop_stops_its_server(home):
    embedded.start(home)
    status = embedded.status(home)
    os.kill(status["supervisor"], signal.SIGTERM)
    wait_for(lambda: is_gone(status["pid"]) and is_gone(status["supervisor"]), what="the end of both")
    assert not home.running


def test_a_server_that_keeps_failing_is_said_and_tried_again(home, tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    program = tmp_path / "nats-server"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] || [ ! -e {broken} ] || {{ echo out of luck >&2; exit 1; }}\n'
        f'exec {binary()} "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("NATSPROC_NATS_SERVER", str(program))
    embedded.start(home)
    broken.touch()
    kill(embedded.status(home)["pid"])
    wait_for(lambda: "out of luck" in home.last_words(), what="the first failure")
    said = natsproc("status")
    assert said.returncode == 4
    assert "does not answer" in said.stderr
    assert "out of luck" in said.stderr
    monkeypatch.setattr(embedded, "READY_SECONDS", 0.5)
    with pytest.raises(Error, match=r"does not come up(.|\n)*out of luck"):
        embedded.start(home)
    broken.unlink()
    wait_for(lambda: embedded.status(home)["running"], what="the recovery")


def test_a_server_that_does_not_heed_sigterm_is_killed(home):
    embedded.start(home)
    status = embedded.status(home)
    kill(status["supervisor"])
    os.kill(status["pid"], signal.SIGSTOP)
    assert home.server.stop_holder(grace=0.3)
    assert is_gone(status["pid"])


def test_a_command_waits_for_a_server_that_is_being_started(home):
    embedded.start(home)
    with ThreadPoolExecutor(1) as pool:
        with home.changing():
            embedded_stop_and_go = pool.submit(find)
            time.sleep(0.2)  # no condition to wait for: it must not have answered
            assert not embedded_stop_and_go.done()
        assert embedded_stop_and_go.result(10).servers == (embedded.status(home)["url"],)


async def test_a_server_that_has_moved_is_found_and_a_stranger_in_its_place_is_told_nothing(home):
    embedded.start(home)
    heard: list[bytes] = []

    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b'INFO {"server_name":"stranger","version":"2.11.0","headers":true,"max_payload":9999}\r\n'
        )
        heard.append(await reader.read(1000))
        writer.close()

    async with sdk.connect() as mesh, sdk.connect() as viewer, mesh.own("movable") as proc:
        tail = viewer.process("movable").tail(types=["log"])
        await anext(tail)  # caught up
        port = home.load().port
        await asyncio.to_thread(embedded.stop, home)
        async with await asyncio.start_server(stranger, "127.0.0.1", port), asyncio.timeout(DEADLINE):
            while len(heard) < 6:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(embedded.start, home)
            assert home.load().port != port
            await proc.log("moved")
            await proc.flush()
            while (item := await anext(tail)).type != "log":
                pass
            assert item.data["text"] == "moved"
            assert viewer.url == home.load().url
    assert set(heard) == {b""}


def test_a_stranger_in_the_place_of_our_server_is_not_taken_for_it(home):
    """As when it took the port while nats-server was being started again."""
    embedded.start(home)
    endpoint = find()
    home.save(replace(home.load(), name="another"))
    with pytest.raises(NoServer, match="stranger"):
        sdk.Mesh(lambda: endpoint, Names(), "default").open()
