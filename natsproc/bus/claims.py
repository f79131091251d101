"""Winning an id: claim by compare-and-set, mark the log, read it up to the own mark. Protocol: section 4.

What follows from what is decided in `protocol/ownership.py`; here is what it takes to ask the bus.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from natsproc.errors import BadPayload, Error, TimedOut
from natsproc.protocol import ownership
from natsproc.protocol.carried import Carried
from natsproc.protocol.messages import EXITED, Command, Entry, Receipt, encode, encode_mark
from natsproc.protocol.names import Address, Names, key_of, new_token
from natsproc.protocol.ownership import Fold, Opening, Verdict
from natsproc.protocol.records import Claim, Lease

from .clock import Steady, now, seconds_between
from .connection import Connection, NoResponders
from .history import History, ReadFailed, StoredEntry
from .kv import Bucket, Conflict, marker_of
from .patience import PATIENCE, insist
from .streams import LEASE_SECONDS, OVERDUE_SECONDS
from .writer import Writer

T = TypeVar("T")

PING_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
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
    carried: Carried = field(default_factory=Carried)  #: what the log says that an owner has to know


async def claim(
    connection: Connection,
    names: Names,
    address: Address,
    *,
    node: str,
    writer: Writer,
    steady: Steady | None = None,
    restart: bool = False,
) -> Owned:
    """Take the id for this node, if nobody alive has it, and mark the log.

    `steady` says for how long the bus has taken all that this node wrote to keep its own lease.
    Raises: AlreadyRunning, naming the node; AlreadyEnded, unless `restart` asks for a next run; NotAllowed;
    NoServer and the like once they have lasted for half a minute. Protocol: section 4.
    """
    claimant = _Claimant(connection, names, address, node, writer, steady or Steady(0))
    while True:
        with suppress(Conflict):  # somebody else was faster: see who
            return await claimant.take(restart)


async def mark_ended(connection: Connection, names: Names, won: Owned, last: int = 0) -> Owned:
    """Note in the claim record that the run has ended, with event `last`: a hint, for the log decides.

    With it nobody need be asked whether they live, and offsets go on even from a log that was trimmed away.
    Raises: OwnershipLost, and what `Bucket.update` raises.
    """
    known = {"last": last} if last else {}
    bucket = Bucket(connection, names.claims)
    return await amend(bucket, won, lambda record: replace(record, ended=True, extra=record.extra | known))


async def release(connection: Connection, names: Names, won: Owned) -> Owned:
    """Give the id up without an end, so that nobody waits for our lease. Raises: as `mark_ended`."""
    return await amend(Bucket(connection, names.claims), won, _released)


def _released(record: Claim) -> Claim:
    return replace(record, node="")


async def confirm(bucket: Bucket, address: Address, nonce: str) -> tuple[Claim, int]:
    """Read the claim from the leader, for as long as it takes; returns it with its revision.

    Raises: OwnershipLost if it does not show our nonce; NotAllowed; Closed.
    """
    found = await insist(lambda: bucket.get(key_of(address), leader=True))
    record, revision = (Claim.parse(found.payload), found.revision) if found else (None, 0)
    ownership.check_owner(address, record, revision, nonce)
    assert record is not None
    return record, revision


async def amend(bucket: Bucket, won: Owned, change: Callable[[Claim], Claim]) -> Owned:
    """Change our own record, whatever else of it we changed meanwhile; returns what is owned now.

    Raises: OwnershipLost; and as `Bucket.update`, after which it can be called again.
    """
    record, revision = await _amend(bucket, won.address, won.claim, won.revision, change)
    return replace(won, claim=record, revision=revision)


async def _amend(
    bucket: Bucket, address: Address, record: Claim, revision: int, change: Callable[[Claim], Claim]
) -> tuple[Claim, int]:
    while True:
        changed = change(record)
        try:
            return changed, await bucket.update(key_of(address), encode(changed.to_json()), revision)
        except Conflict:
            record, revision = await confirm(bucket, address, record.nonce)


class _Reading:
    """What a claimant has read of the log."""

    def __init__(
        self, record: Claim | None = None, first: StoredEntry | None = None, *, from_place: bool = True
    ) -> None:
        """Begin at the place or the last cut that the record has, or at the log's first entry if it is behind that."""
        self.position = 0  #: everything up to here was read
        self.first = first.position if first else 0  #: position of the log's first entry, if it is known
        self.last: Entry | None = None  #: that counts
        self.carried = Carried()
        self._cuts = record.cuts if record else ()
        self._least = 1
        self._trimmed = False
        self._fold = Fold()
        self._sent = 0
        if record and record.cuts:
            self.carried = Carried(record.extra)
            given = (
                record.extra.get("last", 0),
                record.cuts[-1].offset - 1,
                record.place.sent if record.place else 0,
            )
            self._least += max(map(int, given))
            cursor = ownership.cursor_at(record.cuts[-1])
            if record.place and from_place:
                cursor, self._sent = record.place.cursor, record.place.sent
            self.position = max(cursor.position, self.first - 1)
            self._trimmed = first is None or self.position > cursor.position
            start = {"position": self.position} if self._trimmed else {"cursor": cursor}
            self._fold = Fold(record.cuts, **start)

    def feed(self, stored: StoredEntry) -> None:
        entry = Entry.parse(stored.payload)
        verdict = self._fold.feed(stored.position, entry)
        if verdict is Verdict.UNSURE:
            self._fold.refresh(self._cuts, trimmed=self._trimmed)
            verdict = self._fold.feed(stored.position, entry)
        self.position = stored.position
        self.first = self.first or stored.position
        if verdict is not Verdict.COUNTS:
            return
        self.last = entry
        self.carried.feed(entry.type, entry.data, entry.offset)

    @property
    def uncertain(self) -> bool:
        """Whether more of what counts may lie before the place than it says, stored again behind it only in part."""
        return (self._fold.next_offset or 1) <= self._sent

    @property
    def ended(self) -> bool:
        return self.last is not None and self.last.type == EXITED

    def settle(self, won: Claim, revision: int) -> tuple[int, Claim]:
        """The next offset, and the record with every cut and what is carried over the last of them."""
        offset = self._fold.settle(self._least)
        record = ownership.owned(won, revision, self._fold.cuts, self.first)
        self.carried.settle(record.checkpoint)
        return offset, replace(record, extra=record.extra | self.carried.to_json())


