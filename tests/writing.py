"""What the tests of the writing side share: servers, writers and owners, and what counts in a log."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from harness import OLDEST, VERSIONS

from natsproc.bus import streams
from natsproc.bus.claims import Owned, claim
from natsproc.bus.connection import Connection, Endpoint
from natsproc.bus.history import History, StoredEntry
from natsproc.bus.kv import Bucket
from natsproc.bus.log import EventLog
from natsproc.bus.registry import LeaseKeeper
from natsproc.bus.writer import Writer
from natsproc.client import Mesh
from natsproc.protocol.messages import Entry
from natsproc.protocol.names import Address, Names, key_of
from natsproc.protocol.ownership import Fold, Verdict
from natsproc.protocol.records import Claim, Cut, Lease

NAMES = Names()
SERVERS = list(VERSIONS) if os.environ.get("NATSPROC_TEST_SERVERS") == "all" else [OLDEST, None]
A, B, C = (Address("default", name) for name in "abc")


@asynccontextmanager
async def connected(url: str, **options: object) -> AsyncIterator[Connection]:
    """A connection in the test's own loop to a server that has a mesh."""
    connection = await Connection.open(Endpoint((url,), sender="tester", options=dict(options)))
    await streams.setup(connection, NAMES)
    try:
        yield connection
    finally:
        await asyncio.wait_for(connection.close(), 10)


@asynccontextmanager
async def writing(connection: Connection, **bounds: int) -> AsyncIterator[Writer]:
    writer = Writer(connection, NAMES.event_stream, **bounds)
    await writer.start()
    try:
        yield writer
    finally:
        await writer.close(timeout=10)


async def own(
    connection: Connection, writer: Writer, address: Address, *, node: str = "node", restart: bool = False
) -> tuple[Owned, EventLog]:
    """Claim an id and open its log, as a node does."""
    won = await claim(connection, NAMES, address, node=node, writer=writer, restart=restart)
    log = EventLog(
        connection, writer, NAMES, address,
        epoch=won.epoch, run=won.run, next_offset=won.next_offset, nonce=won.nonce,
    )  # fmt: skip
    return won, log


async def stored(connection: Connection, address: Address) -> list[StoredEntry]:
    """Every entry of a log, by position."""
    history = History(connection, NAMES.event_stream)
    return [entry async for entries in history.read(NAMES.events(address)) for entry in entries]


def counted(entries: Iterable[StoredEntry], cuts: Iterable[Cut] = ()) -> list[Entry]:
    """Of a whole log, what counts, with the cuts that the claim record has."""
    fold, events = Fold(cuts), []
    for stored_entry in entries:
        entry = Entry.parse(stored_entry.payload)
        verdict = fold.feed(stored_entry.position, entry)
        if verdict is Verdict.UNSURE:
            fold.refresh(cuts)
            verdict = fold.feed(stored_entry.position, entry)
        if verdict is Verdict.COUNTS:
            events.append(entry)
    return events


async def events(connection: Connection, address: Address) -> list[Entry]:
    """Every event of a log that counts; their offsets are 1, 2, 3 …"""
    entries = await stored(connection, address)
    found = counted(entries, (await record(connection, address)).cuts)
    assert [event.offset for event in found] == list(range(1, len(found) + 1))
    return found


async def record(connection: Connection, address: Address) -> Claim:
    """The claim record as it is."""
    found = await Bucket(connection, NAMES.claims).get(key_of(address), leader=True)
    assert found
    return Claim.parse(found.payload)


async def until(condition, timeout: float = 20.0, what: str = "condition") -> None:
    """Poll until `condition()` holds; fails the test after `timeout` seconds."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def leased(mesh: Mesh, node: str) -> AsyncIterator[None]:
    """Hold the lease of a node that is silent itself, and say goodbye for it at the end."""
    keeper = LeaseKeeper(mesh.connection, mesh.names, Lease(node, "host", 1, "0", ""))
    await mesh.io.call(keeper.start())
    try:
        yield
    finally:
        await mesh.io.call(keeper.stop())
