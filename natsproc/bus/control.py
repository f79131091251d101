"""Commands and their receipts: core request and reply, answered twice. Protocol: section 5.

A command never waits behind the inbox or behind another command: each is applied in a task of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from natsproc.errors import (
    BadPayload,
    Closed,
    NoServer,
    NoSuchProcess,
    NotAllowed,
    OwnershipLost,
    ServerUnfit,
    TimedOut,
    TooLarge,
    Unreachable,
)
from natsproc.protocol.messages import Command, Receipt, encode
from natsproc.protocol.names import Address, Names, new_token, reply_is_clients

from . import holding
from .connection import Connection, NoResponders
from .registry import Registry
from .yielding import hurry

REMEMBERED = 1000
BACK_SECONDS = 2.0

Apply = Callable[[Command], Awaitable[Receipt]]


async def command(
    connection: Connection,
    names: Names,
    address: Address,
    command: Command,
    *,
    timeout: float = 5.0,
    hold: float = 0.0,
) -> Receipt:
    """Send a command and return its final receipt, or the one that says `accepted` if time runs out behind it.

    Lost connections are waited for and the command repeated under its id, which changes nothing. If nobody
    serves the process, it is kept for `hold` seconds, if any; a `kill` only if no run of it is on record.
    Raises: NoSuchProcess, Unreachable, NotAllowed, NoServer, TooLarge.
    """
    payload = encode(command.to_json(), "command")
    if len(payload) > (limit := connection.max_payload):
        raise TooLarge(
            f"a command of {len(payload)} bytes to {address} is larger than the server takes ({limit} bytes)",
            size=len(payload),
            limit=limit,
        )
    accepted: Receipt | None = None
    clock = asyncio.get_running_loop().time
    silent_since = 0.0
    subject = names.control(address, connection.sender)
    try:
        async with asyncio.timeout(timeout):
            while True:
                try:
                    async for receipt in _exchange(connection, subject, command.id, payload):
                        if receipt.status != "accepted":
                            return receipt
                        accepted = receipt
                except NoServer:
                    silent_since = 0.0
                    await connection.wait_connected()
                except NoResponders:
                    silent_since = silent_since or clock()
                    late = await _too_late(connection, names, address, command, to_be_held=hold > 0)
                    silent_for_long = clock() - silent_since > BACK_SECONDS
                    if hold and (late or (silent_for_long and command.verb != "kill")):
                        return await holding.hold(connection, names, address, command, hold)
                    if late:
                        return late
                    if silent_for_long:
                        raise Unreachable(
                            f"the node of {address} does not answer: it is gone or cut off"
                        ) from None
                    await asyncio.sleep(
                        0.1
                    )  # after an outage the node may be back a moment later than we are
    except TimeoutError:
        if accepted:
            return replace(accepted, why=f"not applied within {timeout:g} s; it stays valid")
        if not connection.connected:
            raise NoServer(
                f"the connection to {connection.url} was lost, and did not return in {timeout:g} s"
            ) from None
        if hold and command.verb != "kill":
            return await holding.hold(connection, names, address, command, hold)
        raise Unreachable(
            f"the node of {address} did not answer {command.verb!r} within {timeout:g} s: it is overloaded, "
            "stopped or cut off. Look with `natsproc ps -a`"
        ) from None


async def _exchange(connection: Connection, subject: str, id: str, payload: bytes) -> AsyncIterator[Receipt]:
    async with connection.replies(subject) as (reply, queue):
        await connection.publish(subject, payload, reply=reply)
        while True:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            receipt = Receipt.parse(item.data)
            if receipt.command == id:
                yield receipt


async def _too_late(
    connection: Connection, names: Names, address: Address, command: Command, *, to_be_held: bool
) -> Receipt | None:
    """The receipt for a process that does not run; None if it should be running.

    Raises: NoSuchProcess, for one that never ran, unless the command is `to_be_held` for it.
    """
    try:
        record = await Registry(connection, names).get(address)
    except (NoServer, NoResponders, ServerUnfit, TimedOut):  # restarting; asked again soon
        return None
    except NotAllowed:
        if not connection.gated:
            raise
        return None  # the right to control is not that to watch
    if record and not record.ended:
        return None
    if record is None and not to_be_held:
        raise NoSuchProcess(f"no process {str(address)!r} is known here; `natsproc ps -a` lists all")
    why = f"run {record.run} of {address} has ended ({record.state})" if record else "it has never run"
    node, epoch = (record.node, record.epoch) if record else ("", 0)
    return Receipt(command.id, command.verb, "too_late", why, connection.sender, node, epoch)


async def is_pinned(connection: Connection, names: Names) -> bool:
    """Whether the server keeps us from commanding in another's name: tried, on a process that does not exist."""
    nowhere = Address("default", f"nowhere-{new_token(8)}")
    try:
        await connection.request(names.control(nowhere, f"not-{connection.sender[:50]}"), timeout=2.0)
    except NotAllowed:
        return True
    except (NoResponders, NoServer, TimedOut):
        pass
    return False


