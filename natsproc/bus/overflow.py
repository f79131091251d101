"""Where a process's events wait while the node's writer is full: in its spool, and from there on into its lane."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager

from natsproc.errors import Closed, Error

from .spool import Spool
from .writer import Lane


class Overflow:
    """A lane with a spool in front of it, in which what the writer has no room for keeps its order.

    Whoever calls `put`, `wake` and `forget` keeps all others from it meanwhile, as whoever is inside `alone` does, even
    those that the garbage collector calls in the same thread. What is called back is called on the I/O loop:
    `on_empty` whenever the spool has been emptied, inside `alone`; `on_trouble` with a sentence, if the spool cannot
    be used; `on_loss` if what is in it cannot be read.
    """

    def __init__(
        self,
        lane: Lane,
        spool: Spool,
        alone: Callable[[], AbstractContextManager[None]],
        on_empty: Callable[[], object],
        *,
        on_trouble: Callable[[str], object],
        on_loss: Callable[[Error], object],
    ) -> None:
        self._lane = lane
        self._spool = spool
        self._alone = alone
        self._on_empty = on_empty
        self._on_trouble = on_trouble
        self._on_loss = on_loss
        self._waiting = False  # whether what comes has to go behind what is in the spool
        self._refilling: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def full(self) -> bool:
        """Whether neither the writer nor the spool has room; from any thread."""
        return self._spool.full and (self._waiting or self._lane.full)

    @property
    def spooled(self) -> int:
        """Bytes on disk."""
        return self._spool.used

    async def room(self) -> None:
        """Return when there is room again, or nobody will ever take anything."""
        while self.full:
            self._moved.clear()
            await self._moved.wait()

    def put(self, payload: bytes) -> None:
        """Pass a payload on, or keep it behind those that wait. Raises: Closed."""
        if not self._waiting and not self._lane.full:
            self._lane.put(payload)
            return
        before = self._spool.trouble
        self._spool.put(payload)
        if self._spool.trouble != before:
            text = f"nothing can wait on disk in {self._spool.trouble}"
            self._loop.call_soon_threadsafe(self._on_trouble, text)
        self.wake()

    def wake(self) -> None:
        """Have the spool emptied as soon as the writer has room, even if there is nothing in it."""
        if not self._waiting:
            self._waiting = True
            self._loop.call_soon_threadsafe(self._begin)

    def forget(self) -> None:
        """Forget what waits. On the I/O loop."""
        self._spool.clear()
        self._waiting = False
        self._moved.set()

    def _begin(self) -> None:
        if self._refilling is None or self._refilling.done():
            self._refilling = asyncio.create_task(self._refill())

    async def _refill(self) -> None:
        while self._waiting:
            await self._lane.room()
            try:
                with self._alone():
                    self._move()
            except Closed:
                with self._alone():
                    self.forget()
            except OSError as error:
                self._on_loss(Error(f"what waited on disk cannot be read: {error}"))
            self._moved.set()
            await asyncio.sleep(0)

    def _move(self) -> None:
        for payload in self._spool.take():
            self._lane.put(payload)
        if self._spool.empty:
            self._waiting = False
            self._on_empty()
