"""The OS processes of a torture run: nodes that own processes, viewers, and senders. Each records what it was told.

A configuration has name, url, record (a file), seed, addresses, and flag (a file: `drain` means to emit nothing more,
`end` to end the last runs).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import natsproc
from natsproc.bus import checkpoints, tail
from natsproc.bus.writer import Writer

from .checker import DROPPING, digest

BIG = 40_000  #: bytes of an event that the server refuses while its stream's limit is low

# Bounds so low that a run reaches them again and again.
Writer.__init__.__kwdefaults__["max_events"] = 500  # type: ignore[index]
tail.BUFFER = 400
checkpoints.PLACE_EVERY = 300

_CLONE_NEWNET = 0x40000000

SPOOLED = ("p1", "p4")  #: what these say waits on disk when the buffer is full

PASSING = (natsproc.NoServer, natsproc.TimedOut, natsproc.NoMesh, natsproc.ServerUnfit)


class Actor:
    """One OS process: its configuration, its random numbers, and its record."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.name: str = config["name"]
        self.sender: str = self.name.partition(".")[0]
        self.addresses: list[str] = config["addresses"]
        self.config = config
        self.random = random.Random(config["seed"])
        self.flag = Path(config["flag"])
        self._record = os.open(config["record"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.signals = {signal.SIGUSR1: 0, signal.SIGUSR2: 0}

    def record(self, what: str, address: str, *fields: Any) -> None:
        """Write a line; what is written survives a kill -9."""
        os.write(self._record, json.dumps([what, address, self.name, *fields]).encode() + b"\n")

    @property
    def phase(self) -> str:
        """`drain`, `end`, or nothing."""
        with contextlib.suppress(OSError):
            return self.flag.read_text()
        return ""

    async def run(self, work: Callable[[natsproc.Mesh, str], Any]) -> None:
        """Work on every address until all are done, over one connection."""
        for number in self.signals:
            asyncio.get_running_loop().add_signal_handler(number, self._count, number)
        while True:
            try:
                async with natsproc.connect(self.config["url"], sender=self.sender) as mesh:
                    await asyncio.gather(*(work(mesh, address) for address in self.addresses))
                return
            except (*PASSING, natsproc.Error) as error:
                if not isinstance(error, PASSING):
                    raise
                await asyncio.sleep(0.3)

    def _count(self, number: signal.Signals) -> None:
        self.signals[number] += 1

    def take(self, number: signal.Signals) -> bool:
        """Whether that signal came, and was not taken yet."""
        taken = self.signals[number] > 0
        self.signals[number] -= taken
        return taken


class Owner(Actor):
    """A node: owns up to `most` of the addresses at a time, whichever are free."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.places = asyncio.Semaphore(config["most"])

    async def work(self, mesh: natsproc.Mesh, address: str) -> None:
        while True:
            async with self.places:
                if await self.own(mesh, address):
                    return
            await asyncio.sleep(self.random.uniform(0.2, 0.8))

    async def own(self, mesh: natsproc.Mesh, address: str) -> bool:
        """Have the id for one run or a part of it; returns whether it has ended for good."""
        status, epoch, run = "completed", 0, 0
        life: Life | None = None
        try:
            options: dict[str, Any] = {"restart": self.phase != "end", "allow": ("idle", "next", "now")}
            if address in SPOOLED + DROPPING:
                options["when_full"] = "spool" if address in SPOOLED else "drop"
            async with mesh.own(address, kind="tortured", **options) as proc:
                epoch, run = proc.epoch, proc.run_number
                self.record("claimed", address, epoch, run)
                life = Life(self, proc)
                await life.live()
                if self.random.random() < 0.2 and not self.phase:
                    status = "failed"
                    raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        except natsproc.Interrupted as stop:  # outside its scope
            status = "interrupted"
            if stop.received and life:
                life.taken.append(stop.received.id)
        except natsproc.AlreadyRunning:
            return False
        except natsproc.AlreadyEnded:
            return True
        except natsproc.OwnershipLost:
            if epoch:  # else somebody else was faster
                self.record("lost", address, epoch)
            return False
        except natsproc.TooLarge:
            self.record("refused", address, epoch, run)
            return False
        except PASSING:
            return False
        self.record("ended", address, epoch, run, status)
        if life and life.keeps_state:
            self.record("kept", address, epoch, run, life.taken)
        return self.phase == "end"


class Life:
    """What one owned process does: emits numbered events, takes messages, is interrupted, and flushes."""

    def __init__(self, actor: Owner, proc: natsproc.Process) -> None:
        self.actor = actor
        self.proc = proc
        self.number = 0  #: of the last tick that was said, though it may be dropped
        self.offset = self.said = 0  #: of the last one of which that is known, and its number
        self.events: dict[int, int] = {}
        self.rate = actor.config["rate"]
        self.taken: list[str] = []  #: the messages of this run
        self.keeps_state = int(proc.id[1:]) % 2 == 0
        self.drops = proc.id in DROPPING

    async def live(self) -> None:
        actor = self.actor
        if self.keeps_state:
            await self.begin()
        for _ in range(int(actor.random.expovariate(1 / 400)) + 20):
            if actor.phase:
                break
            await self.interruptible(self.step)
        while actor.phase == "drain":
            await self.interruptible(self.rest)
        await self.interruptible(self.rest)

    async def begin(self) -> None:
        """Go on with the state that was saved last; nothing is taken before there is one."""
        proc = self.proc
        if proc.state:
            self.taken = list(proc.state["taken"])
        self.actor.record("began", proc.id, proc.epoch, proc.run_number, self.taken)
        if not proc.state:
            await self.save()

    async def save(self) -> None:
        padding = self.actor.random.choice((0, 0, 0, 10_000, 700_000))
        offset = self.offset
        await self.proc.checkpoint({"taken": self.taken, "pad": "z" * padding})
        self.actor.record("saved", self.proc.id, self.proc.epoch, self.proc.run_number, offset)

    async def interruptible(self, work: Callable[[], Awaitable[None]]) -> None:
        """Work until an interrupt ends it: what it had said in a turn by then is stored, and counts."""
        try:
            async with self.proc.interruptible():
                await work()
        except natsproc.Interrupted as stop:
            if stop.received:
                self.taken.append(stop.received.id)
            if stop.partial and (said := stop.partial.events):
                events = {event.offset: digest(event.type, event.data) for event in said}
                self.actor.record("acknowledged", self.proc.id, self.proc.epoch, said[-1].offset, events)

    async def rest(self) -> None:
        await self.receive(0.3)
        await self.proc.flush()

    async def step(self) -> None:
        actor = self.actor
        for _ in range(actor.random.randint(1, 2 * self.rate // 10)):
            await self.emit(actor.random.choice((0, 10, 100, 1000)))
        if actor.take(signal.SIGUSR1):
            await self.emit(BIG)
        if actor.take(signal.SIGUSR2):
            for number in range(1100):
                began = time.monotonic()
                await self.emit(0 if number % 6 else 19_000)
                if time.monotonic() > began + 0.3:
                    actor.record("full", self.proc.id)
        await self.receive(actor.random.uniform(0.05, 0.15))
        if actor.random.random() < 0.3:
            await self.flush()
        if self.keeps_state and actor.random.random() < 0.1:
            await self.save()

    async def emit(self, padding: int) -> None:
        data = {"by": self.actor.name, "n": self.number + 1, "pad": "x" * padding}
        before = self.proc._appended
        try:
            self.offset = await self.proc.emit("tick", data)
        finally:
            self.number += self.proc._appended - before  # an interrupt may come before it is said, or after
        self.said = self.number
        self.events[self.offset] = digest("tick", data)

    async def receive(self, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                async with asyncio.timeout_at(until):
                    message = await self.proc.receive()
            except TimeoutError:
                return
            self.taken.append(message.id)
            if message.data["ask"]:
                await self.answer(message)

    async def answer(self, message: natsproc.Message) -> None:
        """A turn of some tokens and a reply, in which other messages may land."""
        async with self.proc.turn(message) as turn:
            async with contextlib.AsyncExitStack() as stack:
                # what is dropped has to be numbered
                stream = None if self.drops else await stack.enter_async_context(self.proc.stream("answer"))
                for _ in range(self.actor.random.randint(1, 20)):
                    await (stream.token("word ") if stream else self.emit(0))
                    await asyncio.sleep(0.01)
                    self.taken += [message.id for message in await turn.boundary()]
            await self.proc.reply(message, message.data["n"])

    async def flush(self) -> None:
        upto, events, said = self.offset, self.events, self.said
        await self.proc.flush()
        self.events = {}
        if events:
            self.actor.record("acknowledged", self.proc.id, self.proc.epoch, upto, events, said)


class Narrow(socket.socket):
    """A socket for which the kernel keeps little, so that what a frozen viewer does not take fills the server's."""

    def __init__(self, *options: Any, **more: Any) -> None:
        super().__init__(*options, **more)
        if self.type == socket.SOCK_STREAM:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)


class Viewer(Actor):
    """Shows everything, going on behind what it showed last; SIGUSR1 makes it slow for a moment."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        socket.socket = Narrow  # type: ignore[misc]
        self.cursors: dict[str, str] = config["cursors"]

    async def work(self, mesh: natsproc.Mesh, address: str) -> None:
        handle = mesh.process(address)
        while True:
            cursor = self.cursors.get(address)
            with contextlib.suppress(natsproc.NoSuchProcess, *PASSING):
                async with handle.tail(after=cursor) if cursor else handle.tail(run="all") as items:
                    async for item in items:
                        if isinstance(item, natsproc.Event):
                            self.show(address, item)
            await asyncio.sleep(0.1)

    def show(self, address: str, event: natsproc.Event) -> None:
        line = (event.position, event.epoch, event.run, event.offset, event.type)
        self.record("shown", address, *line, digest(event.type, event.data), event.cause)
        self.cursors[address] = event.cursor
        if self.take(signal.SIGUSR1):
            self.record("slow", address)
            time.sleep(self.random.uniform(0.5, 1.5))


class Sender(Actor):
    """Sends numbered messages, again and again until they are acknowledged, and now and then interrupts."""

    async def work(self, mesh: natsproc.Mesh, address: str) -> None:
        handle, number = mesh.process(address), 0
        while not self.phase:
            await asyncio.sleep(self.random.expovariate(self.config["rate"]))
            number += 1
            if self.random.random() < 0.1:
                await self.interrupt(handle, f"{self.name}-c{number}".replace(".", "-"))
            else:
                await self.send(handle, number)

    async def send(self, handle: natsproc.ProcessHandle, number: int) -> None:
        id, deadline = f"{self.name}-{number}".replace(".", "-"), time.monotonic() + 60
        padding, when = self.random.choice((0, 100, 2000)), self.random.choice((None, None, "next", "now"))
        data = {"n": number, "ask": self.random.random() < 0.3, "pad": "y" * padding}
        while time.monotonic() < deadline:  # the same id is stored once for two minutes
            try:
                sent = await handle.send(data, id=id, when=when)
            except PASSING:
                continue
            except (natsproc.AlreadyEnded, natsproc.NoSuchProcess):
                return
            self.record("sent", handle.address.id, self.sender, id, sent.position)
            if data["ask"]:
                await self.hear(handle.address.id, sent, number)
            return

    async def hear(self, address: str, sent: natsproc.Sent, number: int) -> None:
        """What becomes of the message: it is taken, and replied to unless its turn was stopped."""
        with contextlib.suppress(*PASSING, natsproc.AlreadyEnded):
            taken = await sent.consumed(timeout=5)
            self.record("receipt", address, sent.id, taken.offset, "received")
            self.record("replied", address, sent.id, number, await sent.reply(timeout=2))

    async def interrupt(self, handle: natsproc.ProcessHandle, id: str) -> None:
        try:
            receipt = await handle.command("interrupt", id=id, timeout=3.0)
        except (*PASSING, natsproc.Unreachable, natsproc.NoSuchProcess, natsproc.Refused):
            return
        if receipt.applied:
            self.record("receipt", handle.address.id, receipt.command, receipt.offset, "interrupted")


async def main(role: str, config: dict[str, Any]) -> None:
    actor = {"owner": Owner, "viewer": Viewer, "sender": Sender}[role](config)
    try:
        await actor.run(actor.work)  # type: ignore[attr-defined]
    except BaseException:
        actor.record("trouble", "", traceback.format_exc())
        raise


def live(role: str, config: dict[str, Any], log: str, netns: str) -> None:
    """Be that actor; what it prints goes to a file."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(file, stream)
    faulthandler.register(signal.SIGQUIT, open(log, "ab"))  # noqa: SIM115
    if netns:
        space = os.open(f"/run/netns/{netns}", os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(space, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), netns)
    asyncio.run(main(role, config))


def nursery() -> None:
    """Fork an actor for each line of stdin and print its pid: a new interpreter for each would be half the load.

    A line that is a number is a pid to forget: until then nobody else gets it. At the end of stdin all are killed.
    """
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # nobody dies of one before it listens
        signal.signal(number, signal.SIG_IGN)
    pids = set()
    for line in sys.stdin:
        order = json.loads(line)
        if isinstance(order, int):
            os.waitpid(order, 0)
            pids.discard(order)
            continue
        if (pid := os.fork()) == 0:
            try:
                live(**order)
            finally:
                os._exit(0)
        pids.add(pid)
        print(pid, flush=True)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    nursery()
