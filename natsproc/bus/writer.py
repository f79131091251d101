"""The node's one pipelined writer: every process's events go through it into the stream, in order, or not at all.

What one process may not store never stops another's. Protocol: section 7.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass

from natsproc.errors import Closed, Error, NoServer, NotAllowed, ServerUnfit, TimedOut, TooLarge

from .connection import ApiError, Connection, NoResponders
from .direct import MOST, Beside, Direct
from .ingest import WINDOW, Batch, Broken, Pipe, window

MAX_EVENTS = 20_000
MAX_BYTES = 32 * 1024 * 1024
FAST_INGEST = (2, 14)
_MESSAGE_TOO_LARGE = 10054
_SHY = 10.0  # seconds without batches after one that stored nothing though its first entry alone was stored
_BACKOFF = (0.05, 2.0)
_ROOMY = 0.75  # of the bounds: who has found the buffer full waits until it holds less than that


@dataclass
class Stats:
    stored: int = 0  #: entries
    attempts: int = 0  #: batches and windows begun
    broken: int = 0  #: those that ended early, each before what it had sent is sent again: `EventLog.repeats`
    refused: int = 0  #: entries


class Lane:
    """One process's way into the writer. Its entries are numbered 1, 2, 3 … and stored in that order."""

    def __init__(self, writer: Writer, subject: str, on_refused: Callable[[Error, int], None]) -> None:
        self.subject = subject
        self.on_refused = on_refused
        self.last = 0  #: the number given last
        self.sent = 0
        self.stored_to = 0
        self.dropped = 0  #: nothing up to this number is sent any more
        self._writer = writer
        self._failures: list[tuple[int, int, Error]] = []  # from, to, why
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def put(self, payload: bytes) -> int:
        """Send or queue an entry, from any thread, without blocking; returns its number. Raises: Closed."""
        writer, pipe = self._writer, self._writer._pipe
        with writer._lock:  # number and place in the queue have to agree
            if writer._closed:
                raise writer._closed
            self.last = number = self.last + 1
            pipe.bytes_in += len(payload)
            if (direct := pipe.direct) and not pipe.queue and direct.send(self, number, payload):
                return number
            pipe.queue.append((self, number, payload))
        if pipe.sleeping:
            pipe.rouse()
        return number

    @property
    def full(self) -> bool:
        """Whether the writer holds as much as it should; from any thread."""
        return self._writer.full

    async def room(self) -> None:
        """Return when the writer's buffer is below its bound, or the writer was closed."""
        await self._writer.room()

    async def stored(self, number: int) -> None:
        """Return once the entry is in the stream; it is committed at once for that, if no acknowledgement is due.

        Raises: why it was refused or dropped; Closed.
        """
        for first, last, error in self._failures:
            if first <= number <= last:
                raise error
        if number > self.stored_to:
            self._waiters.append((number, future := asyncio.get_running_loop().create_future()))
            self._writer._watch(self)
            await future

    def drop(self, error: Error | None = None) -> None:
        """Forget what is not acknowledged; whoever waits for it gets `error`. On the I/O loop."""
        error = error or Closed("the event was dropped before it was stored")
        self.dropped = self.last
        self._failures.append((self.stored_to + 1, self.last, error))
        self.settle(error)

    def settle(self, error: Error | None = None) -> bool:
        """Tell those who wait: everyone of an error, else those whose entry is stored. Returns whether any is left."""
        waiters, self._waiters = self._waiters, []
        for number, future in waiters:
            if future.done():
                continue
            if error:
                future.set_exception(error)
            elif number <= self.stored_to:
                future.set_result(None)
            else:
                self._waiters.append((number, future))
        return bool(self._waiters)

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for an entry that was sent."""
        return any(number <= self.sent for number, _ in self._waiters)


class Writer:
    """Stores what all lanes put, pipelined, from a bounded buffer.

    Entries stay in memory until they are acknowledged. A lost connection, silence and errors of the whole stream
    are retried for ever; only a refusal of the first unacknowledged entry itself fails its lane.
    """

    def __init__(
        self, connection: Connection, stream: str, *, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES
    ) -> None:
        self.connection = connection
        self.stream = stream
        self.stats = Stats()
        self.limit = connection.max_payload  #: bytes that server and stream take in one message
        self.trouble: str | None = None  #: for people: why nothing is being stored, and what to do
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._lock = threading.RLock()  # what the garbage collector calls may emit, too
        self._closed: Error | None = None
        self._watched: set[Lane] = set()
        self._progress = asyncio.Event()
        self._version = (0, 0)  # of the server that the next three are about
        self._fast = False
        self._message_limit = 0
        self._shy_until = 0.0

    async def start(self) -> None:
        """Begin to store. Raises: NotAllowed, NoServer, TimedOut, Closed."""
        self._pipe = Pipe(
            self.connection, self._on_progress, lambda: any(lane.urgent for lane in self._watched)
        )
        await self._pipe.open()
        await self._learn()
        self._task = asyncio.create_task(self._run(), name="natsproc writer")

    async def close(self, timeout: float = 5.0) -> None:
        """Store what is queued, within `timeout` seconds, and stop. Whoever waits longer gets Closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._waiting and not self._closed:
                    await self._next_progress()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._shut(Closed("the mesh was closed"))
        await self._pipe.close()

    def lane(self, subject: str, on_refused: Callable[[Error, int], None]) -> Lane:
        """A way into the stream for one subject.

        `on_refused(error, number)` is called on the I/O loop when the server takes everything but that entry;
        what the lane had queued is dropped by then.
        """
        return Lane(self, subject, on_refused)

    @property
    def full(self) -> bool:
        """Whether the buffer has reached its bound; from any thread. Never once it is closed."""
        pipe = self._pipe  # asked at every emit, so without further calls
        most, bytes_most = self._max_events, self._max_bytes
        full = len(pipe.queue) + len(pipe.flying) >= most or pipe.bytes_in - pipe.bytes_out >= bytes_most
        return full and not self._closed

    @property
    def _waiting(self) -> int:
        return len(self._pipe.queue) + len(self._pipe.flying)

    async def room(self) -> None:
        """Return when the buffer is well below its bound, so that one waits seldom; or the writer was closed."""
        events, size = self._max_events * _ROOMY, self._max_bytes * _ROOMY
        while (self._waiting >= events or self._pipe.held >= size) and not self._closed:
            await self._next_progress()

    async def _next_progress(self) -> None:
        self._progress.clear()
        await self._progress.wait()

    def _watch(self, lane: Lane) -> None:
        self._watched.add(lane)
        if self._closed:
            self._shut(self._closed)
        self._pipe.wake.set()

    def _on_progress(self) -> None:
        self.stats.stored = self._pipe.stored
        self._watched = {lane for lane in self._watched if lane.settle()}
        self._progress.set()

    async def _run(self) -> None:
        try:
            while True:
                await self.connection.wait_connected()
                if self._version != self.connection.server_version:
                    await self._learn()
                    continue
                self._limit_messages()
                direct = self._direct()
                self._on_progress()  # dropped entries have left the queue too
                if direct:
                    await self._insist(await self._attempt(direct.run()))
                elif self._pipe.queue:
                    await self._round()
                else:
                    self._pipe.answers()  # of an attempt that is over
                    await self._pipe.rest(None, entries=True)
        except Closed as error:
            self._shut(error)
        finally:  # whatever happens, nobody waits for ever
            self._shut(Closed("the writer has stopped"))

    def _direct(self) -> Direct | None:
        """A way to send what is put at once, if there is one, and little waits."""
        wire = self.connection.wire
        if wire is None or len(self._pipe.queue) > MOST:
            return None
        direct = Direct(self._pipe, wire, self._lock)
        return direct if direct.open() else None

    async def _round(self) -> None:
        """Store what is queued now and what comes meanwhile."""
        fast = self._fast and asyncio.get_running_loop().time() > self._shy_until
        batch = fast and len(self._pipe.queue) > 1
        before = self._pipe.stored
        reason = await self._attempt(self._batch() if batch else window(self._pipe, 1 if fast else WINDOW))
        useless = batch and self._pipe.stored == before and not isinstance(reason, NoServer)
        await self._insist(reason, useless)

    def _batch(self) -> Awaitable[None]:
        batch, wire = Batch(self._pipe), self.connection.wire
        return batch.run(Beside(batch, self._pipe, wire, self._lock) if wire else nullcontext())

    async def _insist(self, reason: Error | None, useless: bool = False) -> None:
        """After a failure, try the first entry alone until it is stored or refused, for as long as it takes.

        `useless` was a batch that has stored nothing.
        """
        delay, most = _BACKOFF
        while reason and self._pipe.queue:
            await self._say(reason)
            await self.connection.wait_connected()
            reason = await self._attempt(window(self._pipe, 1))
            if reason is None and useless:  # the fault lies with batches
                self._shy_until = asyncio.get_running_loop().time() + _SHY
            if reason and self._pipe.queue:
                lane, number, payload = self._pipe.queue[0]
                if refusal := self._refusal(reason, lane.subject, len(payload)):
                    self.stats.refused += 1
                    lane.drop(refusal)
                    lane.on_refused(refusal, number)
                    return
                await asyncio.sleep(delay)
                delay = min(delay * 2, most)

    async def _attempt(self, ingest: Awaitable[None]) -> Error | None:
        """Carry out an attempt; returns what ended it early."""
        self.stats.attempts += 1
        try:
            await ingest
        except Broken as broken:
            self.stats.broken += 1
            self._pipe.requeue()
            return broken.reason
        self.trouble = None
        return None

    def _refusal(self, reason: Error, subject: str, size: int) -> Error | None:
        """Why the server takes everything but such an entry, if that is so."""
        if isinstance(reason, ApiError) and reason.err_code == _MESSAGE_TOO_LARGE:
            text = f"an event of {size} bytes on {subject}: {self.stream} takes less in one message (max_msg_size)"
            return TooLarge(text, size=size, limit=max(self._message_limit, 0))
        if isinstance(reason, TooLarge) or (isinstance(reason, NotAllowed) and reason.subject == subject):
            return reason
        return None

    async def _say(self, reason: Error) -> None:
        """Remember for people what is wrong."""
        url, text = self.connection.url, f"{self.stream} takes no events now: {reason}"
        if isinstance(reason, TimedOut):
            text = await self.connection.why_silent()
        elif isinstance(reason, NoResponders):
            text = f"the nats-server at {url} has no stream for events: run `natsproc setup`"
        self.trouble = f"{text}. {self._waiting} events wait, and none is lost while this program runs"

    async def _learn(self) -> None:
        """Find out what this server's stream can do; where that fails, a batch that is refused tells as well."""
        version, config = self.connection.server_version, {"allow_batched": True}
        with suppress(NotAllowed, TimedOut, ApiError, ServerUnfit, NoServer):
            config = (await self.connection.api(f"STREAM.INFO.{self.stream}", timeout=2.0))["config"]
        batches = version >= FAST_INGEST and not self.connection.gated
        self._fast = batches and bool(config.get("allow_batched"))
        self._message_limit = int(config.get("max_msg_size", 0))
        self._limit_messages()
        self._version = version

    def _limit_messages(self) -> None:
        limit = self.connection.max_payload
        self.limit = min(limit, self._message_limit) if self._message_limit > 0 else limit

    def _shut(self, error: Error) -> None:
        with self._lock:
            self._closed = self._closed or error
        for lane in self._watched:
            lane.settle(self._closed)
        self._watched.clear()
        self._progress.set()
