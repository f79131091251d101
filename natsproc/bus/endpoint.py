"""Where a connection goes, and as whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .mended import Look
from .renewal import Renew


@dataclass(frozen=True)
class Endpoint:
    """Which server, and as whom."""

    servers: tuple[str, ...]
    creds: str | None = None  #: path of the file of the credential
    secret: str = field(default="", repr=False)  #: its text, as in a .creds file
    expires: float | None = None  #: when that ends, in seconds since 1970
    renew: Renew | None = field(default=None, repr=False, compare=False)  #: gives the one to go on with
    prefix: str = ""  #: of the mesh that it is for, if it says so
    sender: str = "anonymous"  #: the name in the credential, or a claimed one
    verified: bool = False  #: whether the server pins the sender by permission
    direct: bool = True  #: whether it has rights on JetStream, as far as is known; else it asks the gate
    watches: tuple[tuple[str, str], ...] = ()
    """Where that is known, namespaces and ids, or `*`, that it may watch."""
    options: dict[str, Any] = field(default_factory=dict)  #: user, password, token, tls … for nats-py
    domain: str | None = None  #: JetStream domain
    origin: str = ""  #: for people: where this choice came from, as in "NATS_URL"
    look: Look | None = field(default=None, compare=False)  #: asked before every attempt to connect again
