"""The inbox: durable once acknowledged, ordered per sender, no JetStream consumer per process. Protocol: section 3.

What the inbox stream stored is republished with the previous position of its sender, so that a hole shows
with the next message; a lost last one is found when whoever has the reader has it look again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from natsproc.errors import (
    AlreadyEnded,
    BadPayload,
    Error,
    NoServer,
    NoSuchProcess,
    NotAllowed,
    TimedOut,
    TooLarge,
)
from natsproc.protocol.landing import check_landing
from natsproc.protocol.messages import Json, Message, encode
from natsproc.protocol.names import Address, Names, key_of, new_token

from .clock import now
from .connection import Connection, Headers
from .history import History, shared
from .patience import insist
from .registry import Registry

MEANWHILE = 10_000  #: messages


@dataclass(frozen=True, slots=True)
class Stored:
    """A message that is stored."""

    id: str
    sender: str
    position: int
    run: int  #: of the process, when it was sent
    after: int  #: whatever becomes of it is in the log at or behind this position; 0: anywhere
    duplicate: bool = False  #: a message of that id was stored before, and this one was not


async def send(
    connection: Connection,
    names: Names,
    address: Address,
    data: Json,
    *,
    id: str | None = None,
    kind: str = "message",
    when: str | None = None,
    user: str = "",
    timeout: float = 10.0,
) -> Stored:
    """Store a message in a process's inbox and return once it is.

    Repeating it with the same `id` within two minutes stores nothing, so a lost answer is retried here.
    Raises: NoSuchProcess, AlreadyEnded, Refused (the process takes no message at that time), TooLarge, BadPayload,
    NotAllowed, NoMesh, NoServer, TimedOut.
    """
    message = Message(
        id or new_token(), connection.sender, data, now(), kind=kind, when=when or "", user=user
    )
    payload = encode(message.to_json(), "message")
    if len(payload) > connection.max_payload - 512:
        raise TooLarge(
            f"a message of {len(payload)} bytes to {address} is larger than the server takes "
            f"({connection.max_payload} bytes less 512 for headers): send a reference instead",
            size=len(payload),
            limit=connection.max_payload - 512,
        )
    headers = {"Nats-Msg-Id": f"{key_of(address)}.{connection.sender}.{message.id}"}
    subject = names.inbox(address, connection.sender)
    try:
        async with asyncio.timeout(timeout):
            run, after = await asyncio.gather(
                _run_of(connection, names, address, when or ""), _end_of(connection, names, address)
            )
            answer = await insist(lambda: _store(connection, names, subject, payload, headers))
    except TimeoutError:
        if not connection.connected:
            raise NoServer(
                f"the connection to {connection.url} was lost, and did not return in {timeout:g} s; sending the "
                f"message again with id {message.id!r} stores it once"
            ) from None
        raise TimedOut(
            f"the message to {address} was not acknowledged within {timeout:g} s; sending it again with id "
            f"{message.id!r} stores it once. So far {await connection.why_silent()}"
        ) from None
    # of an id that nobody else can have, it is our own repeat
    duplicate = id is not None and bool(answer.get("duplicate"))
    return Stored(message.id, message.sender, int(answer["seq"]), run, 0 if duplicate else after, duplicate)


async def _run_of(connection: Connection, names: Names, address: Address, when: str) -> int:
    """The run that is to take a message; 0 where the sender may not know.

    Raises: NoSuchProcess, AlreadyEnded, Refused; and as `Registry.get`.
    """
    try:
        record = await insist(lambda: Registry(connection, names).get(address))
    except NotAllowed:
        if not connection.gated:
            raise
        return 0  # the right to send is not that to watch
    if record is None:
        raise NoSuchProcess(f"no process {str(address)!r} is known here; `natsproc ps -a` lists all")
    if record.ended:
        raise AlreadyEnded(
            f"run {record.run} of {address} has ended ({record.state}): nobody will read the message"
        )
    check_landing(address, when, record.allow)
    return record.run


async def _store(
    connection: Connection, names: Names, subject: str, payload: bytes, headers: Headers
) -> dict[str, Any]:
    async with History(connection, names.inbox_stream).there():
        return await connection.store(subject, payload, headers=headers, timeout=2.0)


async def _end_of(connection: Connection, names: Names, address: Address) -> int:
    """The position of a process's last event; 0 if it is not to be had, which costs whoever asks only time."""
    with suppress(Error):
        if last := await History(connection, names.event_stream).last(names.events(address)):
            return last.position
    return 0


