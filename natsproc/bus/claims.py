"""Winning an id: claim by compare-and-set, mark the log, read it up to the own mark. Protocol: section 4.

What follows from what is decided in `protocol/ownership.py`; here is what it takes to ask the bus.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from natsproc.errors import BadPayload, Error, NoServer, ServerUnfit, TimedOut
from natsproc.protocol import ownership
from natsproc.protocol.messages import EXITED, Claim, Command, Cut, Entry, Lease, Receipt, encode, encode_mark
from natsproc.protocol.names import Address, Names, key_of, new_token
from natsproc.protocol.ownership import Fold, Opening, Verdict

from .clock import now, seconds_between
from .connection import ApiError, Connection, NoResponders
from .history import History, ReadFailed, StoredEntry
from .kv import Bucket, Conflict, marker_of
from .streams import LEASE_SECONDS
from .writer import Writer

T = TypeVar("T")

PING_SECONDS = 1.0
PATIENCE = 30.0  #: seconds for which a server that is away is waited for
_RETRY = 0.2
_UNAVAILABLE = 503
_PASSING = (NoServer, TimedOut, NoResponders, ServerUnfit, ReadFailed, ApiError)


@dataclass(frozen=True)
class Owned:
    """An id that was won."""

    address: Address
    epoch: int
    run: int
    next_offset: int
    nonce: str
    claim: Claim
    revision: int
    kind: Opening  #: the type of the first event to write
    received: dict[str, int] = field(default_factory=dict)  #: sender → inbox position consumed last


async def claim(
    connection: Connection,
    names: Names,
    address: Address,
    *,
    node: str,
    writer: Writer,
    restart: bool = False,
) -> Owned:
    """Take the id for this node, if nobody alive has it, and mark the log.

    Raises: AlreadyRunning, naming the node; AlreadyEnded, unless `restart` asks for a next run; NotAllowed;
    NoServer and the like once they have lasted for half a minute. Protocol: section 4.1.
    """
    claimant = _Claimant(connection, names, address, node, writer)
    while True:
        try:
            return await claimant.take(restart)
        except Conflict:  # somebody else was faster: see who
            continue


async def mark_ended(connection: Connection, names: Names, won: Owned, last: int = 0) -> None:
    """Note in the claim record that the run has ended, with event `last`: a hint, for the log decides.

    With it nobody need be asked whether they live, and offsets go on even from a log that was trimmed away.
    Raises: OwnershipLost, and what `Bucket.update` raises.
    """
    await _amend(
        connection,
        names,
        won,
        lambda record: replace(record, ended=True, extra={**record.extra, "last": last}),
    )


async def release(connection: Connection, names: Names, won: Owned) -> None:
    """Give the id up without an end, so that the next owner need not wait for a lease. Raises: as `mark_ended`."""
    await _amend(connection, names, won, lambda record: replace(record, node=""))


async def _amend(connection: Connection, names: Names, won: Owned, change: Callable[[Claim], Claim]) -> None:
    bucket, key = Bucket(connection, names.claims), key_of(won.address)
    record, revision = won.claim, won.revision
    while True:
        try:
            await bucket.update(key, encode(change(record).to_json()), revision)
            return
        except Conflict:
            found = await bucket.get(key, leader=True)
            current = Claim.parse(found.payload) if found else None
            ownership.check_owner(won.address, current, found.revision if found else 0, won.nonce)
            assert found is not None
            assert current is not None
            record, revision = current, found.revision


class _Reading:
    """What a claimant has read of the log."""

    def __init__(self) -> None:
        self.position = 0  #: everything up to here was read
        self.first = 0  #: position of the log's first entry, if it is known
        self.received: dict[str, int] = {}
        self.last: Entry | None = None  #: that counts
        self._fold = Fold()
        self._record: Claim | None = None
        self._trimmed = False

    def begin(self, record: Claim, first: StoredEntry | None) -> None:
        """Begin at the last cut that the record has, or at the log's first entry where that is behind it."""
        self._record = record
        self.first = first.position if first else 0
        if not record.cuts:
            return
        cut = record.cuts[-1]
        self.received.update(record.extra.get("received", {}))
        self.position = max(cut.position, self.first - 1)
        self._trimmed = first is None or self.position > cut.position
        if self._trimmed:
            self._fold = Fold(record.cuts, position=self.position)
        else:
            self._fold = Fold(record.cuts, cursor=ownership.cursor_at(cut))

    def feed(self, stored: StoredEntry) -> None:
        entry = Entry.parse(stored.payload)
        verdict = self._fold.feed(stored.position, entry)
        if verdict is Verdict.UNSURE:
            self._fold.refresh(self._record.cuts if self._record else (), trimmed=self._trimmed)
            verdict = self._fold.feed(stored.position, entry)
        self.position = stored.position
        self.first = self.first or stored.position
        if verdict is not Verdict.COUNTS:
            return
        self.last = entry
        if entry.type == "received" and isinstance(entry.data, dict):
            with suppress(KeyError, TypeError, ValueError):
                sender, position = str(entry.data["sender"]), int(entry.data["position"])
                self.received[sender] = max(position, self.received.get(sender, 0))

    @property
    def ended(self) -> bool:
        return self.last is not None and self.last.type == EXITED

    def settle(self) -> tuple[int, tuple[Cut, ...]]:
        """The next offset, and every cut, for the owner of the mark that was read last."""
        least = int(self._record.extra.get("last", 0)) + 1 if self._record else 1
        return self._fold.settle(least), self._fold.cuts


