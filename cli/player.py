"""Shows a run in its own time, and does what the keys say."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext, suppress
from math import inf
from typing import TYPE_CHECKING

from natsproc.command.terminal import Size, raw
from natsproc.protocol.messages import Event, Notice
from natsproc_cli import viewer
from natsproc_cli.lines import typed
from natsproc_cli.pace import Pace, format_speed, moment
from natsproc_cli.render import View
from natsproc_cli.replay import Replay
from natsproc_cli.terminal import has_colour, is_terminal, plain

if TYPE_CHECKING:
    from natsproc.tail import Tail

SKIP_SECONDS = 10.0
_KEY = re.compile(rb"\x1b[\[O][0-?]*[ -/]*[@-~]|\x1b[]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\xff]")


class Player:
    """Shows items when their time has come, and does what the keys say."""

    def __init__(self, pace: Pace) -> None:
        self.over = False  #: whether a key ended it
        self.last: Event | None = None
        self._pace = pace
        self._pressed = asyncio.Event()
        self._now = asyncio.get_running_loop().time
        self._interrupted = False
        self._view: View

    async def play(self, items: Tail | AsyncGenerator[Event | Notice, None]) -> None:
        """Show them all, or until somebody has had enough. Raises: KeyboardInterrupt, and what the items raise."""
        keys = sys.stdin.isatty() and is_terminal(sys.stdout)
        self._view = self._replay() if is_terminal(sys.stdout) else viewer.stdout_view("text")
        showing = asyncio.create_task(viewer.show(self._paced(items), self._view))
        with raw(0, forget=True) if keys else nullcontext():
            obeying = asyncio.create_task(self._obey()) if keys else showing
            try:
                await asyncio.wait({showing, obeying}, return_when=asyncio.FIRST_COMPLETED)
                if not self.over:
                    await showing
            finally:
                for task in (showing, obeying):
                    task.cancel()
                await asyncio.gather(showing, obeying, return_exceptions=True)
        if self._interrupted:
            raise KeyboardInterrupt

    def _replay(self) -> View:
        def say(text: str) -> None:
            print(f"natsproc: {plain(text)}", end="\r\n", file=sys.stderr, flush=True)

        return Replay(sys.stdout.buffer, say, Size.of(1), colour=has_colour(sys.stdout))

    async def _paced(
        self, items: Tail | AsyncGenerator[Event | Notice, None]
    ) -> AsyncGenerator[Event | Notice, None]:
        async with aclosing(items):
            async for item in items:
                if isinstance(item, Event):
                    self._pace.reach(moment(item.time), self._now())
                    self.last = item
                while left := self._pace.left(self._now()):
                    self._pressed.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(None if left == inf else left):
                            await self._pressed.wait()
                yield item

    async def _obey(self) -> None:
        async for block in typed():
            for key in _KEY.findall(block):
                self._press(key)
            if self.over:
                return
            self._pressed.set()

    def _press(self, key: bytes) -> None:
        pace, now = self._pace, self._now()
        match key:
            case b" ":
                pace.pause(now)
                self._tell("paused; space goes on" if pace.paused else "goes on")
            case b"+" | b"=":
                pace.faster(now)
                self._tell(format_speed(pace.speed))
            case b"-" | b"_":
                pace.slower(now)
                self._tell(format_speed(pace.speed))
            case b"\x1b[C" | b"\x1bOC":
                pace.skip(SKIP_SECONDS, now)
            case b"q" | b"Q" | b"\x03":
                self.over, self._interrupted = True, key == b"\x03"

    def _tell(self, text: str) -> None:
        if isinstance(self._view, Replay):
            self._view.tell(text)
