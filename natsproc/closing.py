"""Ending a run whose owner is gone, from outside. Protocol: sections 4 and 5.

Nobody but an owner writes a process's log, so whoever closes a run takes its id first. What the former owner still
says then counts for nobody, and if it lives it learns that it has lost the id.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from natsproc.bus import control, holding
from natsproc.bus.claims import claim, mark_ended
from natsproc.bus.clock import now
from natsproc.bus.log import EventLog
from natsproc.bus.patience import insist
from natsproc.errors import AlreadyEnded, AlreadyRunning, Error, OwnershipLost, Unreachable
from natsproc.protocol.messages import Command, Receipt
from natsproc.protocol.names import Address

if TYPE_CHECKING:
    from .client import Mesh
    from .node import Node

KILLED = 137  #: exit code of what was killed
RETRY_SECONDS = 0.3
CLOSE_SECONDS = 2.0  #: kept of the time, to end the run from outside if the owner stays silent
WHY = "its owner is gone: the run was ended from outside, and nobody saw what it ran stop"


async def kill(
    mesh: Mesh, address: Address, command: Command, *, timeout: float, hold: float = 0.0
) -> Receipt:
    """Have a process killed by its owner, or end its run here if it has none any more. On the I/O thread.

    If that cannot be done within `timeout` seconds, because its node holds a lease and yet does not answer, it is
    held for `hold` seconds, or raises Unreachable. Raises too: as `control.command`.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout
    while True:
        try:
            left = deadline - clock()
            asking = max(left - CLOSE_SECONDS, left / 2, RETRY_SECONDS)
            receipt = await control.command(
                mesh.connection, mesh.names, address, command, timeout=asking, hold=hold
            )
            if receipt.status != "accepted" or "held_until" in receipt.data or clock() > deadline:
                return receipt  # else its owner has it, and there is time left to do it in
        except Unreachable as silent:
            node = await mesh.started_node()
            try:
                return await close(node, address, command, within=max(deadline - clock(), 0))
            except AlreadyEnded:
                await _mend(mesh, address)
                continue
            except TimeoutError:
                taken: object = "it is not certain yet that its owner is gone"
            except (AlreadyRunning, OwnershipLost) as error:  # another owner's, or it was there all the while
                taken = error
            if clock() > deadline and hold:
                return await holding.hold(mesh.connection, mesh.names, address, command, hold)
            if clock() > deadline:
                raise Unreachable(f"{silent}. It was left alone: {taken}") from None
            await asyncio.sleep(RETRY_SECONDS)


async def close(
    node: Node, address: Address, command: Command, *, again: bool = False, within: float | None = None
) -> Receipt:
    """Take the id of a process that nobody owns any more, and write that it was killed.

    If it is to be run `again`, the next run goes on with the questions of this one.
    Raises: AlreadyRunning, if its owner answers or its node holds a lease; AlreadyEnded; OwnershipLost, if somebody
    was faster; NotAllowed; TimeoutError, if the id cannot be taken `within` so many seconds.
    """
    record = await insist(lambda: node.registry.get(address))
    if record and command.epoch not in (None, record.epoch):
        why = f"meant for epoch {command.epoch}, and {record.epoch} was the last"
        return Receipt(command.id, command.verb, "refused", why, command.sender, node.name, record.epoch)
    async with asyncio.timeout(within):
        won = await claim(
            node.connection, node.names, address, node=node.name, writer=node.writer, steady=node.steady
        )
    log = EventLog(
        node.connection, node.writer, node.names, address,
        epoch=won.epoch, run=won.run, next_offset=won.next_offset, nonce=won.nonce, carried=won.carried,
    )  # fmt: skip
    said = {"command": command.id, "sender": command.sender, "user": command.user, "reason": command.reason}
    said["why"] = WHY
    offset = log.append_lifecycle("killed", {k: v for k, v in said.items() if v}, cause=command.id)
    last = await log.end(
        {"status": "killed", "code": KILLED, "error": WHY} | ({"again": True} if again else {})
    )
    with suppress(Error):  # the log says so; what follows is for lists
        await mark_ended(node.connection, node.names, won, last)
        if record:
            time = now()
            await node.registry.end(
                replace(
                    record,
                    epoch=won.epoch,
                    run=won.run,
                    state="killed",
                    code=KILLED,
                    updated=time,
                    ended=time,
                )
            )
    return Receipt(command.id, command.verb, "unconfirmed", WHY, command.sender, node.name, won.epoch, offset)


async def _mend(mesh: Mesh, address: Address) -> None:
    """Have the registry say what the log says: the owner died between its last event and its record."""
    end = await mesh.process(address).wait()
    record = await insist(lambda: mesh.registry.get(address))
    if record and not record.ended:
        time = now()
        await mesh.registry.end(replace(record, state=end.status, code=end.code, updated=time, ended=time))
