"""Makes a node visible to `nats micro ls`, `info` and `stats` (ADR-32).

Written out rather than taken from nats-py, whose service answers any reply subject: a node that did could be
made to publish into JetStream's API with its own rights. Only inboxes are answered here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from natsproc.errors import Error
from natsproc.protocol.messages import encode

from .connection import Connection

SERVICE = "natsproc"
_TYPES = {
    "PING": "io.nats.micro.v1.ping_response",
    "INFO": "io.nats.micro.v1.info_response",
    "STATS": "io.nats.micro.v1.stats_response",
}


class Discovery:
    """Answers `$SRV` requests for one node."""

    def __init__(
        self, connection: Connection, node: str, version: str, metadata: Callable[[], dict[str, str]]
    ) -> None:
        self._connection = connection
        self._node = node
        self._version = version
        self._metadata = metadata
        self._subscriptions: list[Subscription] = []

    async def start(self, started: str) -> None:
        """Answer from now on; `started` is the node's start time, RFC 3339."""
        self._started = started
        for verb in _TYPES:
            for suffix in ("", f".{SERVICE}", f".{SERVICE}.{self._node}"):
                self._subscriptions.append(
                    await self._connection.subscribe(f"$SRV.{verb}{suffix}", self._answer)
                )

    async def _answer(self, msg: Msg) -> None:
        if not msg.reply.startswith("_INBOX."):
            return
        verb = msg.subject.split(".")[1]
        answer: dict[str, Any] = {
            "type": _TYPES[verb],
            "name": SERVICE,
            "id": self._node,
            "version": self._version,
            "metadata": self._metadata(),
        }
        if verb != "PING":
            answer["endpoints"] = []
        if verb == "INFO":
            answer["description"] = "runs processes that have an address"
        if verb == "STATS":
            answer["started"] = self._started
        try:
            await self._connection.publish(msg.reply, encode(answer))
        except Error:
            pass

    async def stop(self) -> None:
        """Answer no more."""
        for subscription in self._subscriptions:
            await self._connection.unsubscribe(subscription)
