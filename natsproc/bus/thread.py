"""The I/O thread: one daemon thread, one event loop, and every NATS connection of the OS process in it.

User code may block its own loop or spin; heartbeats, pings and interrupts go on from here. The pattern is
anyio's `BlockingPortal`, with the loop on the other side.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from natsproc.errors import Closed

from . import forks
from .yielding import Yielding, attention, calm

T = TypeVar("T")


def apart(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on an I/O thread of its own, and block for its result. Raises: as `IOThread.wait`."""
    io = IOThread()
    try:
        return io.wait(coroutine)
    finally:
        io.stop()


class IOThread:
    """A thread that runs an event loop until it is stopped.

    In a forked child the handle is inert: `alive` is False there and every call raises Closed at once.
    """

    def __init__(self, name: str = "natsproc-io") -> None:
        self._generation = forks.generation
        self._ready = threading.Event()
        self.loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            self.loop = runner.get_loop()
            self._attention = attention(self.loop)
            self._stop = self.loop.create_future()
            self._ready.set()
            runner.run(self._wait_for_stop())
        calm(self.loop)
        if self._attention:
            self._attention.close()

    async def _wait_for_stop(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self._stop

    @property
    def alive(self) -> bool:
        """Whether calls can be made: the thread runs, and this is the OS process that started it."""
        return not self.forked and self._thread.is_alive()

    @property
    def forked(self) -> bool:
        """Whether this is a child that was forked off the OS process which owns the thread."""
        return forks.generation != self._generation

    @property
    def inside(self) -> bool:
        """Whether the caller runs on the I/O thread itself."""
        return threading.current_thread() is self._thread

    def first(self) -> Yielding:
        """From now until it is left, the event loop that runs here lets this thread go first, however busy it is."""
        return Yielding(self._attention)

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start a coroutine on the I/O thread, from any thread. Raises: Closed."""
        if not self.alive:
            coroutine.close()
            raise Closed(
                "this is a forked child: the mesh belongs to the parent"
                if self.forked
                else "the mesh is closed"
            )
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    async def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the I/O thread and await it here; cancelling here cancels it there.

        Raises: Closed, also if the thread is stopped meanwhile.
        """
        if self.inside:
            return await coroutine
        future = self.submit(coroutine)
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if task and task.cancelling() == before and future.cancelled():
                raise Closed("the mesh was closed") from None
            raise

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the I/O thread and block for its result. Never call it from an event loop.

        Raises: as `call`.
        """
        future = self.submit(coroutine)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise Closed("the mesh was closed") from None
        except BaseException:
            future.cancel()
            raise

    def post(self, callback: Callable[..., object], *args: object) -> None:
        """Have `callback` called on the I/O thread soon; does nothing once the thread is gone."""
        if self.alive:
            try:
                self.loop.call_soon_threadsafe(callback, *args)
            except RuntimeError:
                pass

    def stop(self) -> None:
        """End the loop and the thread; whatever still runs there is cancelled."""
        if self.alive and not self.inside:
            self.post(self._stop.cancel)
            self._thread.join(timeout=5)
