"""Where user code is right now: stacks of threads and tasks, and whether an event loop still turns."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from types import FrameType
from typing import Any

PULSE = 1.0
"""Seconds between two heartbeats of a watched loop."""


class _Pulse:
    """Notes in a loop, again and again, that it turns."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.users = 0
        self._loop = loop
        self.beat()

    def beat(self) -> None:
        self.turned = time.monotonic()
        self.next = self._loop.call_later(PULSE, self.beat)


_pulses: dict[asyncio.AbstractEventLoop, _Pulse] = {}


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """Keep track of whether the loop turns; called in it, each call wants an `unwatch`."""
    pulse = _pulses.get(loop) or _pulses.setdefault(loop, _Pulse(loop))
    pulse.users += 1


def unwatch(loop: asyncio.AbstractEventLoop) -> None:
    """Undo one `watch`."""
    pulse = _pulses[loop]
    pulse.users -= 1
    if not pulse.users:
        pulse.next.cancel()
        del _pulses[loop]


def age(loop: asyncio.AbstractEventLoop) -> float | None:
    """Seconds since the loop last turned, 0 while that is no more than usual; None if it is not watched."""
    pulse = _pulses.get(loop)
    if pulse is None:
        return None
    seconds = time.monotonic() - pulse.turned
    return seconds if seconds > 1.25 * PULSE else 0.0


def capture(loop: asyncio.AbstractEventLoop | None) -> dict[str, list[str]]:
    """The stack of every thread and of every task that waits in the loop, innermost frame last."""
    frames = [(ident, list(traceback.walk_stack(frame))) for ident, frame in sys._current_frames().items()]
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = {
        f"thread {names.get(ident, '')} ({ident})": traceback.StackSummary.extract(reversed(stack)).format()
        for ident, stack in frames
        if ident != threading.get_ident()
    }
    for task in asyncio.all_tasks(loop) if loop is not None else ():
        found[f"task {task.get_name()}"] = _lines(task.get_coro())
    return found


def _lines(coroutine: Any) -> list[str]:
    """A waiting coroutine, and what it waits for, and so on."""
    lines: list[str] = []
    while coroutine is not None:
        frame: FrameType | None = None
        for kind in ("cr", "gi", "ag"):
            frame = frame or getattr(coroutine, f"{kind}_frame", None)
        if frame is None:
            break
        lines += traceback.StackSummary.extract([(frame, frame.f_lineno)]).format()
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return lines
