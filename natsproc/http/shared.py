"""What one client is shown; and one live tail for all who watch the same process here, once there are several.

Who comes first has a tail of its own. Those that follow read the past for themselves, up to where the log ends, and then
go along with a tail that all of them share. What it brought last lies in a ring; who falls behind that reads from the
log again. So a client, however slow, has no more than its place here, and an event is encoded once for all.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from natsproc.errors import Closed, Error
from natsproc.handle import ProcessHandle
from natsproc.protocol.messages import Cursor, Event, Notice, encode
from natsproc.tail import Tail, tail_one

AHEAD: Final = 1  #: batches that are read before they are taken
RING_ITEMS: Final = 4096
RING_BYTES: Final = 4 * 1024 * 1024
MOST: Final = 512  #: items that are given at once

Item = Event | Notice


class Line(NamedTuple):
    """An event or notice, and its JSON."""

    item: Item
    json: bytes

    @classmethod
    def of(cls, item: Item) -> Line:
        return cls(item, encode(item.to_json()))


@dataclass(frozen=True)
class Wish:
    """What a client wants to see."""

    handle: ProcessHandle
    follow: bool
    compact: bool
    types: Sequence[str]
    begin: dict[str, Any] = field(default_factory=dict)  #: cursor, n, since, run: one of them at most

    def tail(self, *, follow: bool, behind: str = "") -> Tail:
        """Open a tail, at its beginning or behind a cursor."""
        begin: dict[str, Any] = dict.fromkeys(("cursor", "n", "since", "run")) | self.begin
        if behind:
            begin = dict.fromkeys(begin) | {"cursor": Cursor.parse(behind)}
        return tail_one(
            self.handle.mesh, self.handle.address,
            follow=follow, compact=self.compact, types=self.types, models=None, ahead=AHEAD, **begin,
        )  # fmt: skip


class Live:
    """The tail that several share, from a cursor on, and the ring of what it brought last."""

    def __init__(self, handle: ProcessHandle, cursor: Cursor) -> None:
        self.users = 0
        self.over = False
        self.error: Error | None = None
        self.changed = asyncio.Event()  # another one each time
        self._before = cursor.offset  # of the last event that has left the ring
        self._ring: deque[Line] = deque()
        self._bytes = 0
        self._first = 0  # what has left the ring
        self._tail = Wish(handle, True, False, ()).tail(follow=True, behind=str(cursor))
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while items := await self._tail.several():
                for item in items:
                    if item.type != "caught_up":  # those who come have that from their own past
                        self._put(Line.of(item))
                self._wake()
        except Error as error:
            self.error = error
        finally:
            self.over = True
            self._wake()

    def _wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def _put(self, line: Line) -> None:
        self._ring.append(line)
        self._bytes += len(line.json)
        while len(self._ring) > RING_ITEMS or (self._bytes > RING_BYTES and len(self._ring) > 1):
            left = self._ring.popleft()
            self._bytes -= len(left.json)
            self._first += 1
            if isinstance(left.item, Event):
                self._before = left.item.offset

    def behind(self, offset: int) -> int | None:
        """The place of what came behind the event of that offset; None if some of it has left the ring."""
        if offset < self._before:
            return None
        place = self._first
        for number, line in enumerate(self._ring, self._first + 1):
            if isinstance(line.item, Event) and line.item.offset <= offset:
                place = number
        return place

    def since(self, place: int) -> Sequence[Line] | None:
        """What lies at that place and behind, some of it; None if that has left the ring."""
        if place < self._first:
            return None
        start = place - self._first  # as a rule near the end, where a deque is fast
        return [self._ring[at] for at in range(start, min(start + MOST, len(self._ring)))]

    async def aclose(self) -> None:
        self._reading.cancel()
        await self._tail.aclose()


class Shared:
    """All who watch here."""

    def __init__(self) -> None:
        self.watching: Counter[Any] = Counter()
        self._live: dict[Any, Live] = {}

    def join(self, key: Any, handle: ProcessHandle, cursor: Cursor) -> Live:
        """Come along with the live tail of a process; leave it with `leave`."""
        live = self._live.get(key)
        if live is None or live.over:
            live = self._live[key] = Live(handle, cursor)
        live.users += 1
        return live

    async def leave(self, key: Any, live: Live) -> None:
        live.users -= 1
        if not live.users:
            if self._live.get(key) is live:
                del self._live[key]
            await live.aclose()


class Stream:
    """What one client is shown."""

    def __init__(self, shared: Shared, wish: Wish) -> None:
        self._shared = shared
        self._wish = wish
        self._key = (wish.handle.mesh, wish.handle.address, asyncio.get_running_loop())
        self._alone = not wish.follow or wish.begin.get("run") is not None or not shared.watching[self._key]
        shared.watching[self._key] += 1
        self._tail: Tail | None = wish.tail(follow=wish.follow and self._alone)
        self._live: Live | None = None
        self._place = 0
        self._cursor = ""  # of the last event that was dealt with
        self._offset = 0
        self._epoch = 0  # of the last takeover that was said
        self._caught_up = self._over = False

    async def several(self) -> Sequence[Line]:
        """What comes next, nothing at the end; a cancelled wait loses nothing. Raises: as iterating a Tail."""
        while not self._over:
            lines = await (self._from_tail() if self._tail is not None else self._from_live())
            shown = [line for line in lines if self._is_new(line.item)]
            if shown:
                return shown
        return ()

    async def _from_tail(self) -> Sequence[Line]:
        assert self._tail is not None
        items = await self._tail.several()
        if not items:
            self._over = self._alone
            tail, self._tail = self._tail, None
            await tail.aclose()
        return [Line.of(item) for item in items]

    async def _from_live(self) -> Sequence[Line]:
        live = self._live
        if live is None:
            return await self._come_along()
        lines = live.since(self._place)
        if lines is None:  # it fell behind
            await self._leave()
            self._tail = self._wish.tail(follow=False, behind=self._cursor)
            return ()
        if not lines and live.over:
            raise live.error or Closed("the log is not followed any more")
        if not lines:
            await live.changed.wait()
        self._place += len(lines)
        types = self._wish.types
        return [
            line for line in lines if not types or isinstance(line.item, Notice) or line.item.type in types
        ]

    async def _come_along(self) -> Sequence[Line]:
        if not self._cursor:  # it has said nothing yet
            self._alone = True
            self._tail = self._wish.tail(follow=True)
            return ()
        self._live = self._shared.join(self._key, self._wish.handle, Cursor.parse(self._cursor))
        place = self._live.behind(self._offset)
        self._place = -1 if place is None else place
        return ()

    def _is_new(self, item: Item) -> bool:
        """Take it into account, and say whether it was shown already."""
        if isinstance(item, Event):
            new = item.offset > self._offset
            self._offset, self._cursor = max(item.offset, self._offset), item.cursor if new else self._cursor
            return new
        if item.type == "caught_up":
            again, self._caught_up = self._caught_up, True
            if item.cursor:  # of the last event, which may be of a type that is not shown
                self._cursor, self._offset = item.cursor, max(self._offset, Cursor.parse(item.cursor).offset)
            return not again
        if item.type == "takeover":
            before, self._epoch = self._epoch, max(self._epoch, int(item.data.get("epoch", 0)))
            return self._epoch > before
        if item.type == "ended" and not self._alone:  # one that is alone may be shown several runs
            self._over = True
        return True

    async def _leave(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            await self._shared.leave(self._key, live)

    async def aclose(self) -> None:
        """Stop watching."""
        self._shared.watching[self._key] -= 1
        if not self._shared.watching[self._key]:
            del self._shared.watching[self._key]
        tail, self._tail = self._tail, None
        if tail is not None:
            await tail.aclose()
        await self._leave()
