"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from harness import Server, running

from natsproc.bus import streams
from natsproc.bus.connection import Connection, Endpoint
from natsproc.protocol.names import Names


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """The installed nats-server, for this test alone."""
    with running(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
async def connection(server: Server, names: Names) -> AsyncIterator[Connection]:
    """A connection in the test's own loop to a server that has a mesh."""
    connection = await Connection.open(Endpoint((server.url,), sender="tester"))
    await streams.setup(connection, names)
    yield connection
    await asyncio.wait_for(connection.close(), 10)
