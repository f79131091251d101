"""Whether a process's owner is still there, without comparing clocks. Protocol: section 6.

A node that is gone is announced by the server when its lease expires. After an outage of the bus itself every
lease has just expired, so a node is only believed to be gone once it has not renewed its lease for another lease
time, by the server's clock, or its process does not answer a ping.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from typing import NamedTuple

from natsproc.errors import BadName, BadPayload, Closed, Error, NotAllowed
from natsproc.protocol.messages import Command, Notice
from natsproc.protocol.names import Address, Names, check_name, new_token, sanitize
from natsproc.protocol.records import Lease, Record

from .clock import seconds_between
from .connection import Connection
from .feed import Feed
from .history import History, StoredEntry
from .joint import Joint
from .kv import marker_of
from .parsing import Raw
from .registry import Registry, parse_record
from .streams import LEASE_SECONDS, OVERDUE_SECONDS

PING_SECONDS = 1.0


class Gone(NamedTuple):
    """Since when a node holds no lease, by the server's clock."""

    since: str = ""  #: RFC 3339; empty if that is longer ago than the server keeps
    seconds: float = inf  #: ago
    overdue: bool = (
        False  #: the server has not noticed itself: it was down just now, or has lost sight of the expiry
    )

    @property
    def doubtful(self) -> bool:
        """Whether it may only be an outage of the bus, after which the node has not renewed its lease yet."""
        return self.overdue or self.seconds <= LEASE_SECONDS


def _gone(entry: StoredEntry | None, now: str) -> Gone | None:
    """What the last entry of a lease says; None while the lease is held."""
    if entry is None:
        return Gone()
    age = max(0.0, seconds_between(entry.time, now))
    if not marker_of(entry.headers or {}):
        with suppress(BadPayload):
            if not Lease.parse(entry.payload).goodbye:
                return Gone(entry.time, age, overdue=True) if age > OVERDUE_SECONDS else None
    return Gone(entry.time, age)


async def nodes_gone(connection: Connection, names: Names, nodes: Collection[str]) -> dict[str, Gone]:
    """Which of these nodes hold no lease. Raises: ReadFailed, and what `Connection.request` raises."""
    leases = History(connection, f"KV_{names.leases}")
    subjects: dict[str, str] = {}
    for node in nodes:
        with suppress(BadName):  # what cannot be a node holds none
            subjects[f"$KV.{names.leases}.{check_name(node, 'node')}"] = node
    now, last = await asyncio.gather(leases.now(), leases.last_of(list(subjects)))
    unknown = [subject for subject in subjects if subject not in last]  # to the replica that answered
    asked = await asyncio.gather(*(leases.last_from_leader(subject) for subject in unknown))
    found = dict(zip(unknown, asked, strict=True)) | last
    state: dict[str, Gone | None] = dict.fromkeys(nodes, Gone())
    state |= {node: _gone(found[subject], now) for subject, node in subjects.items()}
    return {node: gone for node, gone in state.items() if gone}


async def answers(connection: Connection, names: Names, address: Address) -> bool:
    """Whether the process's owner answers a ping within a second."""
    try:
        from .control import command  # seldom: a list need not import it

        ping = Command(new_token(), "ping", connection.sender)
        return (await command(connection, names, address, ping, timeout=PING_SECONDS)).applied
    except Error:
        return False


async def _is_lost(connection: Connection, names: Names, record: Record) -> bool:
    """Whether a process whose node holds no lease is silent, too, and has not ended meanwhile."""
    if await answers(connection, names, record.address):
        return False
    again = await Registry(connection, names).get(record.address)
    return again is not None and not again.ended and again.node == record.node


async def unreachable_among(
    connection: Connection, names: Names, records: Collection[Record]
) -> dict[Address, Gone]:
    """Which of these live processes nobody owns any more, and since when. Raises: as `nodes_gone`.

    Leases answer for nearly all; only where one has just expired is the process asked.
    """
    gone = await nodes_gone(connection, names, {record.node for record in records})
    suspects = [record for record in records if record.node in gone]
    doubtful = [record for record in suspects if gone[record.node].doubtful]
    lost = await asyncio.gather(*(_is_lost(connection, names, record) for record in doubtful))
    alive = {record.address for record, is_lost in zip(doubtful, lost, strict=True) if not is_lost}
    return {record.address: gone[record.node] for record in suspects if record.address not in alive}


def _payloads(messages: list[Raw]) -> list[bytes]:
    return [payload for _, _, payload, _ in messages]


def _records(address: Address, messages: list[Raw]) -> list[Record | None]:
    return [parse_record(payload, address) for payload in _payloads(messages)]


async def unreachable(connection: Connection, names: Names, address: Address) -> AsyncIterator[Notice]:
    """Say each time that the owner of a process has gone without ending its run."""
    registry, joint = Registry(connection, names), Joint.of(connection)
    look = asyncio.Event()
    look.set()
    reconnected = False

    def heard(payloads: Sequence[bytes]) -> None:
        if not all(payloads):  # the marker of an expiry, or a goodbye
            look.set()

    def back() -> None:
        nonlocal reconnected
        reconnected = True
        look.set()

    def changed(records: Sequence[Record | None]) -> None:
        if any(record is not None and record.node != watched for record in records):  # another owner
            look.set()

    said: tuple[str, int] | None = None
    watched, lease = "", None
    own = await Feed.join(connection, names.record(address), partial(_records, address), changed)
    forget = connection.on_reconnect(back)
    try:
        while True:
            await look.wait()
            look.clear()
            if reconnected:
                reconnected = False
                await asyncio.sleep(LEASE_SECONDS)
            try:
                record = await joint.ask(("record", names.record(address)), lambda: registry.get(address))
                if record is None or record.ended or said == (record.node, record.epoch):
                    continue
                subject = names.lease(sanitize(record.node, "node"))
                if record.node != watched:  # of other nodes, who may be many, nothing is heard
                    if lease:
                        await lease.leave(heard)
                    watched = record.node
                    lease = await Feed.join(connection, subject, _payloads, heard)
                ask = partial(nodes_gone, connection, names, [watched])
                gone = await joint.ask(("gone", names.leases, watched), ask)
                if gone and await _is_lost(connection, names, record):
                    said = (record.node, record.epoch)
                    yield Notice("unreachable", {"node": record.node, "epoch": record.epoch}, address)
            except (NotAllowed, Closed):
                return
            except Error:
                await asyncio.sleep(PING_SECONDS)
                look.set()
    finally:
        forget()
        await own.leave(changed)
        if lease:
            await lease.leave(heard)
