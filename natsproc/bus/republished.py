"""Live entries as nats-server republishes them: where they lie in the log, and one subscription for all who follow."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterable
from contextlib import nullcontext

from nats.aio.subscription import Subscription

from .bulk import parse_header_block
from .connection import Connection
from .handoff import together
from .history import shared
from .parsing import Raw

Live = tuple[int, bytes, int]
"""Position and payload of an entry, and the position of the one before it on its subject."""

Hear = Callable[[list[Live]], object]

_HEADERS = re.compile(
    rb"NATS/1\.0\r\nNats-Stream: [^\r\n]*\r\nNats-Subject: [^\r\n]*\r\nNats-Sequence: (\d+)\r\n"
    rb"Nats-Time-Stamp: [^\r\n]*\r\nNats-Last-Sequence: (\d+)\r\n\r\n"
)


def placed(messages: Iterable[Raw]) -> list[Live]:
    """Each with its position and that of the one before it; without what is not from the stream, so not stored."""
    return [entry for _, _, payload, block in messages if (entry := _placed(payload, block))]


def _placed(payload: bytes, block: bytes) -> Live | None:
    try:
        if found := _HEADERS.fullmatch(block):  # as nats-server writes them
            position, previous = found.groups()
            return int(position), payload, int(previous)
        headers = parse_header_block(block)
        return int(headers["Nats-Sequence"]), payload, int(headers["Nats-Last-Sequence"])
    except (KeyError, ValueError):
        return None


class Feed:
    """What is republished on one subject, for all who follow that on a connection: they share a subscription."""

    def __init__(self, connection: Connection, subject: str) -> None:
        self._connection = connection
        self._subject = subject
        self._hearers: tuple[Hear, ...] = ()
        self._subscription: Subscription | None = None

    @classmethod
    async def join(cls, connection: Connection, subject: str, hear: Hear) -> Feed:
        """Have `hear` called with what comes, from now on and before whatever is sent after this. Raises: Closed."""
        self = shared(cls, connection, subject)
        self._hearers += (hear,)
        if len(self._hearers) == 1:
            self._subscription = await connection.nc.listen_in_lists(subject, self._hear)
        return self

    def leave(self, hear: Hear) -> Coroutine[None, None, None]:
        """Hear no more, at once; what is returned tells the server, if nobody else listens."""
        self._hearers = tuple(other for other in self._hearers if other != hear)
        subscription = None
        if not self._hearers:
            if self._connection.shared.get((Feed, self._subject)) is self:
                self.forget(self._connection, self._subject)
            subscription, self._subscription = self._subscription, None
        return self._connection.unsubscribe(subscription)

    @classmethod
    def forget(cls, connection: Connection, subject: str) -> None:
        """Have whoever joins from now on subscribe anew, because the server has refused the subscription that there is."""
        connection.shared.pop((cls, subject), None)

    def _hear(self, messages: list[Raw]) -> None:
        entries = placed(messages)
        with together() if len(self._hearers) > 1 else nullcontext():
            for hear in self._hearers if entries else ():
                try:
                    hear(entries)
                except Exception as error:  # the others hear it all the same
                    self._connection.nc.failed(error)
