"""What the command line says to those who watch while something goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from cli_harness import Cli, cli_with_server
from harness import Server

from natsproc.bus.connection import Connection, Endpoint
from natsproc.protocol.names import Names


@pytest.fixture
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cli, Server]]:
    with cli_with_server(tmp_path_factory.mktemp("trouble")) as both:
        yield both


async def delete(url: str, stream: str) -> None:
    connection = await Connection.open(Endpoint((url,)))
    await connection.api(f"STREAM.DELETE.{stream}")
    await connection.close()


def test_a_log_that_is_deleted_under_a_tail_is_a_sentence(running: tuple[Cli, Server]) -> None:
    cli, server = running
    with cli.owner("await asyncio.sleep(600)", "idle"), cli.started("tail", "idle") as tail:
        assert b"started" in tail.stdout.readline()
        asyncio.run(delete(server.url, Names().event_stream))
        out, err = tail.communicate(timeout=30)
    assert (tail.returncode, out) == (4, b"")
    assert err.startswith(b"natsproc: the mesh is not there, or a part of it is gone: ")
    assert err.endswith(b"`natsproc setup` makes it\n")
    assert err.count(b"\n") == 1
