"""Which pages of other sites may call: for `natsproc serve-http`, which has no host that decides."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from .request import Receive, Scope, Send

_METHODS: Final = "GET, HEAD, POST, OPTIONS"
_HEADERS: Final = "authorization, content-type, last-event-id"
_MAX_AGE: Final = "600"


class Cors:
    """An ASGI application for pages of these origins, too. No cookies are taken, so no page needs to be kept from them."""

    def __init__(self, app: Any, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        origin = headers.get(b"origin", b"").decode("latin-1")
        if scope["type"] != "http" or origin not in self._origins:
            await self._app(scope, receive, send)
            return
        said = [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            said += [
                (b"access-control-allow-methods", _METHODS.encode()),
                (b"access-control-allow-headers", _HEADERS.encode()),
                (b"access-control-max-age", _MAX_AGE.encode()),
            ]
            await send({"type": "http.response.start", "status": 204, "headers": said})
            await send({"type": "http.response.body", "body": b""})
            return

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *said]}
            await send(message)

        await self._app(scope, receive, sending)
