"""A node: one OS process that runs processes, over one connection, one writer and one lease.

Everything here lives on the I/O thread, so that commands are answered while user code blocks.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any, Literal, Protocol

from natsproc.bus.clock import Steady, now
from natsproc.bus.connection import Connection
from natsproc.bus.control import is_pinned
from natsproc.bus.discovery import Discovery
from natsproc.bus.registry import LeaseKeeper, Registry
from natsproc.bus.retention import Retention
from natsproc.bus.writer import Writer
from natsproc.errors import Error
from natsproc.protocol.gate import NODE
from natsproc.protocol.landing import check_allow
from natsproc.protocol.messages import Command, Outcome
from natsproc.protocol.names import UNIQUE, Address, Names, new_token, sanitize
from natsproc.protocol.records import Lease

from .hosted import Hosted
from .states import Shape

WhenFull = Literal["wait", "spool", "drop"]
"""What happens to what a process writes while the server is away and the node's buffer is full."""


Refuse = Callable[[str, str], str | None]
"""Says why a sender may not have something done, or None if it may: `refuse(sender, verb)`.

The verb is the command's, or `message`. It is called on natsproc's own thread, so it must not wait for anything; one that
raises refuses. A command is answered with a receipt that says why, and both are in the log; a ping is never asked for.
"""


class Target(Protocol):
    """What commands act on: Python code, or a wrapped OS command."""

    async def apply(self, command: Command) -> Outcome:
        """Do what the command says and return when it is done. Called on the I/O thread."""

    async def lose(self, lost: Error) -> None:
        """Stop what runs here, because its id is another owner's, or the credential has ended. Called on the I/O thread."""

    async def inspect(self, stack: bool) -> dict[str, Any]:
        """Say how it is doing."""


@dataclass(frozen=True)
class Declared:
    """How a process's code is to be dealt with, as it says itself."""

    allow: tuple[str, ...] = ()  #: when messages may land; at any time unless said
    shape: Shape = field(default_factory=Shape)  #: of its saved state
    refuse: Refuse | None = None  #: who may not have what


@dataclass(frozen=True, slots=True)
class Spec:
    """What a process is to be, before it has an owner."""

    address: Address
    kind: str
    labels: dict[str, str] = field(default_factory=dict)
    parent: str = ""
    title: str = ""  #: what it runs, for people; shortened to one line
    pty: bool = False
    restart: bool = False
    spool: int = 0  #: bytes on disk for what it says while the node's writer is full
    drop: bool = False  #: what finds no room is dropped and counted; else it waits
    allow: tuple[str, ...] = ()  #: when messages may land; at any time unless said
    shape: Shape = field(default_factory=Shape)  #: of its saved state
    refuse: Refuse | None = None  #: who may not have what

    def why_not(self, sender: str, verb: str) -> str:
        """Why that sender may not have that; empty if it may."""
        try:
            return (self.refuse and self.refuse(sender, verb)) or ""
        except Exception as error:
            return f"asked whether {sender} may {verb}, it failed: {error!r}"

    def __post_init__(self) -> None:
        check_allow(self.allow)
        object.__setattr__(self, "title", shorten(self.title, 120, placeholder=" …"))


class Node:
    """Runs processes under one name on the mesh."""

    def __init__(self, connection: Connection, names: Names, version: str) -> None:
        self.connection = connection
        self.names = names
        host = socket.gethostname()
        stem = f"{sanitize(host, 'node')[:40]}-"
        if connection.gated:  # a gate takes no other lease of it
            stem = connection.sender + NODE
        self.name = stem + new_token(UNIQUE)
        self.registry = Registry(connection, names)
        self.writer = Writer(connection, names.event_stream)
        self.hosted: dict[Address, Hosted] = {}
        #: what is done for them, of which asyncio keeps weak references only
        self.tasks: set[asyncio.Task[Any]] = set()
        lease = Lease(self.name, host, os.getpid(), version, now())
        self._keeper = LeaseKeeper(connection, names, lease)
        self._discovery = Discovery(connection, self.name, version, self._metadata)

    def _metadata(self) -> dict[str, str]:
        lease = self._keeper.lease
        return {"host": lease.host, "pid": str(lease.pid), "processes": str(len(self.hosted))}

    @property
    def lease(self) -> Lease:
        return self._keeper.lease

    @property
    def steady(self) -> Steady:
        """How long the bus has been there, as this node can tell."""
        return self._keeper.steady

    async def start(self) -> None:
        """Take the lease, and be found by discovery."""
        self.connection.verified = self.connection.verified or await is_pinned(self.connection, self.names)
        await self._keeper.start()
        await self.writer.start()
        if not self.connection.gated:
            await self._discovery.start(self._keeper.lease.started)
        self.connection.on_reconnect(self._reconnected)
        self._pruning = asyncio.create_task(Retention(self.connection, self.names).now_and_then(self.name))

    def _reconnected(self) -> None:
        for hosted in self.hosted.values():
            hosted.reconnected()

    async def host(self, spec: Spec) -> Hosted:
        """Own a process from here on. Raises: as `Hosted.open`."""
        hosted = Hosted(self, spec)
        try:
            await hosted.open()
        except BaseException as error:
            await hosted.end("failed", 1, error=str(error))
            raise
        return hosted

    def count(self, hosted: Hosted, *, runs: bool) -> None:
        """Take note that a process runs here, or no longer does."""
        if runs:
            self.hosted[hosted.spec.address] = hosted
        elif self.hosted.get(hosted.spec.address) is hosted:
            del self.hosted[hosted.spec.address]
        self._keeper.update(len(self.hosted))

    async def stop(self) -> None:
        """End what runs here, store what is pending, and say goodbye."""
        await asyncio.gather(*(hosted.stop() for hosted in self.hosted.values()))
        self._pruning.cancel()
        await self._discovery.stop()
        await self.writer.close(timeout=5.0)
        await self._keeper.stop()
