"""An HTTP request as ASGI brings it: typed, its body bounded, and its client watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from .problems import Problem

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_BYTES = 8 * 1024 * 1024  #: more than a nats-server takes in one message as a rule


@dataclass(frozen=True)
class Request:
    """What a client asks, for `authorize` to look at."""

    method: str
    path: str  #: below the place where the application is mounted
    scope: Mapping[str, Any]  #: ASGI's own, with what middleware has left there: `session`, `user`, `state` …

    @classmethod
    def of(cls, scope: Scope) -> Request:
        """Read it; a server or framework that mounts us says where in `root_path`."""
        path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
        if root and path.startswith(root) and path[len(root) :][:1] in ("", "/"):
            path = path[len(root) :]
        return cls(str(scope["method"]).upper(), path or "/", scope)

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """By name in lower case; what came several times is joined by commas."""
        found: dict[str, str] = {}
        for raw, text in self.scope["headers"]:
            name, value = raw.decode("latin-1").lower(), text.decode("latin-1")
            found[name] = (
                f"{found[name]}{'; ' if name == 'cookie' else ', '}{value}" if name in found else value
            )
        return found

    @cached_property
    def cookies(self) -> Mapping[str, str]:
        try:
            return {
                name: morsel.value for name, morsel in SimpleCookie(self.headers.get("cookie", "")).items()
            }
        except CookieError:
            return {}

    @cached_property
    def query(self) -> Mapping[str, Sequence[str]]:
        """All values of each parameter."""
        text = self.scope.get("query_string", b"").decode("latin-1")
        try:
            return parse_qs(text, keep_blank_values=True, max_num_fields=100)
        except ValueError as error:
            raise Problem(422, f"the query cannot be read: {error}") from None

    @property
    def mounted(self) -> str:
        """The place where the application is mounted, as a path."""
        return str(self.scope.get("root_path", "")).rstrip("/")

    @property
    def origin(self) -> str:
        """How this server was called: `https://example.com`."""
        host, port = self.scope.get("server") or ("localhost", None)
        return f"{self.scope.get('scheme', 'http')}://{self.headers.get('host') or f'{host}:{port}'}"

    @property
    def client(self) -> str:
        """The address of the other end of the connection; empty where the server does not say."""
        return str((self.scope.get("client") or ("",))[0])


async def read_body(receive: Receive) -> bytes:
    """Read the whole body. Raises: Problem (413)."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > BODY_BYTES:
            raise Problem(413, f"the body is larger than {BODY_BYTES} bytes")
        if not message.get("more_body"):
            return bytes(body)


async def read_json(request: Request, receive: Receive) -> bytes:
    """Read a body that says that it is JSON, or is none. Raises: Problem (413, 415).

    A page of any site may have a browser post a form here with its user's cookies, but not JSON: that it may only if
    the host's CORS says so. So nothing else is taken, and from a browser (which says its `Origin`) not nothing either.
    """
    raw, kind = await read_body(receive), request.headers.get("content-type", "")
    is_json = kind.partition(";")[0].strip().lower() == "application/json"
    if not is_json and (raw or "origin" in request.headers):
        raise Problem(
            415, "post JSON: Content-Type: application/json", headers={"Accept": "application/json"}
        )
    return raw


class ClientGone(Exception):
    """The client closed the connection before it had its answer."""


@asynccontextmanager
async def while_there(receive: Receive) -> AsyncIterator[None]:
    """Do what is inside as long as the client is there; the moment it goes, leave. Raises: ClientGone."""
    loop = asyncio.get_running_loop()
    scope = asyncio.timeout(None)
    inside = True

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if inside:
            scope.reschedule(loop.time())

    watching: asyncio.Task[None] | None = None
    try:
        async with scope:
            watching = asyncio.create_task(gone())
            yield
    except TimeoutError:
        if scope.expired():
            raise ClientGone from None
        raise
    finally:
        inside = False
        if watching:
            watching.cancel()
