"""Where a world lives: one server, a cluster, a network that can be parted, a disk that can be filled."""

from __future__ import annotations

import contextlib
import os
import subprocess
from itertools import count
from pathlib import Path
from typing import ClassVar

from tests.harness import Server, cluster

DISK = 96  #: MB of the small disk


class Impossible(Exception):
    """This machine, or this user, cannot have such a place."""


def command(*words: str) -> None:
    """Run an OS command. Raises: Impossible with what it said."""
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except OSError as error:
        raise Impossible(f"{words[0]}: {error}") from None
    if done.returncode:
        raise Impossible(f"{' '.join(words)}: {done.stderr.strip()}")


_NUMBERS = count(os.getpid() % 100_000 * 10)  # so that several runs have networks of their own


class Place:
    """One nats-server on loopback."""

    name: ClassVar[str] = "plain"
    replicas: ClassVar[int] = 1
    namespaces: tuple[str, ...] = ()  #: network namespaces, for one node each

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers = [Server(folder / "nats")]

    def make(self) -> None:
        """Prepare it. Raises: Impossible, if this machine does not allow that."""

    def heal(self) -> None:
        """Make it a place where everything can come to its end."""

    def remove(self) -> None:
        """Leave nothing behind."""


class BuffersPlace(Place):
    """One server that keeps little for a client, and so cuts it off soon."""

    name = "buffers"
    _little = "max_pending: 6MB"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.servers = [Server(folder / "nats", extra=self._little)]

    def heal(self) -> None:
        config = self.servers[0].config
        config.write_text(config.read_text().replace(self._little, ""))
        self.servers[0].restart()


class ClusterPlace(Place):
    """Three servers, and three replicas of everything."""

    name, replicas = "cluster", 3

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.servers = cluster(folder)


class NetworkPlace(Place):
    """One server on a bridge, with nodes in network namespaces of their own. Linux, root only."""

    name = "network"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        number = next(_NUMBERS)
        self._bridge = f"np{number}b"
        self.namespaces = tuple(f"np{number}x{place}" for place in range(5))
        self._net = f"10.{200 + number % 50}.{number // 50 % 250}"
        self.servers = [Server(folder / "nats", host=f"{self._net}.1")]

    def make(self) -> None:
        command("ip", "link", "add", self._bridge, "type", "bridge")
        command("ip", "addr", "add", f"{self._net}.1/24", "dev", self._bridge)
        command("ip", "link", "set", self._bridge, "up")
        for number, name in enumerate(self.namespaces):
            command("ip", "netns", "add", name)
            command("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            command("ip", "link", "set", name, "master", self._bridge, "up")
            command("ip", "-n", name, "addr", "add", f"{self._net}.{number + 2}/24", "dev", "eth0")
            command("ip", "-n", name, "link", "set", "eth0", "up")

    def cut(self, namespace: str, up: bool = False) -> None:
        """Let nothing through between that namespace and the server any more; or again."""
        command("ip", "link", "set", namespace, "up" if up else "down")

    def remove(self) -> None:
        for words in (*(("netns", "del", name) for name in self.namespaces), ("link", "del", self._bridge)):
            with contextlib.suppress(Impossible):
                command("ip", *words)


class DiskPlace(Place):
    """One server whose store is a small disk of its own. Linux, root only."""

    name = "disk"

    def make(self) -> None:
        self._store = self.servers[0].folder / "store"
        self._store.mkdir()
        command("mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(self._store))

    def fill(self) -> None:
        """Leave no room."""
        with contextlib.suppress(OSError), (self._store / "ballast").open("wb", 0) as file:
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        (self._store / "ballast").unlink(missing_ok=True)

    def remove(self) -> None:
        with contextlib.suppress(Impossible):
            command("umount", str(self._store))


PLACES: dict[str, type[Place]] = {
    p.name: p for p in (Place, BuffersPlace, ClusterPlace, NetworkPlace, DiskPlace)
}
