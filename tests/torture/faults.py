"""What is done to a world: one small class a fault. `inject` returns whether it took effect."""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from contextlib import suppress
from random import Random
from typing import Any, ClassVar

from natsproc.errors import Error
from tests.harness import Server

from .places import DiskPlace, NetworkPlace
from .world import NAMES, World

EVERYWHERE = ("plain", "cluster", "network", "disk")  # and "buffers", for faults that need a calm place


class Fault(ABC):
    """A kind of fault. Those of one track come one after the other, tracks go side by side."""

    kind: ClassVar[str]
    track: ClassVar[str]
    pause: ClassVar[float] = 1.0  #: seconds before the next one of its track, on average
    places: ClassVar[tuple[str, ...]] = ("plain",)

    @abstractmethod
    async def inject(self, world: World, dice: Random) -> bool:
        """Do it, and heal it where that is its other half; `dice` are its own."""


class KillOwner(Fault):
    """kill -9 of a node that owns processes; another takes them over."""

    kind, track, pause = "kill owner", "owner", 2.0
    places = EVERYWHERE

    async def inject(self, world: World, dice: Random) -> bool:
        if not (owning := world.owning()):
            return False
        node = dice.choice(owning)
        node.kill()
        await asyncio.sleep(dice.uniform(0, 0.5))
        node.start()
        return True


class FreezeOwner(Fault):
    """SIGSTOP of a node past its lease, until all that it owned is taken over, then SIGCONT: a zombie."""

    kind, track, pause = "freeze owner (zombie)", "zombie", 0.5
    places = ("plain", "cluster")

    async def inject(self, world: World, dice: Random) -> bool:
        if not (owning := world.owning()):
            return False
        node = dice.choice(owning)
        world.disturbed.add(node.life)
        node.freeze()
        taken = await world.taken_over(node.life, 20)
        node.thaw()
        return taken


class Refused(Fault):
    """One process of a node writes an event that the server refuses, the others of the node go on."""

    kind, track = "event refused", "owner"

    async def inject(self, world: World, dice: Random) -> bool:
        if not (owning := world.owning()):
            return False
        before = sum(1 for _ in world.lines("refused"))
        await self._limit(world, 20_000)
        try:
            dice.choice(owning).signal(signal.SIGUSR1)
            return await world.until(lambda: sum(1 for _ in world.lines("refused")) > before, 5)
        finally:
            await self._limit(world, -1)

    async def _limit(self, world: World, size: int) -> None:
        async with world.settings:
            info = await world.connection.api(f"STREAM.INFO.{NAMES.event_stream}", timeout=2.0)
            config = info["config"] | {"max_msg_size": size}
            await world.connection.api(f"STREAM.UPDATE.{NAMES.event_stream}", config, timeout=5.0)


class KillViewer(Fault):
    """kill -9 of a viewer; the next one goes on from the cursor that was shown last."""

    kind, track = "kill viewer", "viewer"
    places = EVERYWHERE

    async def inject(self, world: World, dice: Random) -> bool:
        viewer = dice.choice(world.viewers)
        viewer.kill()
        viewer.start()
        return True


class SlowViewer(Fault):
    """A viewer takes nothing for a while, and its connection goes on."""

    kind, track = "slow viewer", "viewer"
    places = EVERYWHERE

    async def inject(self, world: World, dice: Random) -> bool:
        before = sum(1 for _ in world.lines("slow"))
        dice.choice(world.viewers).signal(signal.SIGUSR1)
        return await world.until(lambda: sum(1 for _ in world.lines("slow")) > before, 3)


class FreezeViewer(Fault):
    """SIGSTOP of a viewer while a burst fills what the server keeps for it, so that it is cut off; then SIGCONT."""

    kind, track = "freeze viewer (full buffers)", "viewer"
    places = ("buffers",)

    async def inject(self, world: World, dice: Random) -> bool:
        viewer, before = dice.choice(world.viewers), world.cut_off()
        viewer.freeze()
        for _ in range(4):
            for node in world.owning():
                node.signal(signal.SIGUSR2)
            if await world.until(lambda: world.cut_off() > before, 1.5):
                break
        viewer.thaw()
        return world.cut_off() > before


class KillSender(Fault):
    """kill -9 of a sender, perhaps between a message and its acknowledgement."""

    kind, track = "kill sender", "viewer"
    places = EVERYWHERE

    async def inject(self, world: World, dice: Random) -> bool:
        sender = dice.choice(world.senders)
        sender.kill()
        sender.start()
        return True


class KillServer(Fault):
    """kill -9 of the server in the middle of batches; it is back at once."""

    kind, track, pause = "kill server", "server", 2.0

    async def inject(self, world: World, dice: Random) -> bool:
        for node in world.owning():
            node.signal(signal.SIGUSR2)
        await asyncio.sleep(dice.uniform(0, 0.3))
        server = dice.choice(world.servers)
        async with world.settings:
            await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        return True


