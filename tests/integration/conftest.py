"""One server with a mesh for all the tests of a module, an owner's connection to it and a viewer's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from harness import Server
from meshes import server_with_mesh

import natsproc
from natsproc.bus.connection import Connection, Endpoint


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory, version: str | None) -> Iterator[Server]:
    with server_with_mesh(tmp_path_factory.mktemp("nats"), version) as server:
        yield server


@pytest.fixture
async def mesh(bus: Server) -> AsyncIterator[natsproc.Mesh]:
    async with natsproc.connect(bus.url, sender="owner") as mesh:
        yield mesh


@pytest.fixture
async def viewer(bus: Server) -> AsyncIterator[natsproc.Mesh]:
    """A second client, as another OS process would be."""
    async with natsproc.connect(bus.url, sender="viewer") as mesh:
        yield mesh


@pytest.fixture
async def bus_connection(bus: Server) -> AsyncIterator[Connection]:
    """A connection in the test's own loop."""
    connection = await Connection.open(Endpoint((bus.url,), sender="tester"))
    yield connection
    await connection.close()
