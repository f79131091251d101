"""Commands on hold: kept in the inbox until somebody owns the process, or their time is over. Protocol: section 5.1.

The inbox is durable, keeps each sender's order, and is pinned to senders, so a held command is a message there with
a time to live. It never comes to the process's code: the node applies it as it does any command, once for its id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import ceil
from typing import Any

from natsproc.errors import BadPayload, Error, OwnershipLost, Refused
from natsproc.protocol.messages import COMMAND, Command, Message, Receipt, encode
from natsproc.protocol.names import Address, Names, key_of

from .clock import later, now, seconds_between
from .connection import Connection
from .history import History, shared
from .patience import insist
from .registry import Registry

STORE_SECONDS = 5.0
_TTL = "Nats-TTL"


async def hold(
    connection: Connection, names: Names, address: Address, command: Command, seconds: float
) -> Receipt:
    """Keep a command for whoever owns the process within `seconds` (whole ones, at least one).

    Keeping it again under its id changes nothing. Raises: Refused for an answer to no open question; NotAllowed,
    TooLarge, NoServer, TimedOut.
    """
    deadline = asyncio.get_running_loop().time() + STORE_SECONDS
    if command.verb == "answer":
        record = await insist(lambda: Registry(connection, names).get(address), deadline)
        command = _named(address, command, record.asks if record else ())
    ttl = max(1, ceil(seconds))
    message = Message(command.id, connection.sender, command.to_json(), now(), kind=COMMAND)
    payload = encode(message.to_json(), "command")
    headers = {"Nats-Msg-Id": f"{key_of(address)}.{connection.sender}.{COMMAND}.{command.id}", _TTL: str(ttl)}
    subject = names.inbox(address, connection.sender)
    stored = await insist(lambda: connection.store(subject, payload, headers=headers, timeout=2.0), deadline)
    until = later(ttl)
    return Receipt(
        command.id, command.verb, "accepted", f"nobody serves {address} now: held until {until}", connection.sender,
        data={"held_until": until, "position": int(stored["seq"])},
    )  # fmt: skip


def _named(address: Address, command: Command, asks: Sequence[Mapping[str, Any]]) -> Command:
    """An answer that names the open question that it is for: held, it must not come to another. Raises: Refused."""
    wanted = command.data.get("ask")
    meant = [str(ask.get("ask")) for ask in asks if wanted is None or ask.get("ask") == str(wanted)]
    if not meant:
        what = "asks nothing" if wanted is None else f"has no open question {str(wanted)!r}"
        raise Refused(
            f"{address} {what}, and an answer is held for an open question only: answer once it asks"
        )
    if len(meant) > 1:
        raise Refused(f"{address} asks more than one thing: name the one that is meant: {', '.join(meant)}")
    return replace(command, data=command.data | {"ask": meant[0]})


class HeldCommands:
    """What was held for one process, as its owner applies it: each once, and none whose time is over."""

    def __init__(
        self,
        connection: Connection,
        names: Names,
        address: Address,
        take: Callable[[Command], Awaitable[Receipt]],
        applied: Container[tuple[str, str]],
    ) -> None:
        """`take` carries out a command; `applied` are sender and id of those that the log has already."""
        self._connection = connection
        self._inbox = shared(History, connection, names.inbox_stream)
        self._names = names
        self._address = address
        self._take = take
        self._applied = applied
        self._tasks: set[asyncio.Task[None]] = set()
        self._examining: set[asyncio.Future[None]] = set()

    def hear(self, message: Message) -> None:
        """Take one of them from the inbox."""
        examined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._examining.add(examined)
        self._tasks.add(task := asyncio.create_task(self._apply(message, examined)))
        task.add_done_callback(self._tasks.discard)

    async def examined(self) -> None:
        """Return once all that were heard so far are under way, so that they come before what the code does."""
        while self._examining:
            await asyncio.wait(self._examining)
        await asyncio.sleep(0)

    async def _apply(self, message: Message, examined: asyncio.Future[None]) -> None:
        taking: Awaitable[Receipt] | None = None
        try:
            command = Command.parse(encode(message.data), message.sender)
            if (command.sender, command.id) not in self._applied and await self._in_time(message):
                taking = self._take(command)
        except BadPayload:
            pass
        finally:
            self._examining.discard(examined)
            examined.set_result(None)
        try:
            if taking:
                await taking
        except OwnershipLost:  # it is the true owner's
            return
        with suppress(Error):  # whoever finds it there knows from the log that it was applied
            body = {"seq": message.position, "no_erase": True}
            await self._connection.api(f"STREAM.MSG.DELETE.{self._inbox.stream}", body)

    async def _in_time(self, message: Message) -> bool:
        """Whether its time is not over, by the server's clock: we may have been stopped since we were sent it."""
        subject = self._names.inbox(self._address, message.sender)
        entry = await insist(lambda: self._inbox.first_from_leader(subject, message.position))
        if entry is None or entry.position != message.position:
            return False
        ttl = (entry.headers or {}).get(_TTL, "")
        age = seconds_between(entry.time, await insist(self._inbox.now))
        return not ttl.isdecimal() or age < int(ttl)

    def close(self) -> None:
        """Apply no more."""
        for task in self._tasks:
            task.cancel()
