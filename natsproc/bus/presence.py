"""Who watches a process: viewers say so now and then, and its owner counts them. Protocol: section 6.1.

The owner's count goes into its registry record, so viewers see each other without hearing each other: a thousand of
them are a thousand messages in ten seconds for the owner, and none for each other.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from natsproc.errors import BadPayload, Error
from natsproc.protocol.messages import decode_object, encode
from natsproc.protocol.names import Address, Names, new_token

from .connection import Connection

ANNOUNCE_SECONDS = 10.0
FORGET_SECONDS = 25.0  #: without a word after which a viewer is gone; two may be lost
MOST = 10_000  #: viewers that are counted


@asynccontextmanager
async def announced(connection: Connection, names: Names, address: Address) -> AsyncIterator[None]:
    """While inside, be counted among the viewers of a process, as far as that is allowed."""
    subject, viewer = names.viewers(address, connection.sender), new_token(8)
    again = asyncio.Event()

    async def say(**more: bool) -> None:
        with suppress(Error):
            await connection.publish(subject, encode({"viewer": viewer, **more}))

    async def keep() -> None:
        while True:
            await connection.wait_connected()
            await say()
            again.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(ANNOUNCE_SECONDS):
                    await again.wait()

    forget = connection.on_reconnect(again.set)
    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        forget()
        keeping.cancel()
        if connection.connected:
            await say(left=True)


class Audience:
    """The viewers of one process, as its owner sees them."""

    def __init__(
        self, connection: Connection, names: Names, address: Address, changed: Callable[[], None]
    ) -> None:
        """`changed` is called on the I/O loop whenever who watches has changed."""
        self.senders: Mapping[str, int] = {}  #: by sender, how many watch as that; never changed in place
        self._connection = connection
        self._subject = names.viewers(address)
        self._changed = changed
        self._until: dict[tuple[str, str], float] = {}
        self._subscription: Subscription | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Count from now on. Raises: Closed."""
        self._subscription = await self._connection.nc.listen(self._subject, self._hear)

    async def close(self) -> None:
        """Count no more."""
        if self._sweeping:
            self._sweeping.cancel()
        await self._connection.unsubscribe(self._subscription)

    def _hear(self, msg: Msg) -> None:
        with suppress(BadPayload):
            said = decode_object(msg.data, "announcement")
            viewer = (msg.subject.rsplit(".", 1)[1], str(said.get("viewer", ""))[:64])
            known = viewer in self._until
            if said.get("left"):
                self._until.pop(viewer, None)
            elif known or len(self._until) < MOST:
                self._until[viewer] = asyncio.get_running_loop().time() + FORGET_SECONDS
            if known != (viewer in self._until):
                self._count()

    def _count(self) -> None:
        senders = dict(sorted(Counter(sender for sender, _ in self._until).items()))
        if senders != self.senders:
            self.senders = senders
            self._changed()
        if self._until and not self._sweeping:
            self._sweeping = asyncio.get_running_loop().call_at(min(self._until.values()), self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        now = asyncio.get_running_loop().time()
        self._until = {viewer: until for viewer, until in self._until.items() if until > now}
        self._count()
