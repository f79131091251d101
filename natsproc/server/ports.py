"""Ports that are free to listen on."""

from __future__ import annotations

import socket
import time
from collections.abc import Collection

from natsproc.errors import Error


def choose_port(
    host: str, port: int, *, asked: bool = False, besides: Collection[int] = (), patience: float = 0.0
) -> int:
    """That port, or any free one if it is taken and stays so for `patience` seconds.

    Raises: Error in place of that, if it was asked for.
    """
    deadline = time.monotonic() + patience
    while port not in besides:
        if is_free(host, port):
            return port
        if time.monotonic() >= deadline:
            break
        time.sleep(0.02)
    if asked:
        raise Error(f"port {port} is taken; leave it out and natsproc takes a free one")
    with bound(host, 0) as probe:
        return int(probe.getsockname()[1])


def is_free(host: str, port: int) -> bool:
    """Whether one could listen there; port 0 asks for the address alone."""
    try:
        bound(host, port).close()
    except OSError:
        return False
    return True


def bound(host: str, port: int) -> socket.socket:
    """A socket on that address, as nats-server would have it. Raises: OSError."""
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    probe = socket.socket(family)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
    except OSError:
        probe.close()
        raise
    return probe
