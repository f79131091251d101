"""What commands do to a hosted process: each is applied, recorded in the log, and answered with a receipt.

Protocol: section 5. The log has what was applied before anyone is told so.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from natsproc.bus.checkpoints import Checkpoints
from natsproc.bus.log import EventLog
from natsproc.errors import Error, OwnershipLost, TooLarge
from natsproc.protocol.messages import Command, Outcome, Receipt, Status
from natsproc.protocol.records import Record

from .asking import Asking
from .mailbox import Mailbox

if TYPE_CHECKING:
    from .node import Node, Spec, Target

# verb → the event that records that it was applied, and whether it is paused then, if that changes
_RECORDED = {
    "interrupt": ("interrupted", None),
    "pause": ("paused", True),
    "resume": ("resumed", False),
    "cancel": ("cancelled", None),
    "kill": ("killed", None),
    "answer": ("answered", None),
}
_LAST = {"cancel": ("cancelled", 143), "kill": ("killed", 137)}  # how a run ends whose code does not stop


class Commanded:
    """The side of a hosted process that its controllers reach."""

    node: Node
    spec: Spec
    log: EventLog
    epoch: int
    run: int
    record: Record
    mailbox: Mailbox
    asking: Asking
    target: Target | None
    outlived: Callable[[int], object] | None  #: told the code of a run that its code outlives
    _paused: bool
    _checkpoints: Checkpoints
    _ending: dict[str, Any]
    _noted: dict[tuple[str, str], int]  # sender and command → offset of what records it

    async def end(self, status: str, code: int, **data: Any) -> int:
        """See `Hosted.end`."""
        raise NotImplementedError

    async def _show(self) -> None:
        raise NotImplementedError

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        raise NotImplementedError

    async def _attached(self) -> None:
        raise NotImplementedError

    async def _apply(self, command: Command) -> Receipt:
        if command.verb == "ping":
            return self._receipt(command, Outcome(data={"offset": self.log.offset}))
        if why := self.spec.why_not(command.sender, command.verb):
            outcome = Outcome("refused", why)
            recorded = command.verb in _RECORDED
            return await self._record(command, outcome) if recorded else self._receipt(command, outcome)
        await self._attached()
        assert self.target is not None
        if command.verb == "inspect":
            return self._receipt(command, Outcome(data=await self._inspect(bool(command.data.get("stack")))))
        if command.verb not in _RECORDED:
            return self._receipt(command, Outcome("refused", f"this version does not know {command.verb!r}"))
        if command.verb == "answer":
            return await self._answer(command)
        outcome = await self.target.apply(command)
        receipt = await self._record(command, outcome)
        if command.verb in _LAST and outcome.status == "unconfirmed":
            self._spawn(self._end_without(*_LAST[command.verb]))
        return receipt

    async def _answer(self, command: Command) -> Receipt:
        outcome, offset, asked = self.asking.answer(command)
        if offset:
            self._noted[command.sender, command.id] = offset
        receipt = await self._record(command, outcome)
        if asked and receipt.applied:
            asked.answer.set_result(asked.ask.value)
        return receipt

    async def _end_without(self, status: str, code: int) -> None:
        """Its code goes on and cannot be stopped, but the run ends here, and nothing that it says counts."""
        with suppress(Error):  # the code has stopped by itself meanwhile, or the id is lost
            await self.end(status, code)
            if self.outlived:
                self.outlived(code)

    def note(self, kind: str, command: str, sender: str, reason: str, message: Any, **more: Any) -> int:
        """Append the event that records a command, and return its offset; at once where it takes effect."""
        data = {"command": command, "sender": sender, "reason": reason, "message": message, **more}
        kept = {name: value for name, value in data.items() if value not in (None, "")}
        try:
            offset = self.log.append_lifecycle(kind, kept, cause=command)
        except TooLarge:  # as a command it fits, as a part of an event it does not
            offset = self.log.append_lifecycle(
                kind, kept | {"message": None, "reason": reason[:1000]}, cause=command
            )
        self._noted[sender, command] = offset
        return offset

    async def _record(self, command: Command, outcome: Outcome) -> Receipt:
        more = {"why": outcome.why, "user": command.user}
        kind, paused = _RECORDED[command.verb]
        if outcome.status not in ("applied", "unconfirmed"):
            kind, paused = "refused", None
            more["verb"] = command.verb
        try:
            offset = self._noted.pop((command.sender, command.id), 0) or self.note(
                kind, command.id, command.sender, command.reason, command.message, **more
            )
            await self.log.flush(offset)
        except OwnershipLost:
            raise
        except Error as error:
            # what is not in the log did not happen, as far as anyone else can tell
            status: Status = "too_late" if self.log.ended else "unconfirmed"
            return self._receipt(command, replace(outcome, status=status, why=self._waits() or str(error)))
        if paused is not None:
            self._paused = paused
            await self._show()
        return replace(self._receipt(command, outcome), offset=offset)

    def _waits(self) -> str:
        """What the end of the run waits for, while it is not stored."""
        if not self.log.ended or self.log.stored >= self.log.offset:
            return ""
        waits = self.node.writer.trouble or "the server has not taken it"
        return f"its run is over ({self._ending['status']}), and that waits to be stored: {waits}"

    def _receipt(self, command: Command, outcome: Outcome) -> Receipt:
        return Receipt(
            command.id, command.verb, outcome.status, outcome.why, command.sender, self.node.name, self.epoch,
            data=outcome.data,
        )  # fmt: skip

    async def _inspect(self, stack: bool) -> dict[str, Any]:
        assert self.target is not None
        lease, saved = self.node.lease, self._checkpoints.last
        return {
            "record": self.record.to_json(),
            "epoch": self.epoch,
            "run": self.run,
            "offset": self.log.offset,
            "stored": self.log.stored,
            "spooled": self.log.spooled,
            "inbox": len(self.mailbox),
            "checkpoint": saved and {"offset": saved.offset, "size": saved.size, "version": saved.version},
            "node": {
                "name": self.node.name,
                "host": lease.host,
                "pid": lease.pid,
                "load": os.getloadavg()[0],
            },
            "writer": asdict(self.node.writer.stats) | {"trouble": self.node.writer.trouble},
            **await self.target.inspect(stack),
        }
