"""The registry of processes and the leases of nodes. Protocol: section 6.

The registry says what runs where, for people and lists; it decides nothing: the claim record and the log do.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from natsproc.errors import BadPayload, Error, NotAllowed, OwnershipLost, TimedOut
from natsproc.protocol.messages import encode
from natsproc.protocol.names import Address, Names, address_of_key, key_of
from natsproc.protocol.records import Lease, Record

from .clock import Steady, seconds_until
from .connection import Connection
from .handoff import Handoff
from .history import History
from .kv import Bucket, Conflict, marker_of
from .patience import PATIENCE, insist
from .streams import LEASE_SECONDS, MARKER_SECONDS

RENEW_SECONDS = 1.0
BREAK_SECONDS = 2.5  #: between two renewals; no outage in it was so long that a live node has lost its lease

Change = tuple[Address, Record | None]


class Registry:
    """Reads and writes the records of a mesh."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection = connection
        self._names = names
        self._live = Bucket(connection, names.registry)
        self._ended = Bucket(connection, names.ended)
        self._leases = Bucket(connection, names.leases)

    async def put(self, record: Record, revision: int = 0) -> int:
        """Write a live record over our own `revision` (0: there is none yet); returns the new revision.

        Raises: OwnershipLost if a newer epoch has written meanwhile.
        """
        key, value = key_of(record.address), encode(record.to_json())
        while True:
            try:
                if not revision:
                    return await self._live.create(key, value)
                return await self._live.update(key, value, revision)
            except Conflict:
                found = await self._live.get(key, leader=True)
                if found is None:
                    revision = 0
                    continue
                newer = parse_record(found.payload, record.address)
                if newer is not None and newer.epoch > record.epoch:
                    raise OwnershipLost(
                        f"{record.address} belongs to epoch {newer.epoch} on {newer.node} now; "
                        f"epoch {record.epoch} has stopped"
                    ) from None
                revision = found.revision

    async def end(self, record: Record) -> None:
        """Move a record to the bucket of ended ones; a next run's record that is there already stays."""
        key = key_of(record.address)
        await self._ended.put(key, encode(record.to_json()))
        while (found := await self._live.get(key, leader=True)) is not None:
            live = parse_record(found.payload, record.address)
            if live is not None and live.epoch > record.epoch:
                return
            with suppress(Conflict):
                await self._live.purge(key, revision=found.revision)

    async def get(self, address: Address) -> Record | None:
        """The record of a process, live before ended; None if there is neither."""
        for bucket in (self._live, self._ended):
            if (found := await bucket.get(key_of(address))) is not None:
                return parse_record(found.payload, address)
        return None

    async def list(self, namespace: str | None = None, *, ended: bool = False) -> list[Record]:
        """Every live record of a namespace (None: of the mesh), and with `ended` those that have ended.

        Of a namespace of which only parts are granted, it is those. Raises: NotAllowed, ReadFailed.
        """
        records: dict[str, Record] = {}
        buckets = (self._ended, self._live) if ended else (self._live,)
        for part in self._parts(namespace):
            found = await asyncio.gather(*(self._all(bucket, *part) for bucket in buckets))
            for some in found:  # live ones last, so that a new run hides the ended one before it
                records |= {key: record for key, record in some.items() if record is not None}
        return sorted(records.values(), key=lambda r: (r.address.namespace, r.started, r.address.id))

    def granted(self, namespace: str | None) -> Sequence[tuple[str, str]]:
        """What is listed of a namespace, as namespaces and ids or `*`, where less than all is known to be granted."""
        granted = self._connection.endpoint.watches if self._connection.gated else ()
        if any(space in ("*", namespace or "*") and id == "*" for space, id in granted):
            return []
        return [part for part in granted if namespace in (None, part[0])]

    def _parts(self, namespace: str | None) -> Sequence[tuple[str, str]]:
        return self.granted(namespace) or [(namespace or "*", "*")]

    async def _all(self, bucket: Bucket, namespace: str, id: str) -> dict[str, Record | None]:
        if id == "*":
            return await bucket.all(
                f"{namespace}.*", lambda key, entry: parse_record(entry.payload, address_of_key(key))
            )
        value = await bucket.get(key := f"{namespace}.{id}")
        return {key: parse_record(value.payload, address_of_key(key))} if value else {}

    async def quiet(self, addresses: Iterable[Address]) -> dict[Address, float]:
        """Seconds since each process's last event, all by the server's clock."""
        history = History(self._connection, self._names.event_stream)
        subjects = {self._names.events(address): address for address in addresses}
        if not subjects:
            return {}
        try:
            now, last = await asyncio.gather(history.now(), history.last_of(list(subjects)))
        except NotAllowed:  # not all at once, where they are granted one by one
            now, found = await asyncio.gather(history.now(), asyncio.gather(*map(history.last, subjects)))
            last = {entry.subject: entry for entry in found if entry}
        since = seconds_until(now)
        return {subjects[subject]: max(0.0, since(entry.time)) for subject, entry in last.items()}

    async def hear(self, address: Address, changed: Callable[[Record | None], None]) -> Subscription:
        """Call `changed` with each record of one process from now on, with None where it was taken away."""
        return await self._connection.nc.listen(
            self._names.record(address), lambda msg: changed(parse_record(msg.data, address))
        )

    async def watch(self, namespace: str | None = None, *, present: bool = False) -> AsyncIterator[Change]:
        """Every change of a live record from now on: its address, and the record, or None once it has ended.

        With `present` every record that lives now comes first. After a reconnect all come again, and so does what
        has ended meanwhile. Raises: NotAllowed, Closed.
        """
        changes: Handoff[Sequence[Change]] = Handoff()
        known: set[Address] = set()

        async def changed(msg: Msg) -> None:
            address = self._names.address_of(msg.subject)
            gone = marker_of(msg.headers or {})
            changes.put([(address, None if gone else parse_record(msg.data, address))])

        def look() -> None:
            changes.put(())

        subjects = [self._names.records(*part) for part in self._parts(namespace)]
        forget = self._connection.on_reconnect(look)
        subscriptions = [await self._connection.subscribe(subject, changed) for subject in subjects]
        look()
        try:
            async with AsyncExitStack() as hooks:
                for subject in subjects:
                    await hooks.enter_async_context(self._connection.denials(subject, changes.close))
                while True:
                    change = await changes.take()
                    for address, record in change or await self._look(namespace, known):
                        (known.add if record else known.discard)(address)
                        if change or present:
                            yield address, record
                    present = present or not change
        finally:
            forget()
            for subscription in subscriptions:
                await self._connection.unsubscribe(subscription)

    async def _look(self, namespace: str | None, known: set[Address]) -> Sequence[Change]:
        """What lives now, and None for what is known and does not."""
        records = {record.address: record for record in await insist(lambda: self.list(namespace))}
        return [(address, records.get(address)) for address in (known - records.keys()) | records.keys()]


