"""Both ends of a log for tests: an owner that writes it with plain publishes, and a viewer that remembers."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from natsproc.bus.connection import Connection
from natsproc.bus.kv import Bucket
from natsproc.bus.tail import Start, follow
from natsproc.errors import Error
from natsproc.protocol.messages import Event, Notice, encode, encode_event, encode_frame, encode_mark
from natsproc.protocol.names import Address, Names, key_of, new_token, node_inbox
from natsproc.protocol.records import Claim, Cut

A = Address("default", "a")
ALL = Start("first")
TIME = "2026-01-01T00:00:00.000Z"


class RawLog:
    """The owner's end of one log, as a client in another language would write it. After any failure everything unacknowledged is sent again, in order."""

    def __init__(self, connection: Connection, names: Names, address: Address) -> None:
        self.connection = connection
        self.names = names
        self.address = address
        self.subject = names.events(address)
        self.epoch = self.run = 1
        self.offset = 0
        self.cuts: list[Cut] = []

    async def claim(self, *, restart: bool = False, record: bool = True) -> int:
        """Take the id, as rules 1 to 3 say, and return the epoch; without `record` the cut stays unrecorded."""
        bucket = Bucket(self.connection, self.names.claims)
        self.run += restart
        self.nonce = new_token()
        claimed = Claim(self.nonce, "raw", run=self.run, cuts=tuple(self.cuts))
        self.epoch = await bucket.put(key_of(self.address), encode(claimed.to_json()))
        position = await self.store(encode_mark(self.epoch, self.run, TIME, self.nonce, "raw"))
        self.cuts.append(Cut(self.epoch, self.run, self.offset + 1, position))
        if record:
            await self.record()
        return self.epoch

    async def record(self) -> None:
        """Write the cuts into the claim record."""
        claim = Claim(self.nonce, "raw", self.epoch, self.run, cuts=tuple(self.cuts))
        await Bucket(self.connection, self.names.claims).put(key_of(self.address), encode(claim.to_json()))

    def payload(self, kind: str = "output", data: object = None, *, offset: int | None = None) -> bytes:
        """The next event, or one of a given offset."""
        if offset is None:
            self.offset += 1
            offset = self.offset
        data = {"n": offset} if data is None else data
        return encode_event(offset, encode_frame(self.epoch, self.run, TIME), encode(kind), encode(data))

    async def store(self, payload: bytes) -> int:
        """Store one message, however long it takes, and return its position."""
        while True:
            try:
                return int((await self.connection.store(self.subject, payload, timeout=1))["seq"])
            except Error:
                await asyncio.sleep(0.05)

    async def emit(self, count: int = 1) -> None:
        """Store that many events."""
        await self.store_all([self.payload() for _ in range(count)])

    async def end(self, status: str = "completed", code: int = 0) -> None:
        await self.store(self.payload("exited", {"status": status, "code": code, "signal": None}))

    async def store_all(self, payloads: list[bytes], window: int = 500) -> None:
        """Store many messages in order, in windows, each wholly acknowledged before the next."""
        acknowledged: set[int] = set()
        heard = asyncio.Event()

        async def on_ack(msg) -> None:
            if b'"seq"' in msg.data:
                acknowledged.add(int(msg.subject.rsplit(".", 1)[1]))
            heard.set()

        inbox = f"{node_inbox(self.connection.sender)}.{new_token()}"
        subscription = await self.connection.subscribe(f"{inbox}.*", on_ack)
        try:
            start = 0
            while start < len(payloads):
                await self.connection.wait_connected()
                end = min(start + window, len(payloads))
                for number in range(start, end):
                    await self.connection.publish(self.subject, payloads[number], reply=f"{inbox}.{number}")
                try:
                    async with asyncio.timeout(1):
                        while not acknowledged.issuperset(range(start, end)):
                            heard.clear()
                            await heard.wait()
                except TimeoutError:
                    pass
                start = next((n for n in range(start, end) if n not in acknowledged), end)
        finally:
            await self.connection.unsubscribe(subscription)


class Viewer:
    """A tail, and what it has shown so far. Most of what would come straight it takes so, if that is allowed."""

    refused = 4  # every so many-th offer

    def __init__(
        self,
        connection: Connection,
        start: Start = ALL,
        *,
        address: Address = A,
        detour: bool = False,
        **options,
    ) -> None:
        self.items = []
        self.grew = asyncio.Event()
        self.offered = self.straight = 0
        straight = None if detour else self._take
        self.source = follow(connection, Names(), address, start=start, straight=straight, **options)
        self.task = asyncio.create_task(self._run())

    async def _run(self):
        async with aclosing(self.source) as source:
            async for items in source:
                assert items
                self.items += items
                self.grew.set()

    def _take(self, events):
        assert events
        self.offered += 1
        if self.offered % self.refused == 0:
            return False
        self.straight += len(events)
        self.items += events
        self.grew.set()
        return True

    async def until(self, condition, timeout=30):
        async with asyncio.timeout(timeout):
            while not condition():
                if self.task.done():
                    self.task.result()
                    raise AssertionError(f"ended with {self.items[-3:]}")
                self.grew.clear()
                await self.grew.wait()

    async def end(self, timeout=30):
        await asyncio.wait_for(self.task, timeout)
        return self

    @property
    def offsets(self):
        return [item.offset for item in self.items if isinstance(item, Event)]

    @property
    def notices(self):
        return [item.type for item in self.items if isinstance(item, Notice)]
