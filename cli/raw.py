"""Attaching to a command's terminal: its screen here, and every key there."""

from __future__ import annotations

import asyncio
import codecs
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from natsproc.command.terminal import Size
from natsproc.command.terminal import raw as raw_terminal
from natsproc.errors import AlreadyEnded, Error, NoServer, TimedOut, Unreachable
from natsproc.protocol.messages import Event
from natsproc.protocol.names import new_token
from natsproc_cli import describe
from natsproc_cli.keys import DetachKeys
from natsproc_cli.lines import typed
from natsproc_cli.render import output_bytes

if TYPE_CHECKING:
    from natsproc.handle import ProcessHandle
    from natsproc.tail import Tail

SEND_SECONDS = 2.0
BELL = "\a"
LOOK_EVERY = 0.2
SAID_SECONDS = 2.0
ALTERNATE = b"\x1b[?1049"
CLEAN = "\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?1l\x1b[?25h\x1b[0m"
"""Out of the alternate screen, mouse, paste and cursor-key modes: what a program may have left on."""
BELOW = "\x1b[?6l\x1b[r\x1b[999;1H"
"""Below what it drew, also where it scrolled a part of the screen only."""


async def attached(process: ProcessHandle, epoch: int, keys: bytes) -> Event | None:
    """Show the command's screen until it ends, or the keys detach; returns the terminal event or None."""
    loop = asyncio.get_running_loop()
    resized = asyncio.Event()
    resized.set()
    tail = process.tail(n=0)
    with raw_terminal(0, forget=True):
        loop.add_signal_handler(signal.SIGWINCH, resized.set)
        display = _Display(process)
        viewing = asyncio.create_task(display.follow(tail))
        telling = asyncio.create_task(display.tell_outages())
        typing = asyncio.create_task(_type(process, epoch, keys))
        resizing = asyncio.create_task(_resize(process, resized))
        try:
            await asyncio.wait([viewing, typing], return_when=asyncio.FIRST_COMPLETED)
            return viewing.result() if viewing.done() else typing.result()
        finally:
            loop.remove_signal_handler(signal.SIGWINCH)
            for task in (viewing, telling, typing, resizing):
                task.cancel()
            await tail.aclose()
            _draw(CLEAN + ("" if display.alternate else BELOW) + "\r\n")


def _draw(text: str | bytes) -> None:
    sys.stdout.buffer.write(text.encode("utf-8", "replace") if isinstance(text, str) else text)
    sys.stdout.buffer.flush()


def over_the_last_line(text: str, width: int) -> str:
    """What shows a remark of ours over the last line of a screen that a program draws."""
    return f"\x1b7\x1b[999;1H\x1b[0;7m{f'natsproc: {text}'[: width - 1]}\x1b[0m\x1b[K\x1b8"


class _Display:
    """Our terminal: the command's screen, and over its last line what we have to say."""

    alternate = False  #: whether it shows a screen that is gone once it is left

    def __init__(self, process: ProcessHandle) -> None:
        self._process = process
        self._drawn = 0  # offset of the last event that a repainting has shown
        self._drawing = asyncio.Lock()

    async def follow(self, tail: Tail) -> Event | None:
        """Draw what the command draws; returns its terminal event."""
        async for item in tail:
            async with self._drawing:
                if not isinstance(item, Event):
                    # the tail has its place in the log, or has lost it: what came before is on the screen
                    if item.type in ("caught_up", "gap"):
                        await self._repaint()
                    elif said := describe.notice(item):
                        self._say(said)
                elif item.terminal:
                    return item
                elif item.type == "output" and item.offset > self._drawn:
                    self._show(output_bytes(item.data))
        return None

    async def tell_outages(self) -> None:
        """Say that the connection is lost, and that it is back."""
        connection, cut_off = self._process.mesh.connection, False
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if connection.connected != cut_off:
                continue
            cut_off = not cut_off
            if cut_off:
                self._say(f"cut off from {connection.url}: what you type is dropped until it is back")
                continue
            async with self._drawing:
                await self._repaint()
                self._say("connected again")
            await asyncio.sleep(SAID_SECONDS)
            async with self._drawing:
                await self._repaint()

    def _show(self, drawn: bytes) -> None:
        if ALTERNATE in drawn:
            self.alternate = drawn.rfind(ALTERNATE + b"h") > drawn.rfind(ALTERNATE + b"l")
        _draw(drawn)

    def _say(self, text: str) -> None:
        _draw(over_the_last_line(text, (Size.of(1) or Size()).cols))

    async def _repaint(self) -> None:
        """Draw what the command's terminal shows."""
        with suppress(AlreadyEnded, NoServer, TimedOut, Unreachable):
            if screen := (await self._process.inspect()).get("screen"):
                self._show(str(screen["text"]).encode("utf-8", "replace"))
                self._drawn = max(self._drawn, int(screen["offset"]))


async def _type(process: ProcessHandle, epoch: int, detach: bytes) -> None:
    """Pass on what is typed until the keys that detach. What is typed while cut off is dropped, with a bell."""
    found = DetachKeys(detach)
    waiting: list[bytes] = []
    more = asyncio.Event()
    sending = asyncio.create_task(_send(process, epoch, waiting, more))
    try:
        async for block in typed():
            keys, complete = found.feed(block)
            if keys and process.mesh.connection.connected:
                waiting.append(keys)
                more.set()
            elif keys:
                _draw(BELL)
            if complete:
                return
    finally:
        sending.cancel()


async def _send(process: ProcessHandle, epoch: int, waiting: list[bytes], more: asyncio.Event) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    viewer = new_token(8)
    while True:
        await more.wait()
        more.clear()
        keys, waiting[:] = b"".join(waiting), []
        data = {"text": decoder.decode(keys), "viewer": viewer, "epoch": epoch}
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await process.send(data, kind="keys")
        except (Error, TimeoutError):
            waiting.clear()  # typed while nothing got through
            _draw(BELL)


async def _resize(process: ProcessHandle, resized: asyncio.Event) -> None:
    """Give the command's terminal the size of ours, now and whenever it changes."""
    while True:
        await resized.wait()
        resized.clear()
        if size := Size.of(1):
            with suppress(Error):
                await process.send(size._asdict(), kind="resize")
