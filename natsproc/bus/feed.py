"""What comes on one subject, for all who follow it on a connection: they share a subscription."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import nullcontext
from typing import Generic, TypeVar

import nats.errors
from nats.aio.subscription import Subscription

from natsproc.errors import Closed

from .connection import Connection
from .handoff import together
from .parsing import Raw

T = TypeVar("T")

TURN = 500  #: items that are handed over in one turn of the loop, to all hearers together: some milliseconds
LATE = 8192  #: items that wait for later turns, at most


class Feed(Generic[T]):
    """One subscription; what it brings is read once, and heard by all who have joined, in order.

    However many they are, and however much comes, the loop has its turns. Of what comes faster than they hear it what
    has not been begun is dropped: it is for them to notice.
    """

    def __init__(
        self, connection: Connection, subject: str, read: Callable[[list[Raw]], Sequence[T]]
    ) -> None:
        self._connection = connection
        self._subject = subject
        self._read = read
        self._hearers: dict[Callable[[Sequence[T]], object], None] = {}  # in the order of joining
        self._subscription: Subscription | None = None
        self._late: deque[Sequence[T]] = deque()
        self._rounds: Iterator[None] | None = None  # of what is being handed over
        self._unwatch = connection.on_denial(self._denied)

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
        feed._hearers[hear] = None
        if len(feed._hearers) == 1:
            try:
                feed._subscription = await connection.nc.listen_in_lists(subject, feed._hear)
            except nats.errors.ConnectionClosedError:
                await feed.leave(hear)
                await connection.wait_connected()  # which says why
                raise Closed("the connection is closed") from None
        return feed

    def leave(self, hear: Callable[[Sequence[T]], object]) -> Coroutine[None, None, None]:
        """Hear no more, at once; what is returned tells the server, if nobody else listens."""
        self._hearers.pop(hear, None)
        subscription = None
        if not self._hearers:
            self._forget()
            self._unwatch()
            subscription, self._subscription = self._subscription, None
        return self._connection.unsubscribe(subscription)

    def _denied(self, subject: str) -> None:
        if subject == self._subject.lower():
            self._forget()

    def _forget(self) -> None:
        """Have whoever joins from now on subscribe anew: what the server has refused brings nothing."""
        if self._connection.shared.get((Feed, self._subject)) is self:
            del self._connection.shared[Feed, self._subject]

    def _hear(self, messages: list[Raw]) -> None:
        if not (found := self._read(messages)):
            return
        if self._rounds:
            self._late.append(found)
            if sum(map(len, self._late)) > LATE:
                self._late.clear()
        elif len(found) * len(self._hearers) <= TURN:
            with together() if len(self._hearers) > 1 else nullcontext():
                for hear in tuple(self._hearers):  # who hears it may leave
                    self._tell(hear, found)
        else:
            self._late.append(found)
            self._rounds = self._in_rounds()
            self._go_on()

    def _go_on(self) -> None:
        assert self._rounds
        with together():
            if next(self._rounds, self) is self:
                self._rounds = None
                return
        asyncio.get_running_loop().call_soon(self._go_on)

    def _in_rounds(self) -> Iterator[None]:
        """Hand over what there is, with a pause behind each so many items."""
        told = 0
        while self._late:
            found = self._late.popleft()
            step = max(1, TURN // max(1, len(self._hearers)))
            for start in range(0, len(found), step):
                part = found[start : start + step]
                for hear in tuple(self._hearers):
                    if told >= TURN:
                        told = 0
                        yield
                    if hear in self._hearers:
                        self._tell(hear, part)
                        told += len(part)

    def _tell(self, hear: Callable[[Sequence[T]], object], found: Sequence[T]) -> None:
        try:
            hear(found)
        except Exception as error:  # the others hear it all the same
            self._connection.nc.failed(error)
