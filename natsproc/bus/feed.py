"""What comes on one subject, for all who follow it on a connection: they share a subscription."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext
from typing import Generic, TypeVar

from nats.aio.subscription import Subscription

from .connection import Connection
from .handoff import together
from .parsing import Raw

T = TypeVar("T")


class Feed(Generic[T]):
    """One subscription; what it brings is read once, and heard by all who have joined."""

    def __init__(
        self, connection: Connection, subject: str, read: Callable[[list[Raw]], Sequence[T]]
    ) -> None:
        self._connection = connection
        self._subject = subject
        self._read = read
        self._hearers: tuple[Callable[[Sequence[T]], object], ...] = ()
        self._subscription: Subscription | None = None

    @classmethod
    async def join(
        cls,
        connection: Connection,
        subject: str,
        read: Callable[[list[Raw]], Sequence[T]],
        hear: Callable[[Sequence[T]], object],
    ) -> Feed[T]:
        """Have `hear` called with what `read` makes of what comes, from now on and before whatever is sent after this.

        All who follow a subject have to read it alike, and whoever hears it must not change it. Raises: Closed.
        """
        feed: Feed[T] = connection.shared.get((Feed, subject)) or cls(connection, subject, read)
        connection.shared[Feed, subject] = feed
        feed._hearers += (hear,)
        if len(feed._hearers) == 1:
            feed._subscription = await connection.nc.listen_in_lists(subject, feed._hear)
        return feed

    def leave(self, hear: Callable[[Sequence[T]], object]) -> Coroutine[None, None, None]:
        """Hear no more, at once; what is returned tells the server, if nobody else listens."""
        self._hearers = tuple(other for other in self._hearers if other != hear)
        subscription = None
        if not self._hearers:
            if self._connection.shared.get((Feed, self._subject)) is self:
                self.forget(self._connection, self._subject)
            subscription, self._subscription = self._subscription, None
        return self._connection.unsubscribe(subscription)

    @staticmethod
    def forget(connection: Connection, subject: str) -> None:
        """Have whoever joins from now on subscribe anew, because the server has refused the subscription that there is."""
        connection.shared.pop((Feed, subject), None)

    def _hear(self, messages: list[Raw]) -> None:
        found = self._read(messages)
        with together() if len(self._hearers) > 1 else nullcontext():
            for hear in self._hearers if found else ():
                try:
                    hear(found)
                except Exception as error:  # the others hear it all the same
                    self._connection.nc.failed(error)
