"""One mesh under torture: its servers, the programs that live on it, and what they have recorded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import psutil

from natsproc.bus import streams
from natsproc.bus.connection import Connection, Endpoint
from natsproc.bus.history import History as Reading
from natsproc.bus.kv import Bucket
from natsproc.bus.patience import insist
from natsproc.protocol.messages import Cursor
from natsproc.protocol.names import Address, Names, key_of
from natsproc.protocol.records import Claim
from tests.harness import ROOT

from .checker import (
    Acknowledged,
    Began,
    Claimed,
    Ended,
    History,
    Kept,
    Lost,
    Receipt,
    Replied,
    Saved,
    Sent,
    Shown,
    Stored,
    what_counts,
)
from .places import Place

NAMES = Names()


class Program:
    """A place for one OS process, which is started anew whenever it has been killed."""

    def __init__(self, world: World, role: str, name: str, netns: str = "", **config: Any) -> None:
        self.world = world
        self.role = role
        self.name = name
        self.netns = netns
        self.config = config
        self.record = world.folder / f"{name}.jsonl"
        self.record.touch()
        self.lines: list[list[Any]] = []  #: all that it has recorded, in every life
        self.frozen = False
        self._lives = 0
        self._read = 0
        self._pid = 0

    @property
    def alive(self) -> bool:
        return bool(self._pid) and psutil.Process(self._pid).status() != psutil.STATUS_ZOMBIE

    @property
    def life(self) -> str:
        """The name of its present life, as in its records."""
        return f"{self.name}.{self._lives}"

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.alive:
            return
        self._mend()
        self._lives += 1
        self.frozen = False
        config = {
            "name": self.life, "url": self.world.url, "record": str(self.record), "flag": str(self.world.flag),
            "seed": f"{self.world.seed} {self.life}", "addresses": self.world.addresses, **self.config,
        }  # fmt: skip
        if self.role == "viewer":
            config["cursors"] = self.cursors()
        log = str(self.world.folder / f"{self.name}.log")
        if self._pid:
            self.world.tell(self._pid)
        self._pid = self.world.fork({"role": self.role, "config": config, "log": log, "netns": self.netns})

    def signal(self, number: signal.Signals) -> None:
        if self.alive:
            os.kill(self._pid, number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        while self.alive:
            time.sleep(0.002)

    def freeze(self) -> None:
        """SIGSTOP, and return when it has taken effect."""
        self.signal(signal.SIGSTOP)
        self.frozen = True
        stopped = psutil.Process(self._pid)
        while stopped.status() != psutil.STATUS_STOPPED:
            time.sleep(0.005)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)
        self.frozen = False

    def refresh(self) -> list[list[Any]]:
        """Read what it has recorded since; returns everything."""
        with self.record.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        self.lines += map(json.loads, whole.splitlines())
        return self.lines

    def _mend(self) -> None:
        """Drop a line that a kill cut off: nobody was told what it says."""
        self.refresh()
        os.truncate(self.record, self._read)

    def cursors(self) -> dict[str, str]:
        """Where a viewer goes on."""
        last = {line[1]: line[3:7] for line in self.refresh() if line[0] == "shown"}
        return {address: str(Cursor(*numbers)) for address, numbers in last.items()}


class World:
    """A mesh on one or more servers, with nodes, viewers and senders on it."""

    def __init__(
        self, place: Place, seed: int, *, rate: int = 30, processes: int = 6, nodes: int = 5
    ) -> None:
        self.place = place
        self.folder = place.folder
        self.seed = seed
        self.servers = place.servers
        self.url = ",".join(server.url for server in self.servers)
        self.flag = self.folder / "flag"
        self.addresses = [f"p{number}" for number in range(processes)]
        hosts = [*place.namespaces, *[""] * (nodes - len(place.namespaces))]
        self.nodes = [
            Program(self, "owner", f"n{number}", netns, most=2, rate=rate)
            for number, netns in enumerate(hosts)
        ]
        self.viewers = [Program(self, "viewer", f"v{number}") for number in range(3)]
        self.senders = [Program(self, "sender", f"s{number}", rate=1.0) for number in range(2)]
        self.disturbed: set[str] = set()  #: lives of nodes that were frozen or cut off
        #: held while a stream's settings are written: a nats-server that is killed then may not find the stream again
        self.settings = asyncio.Lock()
        self.trouble: list[str] = []  #: what kept it from being judged wholly
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.actors"], cwd=ROOT, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=os.environ | {"NATSPROC_HOME": str(self.folder / "home")},
        )  # fmt: skip

    @property
    def programs(self) -> list[Program]:
        return [*self.nodes, *self.viewers, *self.senders]

    def fork(self, order: dict[str, Any]) -> int:
        """Start an actor; returns its pid, which stays its own until it is told to the nursery."""
        self.tell(order)
        assert self._nursery.stdout
        return int(self._nursery.stdout.readline())

    def tell(self, line: dict[str, Any] | int) -> None:
        """See `actors.nursery`."""
        assert self._nursery.stdin
        self._nursery.stdin.write(json.dumps(line) + "\n")

    async def start(self) -> None:
        """Start servers and programs, and make the mesh."""
        self.place.make()
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in self.servers))
        self.connection = await Connection.open(Endpoint(tuple(self.url.split(",")), sender="torturer"))
        deadline = asyncio.get_running_loop().time() + 60
        await insist(lambda: streams.setup(self.connection, NAMES, replicas=self.place.replicas), deadline)
        for program in self.programs:
            program.start()

    async def stop(self) -> None:
        """Kill what is left."""
        for program in self.programs:
            program.kill()
        self._nursery.communicate()
        with contextlib.suppress(AttributeError, TimeoutError):
            await asyncio.wait_for(self.connection.close(), 5)
        for server in self.servers:
            await asyncio.to_thread(server.stop)
        self.place.remove()

    def lines(self, what: str) -> Iterator[list[Any]]:
        """What all programs have recorded of that sort."""
        for program in self.programs:
            yield from (line for line in program.refresh() if line[0] == what)

    def cut_off(self) -> int:
        """How often servers have cut off a client that took too little."""
        logs = [server.folder / "server.log" for server in self.servers]
        return sum(log.read_bytes().count(b"Slow Consumer") for log in logs)

    def owners(self) -> dict[str, tuple[str, int]]:
        """Address → which life of a node owns it, as far as was recorded, and its epoch."""
        owners: dict[str, tuple[str, int]] = {}
        for _, address, life, epoch, _ in self.lines("claimed"):
            if epoch > owners.get(address, ("", 0))[1]:
                owners[address] = (life, epoch)
        for what in ("ended", "lost", "refused"):
            for _, address, life, epoch, *_ in self.lines(what):
                if owners.get(address) == (life, epoch):
                    del owners[address]
        return owners

    def owning(self) -> list[Program]:
        """The nodes that own something, and are well."""
        lives = {life for life, _ in self.owners().values()}
        return [node for node in self.nodes if node.life in lives and node.alive and not node.frozen]

    async def taken_over(self, life: str, seconds: float) -> bool:
        """Wait until everything that this life of a node owns now has another owner; False if it takes too long."""
        held = {address: epoch for address, (owner, epoch) in self.owners().items() if owner == life}
        return bool(held) and await self.until(
            lambda: all(self.owners().get(a, ("", 0))[1] > epoch for a, epoch in held.items()), seconds
        )

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Poll; whether it came true in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.2)
        return True

    # The end: everything is healed, comes to rest, and is read.

    async def finish(self) -> list[History]:
        """Bring everything to its end, and return what there is to judge."""
        await asyncio.to_thread(self.place.heal)
        await self._phase("drain", lambda: self._alive(self.senders), "senders to end", 120)
        inbox = await self._inbox()
        ids = {json.loads(entry.payload)["id"] for entries in inbox.values() for entry in entries}
        await self._phase("drain", lambda: ids - self._consumed(), "messages to be consumed", 150)
        await self._phase("end", lambda: self._alive(self.nodes), "nodes to end", 90)
        logs = {address: await self._stored(NAMES.events(_at(address))) for address in self.addresses}
        counts = {address: len(what_counts(log)[0]) for address, log in logs.items()}
        await self._phase("end", lambda: self._not_shown(counts), "viewers", 90)
        return [await self._history(address, logs[address], inbox[address]) for address in self.addresses]

    async def _phase(
        self, flag: str, missing: Callable[[], Collection[str]], what: str, seconds: float
    ) -> None:
        self.flag.write_text(flag)
        for program in self.programs:
            if program.frozen:
                program.thaw()
            if program.role == "viewer" or (program.role == "owner" and flag == "drain"):
                program.start()
        if not await self.until(lambda: not missing(), seconds):
            self.trouble.append(f"waited {seconds:g} s in vain for {what}: {missing()}")
            for program in self.programs:
                program.signal(signal.SIGQUIT)  # says in its log where it is

    def _consumed(self) -> set[str]:
        return {line[9] for line in self.viewers[0].refresh() if line[0] == "shown" and line[7] == "received"}

    def _not_shown(self, counts: dict[str, int]) -> list[str]:
        missing = []
        for viewer in self.viewers:
            shown = Counter(line[1] for line in viewer.refresh() if line[0] == "shown")
            missing += [f"{viewer.life}: {at}" for at, count in counts.items() if shown[at] < count]
        return missing

    @staticmethod
    def _alive(programs: list[Program]) -> list[str]:
        return [program.life for program in programs if program.alive]

    async def _stored(self, subject: str, sender: str = "") -> list[Stored]:
        """Every entry of a subject; the stream's leader confirms that there are no more."""
        stream = NAMES.inbox_stream if sender else NAMES.event_stream

        async def read() -> list[Stored]:
            found = [
                Stored(entry.position, entry.payload, sender)
                async for entries in Reading(self.connection, stream).read(subject)
                for entry in entries
            ]
            info = await self.connection.api(f"STREAM.INFO.{stream}", {"subjects_filter": subject})
            count = (info["state"].get("subjects") or {}).get(subject, 0)
            if len(found) != count:
                self.trouble.append(f"{subject} has {count} entries, of which {len(found)} were read")
            return found

        return await insist(read, asyncio.get_running_loop().time() + 60)

    async def _inbox(self) -> dict[str, list[Stored]]:
        inbox = {}
        for address in self.addresses:
            entries = []
            for sender in self.senders:
                entries += await self._stored(NAMES.inbox(_at(address), sender.name), sender.name)
            inbox[address] = sorted(entries)
        return inbox

    async def _history(self, address: str, log: list[Stored], inbox: list[Stored]) -> History:
        bucket = Bucket(self.connection, NAMES.claims)
        found = await insist(lambda: bucket.get(key_of(_at(address)), leader=True))
        claim = Claim.parse(found.payload) if found else None
        history = History(address, log, inbox)
        history.cuts = [(c.epoch, c.run, c.offset, c.position) for c in claim.cuts] if claim else []
        for what, of, life, *rest in (line for program in self.programs for line in program.refresh()):
            if of != address:
                continue
            match what:
                case "claimed":
                    history.claimed.append(Claimed(life, *rest))
                case "acknowledged":
                    events = {int(offset): digest for offset, digest in rest[2].items()}
                    history.acknowledged.append(Acknowledged(life, rest[0], rest[1], events, *rest[3:]))
                case "ended":
                    history.ended.append(Ended(life, *rest))
                case "refused":
                    history.ended.append(Ended(life, *rest, "failed"))
                case "lost":
                    history.lost.append(Lost(life, *rest))
                case "sent":
                    history.sent.append(Sent(*rest))
                case "receipt":
                    history.receipts.append(Receipt(*rest))
                case "replied":
                    history.replied.append(Replied(*rest))
                case "began":
                    history.began.append(Began(life, *rest))
                case "kept":
                    history.kept.append(Kept(life, *rest))
                case "saved":
                    history.saved.append(Saved(life, *rest))
                case "shown":
                    history.shown.setdefault(life.partition(".")[0], []).append(Shown(*rest))
        for viewer in self.viewers:
            history.shown.setdefault(viewer.name, [])
        return history


def _at(id: str) -> Address:
    return Address("default", id)
