"""Links to pages: where the pages are, and the credential that a page gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from natsproc import granting
from natsproc.access import Grant, local_sender
from natsproc.errors import BadName, Error, NoServer, Refused
from natsproc.protocol.links import Link
from natsproc.protocol.names import DEFAULT_PREFIX, Address
from natsproc.server import joined, links
from natsproc.server.home import Home, State, host_port

if TYPE_CHECKING:
    from natsproc.bus.connection import Endpoint

_AUTHENTICATES = ("user", "password", "token", "nkeys_seed")


@dataclass(frozen=True)
class Where:
    """Where a page comes from, and where it connects to."""

    ws_url: str
    pages_url: str = ""  #: empty if nobody serves pages there


@dataclass(frozen=True)
class Wanted:
    """What a page is to show, and what may be done there."""

    process: Address | None = None
    can: Sequence[str] = ("watch", "send", "control")
    on: Sequence[str] = ("*/*",)
    sender: str = field(default_factory=lambda: f"{local_sender()}-console")
    seconds: float | None = 12 * 3600.0
    prefix: str = DEFAULT_PREFIX


def own(home: Home) -> State:
    """The server of the home, whose pages answer. Raises: NoServer; Error if they do not, or if a mesh was joined."""
    if found := joined.load(home.joined):
        raise Error(
            f"this machine has joined the mesh at {found.urls[0]}: such links are made on the machine that runs the server"
        )
    state = home.load()
    if state is None or not home.running:
        raise NoServer("no nats-server runs here: start one with `natsproc up`")
    links.insist(home, state)
    return state


def at(state: State, place: tuple[str, int] | None) -> Where:
    """The pages of a home's server by another host and port than its own, if one is named."""
    host, port = place or (links.host_of(state), 0)
    return Where(state.ws_url_at(host), state.pages_url_at(host, port))


def where(home: Home, endpoint: Endpoint, place: tuple[str, int] | None = None) -> Where:
    """The pages for a server that was found. Raises: BadName if it is not known where it takes WebSocket; Error."""
    state = home.load() if home.running else None
    if endpoint.look or (state and endpoint.servers[0] in (state.url, state.ws_url)):
        return at(own(home), place)
    if {url.partition(":")[2] for url in endpoint.servers} <= joined.places(home.joined):
        there = joined.load(home.joined)
        assert there
        host, s = urlsplit(there.urls[0]).hostname or "", "s" if there.tls_name else ""
        pages = f"http{s}://{host_port(host, there.pages_port)}" if there.pages_port else ""
        if there.ws_port:
            return Where(f"ws{s}://{host_port(host, there.ws_port)}", pages)
    if endpoint.servers[0].startswith(("ws:", "wss:")):
        return Where(endpoint.servers[0])
    raise BadName(
        "a browser connects by WebSocket, and where the server takes it is not known: name that by --server ws://HOST:PORT, "
        "or wss:// (a --context or --creds beside it says who you are)"
    )


def granted(home: Home, where: Where, wanted: Wanted) -> tuple[Link, Grant]:
    """A link with a credential that is made for it: with its key only, where pages of ours have the rest.

    Raises: BadName; Error without keys.
    """
    made = granting.grant(
        wanted.sender, wanted.can, wanted.on, seconds=wanted.seconds, prefix=wanted.prefix, keys=home.keys
    )
    if where.pages_url:
        key = links.publish(home, made.creds, where.ws_url, wanted.prefix)
        return Link("", wanted.process, key=key), made.grant
    return Link(links.line(made.creds, where.ws_url, wanted.prefix), wanted.process), made.grant


def lent(endpoint: Endpoint, ws_url: str, wanted: Wanted) -> Link:
    """A link with the credential that this machine itself has for the server, if one is needed. Raises: Refused."""
    if endpoint.secret:
        return Link(links.line(endpoint.secret, ws_url, wanted.prefix), wanted.process)
    if any(name in endpoint.options for name in _AUTHENTICATES):
        raise Refused("a page cannot log in by password, token or nkey: give a .creds file by --creds")
    return Link("", wanted.process, ws_url, wanted.sender)


def insist_on_origin(endpoint: Endpoint, ws_url: str, origin: str) -> None:
    """Make sure that a page of that origin gets in. Raises: NoServer, Refused, saying what to configure."""
    from natsproc.server.exposure import upgrades

    status = upgrades(ws_url, endpoint, origin)
    if not status:
        raise NoServer(
            f"no WebSocket answers at {ws_url}, and a page needs one: nats-server has it with `websocket {{ listen: "
            '"HOST:9222", … }` in its configuration (docs/operators.md)'
        )
    if status != "101":
        raise Refused(
            f'{ws_url} takes no page of {origin} (HTTP {status}): add "{origin}" to `allowed_origins` in the websocket '
            f"block of nats-server's configuration; for one that natsproc started, `natsproc up --origin {origin}`"
        )
