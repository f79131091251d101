"""Links to the pages of a server, and whether these are there. The part behind the `#` is `protocol.links`."""

from __future__ import annotations

import json
import re
import socket
import time
from contextlib import suppress
from math import inf
from urllib.parse import urlsplit

from natsproc.access import Credential, parts_of, to_line, write_private
from natsproc.errors import BadName, Error
from natsproc.protocol.names import DEFAULT_PREFIX

from .certificates import hosts_of, machine_addresses
from .home import Home, State, host_port, is_loopback, is_wildcard
from .trust import context_for

REACH_SECONDS = 3.0
START_SECONDS = 5.0
_ORIGIN = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d+)?")


def host_of(state: State) -> str:
    """The address by which others reach the server, if any do."""
    return next(iter(machine_addresses()), state.near) if is_wildcard(state.host) else state.near


def is_near(state: State) -> bool:
    """Whether only this machine can open its pages."""
    return is_loopback(state.host)


def takes(state: State, origin: str) -> bool:
    """Whether pages of that origin may open its WebSocket."""
    return origin in (*map(state.pages_url_at, hosts_of(state)), *state.origins)


def publish(home: Home, creds: str, url: str, prefix: str = DEFAULT_PREFIX) -> str:
    """Have the pages give out all of a credential but its key, and return that: so a link is short. Raises: Error.

    What has ended by itself is not given out any longer.
    """
    made = Credential.of(creds, "the credential")
    jwt, seed = parts_of(creds)
    said = {"jwt": jwt, "url": url, "prefix": prefix, "expires": made.expires}
    try:
        home.links.mkdir(mode=0o700, exist_ok=True)
        for path in home.links.glob("*.json"):
            with suppress(OSError, ValueError, AttributeError):
                if (json.loads(path.read_text()).get("expires") or inf) < time.time():
                    path.unlink()
        write_private(home.links / f"{made.key}.json", json.dumps(said))
    except OSError as error:
        raise Error(f"cannot write into {home.links}: {error.strerror}") from None
    return seed


def line(creds: str, url: str, prefix: str = DEFAULT_PREFIX) -> str:
    """A .creds text as a page takes it: with what a browser needs and no more."""
    return to_line(creds, prefix=prefix, url=url)


def answer(home: Home, state: State, *, patience: float = START_SECONDS) -> bool:
    """Whether the pages of this very server answer, or do within `patience` seconds, being just started. Raises: Error."""
    deadline = time.monotonic() + patience
    while not (found := _answer_now(home, state)) and state.pages_port and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _answer_now(home: Home, state: State) -> bool:
    with suppress(OSError), socket.create_connection((state.near, state.pages_port), REACH_SECONDS) as peer:
        peer.settimeout(REACH_SECONDS)
        if state.tls:
            peer = context_for(home.ca(state)).wrap_socket(peer, server_hostname=state.tls_name)
        peer.sendall(b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return f"\r\nServer: {state.name}\r\n".encode() in b"".join(iter(lambda: peer.recv(4096), b""))
    return False


def insist(home: Home, state: State) -> None:
    """Make sure that the pages are there, and nobody else's: a link has a secret. Raises: Error."""
    if answer(home, state):
        return
    if not state.pages_port:
        raise Error(
            "the server was started by an earlier version, without pages: `natsproc down`, then `natsproc up`"
        )
    raise Error(
        f"the pages do not answer at {state.pages_url_at(state.near)}: see {home.folder}/supervisor.log; if another "
        "program has the port, `natsproc down`, then `natsproc up` takes a free one"
    )


def check_origin(text: str) -> str:
    """An origin as browsers send it. Raises: BadName."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    origin = f"{parts.scheme}://{host_port(host, port) if port else parts.netloc.lower()}" if host else ""
    if not _ORIGIN.fullmatch(origin) or text.lower().rstrip("/") != origin:
        raise BadName(f"{text!r} is no origin of a page: it looks like https://host or http://host:8080")
    return origin
