"""How the I/O thread comes to run beside code that is never idle: what is done about the interpreter's lock.

An event loop that is never idle lets go of the lock in every turn, as it polls, and takes it again a microsecond later.
A thread that waits for it is woken by that, comes too late, and begins to wait anew; and it insists only on a lock that
nobody has let go of for the switch interval (5 ms). So it may wait for seconds, with commands that came in and a lease
to renew. Hence a loop that owns processes, and has not waited for a millisecond, looks before it polls whether the I/O thread wants to go
on, and if so sleeps for long enough to be overtaken: `Yielding`.

Code that computes is made to let go after the switch interval, each time a thread wants to go on; carrying out a
command takes several of them, so for a moment the interval is shorter: `hurry`.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
import time
from collections import Counter
from math import inf
from typing import Any

from . import forks

MOMENT = 50e-6  #: seconds to sleep: longer than a thread takes to wake up
BUSY = 0.001  #: seconds without waiting after which a loop gives way, and how often it does
SHORT = 0.0005  #: seconds of the switch interval, while there is a hurry
HURRY = 0.25  #: seconds that one takes
_LATE = 0.002  # seconds by which a selector may wait longer than it was told to


class Attention:
    """Lets others see, from any thread, whether an event loop waits for nothing but the interpreter's lock."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        """`selector` is the loop's."""
        self._until = 0.0  # when it wakes up by itself; 0 while it does not wait
        self._generation = forks.generation
        self._outside = selectors.DefaultSelector()  # never closed by hand, as others may look at any time
        self._outside.register(selector.fileno(), selectors.EVENT_READ)  # type: ignore[attr-defined]
        self._select = selector.select
        selector.select = self.select  # type: ignore[method-assign]

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout > 0:
            self._until = inf if timeout is None else time.monotonic() + timeout + _LATE
        try:
            return self._select(timeout)
        finally:
            self._until = 0.0

    def close(self) -> None:
        """The loop has ended."""
        self._until = inf

    @property
    def wanted(self) -> bool:
        """Whether it has something to do: it does not wait, its time is up, or something has come in."""
        if forks.generation != self._generation:  # there is no such thread in a forked child
            return False
        return self._until <= time.monotonic() or bool(self._outside.select(0))


def attention(loop: asyncio.AbstractEventLoop) -> Attention | None:
    """That of a loop; None for loops that have no selector, such as uvloop's."""
    selector = getattr(loop, "_selector", None)
    return Attention(selector) if isinstance(selector, selectors.BaseSelector) else None


class _Polite:
    """A loop's way to poll while it owns processes."""

    def __init__(self, selector: Any) -> None:
        self.first: Counter[Attention] = Counter()  # whom it gives way, and for how many processes
        self._next = 0.0  # when it looks whether to give way
        self._selector, self._select = selector, selector.select
        selector.select = self.select

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout > 0:
            found = self._select(timeout)
            self._next = time.monotonic() + BUSY
            return found
        if (now := time.monotonic()) >= self._next:
            self._next = now + BUSY
            if any(io.wanted for io in self.first):
                time.sleep(MOMENT)
        return self._select(timeout)

    def restore(self) -> None:
        del self._selector.select


_polite: dict[asyncio.AbstractEventLoop, _Polite] = {}


class Yielding:
    """Until it is left, the event loop that runs here gives way to that one, as far as both have selectors.

    Each process has one, so it is small.
    """

    __slots__ = ("_io", "_loop")

    def __init__(self, io: Attention | None) -> None:
        self._io, self._loop = io, asyncio.get_running_loop()
        selector = getattr(self._loop, "_selector", None)
        if io is None or not isinstance(selector, selectors.BaseSelector):
            self._io = None
            return
        polite = _polite.get(self._loop) or _polite.setdefault(self._loop, _Polite(selector))
        polite.first[io] += 1

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        if self._io is None:
            return
        polite = _polite[self._loop]
        polite.first -= Counter((self._io,))
        if not polite.first:
            _polite.pop(self._loop).restore()


_lock = threading.Lock()
_hurries: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}
_usual = 0.0


def hurry() -> None:
    """For a moment, make threads that compute let go of the lock sooner, unless they do already; in an event loop."""
    global _usual
    loop = asyncio.get_running_loop()
    with _lock:
        for ended in [other for other in _hurries if other.is_closed()]:
            _leave(ended)
        if not _hurries and (_usual := sys.getswitchinterval()) > SHORT:
            sys.setswitchinterval(SHORT)
        if loop in _hurries:
            _hurries[loop].cancel()
        _hurries[loop] = loop.call_later(HURRY, calm, loop)


def calm(loop: asyncio.AbstractEventLoop) -> None:
    """Whatever hurry there was in that loop is over; an interval that somebody has set meanwhile stays."""
    with _lock:
        _leave(loop)


def _leave(loop: asyncio.AbstractEventLoop) -> None:
    if _hurries.pop(loop, None) and not _hurries and abs(sys.getswitchinterval() - SHORT) < 1e-6:
        sys.setswitchinterval(_usual)
