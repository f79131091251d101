"""Follows one process's log: drives the pure `protocol.reader.Reader` over NATS. Protocol: section 2.2.

The reader decides what to show and what to ask for. Here are the live subscription and the bounded queue of
what it brings, the reads and questions, and what happens when the connection is lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress

from natsproc.errors import NoServer, NotAllowed
from natsproc.protocol.messages import Entry, Event, Notice
from natsproc.protocol.names import Address, Names
from natsproc.protocol.reader import BUFFER, Action, Actions, Do, Placed, Read, Reader

from .connection import Connection
from .feed import Feed
from .history import Ahead, History, ReadFailed, StoredEntry, read_failures
from .kv import Bucket
from .patience import PATIENCE, insist
from .republished import Live, placed
from .start import Start, read_claim, reader_at

__all__ = ["Start", "follow"]

Straight = Callable[[list[Event]], bool]

_PROBE = 3.0
_QUEUE_BYTES = 16 * 1024 * 1024
_BACKOFF, _MAX_BACKOFF = 0.05, 1.0


async def follow(
    connection: Connection,
    names: Names,
    address: Address,
    *,
    start: Start,
    follow: bool = True,
    until_end: bool = True,
    notices: AsyncIterator[Notice] | None = None,
    straight: Straight | None = None,
    probe: float = _PROBE,
) -> AsyncGenerator[list[Event | Notice], None]:
    """Give what counts in a process's log, in lists: each event once, in order, and nothing that is not stored.

    `follow` goes on with what comes, else it stops at the end of the log as it was. `until_end` stops behind
    the notice `ended`. `notices` are mixed in as they come. What comes live while the next list is waited for
    and simply follows is given to `straight` at once, which says whether it has taken it; else it is in the next
    list. After `probe` quiet seconds the log's end is looked at. Use `aclosing` when leaving early.
    Raises: NoSuchProcess; BadPayload (the cursor is of another log); NotAllowed; Closed; and, before the first
    list only, TimedOut and ReadFailed. Protocol: section 2.2.
    """
    tail = _Tail(connection, names, address, follow, probe)
    tail.straight = straight
    relay = None
    try:
        async with connection.denials(names.live(address), tail.deny):
            await tail.begin(start, until_end)
            while not tail.ended or tail.items:
                if tail.items:
                    items, tail.items = tail.items, []
                    yield items
                    if notices and not relay:  # which may wait until there is something to see
                        relay = asyncio.create_task(tail.relay(notices))
                else:
                    await tail.step()
    finally:
        if relay:
            relay.cancel()
        await tail.close()


class _Tail:
    """One reader and what it needs of the bus. Each step deals with one thing."""

    def __init__(
        self, connection: Connection, names: Names, address: Address, follow: bool, probe: float
    ) -> None:
        self.items: list[Event | Notice] = []
        self.ended = False
        self.straight: Straight | None = None
        self._connection = connection
        self._address = address
        self._subject = names.events(address)
        self._live = names.live(address)
        self._follow = follow
        self._probe = probe
        self._history = History(connection, names.event_stream)
        self._claims = Bucket(connection, names.claims)
        self._reader: Reader
        self._stops_at_end = True
        self._upto: int | None = None  # where the first read may end, if that is known
        self._ahead: Ahead | None = None  # what it may begin with
        self._todo: deque[Action] = deque()
        self._reading: AsyncGenerator[list[StoredEntry], None] | None = None
        self._backoff = _BACKOFF
        self._feed: Feed[Live] | None = None
        self._unsubscribing: asyncio.Task[None] | None = None
        self._queue: list[Live] = []
        self._queued_bytes = 0
        self._heard = asyncio.Event()
        self._listening = False  # and has nothing else to do until something is heard
        self._now = asyncio.get_running_loop().time
        self._last = 0.0  # when something was taken straight
        self._denial: NotAllowed | None = None
        self._overflowed = self._reconnected = False
        self._forget = (connection.on_reconnect(self._back), connection.on_disconnect(self._heard.set))

    async def close(self) -> None:
        for forget in self._forget:
            forget()
        if self._ahead:
            self._ahead.fetching.cancel()
        leaving = self._unsubscribe()
        try:
            await self._stop_reading()
        finally:
            await leaving

    async def relay(self, notices: AsyncIterator[Notice]) -> None:
        """Mix in what the caller has to say."""
        async for notice in notices:
            self.items.append(notice)
            self._heard.set()

    def deny(self, denial: NotAllowed) -> None:
        """The server does not let us listen: say so at the next step."""
        self._denial = denial
        self._heard.set()

    async def begin(self, start: Start, until_end: bool) -> None:
        """Find where to begin, and begin; a connection that is lost meanwhile, or a leader, is waited for."""

        def find() -> Coroutine[None, None, tuple[Reader, int | None]]:
            return reader_at(
                start, self._history, self._claims, self._address, self._subject, until_end=until_end
            )

        while True:
            await self._connection.wait_connected()
            with suppress(NoServer):
                await self._subscribe()
                # a process has one run, as a rule
                if start.kind in ("run", "first", "cursor"):
                    after = start.cursor.position - 1 if start.cursor else 0
                    self._ahead = self._history.ahead(self._subject, after)
                self._reader, self._upto = await insist(find, asyncio.get_running_loop().time() + PATIENCE)
                break
        self._stops_at_end = until_end or start.run is not None
        self._apply(self._reader.start())

    async def step(self) -> None:
        """Do what is to be done next, or wait for the process to say something. What fails is tried again."""
        await self._connection.wait_connected()
        if self._denial:
            raise self._denial
        try:
            with read_failures():
                if self._reconnected:
                    self._reconnected = False
                    self._apply(self._reader.reconnected())
                elif self._overflowed:
                    self._overflowed = False
                    self._apply(self._reader.overflowed())
                elif self._todo:
                    await self._do(self._todo[0])
                    self._todo.popleft()
                elif self._reading:
                    await self._read_on(self._reading)
                else:
                    await self._listen()
        except ReadFailed:
            if self._reading:
                await self._stop_reading()
                self._apply(self._reader.history_failed())
            await asyncio.sleep(self._backoff)
            self._backoff = min(2 * self._backoff, _MAX_BACKOFF)

    def _apply(self, actions: Actions) -> None:
        for action in actions:
            if isinstance(action, Event):
                self.items.append(action)
            elif isinstance(action, Notice):
                self.items.append(action)
                ends = action.type == "ended" and self._stops_at_end
                self.ended = self.ended or ends or (action.type == "caught_up" and not self._follow)
            else:
                self._todo.append(action)

    async def _do(self, action: Action) -> None:
        match action:
            case Do.SUBSCRIBE:
                await self._subscribe()
            case Read(after):
                await self._stop_reading()
                self._reading = self._history.read(self._subject, after, self._upto, ahead=self._ahead)
                self._upto = self._ahead = None
            case Do.ASK_FIRST:
                await self._stop_reading()
                first = await self._history.first_from_leader(self._subject)
                claim, epoch = await read_claim(self._claims, self._address)
                cuts = claim.cuts if claim else ()
                self._apply(self._reader.first(first.position if first else 0, cuts, epoch))
            case Do.ASK_LAST:
                end = await self._history.end_of(self._subject)
                self._hear()  # which may have brought as much meanwhile
                self._apply(self._reader.last(end))
            case _:
                await self._unsubscribe()

    async def _read_on(self, reading: AsyncGenerator[list[StoredEntry], None]) -> None:
        entries = await anext(reading, None)
        if entries is None:
            self._reading = None
            self._hear()
            self._apply(self._reader.history_end())
            return
        self._backoff = _BACKOFF
        self._take(entries, live=False)
        if self._todo:  # a question, or to read from elsewhere
            await self._stop_reading()

    def _take(self, entries: Sequence[Placed], *, live: bool) -> None:
        """Give the reader entries, of which most simply follow; of a read no more once it wants something else."""
        while entries and (live or not self._todo):
            events = self._reader.follow(entries, live=live)
            self.items += events
            for position, payload, previous, *_ in entries[len(events) : len(events) + 1]:
                entry = Entry.parse(payload)
                said = (
                    self._reader.live(position, previous, entry)
                    if live
                    else self._reader.history(position, entry)
                )
                self._apply(said)
            entries = entries[len(events) + 1 :]

    async def _stop_reading(self) -> None:
        if self._reading:
            await self._reading.aclose()
            self._reading = None

    async def _listen(self) -> None:
        if not (self._queue or self.items):
            self._heard.clear()
            self._listening, self._last, quiet = True, self._now(), 0.0
            try:
                while not self._heard.is_set() and quiet != self._last:
                    quiet = self._last
                    with suppress(TimeoutError):
                        async with asyncio.timeout_at(quiet + self._probe):
                            await self._heard.wait()
            finally:
                self._listening = False
            if not self._heard.is_set():
                self._todo.append(Do.ASK_LAST)
        self._backoff = _BACKOFF
        self._hear()

    def _hear(self) -> None:
        """Give the reader what came live."""
        heard, self._queue, self._queued_bytes = self._queue, [], 0
        self._take(heard, live=True)

    def _on_live(self, entries: Sequence[Live]) -> None:
        if self._overflowed:
            return
        if self.straight and self._listening and not self._heard.is_set():
            entries = self._hand_on(entries, self.straight)
            if not entries:
                return
        self._queue += entries
        self._queued_bytes += sum(len(payload) for _, payload, _ in entries)
        if len(self._queue) > BUFFER or self._queued_bytes > _QUEUE_BYTES:
            # nobody takes it: the server need not send what will be read from the log later
            self._overflowed = True
            self._unsubscribing = asyncio.create_task(self._unsubscribe())
        self._heard.set()

    def _hand_on(self, entries: Sequence[Live], straight: Straight) -> Sequence[Live]:
        """Have what simply follows taken at once, past the task that waits here; return what is left for it."""
        events = self._reader.follow(entries, live=True)
        self._last = self._now()
        if events and not straight(events):
            self.items += events
            self._heard.set()
        return entries[len(events) :]

    async def _subscribe(self) -> None:
        if self._follow and not self._feed:
            self._feed = await Feed.join(self._connection, self._live, placed, self._on_live)

    def _unsubscribe(self) -> Coroutine[None, None, None]:
        """Leave the feed and forget what it brought, at once; what is returned tells the server."""
        self._queue, self._queued_bytes = [], 0
        feed, self._feed = self._feed, None
        return feed.leave(self._on_live) if feed else self._connection.unsubscribe(None)

    def _back(self) -> None:
        self._reconnected = True
        self._heard.set()
