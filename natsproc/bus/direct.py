"""Storing few entries with as little delay as there can be: whoever puts one sends it. Protocol: section 7.

This is the window of plain publishes that `ingest` sends, left open.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from typing import Any

from natsproc.errors import Error

from .ingest import SILENCE, WINDOW_BYTES, Broken, Pipe, settle, silence
from .wire import Wire

MOST = 8  #: entries on their way at a time; where there are more, a batch costs less


class Direct:
    """Sends what is put, in the thread that puts it, for as long as few entries are on their way.

    `send` is called under `lock`, the one of whoever puts; the rest belongs to the I/O loop.
    """

    def __init__(self, pipe: Pipe, wire: Wire, lock: AbstractContextManager[object]) -> None:
        self._pipe = pipe
        self._wire = wire
        self._lock = lock
        _, stem = pipe.begin()
        self._stem = stem.encode()
        self._limit = pipe.connection.max_payload
        self._sent = self._stored = 0
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
        # which may be what somebody needs who sees this entry, such as a subscription
        if pipe.connection.nc.pending_data_size:
            return False
        self._sent = place = self._sent + 1  # before it is sent, as the answer may be quick
        pipe.flying.append((lane, number, payload))
        message = b"PUB %b %b.%d %d\r\n%b\r\n" % (lane.subject.encode(), self._stem, place, size, payload)
        if not self._wire.send(message):
            pipe.flying.pop()
            self._sent = place - 1
            return False
        lane.sent = number
        if not self._timed:
            self._timed = True
            pipe.rouse()
        return True

    def hear(self, place: str, answer: dict[str, Any], error: Error | None) -> bool:
        """Take it that the first entry on its way is stored; returns False for every other answer."""
        if error or "seq" not in answer or place != str(self._stored + 1) or self._stored == self._sent:
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
            await settle(pipe, lambda place: [place] if place <= self._sent else [], self._stored)
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
