"""What becomes of a message after it is stored: taken, answered, or neither, as the process's log says."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from natsproc.bus.inbox import Stored
from natsproc.bus.patience import insist
from natsproc.bus.tail import Start, follow
from natsproc.errors import AlreadyEnded, BadPayload, Closed, Refused, TimedOut
from natsproc.protocol.messages import Event
from natsproc.protocol.names import Address

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .client import Mesh

M = TypeVar("M", bound="BaseModel")


@dataclass(frozen=True, slots=True)
class Taken:
    """That a process has taken a message."""

    offset: int  #: of the event that says so
    run: int
    when: str  #: how it landed: `idle`, `next` or `now`


class Sent:
    """A message that is stored in a process's inbox. Made by `ProcessHandle.send`."""

    def __init__(self, mesh: Mesh, address: Address, stored: Stored) -> None:
        self.address = address
        self.id = stored.id
        self.position = stored.position  #: sequence in the inbox stream
        self.run = stored.run  #: of the process, when it was sent
        self.duplicate = stored.duplicate  #: a message of that id was stored before, and this one was not
        self._mesh = mesh
        self._stored = stored

    async def consumed(self, *, timeout: float | None = None) -> Taken:
        """Return once the process has taken it, and how it landed.

        Raises: Refused if the process does not take it from this sender; AlreadyEnded if the run ended without
        taking it, naming how; TimedOut after `timeout` seconds, and the message stays in the inbox; NotAllowed.
        Protocol: section 3.
        """
        event = await self._until("received", timeout)
        return Taken(event.offset, event.run, str(event.data.get("when", "idle")))

    async def reply(self, model: type[M] | None = None, *, timeout: float | None = None) -> Any:
        """Return what the process replies to it (`proc.reply`), as `model` if one is given.

        The reply is in the log, so it outlives a reconnect, and a restart of either side. Raises: as `consumed`;
        BadPayload if it is no such model.
        """
        data = (await self._until("replied", timeout)).data.get("data")
        if model is None:
            return data
        try:
            return model.model_validate(data)
        except ValueError as error:
            raise BadPayload(f"the reply of {self.address} is no {model.__name__}: {error}") from None

    async def _until(self, type: str, timeout: float | None) -> Event:
        try:
            async with asyncio.timeout(timeout):
                return await self._mesh.io.call(insist(lambda: self._find(type)))
        except TimeoutError:
            what = "taken" if type == "received" else "replied to"
            raise TimedOut(
                f"{self.address} has not {what} message {self.id} within {timeout:g} s; it is stored, and waits"
            ) from None

    async def _find(self, type: str) -> Event:
        """The first event of that type that counts and is about this message. On the I/O thread."""
        mesh, stored = self._mesh, self._stored
        start = Start("position", position=stored.after) if stored.after else Start("first")
        source = follow(mesh.connection, mesh.names, self.address, start=start, until_end=False)
        taken = ""
        async with aclosing(source):
            async for items in source:
                for event in items:
                    if not isinstance(event, Event):
                        continue
                    if self._is_meant(event):
                        if why := event.data.get("refused"):
                            raise Refused(f"{self.address} does not take message {self.id}: {why}")
                        if event.type == type:
                            return event
                        taken = f" (taken at event {event.offset})"
                    if event.terminal and event.run >= stored.run:
                        raise _never(self, event, f"replying to{taken}" if type == "replied" else "taking")
        raise Closed(f"the log of {self.address} is not followed any more")

    def _is_meant(self, event: Event) -> bool:
        data = event.data
        return (
            event.cause == self.id
            and event.type in ("received", "replied")
            and isinstance(data, dict)
            and data.get("sender") == self._stored.sender
            and data.get("position", self.position) == self.position
        )


def _never(sent: Sent, end: Event, what: str) -> AlreadyEnded:
    status = end.data.get("status", "") if isinstance(end.data, dict) else ""
    return AlreadyEnded(f"run {end.run} of {sent.address} ended ({status}) without {what} message {sent.id}")
