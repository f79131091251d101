"""The two ways to store entries in order: fast-ingest batches and windows of plain publishes. Protocol: section 7.

Both acknowledge from the front only: what is acknowledged lies in the stream, and so does all before it. Either
ends by raising Broken, after which everything unacknowledged is sent again; its offset makes a repeat void.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple, Protocol

import nats.errors
from nats.aio.msg import Msg

from natsproc.errors import Closed, Error, NoServer, NotAllowed, TimedOut, TooLarge
from natsproc.protocol.messages import decode_object
from natsproc.protocol.names import new_token, node_inbox

from .connection import ApiError, Connection, NoResponders

SILENCE = 3.0  #: seconds without any answer after which an attempt is given up
GRACE = 0.1  #: seconds to wait, after an error, for how much was stored before it
IDLE = 0.005  #: seconds without a new entry after which a batch is committed
AGE = 0.025  #: seconds without an acknowledgement after which a batch is committed
FLOW = 200  #: entries for each acknowledgement of a batch, at most
WINDOW = 256  #: entries in a window, at most
WINDOW_BYTES = 4 * 1024 * 1024


class Broken(Exception):
    """An attempt ended before everything it sent was acknowledged."""

    def __init__(self, reason: Error) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Source(Protocol):
    """What the entries of one subject share."""

    subject: str
    dropped: int  #: entries up to this number are no longer wanted
    sent: int  #: the last number that was sent


class Entry(NamedTuple):
    source: Any  #: a Source
    number: int
    payload: bytes


class Pipe:
    """Entries on their way into the stream, and the inbox in which their acknowledgements arrive.

    `add` may be called from any thread; all else belongs to the I/O loop.
    """

    def __init__(self, connection: Connection, on_stored: Callable[[list[Entry]], None]) -> None:
        self.connection = connection
        self.queue: deque[Entry] = deque()
        self.flying: deque[Entry] = deque()
        self.bytes_in = 0  #: ever added; only written under the writer's lock
        self.bytes_out = 0  #: ever released; only written on the I/O loop
        self.urgent: Callable[[], bool] = lambda: False
        self._on_stored = on_stored
        self._prefix = f"{node_inbox(connection.sender)}.{new_token(12)}"
        self._attempt = ""
        self._arrived: deque[tuple[str, bytes | Error]] = deque()
        self._wake = asyncio.Event()
        self._sleeping = False  #: whether a new entry has to wake the loop
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        """Subscribe where acknowledgements arrive. Raises: NotAllowed."""
        subject = f"{self._prefix}.>"
        denied: list[NotAllowed] = []
        async with self.connection.denials(subject, denied.append):
            self._subscription = await self.connection.subscribe(subject, self._on_reply)
            await self.connection.ping()
        if denied:
            raise denied[0]
        self._forget = self.connection.on_disconnect(self._lost)

    async def close(self) -> None:
        self._forget()
        try:
            await self._subscription.unsubscribe()
        except nats.errors.Error:  # the connection went first
            pass

    def add(self, entry: Entry) -> None:
        """Queue an entry, and wake the loop if it sleeps: once for a burst. From any thread."""
        self.queue.append(entry)
        if self._sleeping:
            self._sleeping = False
            self._loop.call_soon_threadsafe(self._wake.set)

    def wake(self) -> None:
        self._wake.set()

    @property
    def size(self) -> int:
        return len(self.queue) + len(self.flying)

    def take(self) -> Entry | None:
        """The next entry to send, which is in flight from now on; dropped ones are passed over."""
        while self.queue:
            entry = self.queue.popleft()
            if entry.number > entry.source.dropped:
                entry.source.sent = entry.number
                self.flying.append(entry)
                return entry
            self.bytes_out += len(entry.payload)
        return None

    def stored(self, count: int) -> None:
        """The first `count` entries in flight are in the stream."""
        entries = [self.flying.popleft() for _ in range(count)]
        self.bytes_out += sum(len(entry.payload) for entry in entries)
        self._on_stored(entries)

    def requeue(self) -> int:
        """Put what is in flight back to be sent again first; returns how many entries that is."""
        count = len(self.flying)
        self.queue.extendleft(reversed(self.flying))
        self.flying.clear()
        return count

    def begin(self) -> str:
        """Start an attempt: returns its name, under which replies count until the next one starts."""
        self._attempt = new_token(20)
        self._arrived.clear()
        return self._attempt

    def reply(self, attempt: str) -> str:
        return f"{self._prefix}.{attempt}"

    async def publish(self, entry: Entry, reply: str) -> None:
        """Send one entry. Raises: TooLarge, NoServer, Closed."""
        try:
            await self.connection.nc.publish(entry.source.subject, entry.payload, reply)
        except nats.errors.MaxPayloadError:
            size, limit = len(entry.payload), self.connection.max_payload
            raise TooLarge(
                f"an event of {size} bytes on {entry.source.subject}: the server takes {limit}",
                size=size,
                limit=limit,
            ) from None
        except nats.errors.OutboundBufferLimitError:
            raise NoServer(f"not connected to {self.connection.url}") from None
        except (nats.errors.ConnectionClosedError, nats.errors.ConnectionDrainingError):
            raise Closed("the connection is closed") from None

    async def rest(self, timeout: float | None, *, entries: bool = False) -> bool:
        """Sleep until an answer came or somebody is in a hurry or, with `entries`, there is one to send.

        Returns False when `timeout` seconds have passed.
        """
        self._wake.clear()
        self._sleeping = entries  # before the look at the queue, so that no entry slips in between
        if self._arrived or (entries and self.queue):
            self._sleeping = False
            await asyncio.sleep(0)
            return True
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            return False
        finally:
            self._sleeping = False
        return True

    def answers(self) -> list[tuple[str, bytes | Error]]:
        """What arrived for this attempt: the rest of each reply subject, and the payload or what went wrong."""
        arrived = list(self._arrived)
        self._arrived.clear()
        return arrived

    async def _on_reply(self, msg: Msg) -> None:
        attempt, _, rest = msg.subject[len(self._prefix) + 1 :].partition(".")
        if attempt != self._attempt:
            return
        if msg.data:
            self._arrived.append((rest, msg.data))
        elif (msg.headers or {}).get("Status") == "503":
            self._arrived.append((rest, NoResponders("no stream takes events")))
        else:
            self._arrived.append((rest, TimedOut("the event stream has no leader")))
        self._wake.set()

    def _lost(self) -> None:
        self.tell(NoServer(f"the connection to {self.connection.url} was lost"))

    def tell(self, error: Error) -> None:
        """Have the attempt under way hear of an error that no reply subject names."""
        self._arrived.append(("", error))
        self._wake.set()


def _read(payload: bytes | Error) -> tuple[dict[str, Any], Error | None]:
    """An answer's fields, and the error it carries."""
    if isinstance(payload, Error):
        return {}, payload
    try:
        answer = decode_object(payload, "acknowledgement")
    except Error as error:
        return {}, error
    refusal = answer.get("error")
    return answer, ApiError("an event", refusal) if isinstance(refusal, dict) else None