class RestartServer(Fault):
    """The server is told to stop in the middle of batches, and started again."""

    kind, track, pause = "restart server", "server", 2.0

    async def inject(self, world: World, dice: Random) -> bool:
        for node in world.owning():
            node.signal(signal.SIGUSR2)
        server = dice.choice(world.servers)
        assert server.process
        async with world.settings:
            server.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(server.process.wait, 20)
        await asyncio.to_thread(server.start)
        return True


class Outage(Fault):
    """The server is away for longer than a lease."""

    kind, track, pause = "outage longer than a lease", "server", 2.5

    async def inject(self, world: World, dice: Random) -> bool:
        server = world.servers[0]
        async with world.settings:
            await asyncio.to_thread(server.kill)
        await asyncio.sleep(dice.uniform(4.5, 6.5))
        await asyncio.to_thread(server.start)
        return True


class FreezeServer(Fault):
    """The server hangs while owners write more than their buffers hold, so that they have to wait."""

    kind, track, pause, places = "freeze server (full buffers)", "server", 1.5, ("buffers",)

    async def inject(self, world: World, dice: Random) -> bool:
        for node in world.owning():
            node.signal(signal.SIGUSR2)
        before = sum(1 for _ in world.lines("full"))
        server = dice.choice(world.servers)
        await asyncio.to_thread(server.freeze)
        await asyncio.sleep(dice.uniform(1, 3))
        server.thaw()
        return await world.until(lambda: sum(1 for _ in world.lines("full")) > before, 3)


class StepDown(Fault):
    """The leader of a stream hands over to another server."""

    kind, track, pause, places = "leader step-down", "server", 1.5, ("cluster",)

    async def inject(self, world: World, dice: Random) -> bool:
        names = (NAMES.event_stream, NAMES.inbox_stream, f"KV_{NAMES.claims}", f"KV_{NAMES.leases}")
        stream = dice.choice((NAMES.event_stream, *names))
        return bool((await world.connection.api(f"STREAM.LEADER.STEPDOWN.{stream}", timeout=5.0))["success"])


class KillLeader(Fault):
    """kill -9 of the server that leads the event stream; it is back soon, and the cluster whole again."""

    kind, track, pause, places = "kill leader", "server", 1.0, ("cluster",)

    async def inject(self, world: World, dice: Random) -> bool:
        if not (leader := (await _cluster(world)).get("leader")):
            return False
        server = next(server for server in world.servers if self.is_meant(server, leader))
        for node in world.owning():
            node.signal(signal.SIGUSR2)
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(dice.uniform(0, 3))
        await asyncio.to_thread(server.start)
        deadline = asyncio.get_running_loop().time() + 60
        while asyncio.get_running_loop().time() < deadline:
            with suppress(Error):
                found = await _cluster(world)
                if found.get("leader") and all(replica["current"] for replica in found["replicas"]):
                    break
            await asyncio.sleep(0.2)
        return True

    def is_meant(self, server: Server, leader: str) -> bool:
        return server.folder.name == leader


class KillFollower(KillLeader):
    """The same of a server that does not lead it."""

    kind, places = "kill follower", ("cluster",)

    def is_meant(self, server: Server, leader: str) -> bool:
        return server.folder.name != leader


async def _cluster(world: World) -> dict[str, Any]:
    info = await world.connection.api(f"STREAM.INFO.{NAMES.event_stream}", timeout=2.0)
    return dict(info["cluster"])


class Partition(Fault):
    """Nothing passes between a node and the server until all that it owned is taken over; then it is back."""

    kind, track, pause, places = "partition", "zombie", 0.3, ("network",)

    async def inject(self, world: World, dice: Random) -> bool:
        if not (owning := [node for node in world.owning() if node.netns]):
            return False
        assert isinstance(world.place, NetworkPlace)
        node = dice.choice(owning)
        world.disturbed.add(node.life)
        world.place.cut(node.netns)
        try:
            return await world.taken_over(node.life, 25)
        finally:
            world.place.cut(node.netns, up=True)


class FullDisk(Fault):
    """The server's disk is full for a while; then there is room, and the server is started anew."""

    kind, track, pause, places = "full disk", "server", 3.0, ("disk",)

    async def inject(self, world: World, dice: Random) -> bool:
        assert isinstance(world.place, DiskPlace)
        await asyncio.to_thread(world.place.fill)
        await asyncio.sleep(dice.uniform(0.5, 3))
        world.place.free()
        await asyncio.to_thread(world.servers[0].restart)
        return True


FAULTS: tuple[type[Fault], ...] = (
    KillOwner, FreezeOwner, Refused, KillViewer, SlowViewer, FreezeViewer, KillSender, KillServer, RestartServer,
    Outage, FreezeServer, StepDown, KillLeader, KillFollower, Partition, FullDisk,
)  # fmt: skip
