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
from natsproc.bus import inbox
from natsproc.server import embedded
from natsproc.server.gate import RIGHTS, SENDER

ROUNDS, EACH = 4, 400
SENDERS = 4


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
    sent, read = [0] * SENDERS, 0
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

            async def send(sender):
                while not over.is_set():
                    data = [sender, sent[sender]]  # with time to meet what is stopped more than once
                    storing = inbox.send(other.connection, other.names, handle.address, data, timeout=60)
                    await other.io.call(storing)
                    sent[sender] += 1

            async def read_again():
                nonlocal read
                while not over.is_set():
                    await complete(handle)
                    read += 1

            busy = [asyncio.create_task(send(n)) for n in range(SENDERS)]
            busy.append(asyncio.create_task(read_again()))
            for round in range(ROUNDS):
                for n in range(EACH):
                    await proc.emit("said", round * EACH + n)
                    if n == EACH // 2:
                        running[round % 2].send_signal(signal.SIGSTOP)
                        await lies_there(other, busy)
                        running[round % 2].kill()
                await proc.flush()
                running[round % 2] = await asyncio.to_thread(gates.enter_context, a_gate(home))
            over.set()
            await asyncio.gather(*busy)
            received = [(await proc.receive()).data for _ in range(sum(sent))]
            await proc.emit("end", None)
            await proc.flush()
            shown = await following
            for n, count in enumerate(sent):
                assert [number for sender, number in received if sender == n] == list(range(count))
            assert [event.offset for event in shown] == list(range(1, len(shown) + 1))
            assert [event.data for event in shown if event.type == "said"] == list(range(ROUNDS * EACH))
            assert (await complete(handle))[: len(shown)] == shown
    assert read
    assert all(sent)


async def lies_there(mesh, senders):
    """Return when a message of that mesh lies with the gate that was stopped: any other takes it in a moment."""
    clock, since = asyncio.get_running_loop().time, {}
    while not any(clock() - asked > 1.0 for asked in since.values()):
        if any(sender.done() for sender in senders):
            return  # it says why when it is waited for
        await asyncio.sleep(0.05)
        waiting = [token for token, where in list(mesh.connection._asking.items()) if ".send." in where]
        since = {token: since.get(token, clock()) for token in waiting}


async def followed(handle, last):
    """What a tail shows up to the first event of that type."""
    found = []
    async for item in handle.tail():
        if isinstance(item, np.Event):
            found.append(item)
            if item.type == last:
                return found
