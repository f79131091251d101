"""What the command line says to those who watch while something goes wrong."""

from __future__ import annotations

import asyncio
import json
import queue
import signal
import threading
from collections.abc import Iterator
from typing import IO, Any

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


def lines_of(stream: IO[bytes]) -> queue.Queue[dict[str, Any]]:
    """What comes on a stream, line by line."""
    said: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        for line in stream:
            said.put(json.loads(line))

    threading.Thread(target=read, daemon=True).start()
    return said


def test_a_watch_in_json_says_who_becomes_unreachable_and_is_reached_again(
    running: tuple[Cli, Server],
) -> None:
    cli, server = running
    body = "await asyncio.sleep(600)"
    with (
        cli.owner(body, "stays"),
        cli.owner(body, "idle") as idle,
        cli.started("ps", "-w", "-o", "json") as ps,
    ):
        said = lines_of(ps.stdout)
        assert {said.get(timeout=20)["id"] for _ in range(2)} == {"stays", "idle"}
        idle.send_signal(signal.SIGSTOP)  # its lease runs out
        lost = said.get(timeout=20)
        assert (lost["id"], lost["state"]) == ("idle", "unreachable")
        assert lost["unreachable_since"]
        idle.send_signal(signal.SIGCONT)
        back = said.get(timeout=20)
        assert (back["id"], back["state"], back["unreachable_since"]) == ("idle", "running", None)
        idle.kill()
        again = said.get(timeout=20)
        assert (again["id"], again["state"], again["epoch"]) == ("idle", "unreachable", back["epoch"])
        server.restart()  # those who live are not said to be gone for it
        with cli.owner(body, "idle"):
            while (heir := said.get(timeout=30))["id"] != "idle" or heir["epoch"] == back["epoch"]:
                state = "running" if heir["id"] == "stays" else "unreachable"
                assert (heir["id"], heir["state"]) == (heir["id"], state)  # said anew after the reconnect
            assert (heir["state"], heir["unreachable_since"]) == ("running", None)
