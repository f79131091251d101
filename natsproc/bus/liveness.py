"""Whether a process's owner is still there, without comparing clocks. Protocol: section 6.

A node that is gone is announced by the server when its lease expires. After an outage of the bus itself every
lease looks expired, so nothing is believed that one lease later, and a ping, do not confirm.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from nats.aio.msg import Msg

from natsproc.errors import Closed, Error, NotAllowed
from natsproc.protocol.messages import Command, Notice
from natsproc.protocol.names import Address, Names, new_token

from .connection import Connection
from .control import command
from .registry import Registry
from .streams import LEASE_SECONDS

PING_SECONDS = 1.0


async def answers(connection: Connection, names: Names, address: Address) -> bool:
    """Whether the process's owner answers a ping within a second."""
    try:
        ping = Command(new_token(), "ping", connection.sender)
        return (await command(connection, names, address, ping, timeout=PING_SECONDS)).applied
    except Error:
        return False


async def unreachable(connection: Connection, names: Names, address: Address) -> AsyncIterator[Notice]:
    """Say each time that the owner of a process has gone without ending its run."""
    registry = Registry(connection, names)
    look = asyncio.Event()
    look.set()
    reconnected = False

    async def heard(msg: Msg) -> None:
        if not msg.data:  # the marker of an expiry, or a goodbye
            look.set()

    def back() -> None:
        nonlocal reconnected
        reconnected = True
        look.set()

    said: tuple[str, int] | None = None
    subscription = await connection.subscribe(names.lease(), heard)
    forget = connection.on_reconnect(back)
    try:
        while True:
            await look.wait()
            look.clear()
            if reconnected:
                reconnected = False
                await asyncio.sleep(LEASE_SECONDS)
            try:
                record = await registry.get(address)
                if record is None or record.ended or said == (record.node, record.epoch):
                    continue
                if await registry.lease(record.node) is None and not await answers(
                    connection, names, address
                ):
                    again = await registry.get(address)  # it may have ended meanwhile
                    if again is not None and not again.ended and again.node == record.node:
                        said = (record.node, record.epoch)
                        yield Notice("unreachable", {"node": record.node, "epoch": record.epoch}, address)
            except (NotAllowed, Closed):
                return
            except Error:
                await asyncio.sleep(PING_SECONDS)
                look.set()
    finally:
        forget()
        await connection.unsubscribe(subscription)
