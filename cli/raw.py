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
from natsproc.errors import AlreadyEnded, Error, Unreachable
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
CLEAN = "\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?1l\x1b[?25h\x1b[0m\r\n"
"""Out of the alternate screen, mouse, paste and cursor-key modes: what a program may have left on."""


async def attached(process: ProcessHandle, epoch: int, keys: bytes) -> Event | None:
    """Show the command's screen until it ends, or the keys detach; returns the terminal event or None."""
    loop = asyncio.get_running_loop()
    resized = asyncio.Event()
    resized.set()
    tail = process.tail(n=0)
    with raw_terminal(0, forget=True):
        loop.add_signal_handler(signal.SIGWINCH, resized.set)
        viewing = asyncio.create_task(_view(process, tail))
        typing = asyncio.create_task(_type(process, epoch, keys))
        resizing = asyncio.create_task(_resize(process, resized))
        try:
            await asyncio.wait([viewing, typing], return_when=asyncio.FIRST_COMPLETED)
            return viewing.result() if viewing.done() else typing.result()
        finally:
            loop.remove_signal_handler(signal.SIGWINCH)
            for task in (viewing, typing, resizing):
                task.cancel()
            await tail.aclose()
            _draw(CLEAN)


def _draw(text: str | bytes) -> None:
    sys.stdout.buffer.write(text.encode("utf-8", "replace") if isinstance(text, str) else text)
    sys.stdout.buffer.flush()


async def _view(process: ProcessHandle, tail: Tail) -> Event | None:
    drawn = 0
    async for item in tail:
        if not isinstance(item, Event):
            # the tail has its place in the log, or has lost it: what came before is on the screen
            if item.type in ("caught_up", "gap"):
                drawn = max(drawn, await _repaint(process))
            elif said := describe.notice(item):
                _draw(f"\r\n\x1b[0mnatsproc: {said}\r\n")
        elif item.terminal:
            return item
        elif item.type == "dropped":  # what the terminal shows has it all the same
            drawn = max(drawn, await _repaint(process))
        elif item.type == "output" and item.offset > drawn:
            _draw(output_bytes(item.data))
    return None


async def _repaint(process: ProcessHandle) -> int:
    """Draw what the command's terminal shows; returns the offset of the last event that is in it."""
    with suppress(AlreadyEnded, Unreachable):
        screen = (await process.inspect()).get("screen")
        if screen:
            _draw(str(screen["text"]))
            return int(screen["offset"])
    return 0


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
