"""Bearer tokens: a credential in one line, with which its holder acts, or a token of this server's own.

Whoever sends a credential is given a connection with it, to this mesh's server and to no other that it may name; so
the nats-server holds them to their rights, and the log says who they are.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace

from natsproc.access import Credential
from natsproc.access.credential import LINE
from natsproc.bus.connection import Endpoint
from natsproc.client import Mesh
from natsproc.errors import BadPayload, Error, NotAllowed

from .access import Verdict
from .request import Request
from .routes import Right

MOST = 100  #: credentials that have a connection at the same time
OPENING = 8  #: connections that are being opened at the same time
_SECRETS = ("user", "password", "token", "nkeys_seed")


class Bearers:
    """What `natsproc serve-http` gives as `authorize`."""

    def __init__(self, mesh: Mesh, token: str = "") -> None:
        """`mesh` is this server's own, and open; whoever has `token` acts as it, without any bounds."""
        self._mesh = mesh
        self._token = token.encode()
        # by what is signed in a credential; the one that was asked for longest ago comes first
        self._meshes: OrderedDict[str, Mesh] = OrderedDict()
        self._coming: dict[str, asyncio.Task[Mesh]] = {}
        self._opening = asyncio.Semaphore(OPENING)
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def takes_credentials(self) -> bool:
        """Whether a credential proves anything here: the server asks for one, and ours is such a one."""
        return bool(self._issuer) and self._mesh.connection.asks_who

    @property
    def _issuer(self) -> str:
        secret = self._mesh.connection.endpoint.secret
        return Credential.of(secret, "the credential").issuer if secret else ""

    async def __call__(self, request: Request, namespace: str, id: str, right: Right) -> Verdict:
        """See `Authorize`. Raises: Error, if the server cannot be reached."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return None
        if token.startswith(LINE):
            return await self._mesh_of(token)
        return True if self._token and hmac.compare_digest(token.encode(), self._token) else None

    async def _mesh_of(self, line: str) -> Mesh | None:
        credential = self._accepted(line)
        if credential is None:
            return None
        signed = credential.signed  # a line can be written in many ways, what its issuer has signed in one
        if (mesh := self._meshes.get(signed)) is not None:
            if not mesh.connection.closed.is_set():
                self._meshes.move_to_end(signed)
                return mesh
            self._drop(signed)  # it has ended
        opening = self._coming.get(signed)
        if opening is None:
            opening = self._coming[signed] = asyncio.create_task(self._open(credential))
            opening.add_done_callback(lambda done: self._came(signed, done))
        try:
            return await asyncio.shield(opening)
        except NotAllowed:
            return None

    def _came(self, signed: str, opening: asyncio.Task[Mesh]) -> None:
        self._coming.pop(signed)
        if not opening.cancelled():
            opening.exception()  # whoever waits hears of it, if anybody still does

    def _accepted(self, line: str) -> Credential | None:
        """Read it, if it is one of this mesh, and whoever sent it has its key; the server is yet to find whether it is true."""
        try:
            credential = Credential.of(line, "the token")
        except BadPayload:
            return None
        ours = self.takes_credentials and credential.issuer == self._issuer
        meant = credential.prefix in ("", self._mesh.names.prefix)
        fit = ours and meant and not credential.expired and credential.has_its_key
        return credential if fit else None

    async def _open(self, credential: Credential) -> Mesh:
        own = self._mesh.connection.endpoint
        mesh = Mesh(lambda: _as(own, credential), self._mesh.names, self._mesh.namespace)
        async with self._opening:
            await mesh.__aenter__()
        self._meshes[credential.signed] = mesh
        if len(self._meshes) > MOST:  # only now that the server has taken it: a forged one drives nobody out
            self._drop(next(iter(self._meshes)))
        return mesh

    def _drop(self, signed: str) -> None:
        """Let a connection go: what still streams there breaks off, and its client comes again."""
        closing = asyncio.create_task(_closed(self._meshes.pop(signed)))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        """Close all connections."""
        await asyncio.gather(*self._coming.values(), return_exceptions=True)
        for signed in list(self._meshes):
            self._drop(signed)
        await asyncio.gather(*self._closing)


def _as(own: Endpoint, credential: Credential) -> Endpoint:
    """The way to our own server, with another's credential."""
    return replace(
        own,
        creds=None,
        secret=credential.text,
        expires=credential.expires,
        renew=None,
        sender=credential.sender,
        verified=credential.pinned,
        direct=credential.direct,
        watches=credential.watches,
        options={name: value for name, value in own.options.items() if name not in _SECRETS},
        origin="the credential of the request",
    )


async def _closed(mesh: Mesh) -> None:
    with suppress(Error):
        await mesh.__aexit__()
