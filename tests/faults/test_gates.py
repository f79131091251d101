"""Several gates at once, one of which is killed again and again in the middle of reads, messages and an owner's writes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from contextlib import ExitStack, contextmanager

import pytest
from granting import granted
from harness import wait_for
from homes import NATSPROC, a_home

import natsproc as np
from natsproc.access import Authority, write_private
from natsproc.server import embedded
from natsproc.server.gate import RIGHTS, SENDER

ROUNDS, EACH = 4, 400


@pytest.fixture
def home(tmp_path, monkeypatch):
    with a_home(tmp_path / "home", monkeypatch) as home:
        embedded.start(home)
        text = Authority.load(home.keys).credential(SENDER, RIGHTS)
        write_private(home.folder / "gate.creds", text)
        yield home


@contextmanager
def a_gate(home):
    """A gate of its own, as somebody runs it elsewhere; killed in the end."""
    log = home.folder / "gate.log"
    with log.open("a") as out:
        before = log.read_text().count("the gate answers")
        process = subprocess.Popen(
            [NATSPROC, "gate", "--server", home.load().url, "--creds", home.folder / "gate.creds"],
            stderr=out,
            stdin=subprocess.DEVNULL,
        )
    try:
        wait_for(lambda: log.read_text().count("the gate answers") > before, what="a gate")
        yield process
    finally:
        process.kill()
        process.wait()


async def complete(handle):
    """All that its log has so far, read from its first event: each offset once."""
    found = [item async for item in handle.tail(follow=False) if isinstance(item, np.Event)]
    assert [event.offset for event in found] == list(range(1, len(found) + 1))
    return found


async def test_one_of_three_that_is_killed_costs_nothing(home):
    sent, read = [], 0
    with ExitStack() as gates:
        running = [gates.enter_context(a_gate(home)) for _ in range(2)]  # and the server's own
        async with (
            granted(home, "worker", "own", "job") as mesh,
            granted(home, "viewer", "watch,send", "job") as other,
            mesh.own("job") as proc,
            asyncio.timeout(120),
        ):
            handle, over = other.process("job"), asyncio.Event()
            following = asyncio.create_task(followed(handle, "end"))

            async def send():
                while not over.is_set():
                    await handle.send(len(sent))
                    sent.append(len(sent))

            async def read_again():
                nonlocal read
                while not over.is_set():
                    await complete(handle)
                    read += 1

            busy = [asyncio.create_task(send()), asyncio.create_task(read_again())]
            for round in range(ROUNDS):
                for n in range(EACH):
                    await proc.emit("said", round * EACH + n)
                    if n == EACH // 2:
                        running[round % 2].send_signal(signal.SIGSTOP)
                        await stalled(sent)
                        running[round % 2].kill()
                await proc.flush()
                running[round % 2] = await asyncio.to_thread(gates.enter_context, a_gate(home))
            over.set()
            await asyncio.gather(*busy)
            received = [(await proc.receive()).data for _ in sent]
            await proc.emit("end", None)
            await proc.flush()
            shown = await following
            assert received == sent
            assert [event.offset for event in shown] == list(range(1, len(shown) + 1))
            assert [event.data for event in shown if event.type == "said"] == list(range(ROUNDS * EACH))
            assert (await complete(handle))[: len(shown)] == shown
    assert read
    assert sent


async def stalled(sent):
    """Return when a message lies with the gate that was stopped: then no other one is sent."""
    count = -1
    while count != len(sent):
        count = len(sent)
        await asyncio.sleep(0.2)


async def followed(handle, last):
    """What a tail shows up to the first event of that type."""
    found = []
    async for item in handle.tail():
        if isinstance(item, np.Event):
            found.append(item)
            if item.type == last:
                return found
