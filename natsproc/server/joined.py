"""A mesh on another machine: the line that invites to it, and what a machine that joined it remembers.

The line is a secret: it holds a credential. So it is read from stdin or a file, never from an argument.
"""

from __future__ import annotations

import base64
import json
import shutil
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from natsproc.access import FULL, Grant, write_private
from natsproc.errors import BadPayload, Error, NoServer
from natsproc.protocol.names import DEFAULT_PREFIX

from .certificates import machine_addresses
from .home import Home, host_port, is_loopback, is_wildcard
from .trust import trusting

if TYPE_CHECKING:
    from natsproc.bus.connection import Endpoint

MARK = "natsproc-join."


@dataclass(frozen=True)
class Invitation:
    """What a machine needs to join a mesh."""

    urls: tuple[str, ...]
    creds: str = field(repr=False)  #: text of a .creds file
    ca: str = ""  #: PEM; empty without TLS, or where the certificate is by an authority that the system knows
    tls_name: str = ""  #: the name in the server's certificate
    ws_port: int = 0  #: where it takes WebSocket, at the same hosts
    pages_port: int = 0  #: where its pages are, likewise

    def encode(self) -> str:
        """Write it as one word."""
        packed = zlib.compress(json.dumps(list(vars(self).values())).encode(), 9)
        return MARK + base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Invitation:
        """Read what `encode` wrote, with whatever a terminal put around it. Raises: BadPayload, without showing it."""
        word = next((word for word in text.split() if word.startswith(MARK)), "").removeprefix(MARK)
        try:
            packed = base64.b64decode(word + "=" * (-len(word) % 4), altchars=b"-_", validate=True)
            urls, creds, ca, name, *ports = json.loads(zlib.decompress(packed))
            return cls(tuple(map(str, urls)), str(creds), str(ca), str(name), *map(int, ports[:2]))
        except (ValueError, TypeError, zlib.error):
            raise BadPayload(
                f"that is no line of `natsproc invite`, or only a part of one: it is one word that begins with {MARK}"
            ) from None


def invite(
    home: Home, name: str, *, at: tuple[str, int] | None = None, expires: float | None = None
) -> Invitation:
    """Make a credential with all rights for a machine of that name, and say how it reaches the home's server.

    `at` is the host and port by which it does, if natsproc cannot know them (behind NAT, through a tunnel);
    `expires` is in seconds since 1970. Raises: NoServer; Error if the server listens on this machine only;
    BadName if a narrower credential has that name.
    """
    from natsproc import granting

    state = home.load()
    if found := load(home.joined):
        raise NoServer(
            f"this machine has joined the mesh at {found.urls[0]}: `natsproc invite` is for the machine that runs its server"
        )
    if state is None or not home.running:
        raise NoServer("no nats-server runs here: start one with `natsproc up --listen ADDRESS --tls`")
    if at:
        urls = [state.url_at(*at)]
    elif is_loopback(state.host):
        raise Error(
            "the nats-server here listens on this machine only, so nobody can join: `natsproc down`, then "
            "`natsproc up --listen ADDRESS --tls`"
        )
    else:
        urls = [
            state.url_at(host) for host in (machine_addresses() if is_wildcard(state.host) else [state.host])
        ]
    entry = Grant(name, "", ("all",), ("*/*",), DEFAULT_PREFIX, int(time.time()))
    creds, _, _ = granting.make(granting.Place(home.keys), entry, FULL, expires)
    return Invitation(tuple(urls), creds, home.ca(state), state.tls_name, state.ws_port, state.pages_port)


def load(folder: Path) -> Invitation | None:
    """What `save` wrote there, or None. Raises: BadPayload."""
    try:
        urls, name, *ports = json.loads((folder / "joined.json").read_text())
        creds, ca = ((folder / file).read_text() for file in ("machine.creds", "ca.pem"))
        return Invitation(tuple(urls), creds, ca, name, *ports)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise BadPayload(f"cannot read {folder} ({error}): `natsproc leave`, then join anew") from None


def save(folder: Path, invitation: Invitation) -> None:
    """Keep it there, for the owner's eyes only; the last file makes it count."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    write_private(folder / "machine.creds", invitation.creds)
    write_private(folder / "ca.pem", invitation.ca)
    write_private(
        folder / "joined.json",
        json.dumps([invitation.urls, invitation.tls_name, invitation.ws_port, invitation.pages_port]),
    )


def endpoint(folder: Path) -> Endpoint | None:
    """How to connect to the mesh that is remembered there, if there is one. Raises: BadPayload."""
    from natsproc.bus.connection import Endpoint

    if (found := load(folder)) is None:
        return None
    return Endpoint(
        found.urls,
        creds=str(folder / "machine.creds"),
        options=trusting(found.ca, found.tls_name) if found.tls_name else {},
        origin="joined; a new line of `natsproc invite` there renews it, `natsproc leave` forgets it",
    )


def places(folder: Path) -> set[str]:
    """Where the mesh is that is remembered there, as `//host:port`, by NATS and by WebSocket. Raises: BadPayload."""
    if (found := load(folder)) is None:
        return set()
    hosts = {urlsplit(url).hostname or "" for url in found.urls}
    return {url.partition(":")[2] for url in found.urls} | {
        f"//{host_port(host, found.ws_port)}" for host in hosts if found.ws_port
    }


def leave(home: Home) -> bool:
    """Forget the mesh that was joined, credential included; say whether there was one."""
    there = (home.joined / "joined.json").exists()
    (home.joined / "joined.json").unlink(missing_ok=True)
    shutil.rmtree(home.joined, ignore_errors=True)
    return there


def describe(home: Home) -> dict[str, Any]:
    """Where the mesh is that this machine has joined, for `natsproc status`; empty if it has joined none."""
    if not (found := load(home.joined)):
        return {}
    ca = {"ca": str(home.joined / "ca.pem")} if found.ca else {}
    return {"joined": list(found.urls), "creds": str(home.joined / "machine.creds"), **ca}


def refuse_if_joined(home: Home) -> None:
    """Keep a server of its own from a machine whose commands go elsewhere. Raises: Error."""
    if found := load(home.joined):
        raise Error(
            f"this machine has joined the mesh at {found.urls[0]}, where its commands go: `natsproc leave` first "
            "to have a nats-server of its own"
        )
