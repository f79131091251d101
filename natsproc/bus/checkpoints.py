"""Checkpoints and places: what a successor begins with, committed through the claim record. Protocol: section 4.

A checkpoint is the state and what had been read and written by then; a place spares the next claimant to read the
log before it. Whoever lost the id can commit neither.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from hashlib import sha256

from natsproc.errors import Error, StateUnfit
from natsproc.protocol.carried import Carried
from natsproc.protocol.messages import EXITED, Entry
from natsproc.protocol.names import Address, Names, key_of
from natsproc.protocol.records import Checkpoint, Claim, Place

from .claims import Owned, amend
from .connection import Connection
from .history import History, StoredEntry, shared
from .kv import Bucket
from .log import EventLog
from .objects import Objects
from .patience import PATIENCE, insist

PLACE_EVERY = 20_000  #: events
_NEAR = 2_000  # positions


async def load(connection: Connection, names: Names, won: Owned) -> bytes | None:
    """Return the state that the id was won with, or None.

    Raises: StateUnfit, if it is damaged; ReadFailed and the like once they have lasted for half a minute;
    NotAllowed, Closed.
    """
    checkpoint = won.claim.checkpoint
    if checkpoint is None:
        return None
    if not checkpoint.object.startswith(f"{key_of(won.address)}."):
        raise StateUnfit(f"the claim record of {won.address} names a state of another process as its own")
    objects = Objects(connection, names.states)
    deadline = asyncio.get_running_loop().time() + PATIENCE
    state = await insist(lambda: objects.read(checkpoint.object), deadline)
    if sha256(state).hexdigest() != checkpoint.digest:
        raise StateUnfit(
            f"the state of {won.address} is damaged: {len(state)} of its {checkpoint.size} bytes are left in "
            f"{objects.stream}. Restore that stream from a backup, or end the run with `natsproc kill` and start anew"
        )
    return state


async def forget(connection: Connection, names: Names, address: Address, below: int, keep: str = "") -> None:
    """Remove the states of a process that epochs below that one have written, but for the one to keep.

    Raises: ApiError, and what `Connection.request` raises.
    """
    objects = Objects(connection, names.states)
    for name in await objects.names(key_of(address)):
        epoch = name.rsplit(".", 1)[1].split("-")[0]
        if epoch.isdecimal() and int(epoch) < below and name != keep:
            await objects.remove(name)


class Checkpoints:
    """Saves the states of one process, for one epoch, and keeps its place near the log's end."""

    def __init__(self, connection: Connection, names: Names, won: Owned, log: EventLog) -> None:
        self._names = names
        self._won = won
        self._log = log
        self._bucket = shared(Bucket, connection, names.claims)
        self._objects = shared(Objects, connection, names.states)
        self._history = shared(History, connection, names.event_stream)
        self._lock = asyncio.Lock()
        self._placed = log.offset  # offset of the last place that was tried, or of the cut
        self._seen = 0  # what was stored when `quiet` was asked last
        log.tell_at(self._placed + PLACE_EVERY)
        self._objects_named = 0
        self._litter: list[str] = []  # objects that no record will ever name

    @property
    def _events(self) -> str:
        return self._names.events(self._won.address)

    @property
    def last(self) -> Checkpoint | None:
        """The checkpoint that counts."""
        return self._won.claim.checkpoint

    async def save(self, state: bytes, version: int, offset: int, carried: Carried) -> None:
        """Commit a state, together with what had been read by then: all of it, or nothing.

        `offset` is that of the last event before it. It waits for as long as the server is away.
        Raises: OwnershipLost; why an event before it was refused; NotAllowed, Closed.
        """
        async with self._lock:
            last = self.last
            if last and last.offset > offset:
                return  # a later one was faster
            attempts: list[str] = []
            carried.asks.settle(offset)
            _, place = await asyncio.gather(
                insist(lambda: self._write(state, offset, attempts)), self._place(offset)
            )
            checkpoint = Checkpoint(
                self._won.run, offset, attempts.pop(), len(state), sha256(state).hexdigest(), version, carried.received
            )  # fmt: skip
            await self._commit(place, carried, checkpoint)
            self._litter += attempts + ([last.object] if last else [])

    async def _write(self, state: bytes, offset: int, attempts: list[str]) -> None:
        """Write the state as an object that nobody can have written before, not even in part."""
        self._objects_named += 1
        attempts.append(f"{key_of(self._won.address)}.{self._won.epoch}-{offset}-{self._objects_named}")
        await self._objects.write(attempts[-1], state)

    async def _commit(
        self, place: Place | None, carried: Carried, checkpoint: Checkpoint | None = None
    ) -> None:
        def change(claim: Claim) -> Claim:
            if checkpoint:
                claim = replace(claim, checkpoint=checkpoint)
            return replace(claim, place=place, extra=claim.extra | carried.to_json()) if place else claim

        self._won = await insist(lambda: amend(self._bucket, self._won, change))
        self._placed = max(self._placed, place.offset if place else 0)

    async def _place(self, offset: int, after: int | None = None, repeats: int | None = None) -> Place | None:
        """The place of that event once it is stored, if it is the log's last, or lies behind position `after`.

        Of several copies the last one: by then all before the event counts, which an early copy does not say. There is
        but one if the log knew of so many `repeats` before the event was written, and knows of no more.
        """
        await self._log.reach(offset)
        once = self._log.repeats == repeats
        last = await self._last()
        copies = self._copies(offset, last)
        if after is not None and last and once and not copies:
            copies = await self._find(offset, after, last[0])
        if after is not None and not copies:  # what was acknowledged just now lies near the end, as a rule
            near = max(last[0].position - _NEAR, after) if last else after
            copies = await self._search(offset, near) or await self._search(offset, after)
        return Place(copies[-1], self._won.epoch, self._won.run, offset, self._log.offset) if copies else None

    async def _find(self, offset: int, after: int, last: StoredEntry) -> list[int]:
        """The position of an event that was sent once, where the log's `last` entry is an event behind it.

        A look or a few at single entries: to read what lies between would cost more than to write it.
        """
        epoch, end = self._won.epoch, Entry.parse(last.payload)
        # or below, if entries of other processes lie between, too
        highest = last.position - (end.offset - offset)
        if end.epoch != epoch or highest >= last.position:
            return []

        async def look(position: int) -> list[int]:
            found = await insist(lambda: self._history.first(self._events, position))
            return self._copies(offset, [found]) if found else []

        async def before() -> int:
            return await self._history.find_before(self._events, epoch, offset, after, highest)

        return await look(highest) or await look(1 + await insist(before))

    async def _last(self) -> list[StoredEntry]:
        last = await insist(lambda: self._history.last_from_leader(self._events))
        return [last] if last else []

    async def _search(self, offset: int, after: int) -> list[int]:
        async def read() -> list[int]:
            entries = self._history.read(self._events, after)
            return [position async for some in entries for position in self._copies(offset, some)]

        return await insist(read)

    def _copies(self, offset: int, entries: list[StoredEntry]) -> list[int]:
        """The positions of that event among these entries; an end has none, for a claimant has to read it."""
        wanted = (self._won.epoch, offset)
        parsed = ((stored.position, Entry.parse(stored.payload)) for stored in entries)
        return [p for p, entry in parsed if (entry.epoch, entry.offset) == wanted and entry.type != EXITED]

    def quiet(self) -> bool:
        """Whether there was no event since this was asked before, and there are some behind the last place.

        With a place, the last offset of a quiet log outlives the log, should all of it be trimmed.
        """
        before, self._seen = self._seen, self._log.stored
        return before == self._log.stored == self._log.offset > self._placed

    async def make_place(self, *, quiet: bool = False) -> None:
        """Make a place every `PLACE_EVERY` events, or first behind whatever events there are, if the log is `quiet`.

        Returns once the log will tell of the next ones. Raises: OwnershipLost, and as `save`.
        """
        least = 1 if quiet else PLACE_EVERY
        while True:
            # an event behind `before` is sent once if `repeats` stays what it is
            repeats, (before, _) = self._log.repeats, self._log.snapshot()
            self._log.tell_at(self._placed + PLACE_EVERY)  # before the look, so that none slips in between
            if self._log.offset - self._placed < least:
                return
            await self._log.reach(self._placed + least)
            async with self._lock:
                if self._log.stored - self._placed >= least:  # else a checkpoint made one meanwhile
                    last = await self._last()  # before the event is chosen, which so lies there or behind
                    offset, carried = self._log.snapshot()
                    after = last[0].position - 1 if last else 0
                    place = await self._place(offset, after, repeats if offset > before else None)
                    await self._commit(place, carried)
                    self._placed = offset
            least = PLACE_EVERY

    async def tidy(self) -> None:
        """Remove the states that nobody needs any more; what fails is left for the next time."""
        while self._litter:
            name = self._litter.pop()
            try:
                await self._objects.remove(name)
            except Error:
                self._litter.append(name)
                return

    async def tidy_up(self) -> None:
        """The same for what former owners have left, which may have died before they could. Raises: as `forget`."""
        won, keep = self._won, self.last.object if self.last else ""
        connection = self._bucket.connection
        await insist(lambda: forget(connection, self._names, won.address, won.epoch, keep))