def parse_record(payload: bytes, address: Address) -> Record | None:
    """A registry record; None where it is not one that this version understands, or speaks of another process."""
    try:
        record = Record.parse(payload)
    except BadPayload:
        return None
    return record if record.address == address else None


class LeaseKeeper:
    """Renews a node's lease every second, whatever the node's processes do; says goodbye at the end.

    Renewed unconditionally: a compare-and-set around the expiry would lose to the server's own marker.
    """

    def __init__(self, connection: Connection, names: Names, lease: Lease) -> None:
        self._bucket = Bucket(connection, names.leases)
        self._connection = connection
        self.lease = lease
        self.steady = Steady(BREAK_SECONDS)  #: how long the bus has taken every renewal
        self._task: asyncio.Task[None] | None = None
        connection.on_disconnect(self.steady.stop)

    async def start(self) -> None:
        """Take the lease and keep it. Raises: NotAllowed, Closed, and what half a minute without a server gives."""
        try:
            await insist(self._renew, asyncio.get_running_loop().time() + PATIENCE)
        except TimedOut as error:
            raise TimedOut(f"{error}: {await self._connection.why_silent()}") from None
        self._task = asyncio.create_task(self._keep())

    def update(self, processes: int) -> None:
        """Say with the next renewal how many processes the node runs."""
        self.lease = replace(self.lease, processes=processes)

    async def _renew(self) -> None:
        self.lease = replace(self.lease, load=round(os.getloadavg()[0], 2))
        await self._bucket.put(self.lease.node, encode(self.lease.to_json()), ttl=LEASE_SECONDS)
        self.steady.beat()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with suppress(Error, TimeoutError):  # a lost lease ends nothing by itself
                await self._connection.wait_connected()
                async with asyncio.timeout(RENEW_SECONDS):  # an answer that was lost must not cost the lease
                    await self._renew()

    async def stop(self) -> None:
        """Say goodbye: the lease is given up at once, so that nobody waits for it to expire."""
        if self._task:
            self._task.cancel()
        if self._connection.connected:
            with suppress(Error):
                await self._bucket.purge(self.lease.node, ttl=MARKER_SECONDS)