class InboxReader:
    """Hands a process its stored messages, each once, in order per sender."""

    def __init__(
        self,
        connection: Connection,
        names: Names,
        address: Address,
        sink: Callable[[Message], None],
        cursors: dict[str, int],
    ) -> None:
        self._connection = connection
        self._names = names
        self._address = address
        self._sink = sink
        self._cursors = dict(cursors)  # sender → position of the last message handed over
        self._history = shared(History, connection, names.inbox_stream)
        self._lock = asyncio.Lock()
        self._meanwhile: list[Msg] | None = None  # what comes while the stream is read
        self._again = False  # the stream is to be read once more
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Subscribe, then hand over what is stored already. Raises: NotAllowed, Closed."""
        self._subscription = await self._connection.nc.listen(
            self._names.delivered(self._address), self._hear
        )
        await insist(self._catch_up)

    def _hear(self, msg: Msg) -> None:
        if self._meanwhile is None:
            self._take(msg)
        elif len(self._meanwhile) < MEANWHILE:  # else it shows as a hole
            self._meanwhile.append(msg)

    def _take(self, msg: Msg) -> None:
        headers = msg.headers or {}
        sender = msg.subject.rsplit(".", 1)[1]
        position, previous = int(headers.get("Nats-Sequence", 0)), int(headers.get("Nats-Last-Sequence", 0))
        if previous > self._cursors.get(sender, 0):
            self.look_again()  # a hole: the reader of the stream takes this one along
        else:
            self._hand_over(sender, position, msg.data)

    def _hand_over(self, sender: str, position: int, payload: bytes) -> None:
        if position > self._cursors.get(sender, 0):
            self._cursors[sender] = position
            with suppress(BadPayload):  # one that claims another sender is nobody's
                self._sink(Message.parse(payload, sender, position))

    async def _catch_up(self) -> None:
        """Read whatever lies in the stream behind what was handed over, and then take what came meanwhile."""
        async with self._lock:
            meanwhile: list[Msg] = []
            self._meanwhile = meanwhile
            try:
                await self._read()
            finally:
                self._meanwhile = None
                for msg in meanwhile:
                    self._take(msg)

    async def _read(self) -> None:
        subjects = f"{self._names.inbox(self._address, '*')}"
        info = await self._connection.api(
            f"STREAM.INFO.{self._names.inbox_stream}", {"subjects_filter": subjects}
        )
        for subject in info["state"].get("subjects") or ():
            sender = subject.rsplit(".", 1)[1]
            async for entries in self._history.read(subject, self._cursors.get(sender, 0)):
                for entry in entries:
                    self._hand_over(sender, entry.position, entry.payload)

    def look_again(self) -> None:
        """Have the stream read, in a task that lives no longer than that: an idle process has none."""
        self._again = True
        if self._task is None:
            self._task = asyncio.create_task(self._keep_up())

    async def _keep_up(self) -> None:
        while self._again:
            self._again = False
            try:
                await self._connection.wait_connected()
                await self._catch_up()
            except Error:
                self._again = True
                await asyncio.sleep(0.2)
        self._task = None

    async def close(self) -> None:
        """Hand over nothing more."""
        if self._task:
            self._task.cancel()
        await self._connection.unsubscribe(self._subscription)
