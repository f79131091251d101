"""Responses that are said at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from natsproc.protocol.messages import encode

from .problems import MEDIA_TYPE, Problem
from .request import Send

JSON = "application/json"
STREAM = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx hands on what comes at once
}
"""The headers of Server-Sent Events."""


async def start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    """Send status and headers."""
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def reply(
    send: Send,
    value: Any,
    *,
    status: int = 200,
    media_type: str = JSON,
    headers: Mapping[str, str] | None = None,
    head: bool = False,
) -> None:
    """Send a JSON document; with `head` all but itself."""
    body = encode(value) + b"\n"
    about = {"Content-Type": media_type, "Content-Length": str(len(body)), "Cache-Control": "no-store"}
    await start(send, status, about | dict(headers or {}))
    await send({"type": "http.response.body", "body": b"" if head else body})


async def nothing(send: Send, headers: Mapping[str, str] | None = None) -> None:
    """Send 204."""
    await start(send, 204, headers or {})
    await send({"type": "http.response.body", "body": b""})


async def tell(send: Send, problem: Problem, *, head: bool = False) -> None:
    """Send a problem."""
    await reply(
        send, problem.to_json(), status=problem.status, media_type=MEDIA_TYPE, headers=problem.headers, head=head
    )  # fmt: skip