class _Claimant:
    """Whoever tries to win an id."""

    def __init__(
        self, connection: Connection, names: Names, address: Address, node: str, writer: Writer
    ) -> None:
        self._connection = connection
        self._names = names
        self._address = address
        self._node = node
        self._writer = writer
        self._subject = names.events(address)
        self._history = History(connection, names.event_stream)
        self._bucket = Bucket(connection, names.claims)
        self._deadline = asyncio.get_running_loop().time() + PATIENCE

    async def take(self, restart: bool) -> Owned:
        found = await self._insist(lambda: self._bucket.get(key_of(self._address), leader=True))
        record, revision = (Claim.parse(found.payload), found.revision) if found else (None, 0)
        reading = _Reading()
        alive = False
        if record is not None:
            alive = not record.ended and await self._answers(record.epoch_at(revision))
            if not alive:
                await self._look(reading, record)
                alive = not (reading.ended or record.ended) and await self._lives(record, revision)
        while True:
            if record is not None and reading.last is not None:
                record = replace(record, run=reading.last.run)
            record = ownership.take(
                self._address, record, revision, node=self._node, nonce=new_token(24), alive=alive,
                ended=reading.ended, restart=restart,
            )  # fmt: skip
            epoch = revision = await self._write(record, revision)
            won = Owned(self._address, epoch, record.run, 0, record.nonce, record, revision, "started")
            try:
                await self._mark(won)
                await self._read(reading)
                if reading.last and reading.last.run + reading.ended != record.run:
                    # the log knows better than the record did: it ended meanwhile, or the record had been lost
                    continue
                return await self._record(won, reading)
            except BaseException:
                with suppress(Error, TimeoutError):
                    async with asyncio.timeout(PING_SECONDS):
                        await release(self._connection, self._names, won)
                raise

    async def _look(self, reading: _Reading, record: Claim) -> None:
        first = await self._insist(lambda: self._history.first(self._subject)) if record.cuts else None
        reading.begin(record, first)
        await self._read(reading)

    async def _read(self, reading: _Reading) -> None:
        """Go on to the end of the log as it is now."""

        async def go_on() -> None:
            async for entries in self._history.read(self._subject, reading.position):
                for stored in entries:
                    reading.feed(stored)

        await self._insist(go_on)

    async def _mark(self, won: Owned) -> None:
        lane = self._writer.lane(self._subject, lambda error, number: None)
        number = lane.put(encode_mark(won.epoch, won.run, now(), won.nonce, self._node))
        try:
            async with asyncio.timeout(PATIENCE):
                await lane.stored(number)
        except TimeoutError:
            raise TimedOut(self._writer.trouble or f"{self._address}: its log takes no mark") from None

    async def _record(self, won: Owned, reading: _Reading) -> Owned:
        """Write down the cuts that the record lacks, and what had been consumed at the last of them."""
        offset, cuts = reading.settle()
        record = ownership.owned(won.claim, won.revision, cuts, reading.first)
        record = replace(record, extra={**record.extra, "received": reading.received})
        revision = await self._write(record, won.revision)
        return replace(
            won, next_offset=offset, claim=record, revision=revision, kind=ownership.opening(won.run, cuts, offset),
            received=reading.received,
        )  # fmt: skip

    async def _write(self, record: Claim, revision: int) -> int:
        """Write the record over that revision; one that was written though the answer was lost is found."""
        key, value = key_of(self._address), encode(record.to_json())

        async def write() -> int:
            try:
                if not revision:
                    return await self._bucket.create(key, value)
                return await self._bucket.update(key, value, revision)
            except Conflict:
                found = await self._bucket.get(key, leader=True)
                if found and found.payload == value:
                    return found.revision
                raise

        return await self._insist(write)

    async def _answers(self, epoch: int) -> bool:
        """Whether the process of that epoch answers a ping; a former owner's word does not count."""
        subject = self._names.control(self._address, self._connection.sender)
        ping = encode(Command(new_token(), "ping").to_json())
        async with self._connection.replies(subject) as (reply, queue):
            await self._connection.publish(subject, ping, reply=reply)
            with suppress(TimeoutError, BadPayload):
                async with asyncio.timeout(PING_SECONDS):
                    while not isinstance(item := await queue.get(), Exception):
                        if Receipt.parse(item.data).epoch >= epoch:
                            return True
        return False

    async def _lives(self, record: Claim, revision: int) -> bool:
        """Whether the silent process's node holds a lease, in which case it is left alone.

        After an outage of the server every lease has just expired: then they get the time to renew it.
        """
        leases = History(self._connection, f"KV_{self._names.leases}")
        while record.node:
            entry = await self._insist(
                lambda: leases.last_from_leader(f"$KV.{self._names.leases}.{record.node}")
            )
            marker = marker_of(entry.headers or {}) if entry else "none"
            if entry and not marker:
                return not Lease.parse(entry.payload).goodbye
            if entry is None or marker != "expired":
                return False
            age = seconds_between(entry.time, await self._insist(self._history.now))
            if age >= LEASE_SECONDS:
                return False
            await asyncio.sleep(LEASE_SECONDS - age)
            if await self._answers(record.epoch_at(revision)):
                return True
        return False

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until it works, as long as what is wrong can pass by itself."""
        while True:
            try:
                return await call()
            except _PASSING as error:
                lasting = isinstance(error, ApiError) and error.code != _UNAVAILABLE
                if lasting or asyncio.get_running_loop().time() > self._deadline:
                    raise
                await asyncio.sleep(_RETRY)
