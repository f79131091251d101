"""The node's one pipelined writer: every process's events go through it into the stream, in order, or not at all.

What one process may not store never stops another's. Protocol: section 3.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass

from natsproc.errors import Closed, Error, NoServer, NotAllowed, TimedOut, TooLarge

from .connection import ApiError, Connection, NoResponders
from .ingest import WINDOW, Broken, Entry, Pipe, batch, window

MAX_EVENTS = 20_000
MAX_BYTES = 32 * 1024 * 1024
FAST_INGEST = (2, 14)
_MESSAGE_TOO_LARGE = 10054
_SHY = 10.0  #: seconds without batches after one that stored nothing
_BACKOFF = (0.05, 2.0)

Refused = Callable[[Error, int], None]


@dataclass
class Stats:
    stored: int = 0  #: entries
    batches: int = 0  #: fast-ingest batches begun
    windows: int = 0  #: windows of plain publishes begun
    resent: int = 0  #: entries that were sent once more
    refused: int = 0


class Lane:
    """One process's way into the writer. Entries are numbered 1, 2, 3 … and stored in that order."""

    def __init__(self, writer: Writer, subject: str, on_refused: Refused) -> None:
        self.subject = subject
        self.last = 0  #: the number given last
        self.sent = 0
        self.stored_to = 0
        self.dropped = 0
        self.on_refused = on_refused
        self.waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._writer = writer
        self._failures: list[tuple[int, int, Error]] = []  # from, to, why

    def put(self, payload: bytes) -> int:
        """Queue an entry, from any thread, without blocking; returns its number. Raises: Closed."""
        return self._writer._put(self, payload)

    @property
    def full(self) -> bool:
        """Whether the writer holds as much as it should; from any thread."""
        return self._writer.full

    async def room(self) -> None:
        """Return when the writer's buffer is below its bound, or it was closed."""
        await self._writer.room()

    async def stored(self, number: int) -> None:
        """Return once the entry is in the stream: it is committed now rather than soon.

        Raises: why it was refused or dropped; Closed.
        """
        for first, last, error in self._failures:
            if first <= number <= last:
                raise error
        if number <= self.stored_to:
            return
        await self._writer._wait(self, number)

    def drop(self, error: Error | None = None, first: int | None = None) -> None:
        """Forget what is queued, from number `first` on; whoever waits for it gets `error`. On the I/O loop."""
        error = error or Closed("the event was dropped before it was stored")
        self.dropped = self.last
        self._failures.append((first or self.stored_to + 1, self.dropped, error))
        self.settle(error)

    def settle(self, error: Error | None = None) -> None:
        """Tell those who wait: all of them of an error, or those whose entry is stored."""
        waiting = []
        for number, future in self.waiters:
            if future.done():
                continue
            if error:
                future.set_exception(error)
            elif number <= self.stored_to:
                future.set_result(None)
            else:
                waiting.append((number, future))
        self.waiters = waiting


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
        self.trouble: str | None = None  #: for people: why nothing is being stored, and what to do
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._closed: Error | None = None
        self._watched: set[Lane] = set()
        self._room = asyncio.Event()
        self._room.set()
        self._empty = asyncio.Event()
        self._version = (0, 0)  #: of the server that `_fast` and `_message_limit` are about
        self._fast = False
        self._shy_until = 0.0
        self._message_limit = 0

    async def start(self) -> None:
        """Begin to store. Raises: NotAllowed, NoServer, Closed."""
        self._pipe = Pipe(self.connection, self._on_stored)
        self._pipe.urgent = self._urgent
        await self._pipe.open()
        await self._learn()
        self._task = asyncio.create_task(self._run(), name="natsproc writer")

    async def close(self, timeout: float = 5.0) -> None:
        """Store what is queued, within `timeout` seconds, and stop. Whoever still waits gets Closed."""
        try:
            async with asyncio.timeout(timeout):
                while self._pipe.size and not self._closed:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            pass
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._shut(Closed("the writer is closed"))
        await self._pipe.close()

    def lane(self, subject: str, on_refused: Refused) -> Lane:
        """A way into the stream for one subject. `on_refused(error, number)` is called on the I/O loop when the
        server takes everything but that entry; what the lane had queued is dropped by then."""
        return Lane(self, subject, on_refused)

    @property
    def limit(self) -> int:
        """Bytes that server and stream take in one message."""
        limit = self.connection.max_payload
        return min(limit, self._message_limit) if self._message_limit > 0 else limit

    @property
    def full(self) -> bool:
        pipe = self._pipe
        return pipe.size >= self._max_events or pipe.bytes_in - pipe.bytes_out >= self._max_bytes

    async def room(self) -> None:
        while self.full and not self._closed:
            self._room.clear()
            await self._room.wait()

    def _put(self, lane: Lane, payload: bytes) -> int:
        with self._lock:  # number and place in the queue have to agree
            if self._closed:
                raise self._closed
            lane.last = number = lane.last + 1
            self._pipe.bytes_in += len(payload)
            self._pipe.add(Entry(lane, number, payload))
        return number

    async def _wait(self, lane: Lane, number: int) -> None:
        if self._closed:
            raise self._closed
        future = asyncio.get_running_loop().create_future()
        lane.waiters.append((number, future))
        self._watched.add(lane)
        self._pipe.wake()
        await future

    def _urgent(self) -> bool:
        return any(number <= lane.sent for lane in self._watched for number, _ in lane.waiters)

    def _on_stored(self, entries: list[Entry]) -> None:
        for entry in entries:
            entry.source.stored_to = entry.number
        self.stats.stored += len(entries)
        for lane in list(self._watched):
            lane.settle()
            if not lane.waiters:
                self._watched.discard(lane)
        if not self.full:
            self._room.set()
        if not self._pipe.size:
            self._empty.set()

    async def _run(self) -> None:
        try:
            while True:
                await self.connection.wait_connected()
                if self._version != self.connection.server_version:
                    await self._learn()
                if not self._pipe.queue:
                    self._on_stored([])
                    self._pipe.answers()  # of an attempt that is over
                    await self._pipe.rest(None, entries=True)
                    continue
                await self._round()
        except Closed as error:
            self._shut(error)

    async def _round(self) -> None:
        """Store what is queued now and what comes meanwhile; after a failure, begin with its first entry alone."""
        clock = asyncio.get_running_loop().time
        fast = self._fast and clock() > self._shy_until
        batches = fast and len(self._pipe.queue) > 1
        before = self.stats.stored
        try:
            if batches:
                self.stats.batches += 1
                await batch(self._pipe)
            else:
                self.stats.windows += 1
                await window(self._pipe, 1 if fast else WINDOW)
            self.trouble = None
        except Broken as broken:
            useless = batches and self.stats.stored == before and not isinstance(broken.reason, NoServer)
            self.stats.resent += self._pipe.requeue()
            if await self._isolate(broken.reason) and useless:
                self._shy_until = clock() + _SHY

    async def _isolate(self, reason: Error) -> bool:
        """Send the first entry alone until it is stored (returns True) or refused, for as long as it takes."""
        delay, most = _BACKOFF
        if isinstance(reason, (TimedOut, NoServer)):
            await self._say(reason)
        while self._pipe.queue:
            await self.connection.wait_connected()
            self.stats.windows += 1
            try:
                await window(self._pipe, 1)
                self.trouble = None
                return True
            except Broken as broken:
                reason = broken.reason
                self.stats.resent += self._pipe.requeue()
            entry = self._pipe.queue[0]
            if refusal := self._refusal(reason, entry):
                self._refuse(entry, refusal)
                return False
            await self._say(reason)
            await asyncio.sleep(delay)
            delay = min(delay * 2, most)
        return False

    def _refusal(self, reason: Error, entry: Entry) -> Error | None:
        """Why the server takes everything but this entry, if that is so."""
        size, subject = len(entry.payload), entry.source.subject
        if isinstance(reason, ApiError) and reason.err_code == _MESSAGE_TOO_LARGE:
            text = f"an event of {size} bytes on {subject}: the event stream takes less in one message"
            return TooLarge(text, size=size, limit=self._message_limit)
        if isinstance(reason, TooLarge) or (isinstance(reason, NotAllowed) and reason.subject == subject):
            return reason
        return None

    def _refuse(self, entry: Entry, error: Error) -> None:
        lane: Lane = entry.source
        self.stats.refused += 1
        lane.drop(error, entry.number)
        lane.on_refused(error, entry.number)

    async def _say(self, reason: Error) -> None:
        """Remember for people what is wrong. Only while the server answers pings is silence the disk's."""
        waiting = f"{self._pipe.size} events wait, and are stored once it is over; none is lost"
        if isinstance(reason, TimedOut):
            try:
                await self.connection.ping(1.0)
            except Error:
                text = f"the nats-server at {self.connection.url} does not answer"
            else:
                text = (
                    f"the nats-server at {self.connection.url} answers, but stores nothing in {self.stream}: is its "
                    "disk full? Make room there, then restart the nats-server"
                )
        elif isinstance(reason, NoResponders):
            text = f"the nats-server at {self.connection.url} has no stream for events: run `natsproc setup`"
        else:
            text = f"{self.stream} takes no events now: {reason}"
        self.trouble = f"{text} ({waiting})"

    async def _learn(self) -> None:
        """Find out what this server's stream can do."""
        version = self.connection.server_version
        try:
            config = (await self.connection.api(f"STREAM.INFO.{self.stream}", timeout=2.0))["config"]
        except Closed:
            raise
        except Error:  # may not ask, or not ready: a batch that is refused is followed by windows anyway
            config = {"allow_batched": True}
        self._fast = version >= FAST_INGEST and bool(config.get("allow_batched"))
        self._message_limit = int(config.get("max_msg_size", 0))
        self._version = version

    def _shut(self, error: Error) -> None:
        with self._lock:
            self._closed = self._closed or error
        for lane in self._watched:
            lane.settle(self._closed)
        self._watched.clear()
        self._room.set()
        self._empty.set()
