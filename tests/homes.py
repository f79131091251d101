"""Homes of embedded servers for tests: on ports of their own, and gone afterwards."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from harness import free_port

from natsproc.bus.connection import Connection
from natsproc.server import embedded
from natsproc.server.find import endpoint_of
from natsproc.server.home import Home

NATSPROC = Path(sys.executable).parent / "natsproc"


@contextlib.contextmanager
def a_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """Make `folder` the NATSPROC_HOME, with default ports that no other test uses, and no other server."""
    for name in [name for name in os.environ if name.startswith("NATS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NATSPROC_HOME", str(folder))
    monkeypatch.setattr(embedded, "PORT", free_port())
    monkeypatch.setattr(embedded, "WS_PORT", free_port())
    monkeypatch.setattr(embedded, "PAGES_PORT", free_port())
    home = Home(folder)
    try:
        yield home
    finally:
        embedded.stop(home)


async def connect(home: Home) -> Connection:
    """Connect to the server of a home, in the test's own loop."""
    state = home.load()
    assert state
    return await Connection.open(endpoint_of(home, state))


def servers_of(home: Home) -> list[int]:
    """The nats-servers that run with the configuration of this home, as the OS sees it."""
    config = str(home.folder / "server.conf")
    found = psutil.process_iter(["cmdline", "status"])
    return [
        process.pid
        for process in found
        if config in (process.info["cmdline"] or ()) and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has collected yet counts as gone."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def natsproc(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the `natsproc` command."""
    return subprocess.run(
        [NATSPROC, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
    )


def websocket_answer(ws_url: str, origin: str | None = None, tls: ssl.SSLContext | None = None) -> int:
    """Ask for a WebSocket as a browser does, and return the HTTP status."""
    host, port = ws_url.partition("://")[2].split(":")
    lines = ["GET / HTTP/1.1", f"Host: {host}:{port}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Ng=="]
    lines += [f"Origin: {origin}"] if origin else []
    with socket.create_connection((host, int(port)), 5) as peer:
        peer = tls.wrap_socket(peer, server_hostname=host) if tls else peer
        peer.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return int(peer.recv(1000).split(b" ")[1])
