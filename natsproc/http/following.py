"""The log from where an exchange begins, found by the message's place in the inbox: nothing else is kept of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

from natsproc import errors
from natsproc.bus.handoff import Handoff
from natsproc.bus.history import History
from natsproc.bus.patience import insist
from natsproc.bus.start import Start
from natsproc.bus.tail import follow
from natsproc.handle import ProcessHandle
from natsproc.protocol.messages import Entry, decode
from natsproc.tail import Tail

from .exchange import Exchange

SKEW: Final = timedelta(seconds=10)  #: between the clocks of the servers that lead two streams


async def following(handle: ProcessHandle, work: Exchange, *, live: bool = True) -> Tail | None:
    """A tail from where it begins, or before; None if there is no such message. Raises: Error."""
    mesh = handle.mesh
    start = await mesh.io.call(insist(lambda: _start(handle, work)))
    if start is None:
        return None

    def source() -> AsyncIterator[Any]:
        return follow(mesh.connection, mesh.names, handle.address, start=start, follow=live)

    return Tail(mesh.io, source, handoff=Handoff(1))


async def _start(handle: ProcessHandle, work: Exchange) -> Start | None:
    """Where it begins in the log; None if there is none. On the I/O thread."""
    mesh, whole = handle.mesh, Start("run", run=work.run)
    if not work.position:
        return whole
    inbox, log = (
        History(mesh.connection, name) for name in (mesh.names.inbox_stream, mesh.names.event_stream)
    )
    try:
        stored = await inbox.first(mesh.names.inbox(handle.address, "*"), work.position)
    except errors.NotAllowed:
        return whole  # the right to watch is not that to read an inbox: then the log alone tells
    if stored is None or stored.position != work.position or not _is_message(stored.payload):
        return None
    subject = mesh.names.events(handle.address)
    time = datetime.fromisoformat(stored.time) - SKEW
    found = await log.since(subject, time.isoformat())
    if found is None and (last := await log.last(subject)) and datetime.fromisoformat(last.time) < time:
        found = last  # nothing since then, and nothing meanwhile
    if found is None:
        return whole
    first = await log.first(subject, 1)
    is_first = first is not None and first.position == found.position
    if is_first and (Entry.parse(found.payload).offset or 0) > 1:
        return whole  # what was before is gone, and who reads from where the run began hears of it
    return Start("position", position=found.position)


def _is_message(payload: bytes) -> bool:
    with suppress(errors.BadPayload):
        value = decode(payload)
        return not isinstance(value, dict) or value.get("kind", "message") == "message"
    return True
