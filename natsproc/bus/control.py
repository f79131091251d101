"""Commands and their receipts: core request and reply, answered twice. Protocol: section 5.

A command never waits behind the inbox or behind another command: each is applied in a task of its own.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

from nats.aio.msg import Msg

from natsproc.errors import (
    BadPayload,
    Closed,
    Error,
    NoServer,
    NoSuchProcess,
    NotAllowed,
    ServerUnfit,
    TimedOut,
    Unreachable,
)
from natsproc.protocol.messages import Command, Receipt, encode
from natsproc.protocol.names import Address, Names, reply_is_clients

from .connection import Connection, NoResponders
from .registry import Registry, unsubscribe

REMEMBERED = 1000
BACK_SECONDS = 2.0

Apply = Callable[[Command], Awaitable[Receipt]]


async def command(
    connection: Connection, names: Names, address: Address, command: Command, *, timeout: float = 5.0
) -> Receipt:
    """Send a command and return its final receipt, or the one that says `accepted` if time runs out behind it.

    Lost connections are waited for and the command repeated under its id, which changes nothing.
    Raises: NoSuchProcess, Unreachable, NotAllowed, NoServer, TooLarge.
    """
    accepted: Receipt | None = None
    clock = asyncio.get_running_loop().time
    silent_since = 0.0
    subject = names.control(address, connection.sender)
    try:
        async with asyncio.timeout(timeout):
            while True:
                try:
                    async for receipt in _exchange(connection, subject, command):
                        if receipt.status != "accepted":
                            return receipt
                        accepted = receipt
                except NoServer:
                    silent_since = 0.0
                    await connection.wait_connected()
                except NoResponders:
                    silent_since = silent_since or clock()
                    if (late := await _too_late(connection, names, address, command)) is not None:
                        return late
                    if clock() - silent_since > BACK_SECONDS:
                        raise Unreachable(
                            f"the node of {address} does not answer: it is gone or cut off. `natsproc ps` shows more"
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
        raise Unreachable(
            f"the node of {address} did not answer {command.verb!r} within {timeout:g} s: it is overloaded, "
            "stopped or cut off. Look with `natsproc ps -a`"
        ) from None


async def _exchange(connection: Connection, subject: str, command: Command) -> AsyncIterator[Receipt]:
    async with connection.replies(subject) as (reply, queue):
        await connection.publish(subject, encode(command.to_json(), "command"), reply=reply)
        while True:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            receipt = Receipt.parse(item.data)
            if receipt.command == command.id:
                yield receipt


async def _too_late(
    connection: Connection, names: Names, address: Address, command: Command
) -> Receipt | None:
    """The receipt for a process that has ended; None if it should be running. Raises: NoSuchProcess."""
    try:
        record = await Registry(connection, names).get(address)
    except (NoServer, ServerUnfit, TimedOut):  # restarting; asked again soon
        return None
    if record is None:
        raise NoSuchProcess(f"no process {str(address)!r} is known here; `natsproc ps -a` lists all")
    if not record.ended:
        return None
    why = f"run {record.run} of {address} has ended ({record.state})"
    return Receipt(command.id, command.verb, "too_late", why, connection.sender, record.node, record.epoch)


class ControlServer:
    """Answers commands for the processes of one node."""

    def __init__(self, connection: Connection, names: Names, node: str) -> None:
        self._connection = connection
        self._names = names
        self._node = node

    async def serve(self, address: Address, epoch: int, apply: Apply) -> ServedControl:
        """Answer the commands of one process from now on, until the result is closed."""
        served = ServedControl(self._connection, self._node, epoch, apply)
        served.subscription = await self._connection.subscribe(self._names.control(address), served.hear)
        return served


class ServedControl:
    """The control subject of one process, being served."""

    subscription: object

    def __init__(self, connection: Connection, node: str, epoch: int, apply: Apply) -> None:
        self._connection = connection
        self._node = node
        self._epoch = epoch
        self._apply = apply
        self._answers: OrderedDict[str, asyncio.Task[Receipt]] = OrderedDict()

    async def hear(self, msg: Msg) -> None:
        """Take one command. Anything that is not one, or not ours to answer, is left alone."""
        sender = msg.subject.rsplit(".", 1)[1]
        if not reply_is_clients(msg.reply, sender):
            return
        try:
            command = Command.parse(msg.data, sender)
        except BadPayload as error:
            await self._reply(
                msg.reply, Receipt("", "", "refused", str(error), sender, self._node, self._epoch)
            )
            return
        # one sender's ids are not another's
        key = f"{sender} {command.id}"
        task = self._answers.get(key)
        if task is None:
            task = asyncio.create_task(self._run(command))
            self._answers[key] = task
            self._forget_old()
        if not task.done():
            await self._reply(msg.reply, self._receipt(command, "accepted"))
        task.add_done_callback(lambda done: self._answer(msg.reply, done))

    def _forget_old(self) -> None:
        while len(self._answers) > REMEMBERED and next(iter(self._answers.values())).done():
            self._answers.popitem(last=False)

    def _receipt(self, command: Command, status: str, why: str = "") -> Receipt:
        return Receipt(command.id, command.verb, status, why, command.sender, self._node, self._epoch)  # type: ignore[arg-type]

    async def _run(self, command: Command) -> Receipt:
        if command.epoch is not None and command.epoch != self._epoch:
            return self._receipt(
                command, "refused", f"meant for epoch {command.epoch}, this is {self._epoch}"
            )
        try:
            return await self._apply(command)
        except Error as error:
            return self._receipt(command, "refused", str(error))

    def _answer(self, reply: str, task: asyncio.Task[Receipt]) -> None:
        if not task.cancelled() and task.exception() is None:
            asyncio.create_task(self._reply(reply, task.result()))

    async def _reply(self, reply: str, receipt: Receipt) -> None:
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
        await unsubscribe(self.subscription)
