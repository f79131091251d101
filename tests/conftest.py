"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from harness import FAULT_SERVERS, SERVERS, Server, running
from hypothesis import HealthCheck, settings

from natsproc.bus import streams
from natsproc.bus.connection import Connection, Endpoint
from natsproc.protocol.names import Names

# a busy machine is slow, which is no fault of what is tested
settings.register_profile(
    "natsproc", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("natsproc")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what needs a server on the oldest and the newest, faults on the newest; on all with make test-servers."""
    chosen = any("version" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "version" in metafunc.fixturenames and not chosen and not metafunc._arg2fixturedefs.get("version"):
        versions = FAULT_SERVERS if "faults" in metafunc.definition.path.parts else SERVERS
        metafunc.parametrize("version", versions, ids=[v or "newest" for v in versions], scope="module")


@pytest.fixture
def server(tmp_path: Path, version: str | None) -> Iterator[Server]:
    """A nats-server of that version, for this test alone."""
    with running(tmp_path / "nats", version) as server:
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