async def window(pipe: Pipe, limit: int = WINDOW) -> None:
    """Send up to `limit` entries, each with a reply of its own; return when all of them are acknowledged.

    Raises: Broken, with the reason of the first unacknowledged entry where that one has its own.
    """
    stem = pipe.reply(pipe.begin())
    subjects: list[str] = []
    acknowledged: set[int] = set()  # places in the window, from 1
    errors: dict[int, Error] = {}
    denial: NotAllowed | None = None
    size = stored = 0
    async with AsyncExitStack() as hooks:
        while len(subjects) < limit and size < WINDOW_BYTES and not errors and (entry := pipe.take()):
            if (subject := entry.source.subject) not in subjects:
                await hooks.enter_async_context(pipe.connection.denials(subject, pipe.tell))
            subjects.append(subject)
            size += len(entry.payload)
            try:
                await pipe.publish(entry, f"{stem}.{len(subjects)}")
            except Error as failed:
                errors[len(subjects)] = failed
        while stored < len(subjects):
            if error := errors.get(stored + 1):
                raise Broken(error)
            if denial and denial.subject == subjects[stored]:
                raise Broken(denial)
            if not await pipe.rest(GRACE if denial else SILENCE):
                raise Broken(denial or _silence())
            for place, payload in pipe.answers():
                answer, failure = _read(payload)
                if not place:
                    if not isinstance(failure, NotAllowed):
                        raise Broken(failure or _silence())
                    denial = failure
                elif failure:
                    errors[int(place)] = failure
                elif "seq" in answer:
                    acknowledged.add(int(place))
            before = stored
            while stored < len(subjects) and stored + 1 in acknowledged:
                stored += 1
            pipe.stored(stored - before)


async def batch(pipe: Pipe) -> None:
    """Send entries as one fast-ingest batch (ADR-50) for as long as they come quickly, then commit it.

    Only the commit tells how much is stored, so one follows at once when somebody waits for an entry that was
    sent. Raises: Broken.
    """
    name = pipe.begin()
    stem = f"{pipe.reply(name)}.{FLOW}.fail"
    clock = asyncio.get_running_loop().time
    sent = stored = flow = 0
    failure: Error | None = None
    first: Entry | None = None
    commit = closing = False
    since = clock()  # the last progress
    async with AsyncExitStack() as hooks:
        while True:
            if sent == stored and not closing:
                since = clock()
            while not closing and not failure and sent < (stored + 2 * flow or 1) and (entry := pipe.take()):
                if first is None:
                    first = entry
                    await hooks.enter_async_context(pipe.connection.denials(entry.source.subject, pipe.tell))
                try:
                    await pipe.publish(entry, f"{stem}.{sent + 1}.{1 if sent else 0}.$FI")
                    sent += 1
                except TooLarge as failed:
                    failure = failed
                except Error as failed:
                    raise Broken(failed) from None
            if first is None:
                return
            if failure and not flow:
                raise Broken(failure)
            if flow and not closing and (commit or failure or pipe.urgent()):
                closing, since = True, clock()
                await pipe.publish(first._replace(payload=b""), f"{stem}.{sent + 1}.3.$FI")
            if closing or not flow:
                patience = GRACE if failure else SILENCE
                if not await pipe.rest(since + patience - clock()):
                    raise Broken(failure or _silence())
            else:
                full = sent >= stored + 2 * flow
                patience = since + AGE - clock()
                commit = not await pipe.rest(patience if full else min(patience, IDLE), entries=not full)
            for place, payload in pipe.answers():
                answer, error = _read(payload)
                kind, count = answer.get("type"), answer.get("seq")
                if not place and not isinstance(error, NotAllowed):
                    raise Broken(error or _silence())
                if kind == "ack":
                    flow = min(max(1, int(answer["msgs"])), FLOW)
                elif answer.get("batch") == name:
                    count = answer.get("count")
                else:
                    failure = failure or error or Error("the server lost a part of a batch, or knows none")
                    count = 0
                    if place.endswith(".3.$FI"):  # nothing can follow the answer to the commit
                        raise Broken(failure)
                if isinstance(count, int) and stored < count <= sent:
                    pipe.stored(count - stored)
                    stored, since = count, clock()
                if answer.get("batch") == name:
                    if stored == sent and not failure:
                        return
                    raise Broken(failure or _silence())


def _silence() -> TimedOut:
    return TimedOut(f"the event stream acknowledged nothing for {SILENCE:g} s")
