"""What has ended leaves the mesh as a whole: record, log, inbox, claim, states. Protocol: section 7.

Everything is removed only up to where it was when the claim record still said that the run has ended, and that record
goes by compare-and-set: whoever starts the id anew at the same moment loses nothing.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

from natsproc.errors import BadPayload, Error, NoSuchProcess, NotAllowed, Refused
from natsproc.protocol.messages import EXITED, Entry, encode
from natsproc.protocol.names import Address, Names, address_of_key, check_name, key_of
from natsproc.protocol.records import Claim, Record

from .checkpoints import forget
from .clock import seconds_between
from .connection import Connection
from .history import History, StoredEntry
from .kv import Bucket, Conflict, Value, purge
from .registry import parse_record

FIRST_SECONDS = (5.0, 30.0)  #: after which a node looks for the first time
EVERY_SECONDS = 600.0
ENDING_SECONDS = 60.0  #: for which an owner may yet be about to note in its claim record that it has ended
TURN_SECONDS = 3600  #: for which no other node does
_TURN = "_prune"


class Retention:
    """Finds and removes what has ended."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection = connection
        self._names = names
        self._events = History(connection, names.event_stream)
        self._inbox = History(connection, names.inbox_stream)
        self._claims = Bucket(connection, names.claims)
        self._live = Bucket(connection, names.registry)
        self._ended = Bucket(connection, names.ended)
        self._leases = Bucket(connection, names.leases)

    async def kept(self) -> float:
        """Seconds for which the mesh keeps what has ended; 0 is for ever. Raises: as `Connection.api`."""
        info = await self._connection.api(f"STREAM.INFO.{self._names.event_stream}")
        return float(info["config"].get("max_age", 0)) / 1e9

    async def ended(self, older: float = 0.0, namespace: str | None = None) -> list[Record]:
        """The records of what ended at least `older` seconds ago, by the server's clock; the oldest first.

        Raises: ReadFailed, NotAllowed.
        """
        found = await self._ended.all(f"{namespace or '*'}.*")
        now = await self._events.now()
        old = [(key, entry) for key, entry in found.items() if seconds_between(entry.time, now) >= older]
        old.sort(key=lambda pair: pair[1].position)
        records = [parse_record(entry.payload, address_of_key(key)) for key, entry in old]
        return [record for record in records if record is not None]

    async def prune(self, address: Address, *, dry_run: bool = False) -> None:
        """Remove all that the mesh has of a process whose run has ended; repeating it does no harm.

        Raises: NoSuchProcess; Refused if the run has not ended, or a next one has begun; NotAllowed, TimedOut.
        """
        # what is removed goes by subjects, in which '*' is everybody
        check_name(address.namespace, "namespace")
        check_name(address.id)
        key, events = key_of(address), self._names.events(address)
        inbox = self._names.inbox(address, "*")
        # what is there, before the claim: whoever takes the id after that writes behind all of these
        log, messages, (marker, _), (live, lives), (ended, _) = await asyncio.gather(
            self._events.last_from_leader(events),
            self._inbox.last_from_leader(inbox),
            self._claims.last(key),
            self._live.last(key),
            self._ended.last(key),
        )
        found = await self._claims.get(key, leader=True)
        if not (found or lives or ended):
            raise NoSuchProcess(f"no process {address} has run here: `natsproc ps -a` shows what has")
        if found:
            await self._make_sure(address, found, log)
        elif lives:
            raise Refused(f"{address} has no claim record, though its run has not ended: it was left alone")
        if dry_run:
            return
        if found:
            marker = await self._prune_log(address, found, log)
        await forget(self._connection, self._names, address, marker)
        await self._claims.forget(key, marker)
        if messages:
            await purge(self._connection, self._names.inbox_stream, inbox, messages.position)
        await self._live.forget(key, live)
        await self._ended.forget(key, ended)  # the last, by which what was left half-way is found again

    async def _make_sure(self, address: Address, found: Value, log: StoredEntry | None) -> None:
        """The run has ended: its claim record says so, or the log's last entry, and nobody is left to. Raises: Refused."""
        claim, last = Claim.parse(found.payload), Entry.parse(log.payload) if log else None
        if claim.ended:
            return
        if not (log and last and last.type == EXITED and last.epoch == claim.epoch_at(found.revision)):
            raise Refused(
                f"{address} has not ended, and only what has ended is pruned: `natsproc kill {address}` ends it"
            )
        # its owner has yet to see that the end is its own: without the record it would believe that it lost the id
        if seconds_between(log.time, await self._events.now()) < ENDING_SECONDS:
            raise Refused(f"{address} is just ending, and was left alone: try again in a minute")

    async def _prune_log(self, address: Address, found: Value, log: StoredEntry | None) -> int:
        """Remove the log up to that entry, which is older than `found`, and the claim; returns its marker's revision."""
        if log:
            await purge(self._connection, self._names.event_stream, log.subject, log.position)
        try:
            return await self._claims.purge(key_of(address), revision=found.revision)
        except Conflict:
            raise Refused(f"{address} is being started again, and was left alone") from None

    async def now_and_then(self, node: str) -> None:
        """Prune what is older than the mesh keeps, whenever no other node has for an hour; ends where it may not."""
        await asyncio.sleep(random.uniform(*FIRST_SECONDS))
        while True:
            try:
                await self._take_a_turn(node)
            except NotAllowed:
                return
            except Error:
                pass  # another node, or the next turn, does it
            await asyncio.sleep(random.uniform(0.8, 1.2) * EVERY_SECONDS)

    async def _take_a_turn(self, node: str) -> None:
        try:
            await self._leases.create(_TURN, encode({"pruning": node}), ttl=TURN_SECONDS)
        except Conflict:
            return
        if kept := await self.kept():
            for record in await self.ended(kept):
                with suppress(Refused, NoSuchProcess, BadPayload):
                    await self.prune(record.address)
