"""Storing few entries with as little delay as there can be: whoever puts one sends it. Protocol: section 7.

`Direct` is the window of plain publishes that `ingest` sends, left open; `Beside` adds to the batch that it sends.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from natsproc.errors import Error

from .ingest import SILENCE, WINDOW_BYTES, Broken, Pipe, settle, silence
from .wire import Wire

if TYPE_CHECKING:
    from .ingest import Batch

MOST = 8  #: entries on their way at a time; where there are more, a batch costs less
FEW = 32  #: entries in a moment that are sent into a batch one by one; where there are more, blocks cost less
MOMENT = 0.002  #: seconds


class _Sender:
    """Sends entries in the thread that puts them, and so under `lock`."""

    _form: bytes  # of a message: subject, stem, place, size, payload

    def __init__(self, pipe: Pipe, wire: Wire, lock: AbstractContextManager[object], stem: str) -> None:
        self._pipe = pipe
        self._wire = wire
        self._lock = lock
        self._stem = stem.encode()
        self._limit = pipe.connection.max_payload

    def _post(self, counted: Direct | Batch, lane: Any, number: int, payload: bytes) -> bool:
        """Have an entry on its way behind those that were `counted`, or return False."""
        pipe = self._pipe
        # what there is has to leave before: it may be what somebody needs who sees this entry, or of the same batch
        if pipe.sending or pipe.connection.nc.pending_data_size:
            return False
        pipe.sending = True  # what a signal handler or a finalizer puts meanwhile is queued
        try:
            counted.sent = place = counted.sent + 1  # before it is sent, as the answer may be quick
            pipe.flying.append((lane, number, payload))
            message = self._form % (lane.subject.encode(), self._stem, place, len(payload), payload)
            if not self._wire.send(message):
                pipe.flying.pop()
                counted.sent = place - 1
                return False
            lane.sent = number
            return True
        finally:
            pipe.sending = False


class Direct(_Sender):
    """Sends what is put, in the thread that puts it, for as long as few entries are on their way.

    `send` is called under `lock`; the rest belongs to the I/O loop.
    """

    _form = b"PUB %b %b.%d %d\r\n%b\r\n"

    def __init__(self, pipe: Pipe, wire: Wire, lock: AbstractContextManager[object]) -> None:
        super().__init__(pipe, wire, lock, pipe.begin()[1])
        self.sent = self._stored = 0
        self._timed = True  # whether the loop looks after what is on its way

    def open(self) -> bool:
        """Send what is queued and, from now on, what is put. Returns whether there is anything to `run` for."""
        pipe = self._pipe
        with self._lock:
            while pipe.queue:
                lane, number, payload = pipe.queue[0]
                if number <= lane.dropped:
                    pipe.bytes_out += len(payload)
                elif not self.send(lane, number, payload):
                    break
                pipe.queue.popleft()
            if not pipe.queue:
                pipe.direct = self
            return bool(pipe.direct or pipe.flying)

    def send(self, lane: Any, number: int, payload: bytes) -> bool:
        """Have an entry on its way, or return False. From any thread, without waiting."""
        pipe, size = self._pipe, len(payload)
        # what is large may be refused, and then it is better if nothing came behind it
        if len(pipe.flying) >= MOST or size > self._limit or pipe.held - size >= WINDOW_BYTES:
            return False
        if not self._post(self, lane, number, payload):
            return False
        if not self._timed:
            self._timed = True
            pipe.rouse()
        return True

    def hear(self, place: str, answer: dict[str, Any], error: Error | None) -> bool:
        """Take it that the first entry on its way is stored; returns False for every other answer."""
        if error or "seq" not in answer or place != str(self._stored + 1) or self._stored == self.sent:
            return False
        self._stored += 1
        self._pipe.acknowledge(1)
        return True

    async def run(self) -> None:
        """Until something is queued or goes wrong, and everything sent is acknowledged. Raises: Broken."""
        pipe = self._pipe
        forget = pipe.connection.on_denial(self._deny)
        try:
            try:
                await self._stay()
            finally:
                with self._lock:
                    pipe.direct = None
            await settle(pipe, lambda place: [place] if place <= self.sent else [], self._stored)
        finally:
            forget()

    async def _stay(self) -> None:
        """While entries are sent from elsewhere, see that they are acknowledged."""
        pipe, clock = self._pipe, asyncio.get_running_loop().time
        before = -1
        since = 0.0  # the last progress, or sight of something; 0 while nothing is on its way
        while pipe.direct and not pipe.queue and not pipe.arrived:
            self._timed = False  # before the look, so that whoever sends behind it says so
            flying, now = bool(pipe.flying), clock()
            self._timed = timed = flying or pipe.stored != before
            if not flying:
                since = 0.0
            elif not since or pipe.stored != before:
                since = now
            elif now >= since + SILENCE:
                raise Broken(silence())
            before = pipe.stored
            await pipe.rest((since or now) + SILENCE - now if timed else None, entries=True)

    def _deny(self, subject: str) -> None:
        """The server has refused to take something; if it may be one of these, that tells no place."""
        for lane, _, _ in self._pipe.flying.copy():
            if lane.subject.lower() == subject.lower():
                self._pipe.tell(self._pipe.connection.denied(lane.subject, "publish"))
                return


class Beside(_Sender):
    """Sends what is put into a batch, in the thread that puts it, for as long as little is put at a time.

    Used with `with`, by the I/O loop, while that sends nothing itself; `send` is called under `lock`.
    """

    _form = b"PUB %b %b.%d.1.$FI %d\r\n%b\r\n"

    def __init__(self, batch: Batch, pipe: Pipe, wire: Wire, lock: AbstractContextManager[object]) -> None:
        super().__init__(pipe, wire, lock, batch.stem)
        self._batch = batch
        self._until = 0.0  # when the moment is over
        self._count = 0  # entries in it
        self._few = True  # whether there were few in the one before

    def __enter__(self) -> None:
        with self._lock:
            self._pipe.direct = self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._pipe.direct = None

    def send(self, lane: Any, number: int, payload: bytes) -> bool:
        """As `Direct.send`."""
        if (now := time.monotonic()) >= self._until:
            self._until, self._few, self._count = now + MOMENT, self._count <= FEW, 0
        self._count += 1
        if not self._few or self._count > FEW or not self._batch.room or len(payload) > self._limit:
            return False
        return self._post(self._batch, lane, number, payload)

    def hear(self, place: str, answer: dict[str, Any], error: Error | None) -> bool:
        """What comes in is the batch's."""
        return False