class ServedControl:
    """The control subject of one process, being served."""

    def __init__(self, connection: Connection, node: str, epoch: int, apply: Apply) -> None:
        self._connection = connection
        self._node = node
        self._epoch = epoch
        self._apply = apply
        self._answers: dict[str, asyncio.Task[Receipt]] = {}
        self._subscription: Subscription | None = None

    async def start(self, subject: str) -> None:
        """Answer commands from now on."""
        self._subscription = await self._connection.nc.listen(subject, self._hear)

    def _hear(self, msg: Msg) -> None:
        """Take one command. Anything that is not one, or not ours to answer, is left alone."""
        sender = msg.subject.rsplit(".", 1)[1]
        if not reply_is_clients(msg.reply, sender):
            return
        try:
            command = Command.parse(msg.data, sender)
        except BadPayload as error:
            refused = Receipt("", "", "refused", str(error), sender, self._node, self._epoch)
            asyncio.create_task(self._reply(msg.reply, refused))
        else:
            hurry()
            asyncio.create_task(self._answer(msg.reply, command, self.take(command)))

    async def _answer(self, reply: str, command: Command, task: asyncio.Task[Receipt]) -> None:
        """Say at once that it is under way, if it is, and in the end what came of it."""
        if not task.done():
            await self._reply(reply, self._receipt(command, "accepted"))
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            await self._reply(reply, task.result())

    def take(self, command: Command) -> asyncio.Task[Receipt]:
        """Carry out a command, once, beside all others; what it comes to is the final receipt."""
        key = f"{command.sender} {command.id}"  # one sender's ids are not another's
        if (task := self._answers.get(key)) is None:
            task = self._answers[key] = asyncio.create_task(self._run(command))
            self._forget_old()
        return task

    def _forget_old(self) -> None:
        if len(self._answers) > REMEMBERED:
            oldest = next((key for key, task in self._answers.items() if task.done()), None)
            self._answers.pop(oldest or "", None)

    def _receipt(self, command: Command, status: str, why: str = "") -> Receipt:
        return Receipt(command.id, command.verb, status, why, command.sender, self._node, self._epoch)  # type: ignore[arg-type]

    async def _run(self, command: Command) -> Receipt:
        if command.epoch is not None and command.epoch != self._epoch:
            return self._receipt(
                command, "refused", f"meant for epoch {command.epoch}, this is {self._epoch}"
            )
        try:
            return await self._apply(command)
        except OwnershipLost:
            raise  # and no answer: the true owner's is the one that counts
        except Exception as error:
            return self._receipt(command, "refused", str(error) or repr(error))

    async def _reply(self, reply: str, receipt: Receipt) -> None:
        receipt = replace(receipt, verified=self._connection.verified)
        try:
            await self._connection.publish(reply, encode(receipt.to_json()))
        except (Closed, NoServer, NotAllowed):
            pass

    async def settle(self, timeout: float) -> None:
        """Wait until every command that was taken has its answer, for `timeout` seconds at most."""
        pending = [task for task in self._answers.values() if not task.done()]
        if pending:
            await asyncio.wait(pending, timeout=timeout)

    async def close(self) -> None:
        """Answer no more."""
        await self._connection.unsubscribe(self._subscription)
