"""From the I/O thread to a consumer in any loop or thread, without losing an item to a cancelled wait.

Items lie in a deque until the consumer itself takes them, so that a wait that is cancelled, or times out, takes
nothing along.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_NOTHING: deque[Any] = deque(maxlen=0)  # an empty deque takes up 760 bytes


class Handoff(Generic[T]):
    """A queue with its producer on the I/O thread and its consumers anywhere.

    Closing it lets consumers take what is there, and then raises: the error it was closed with, or `Done`.
    """

    class Done(Exception):
        """Nothing is left, and nothing will come."""

    def __init__(self, capacity: int = 0) -> None:
        self._items: deque[T] = _NOTHING
        self._lock = threading.Lock()
        self._wakers: list[Callable[[], None]] = []
        self._capacity = capacity
        self._room: asyncio.Event | None = None
        self._room_loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._error: BaseException | None = None
        self.nudges = 0  #: how often `nudge` was called

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Add an item and wake who waits. Never blocks, whatever the capacity."""
        with self._lock:
            if self._closed:
                return
            self._add(item)
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    def offer(self, item: T) -> bool:
        """Put an item if that leaves room for another; say whether it was put. On the producers' loop."""
        fits = len(self._items) + 1 < self._capacity
        if fits:
            self.put(item)
        return fits

    def _add(self, item: T) -> None:
        if self._items is _NOTHING:
            self._items = deque()
        self._items.append(item)

    async def room(self) -> None:
        """On the producers' loop: return when fewer items than the capacity lie here, or it is closed."""
        while len(self._items) >= self._capacity and not self._closed:
            with self._lock:
                if self._room is None:  # several producers may wait for the same
                    self._room, self._room_loop = asyncio.Event(), asyncio.get_running_loop()
                room = self._room
            if len(self._items) < self._capacity or self._closed:
                return
            await room.wait()

    def close(self, error: BaseException | None = None) -> None:
        """End it: what lies here can still be taken, then `error` is raised, or Done."""
        with self._lock:
            if self._closed:
                return
            self._closed, self._error = True, error
            wakers, self._wakers = self._wakers, []
        self._tell_room()
        for wake in wakers:
            wake()

    def take_nowait(self, *, nudges: int | None = None) -> T | None:
        """Take the next item if there is one, and there were no more `nudges`. Raises: the closing error, or Done."""
        with self._lock:
            if nudges is not None and self.nudges != nudges:
                return None
            if self._items:
                item = self._items.popleft()
            elif self._closed:
                raise self._error or self.Done
            else:
                return None
        self._tell_room()
        return item

    def _tell_room(self) -> None:
        with self._lock:
            room, loop, self._room = self._room, self._room_loop, None
        if room is not None and loop is not None:
            _tell(loop, room.set)

    async def take(self) -> T:
        """Take the next item, waiting for it. Raises: the closing error, or Done."""
        while (item := self.take_nowait()) is None:
            await _Wait(self)
        return item

    def take_blocking(self, timeout: float | None = None, *, nudges: int | None = None) -> T | None:
        """Take the next item, blocking this thread for it; None after `timeout` seconds. Raises as `take`.

        With `nudges`, as read before the caller looked around, None is returned once there are more.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if (item := self.take_nowait(nudges=nudges)) is not None:
                return item
            if nudges is not None and self.nudges != nudges:
                return None
            event = threading.Event()
            if not self._wait_with(event.set):
                continue
            if nudges is not None and self.nudges != nudges:
                event.set()
            left = None if deadline is None else deadline - time.monotonic()
            in_time = event.wait(left)
            self._forget(event.set)
            if not in_time:
                return self.take_nowait(nudges=nudges)

    def nudge(self) -> None:
        """Have blocked consumers that gave `nudges` look around."""
        with self._lock:
            wakers = self._nudged()
        for wake in wakers:
            wake()

    def _nudged(self) -> list[Callable[[], None]]:
        self.nudges += 1
        wakers, self._wakers = self._wakers, []
        return wakers

    def _wait_with(self, wake: Callable[[], None]) -> bool:
        """Have that called once, when there may be something to take; False if there is now."""
        with self._lock:
            if self._items or self._closed:
                return False
            self._wakers.append(wake)
            return True

    def _forget(self, wake: Callable[[], None]) -> bool:
        """Whether it was still to be called; it is not any more."""
        with self._lock:
            if waits := wake in self._wakers:
                self._wakers.remove(wake)
        return waits


class _Wait:
    """What a task awaits until there may be something to take.

    To the task it is a future; but another thread that wakes it has the task itself run in the loop's next turn, where an
    `asyncio.Event`, or a future, would be set in one turn and the task run in the turn after it. Being among the
    handoff's wakers is the one right to wake the task: it is woken once, by an item or by its cancellation.
    """

    _asyncio_future_blocking = False  # which is how asyncio tells a future

    def __init__(self, handoff: Handoff[Any]) -> None:
        self._handoff = handoff
        self._loop = asyncio.get_running_loop()

    def __await__(self) -> Generator[_Wait, None, None]:
        self._asyncio_future_blocking = True
        yield self

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, callback: Callable[[_Wait], object], *, context: Context) -> None:
        self._callback, self._context = callback, context
        if not self._handoff._wait_with(self._wake):
            self._wake()

    def _wake(self) -> None:
        if (waits := _held.waits) is not None:
            waits.append(self)
        else:
            _tell(self._loop, self._callback, self, context=self._context)

    def run_soon(self) -> None:
        """As it is woken, from its own loop."""
        self._loop.call_soon(self._callback, self, context=self._context)

    def cancel(self, msg: object = None) -> bool:
        """Wake the task if nobody has. Never done here, so that the task itself raises it when it runs."""
        if self._handoff._forget(self._wake):
            self._wake()
        return False

    def result(self) -> None: ...


def _tell(
    loop: asyncio.AbstractEventLoop,
    callback: Callable[..., object],
    *args: object,
    context: Context | None = None,
) -> None:
    """Have a loop call that, from any thread; one that is gone need not."""
    try:
        loop.call_soon_threadsafe(callback, *args, context=context)
    except RuntimeError:
        pass


class _Held(threading.local):
    waits: list[_Wait] | None = None


_held = _Held()


@contextmanager
def together() -> Iterator[None]:
    """Wake the tasks that this thread wakes inside at the end, each loop by one word.

    A word to another loop is a system call, for which a thread gives the interpreter away: with one for each of many
    tasks two threads would take turns at every one of them.
    """
    waits = _held.waits = []
    try:
        yield
    finally:
        _held.waits = None
        loops: dict[asyncio.AbstractEventLoop, list[_Wait]] = {}
        for wait in waits:
            loops.setdefault(wait.get_loop(), []).append(wait)
        for loop, some in loops.items():
            _tell(loop, _run_soon, some)


def _run_soon(waits: list[_Wait]) -> None:
    for wait in waits:
        wait.run_soon()
