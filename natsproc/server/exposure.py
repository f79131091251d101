"""What strangers could reach, read or be: the part of the doctor that looks for open doors."""

from __future__ import annotations

import socket
import ssl
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from natsproc.bus.connection import Connection, Endpoint
from natsproc.errors import Error
from natsproc.protocol.names import Names

from . import links
from .home import Home, State, is_loopback

CERTIFICATE_DAYS = 30
REACH_SECONDS = 3.0
_LONG = 60_000  # bytes of a line that a server with max_control_line 65536 takes
_PAGE = (
    "GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: {}\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bmF0c3Byb2Ntbm90LiEhIQ==\r\n\r\n"
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    about: str
    text: str
    level: Literal["ok", "warning", "problem"] = "ok"
    advice: str = ""


async def network(connection: Connection, names: Names) -> AsyncIterator[Finding]:
    """Who can connect to the server, and whether what is said stays between the two."""
    url = urlsplit(connection.url)
    near = is_loopback(url.hostname or "")
    encrypted = url.scheme == "wss" or connection.nc.certificate is not None
    if near or encrypted:
        yield Finding(
            "network", "by TLS" if encrypted else "nothing leaves this machine on the way to the server"
        )
    else:
        text = f"no TLS on the way to {connection.url}: whoever is there can read all, and act as anyone"
        yield Finding("network", text, "problem", "give the server a certificate (`natsproc up --tls` does)")
    for finding in _certificate(connection):
        yield finding
    if url.scheme in ("ws", "wss"):
        for finding in websocket(connection.url, connection.endpoint):
            yield finding
        return
    if _says(url, connection.endpoint, b"CONNECT {}\r\nPING\r\n").startswith((b"PONG", b"+OK")):
        who = "every program of this machine" if near else "whoever reaches it"
        text = f"it asks for no credentials: {who} can do everything"
        yield Finding("authentication", text, "warning" if near else "problem", "see docs/operators.md")
    else:
        yield Finding("authentication", "nobody comes in without credentials")
    long = b'CONNECT {"name":"' + b"x" * _LONG + b'"}\r\nPING\r\n'
    if _says(url, connection.endpoint, long):
        yield Finding("control line", "long enough for credentials with many grants")
    else:
        text = "a credential with more than some twenty ids is turned away without a word"
        yield Finding(
            "control line", text, "warning", "max_control_line: 65536 in the server's configuration"
        )


def _certificate(connection: Connection) -> Iterator[Finding]:
    if not (certificate := connection.nc.certificate):
        return
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86400
    text = f"the server's certificate is good for another {days:.0f} days"
    if days > CERTIFICATE_DAYS:
        yield Finding("certificate", text)
    else:
        advice = (
            "have a new one there; one of the embedded server's own is made by `natsproc down`, `natsproc up`"
        )
        yield Finding("certificate", text, "warning", advice)


def websocket(url: str, endpoint: Endpoint) -> Iterator[Finding]:
    """Whether a page of any web site could open a WebSocket there."""
    status = upgrades(url, endpoint, "https://example.com")
    if status == "101":
        advice = "set allowed_origins (`natsproc down`, then `natsproc up` does)"
        yield Finding("websocket", f"{url} takes connections from any web site", "problem", advice)
    elif status:
        yield Finding("websocket", f"{url}, for pages of its own only")
    else:
        yield Finding("websocket", f"{url} does not answer", "warning", "see the server's log")


def upgrades(url: str, endpoint: Endpoint, origin: str) -> str:
    """The HTTP status with which a page of that origin is met there: 101 lets it in; empty without an answer."""
    answer = _says(urlsplit(url), endpoint, _PAGE.format(origin).encode(), greeted=False)
    return answer.decode("latin-1").partition(" ")[2][:3]


def _says(url: SplitResult, endpoint: Endpoint, said: bytes, *, greeted: bool = True) -> bytes:
    """The first line of what the server answers a stranger; empty if it hangs up, or says that this is too long."""
    context, name = endpoint.options.get("tls"), endpoint.options.get("tls_hostname")
    with suppress(OSError), socket.create_connection((url.hostname, url.port or 4222), REACH_SECONDS) as peer:
        peer.settimeout(REACH_SECONDS)
        greeting = peer.makefile("rb").readline() if greeted else b""
        if url.scheme in ("tls", "wss") or b'"tls_required":true' in greeting:
            context = context or ssl.create_default_context()
            peer = context.wrap_socket(peer, server_hostname=name or url.hostname)
        peer.sendall(said)
        line = peer.makefile("rb").readline()
        return b"" if b"control line" in line.lower() else line
    return b""


def files(endpoint: Endpoint, home: Home) -> Iterator[Finding]:
    """Whether others on this machine can read what is secret."""
    found = exposed(endpoint, home)
    secrets = [path for path, mode in found if mode == 0o600]
    for path in secrets:
        advice = f"chmod 600 {path}, or `natsproc doctor --fix`"
        yield Finding("files", f"others on this machine can read {path}", "problem", advice)
    if not secrets:
        yield Finding("files", "keys and credentials can be read by you alone")
    if len(found) > len(secrets):
        text = f"others on this machine can see which files are in {home.folder}"
        yield Finding("files", text, "warning", f"chmod 700 {home.folder}")


def exposed(endpoint: Endpoint, home: Home) -> list[tuple[Path, int]]:
    """The secret files that others can read, the folder of the home if they can look into it, and the right modes."""
    secrets = [home.keys, home.creds, home.authority_pem, home.server_pem, home.opening]
    secrets += [home.joined / "machine.creds"]
    secrets += [Path(path) for path in (endpoint.creds, endpoint.options.get("nkeys_seed")) if path]
    wanted = dict.fromkeys(secrets, 0o600) | {home.folder: 0o700}
    return [(path, mode) for path, mode in wanted.items() if _is_open(path)]


def _is_open(path: Path) -> bool:
    return path.exists() and bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def embedded(home: Home, state: State, endpoint: Endpoint) -> Iterator[Finding]:
    """On which address the embedded server listens, and its WebSocket."""
    where = "this machine only" if is_loopback(state.host) else state.host
    if state.tls or is_loopback(state.host):
        yield Finding("listens", f"on {where}{', by TLS only' if state.tls else ''}")
    else:
        text = f"on {where} without TLS: whoever is on the way can read all, and act as anyone"
        yield Finding("listens", text, "problem", "`natsproc down`, then `natsproc up --tls`")
    yield from websocket(state.ws_url, endpoint)
    try:
        links.insist(home, state)
    except Error as error:
        yield Finding("pages", str(error), "problem")
    else:
        also = f", and pages of {', '.join(state.origins)} may connect, too" if state.origins else ""
        yield Finding("pages", f"{state.pages_url_at(state.near)} answers{also}")
