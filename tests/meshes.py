"""Meshes for tests of the SDK, and what such tests wait for on them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from harness import Server, running

import natsproc
from natsproc.bus import streams
from natsproc.bus.bulk import ReadFailed
from natsproc.bus.connection import Connection, Endpoint
from natsproc.bus.patience import insist
from natsproc.protocol.names import Names

T = TypeVar("T")

PATIENCE = 60.0  #: seconds for what a busy machine does late


async def make_mesh(url: str, prefix: str = "proc") -> None:
    connection = await Connection.open(Endpoint((url,)))
    deadline = asyncio.get_running_loop().time() + PATIENCE
    await insist(lambda: streams.setup(connection, Names(prefix)), deadline)
    await connection.close()


@contextlib.contextmanager
def server_with_mesh(folder: Path, version: str | None = None) -> Iterator[Server]:
    with running(folder, version) as server:
        asyncio.run(make_mesh(server.url))
        yield server


async def until(condition: Callable[[], Awaitable[T]], timeout: float = 20.0) -> T:
    """Poll until the condition is true, and return what it is."""
    async with asyncio.timeout(timeout):
        while not (value := await condition()):
            await asyncio.sleep(0.01)
        return value


async def listing(mesh: natsproc.Mesh) -> Sequence[natsproc.ProcessInfo]:
    """What runs; a server that is too busy to say so is asked again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(natsproc.TimedOut, ReadFailed):
                return await mesh.list()


async def appears(mesh: natsproc.Mesh, id: str) -> natsproc.ProcessHandle:
    """Return a handle on a process once it is listed."""

    async def listed() -> bool:
        return any(info.address.id == id for info in await listing(mesh))

    await until(listed, PATIENCE)
    return mesh.process(id)


async def events(handle: natsproc.ProcessHandle, **options: Any) -> list[natsproc.Event]:
    return [item async for item in handle.tail(**options) if isinstance(item, natsproc.Event)]
