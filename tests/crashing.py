"""Owners that die without a word, in the test's own OS process."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import natsproc
from natsproc.bus.connection import Connection
from natsproc.bus.kv import Bucket
from natsproc.protocol.names import Names


async def bury(connection: Connection, node: str) -> None:
    """Give up the lease of a node that is gone, so that nobody has to wait for it to expire."""
    await Bucket(connection, Names().leases).purge(node)


@asynccontextmanager
async def crashing(
    url: str, connection: Connection, id: str, **options: Any
) -> AsyncIterator[natsproc.Process]:
    """Own an id; at the end the I/O thread just stops, as in a kill -9: nothing is written, nobody is told."""
    mesh = natsproc.connect(url, sender="owner")
    async with _left_open(mesh):
        scope = mesh.own(id, **options)
        proc = await scope.__aenter__()
        node = (await mesh.node()).name
        try:
            yield proc
        finally:
            peer = mesh.connection.nc._transport._io_writer.get_extra_info("socket")
            mesh.io.stop()
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)  # as the OS does for a process that is gone
            await bury(connection, node)
            await scope.__aexit__(None, None, None)  # writes nothing


@asynccontextmanager
async def _left_open(mesh: natsproc.Mesh) -> AsyncIterator[None]:
    await mesh.__aenter__()
    try:
        yield
    finally:
        if mesh._io is not None:
            mesh._io.stop()