class _Claimant:
    """Whoever tries to win an id."""

    def __init__(
        self,
        connection: Connection,
        names: Names,
        address: Address,
        node: str,
        writer: Writer,
        steady: Steady,
    ) -> None:
        self._connection = connection
        self._steady = steady
        self._deserted = False  # whether the process that was asked last is not even connected
        self._address = address
        self._node = node
        self._writer = writer
        self._events = names.events(address)
        self._control = names.control(address, connection.sender)
        self._history = History(connection, names.event_stream)
        self._bucket = Bucket(connection, names.claims)
        self._leases = History(connection, f"KV_{names.leases}")
        self._lease = f"$KV.{names.leases}."
        self._deadline = asyncio.get_running_loop().time() + PATIENCE

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await insist(call, self._deadline)
        except ReadFailed as error:
            raise TimedOut(f"{self._address} cannot be claimed now: {error}") from None

    async def take(self, restart: bool) -> Owned:
        """Carry out the claim, if the id is to be had. Raises: Conflict, and as `claim`."""
        found = await self._insist(lambda: self._bucket.get(key_of(self._address), leader=True))
        record, revision = (Claim.parse(found.payload), found.revision) if found else (None, 0)
        reading, alive, silent = _Reading(), False, False
        if record is not None:
            alive = not record.ended and await self._answers(record.epoch_at(revision))
            if not alive:
                reading = await self._look(record)
                if not (reading.ended or record.ended):
                    alive, silent = await self._lives(record, revision)
        while True:
            if record is not None and reading.last is not None:
                record = replace(record, run=reading.last.run)
            record = ownership.take(
                self._address, record, revision, node=self._node, nonce=new_token(24), alive=alive,
                silent=silent, ended=reading.ended, restart=restart,
            )  # fmt: skip
            writing = asyncio.ensure_future(self._write(record, revision))
            try:
                revision = await asyncio.shield(writing)
                await self._mark(record, revision)
                await self._read(reading)
                if reading.last is None or reading.last.run + reading.ended == record.run:
                    return await self._record(record, revision, reading)
                # else the log knows better than we did: the run ended meanwhile, or the record had been lost
            except BaseException:
                with suppress(Error, TimeoutError):  # nobody need wait for the lease of a node that gave up
                    async with asyncio.timeout(PING_SECONDS):
                        revision = await writing  # it may have been won just as we were cancelled
                        await _amend(self._bucket, self._address, record, revision, _released)
                raise

    async def _look(self, record: Claim) -> _Reading:
        """Read the log from the newer of the last place and the last cut, to its end."""
        first = await self._insist(lambda: self._history.first(self._events))
        reading = _Reading(record, first)
        await self._read(reading)
        if reading.uncertain:
            reading = _Reading(record, first, from_place=False)
            await self._read(reading)
        return reading

    async def _read(self, reading: _Reading) -> None:
        """Go on to the end of the log as it is now."""

        async def go_on() -> None:
            async for entries in self._history.read(self._events, reading.position):
                for entry in entries:
                    reading.feed(entry)

        await self._insist(go_on)

    async def _mark(self, record: Claim, epoch: int) -> None:
        lane = self._writer.lane(self._events, lambda error, number: None)
        number = lane.put(encode_mark(epoch, record.run, now(), record.nonce, self._node))
        try:
            async with asyncio.timeout(PATIENCE):
                await lane.stored(number)
        except TimeoutError:
            raise TimedOut(self._writer.trouble or f"{self._address}: its log takes no mark") from None

    async def _record(self, record: Claim, epoch: int, reading: _Reading) -> Owned:
        """Write down what the record lacks."""
        offset, record = reading.settle(record, epoch)
        revision = await self._write(record, epoch)
        kind = ownership.opening(record.run, record.cuts, offset)
        return Owned(
            self._address, epoch, record.run, offset, record.nonce, record, revision, kind, reading.carried
        )

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
        ping = encode(Command(new_token(), "ping").to_json())
        self._deserted = False
        async with self._connection.replies(self._control) as (reply, queue):
            await self._connection.publish(self._control, ping, reply=reply)
            with suppress(TimeoutError, BadPayload):
                async with asyncio.timeout(PING_SECONDS):
                    while not isinstance(item := await queue.get(), Exception):
                        if Receipt.parse(item.data).epoch >= epoch:
                            return True
                    self._deserted = isinstance(item, NoResponders)
        return False

    async def _lives(self, record: Claim, revision: int) -> tuple[bool, bool]:
        """Whether the process is left alone, as its node holds a lease or it answers by now, and whether it is silent.

        After an outage of the server every lease has just expired: then they get the time to renew it. But there was
        none if this node could renew its own all the while, and then who is not even connected is gone. One that is
        overdue and has not expired gets it, too: a server that crashed may have lost its TTL.
        """
        waited = False
        while record.node:
            entry = await self._insist(lambda: self._leases.last_from_leader(self._lease + record.node))
            marker = marker_of(entry.headers or {}) if entry else "none"
            if entry is None or marker not in ("", "expired"):
                return False, True
            if not marker and Lease.parse(entry.payload).goodbye:
                return False, True
            age = seconds_between(entry.time, await self._insist(self._history.now))
            if not marker and age <= OVERDUE_SECONDS:
                return True, True
            left = LEASE_SECONDS - (age if marker else 0)
            no_outage = self._steady.seconds > age + OVERDUE_SECONDS
            if waited or left <= 0 or (marker and self._deserted and no_outage):
                return False, True
            await asyncio.sleep(left)
            if await self._answers(record.epoch_at(revision)):
                return True, False
            waited = True
        return False, True
