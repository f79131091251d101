"""Showing a tail on stdout until it ends, the reader has had enough, or nobody reads any more."""

from __future__ import annotations

import asyncio
import select
import shutil
import sys
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import suppress
from typing import TYPE_CHECKING

from natsproc.protocol.messages import Event, Notice
from natsproc_cli import exits
from natsproc_cli.render import JsonView, TextView, View
from natsproc_cli.terminal import has_colour, is_terminal

if TYPE_CHECKING:
    from natsproc.bus.connection import Connection
    from natsproc.tail import Tail

LOOK_EVERY = 0.5
PATIENCE_SECONDS = 2.0


def stdout_view(output: str, *, names: bool = False) -> View:
    """The view that `-o` asks for, on this command's stdout."""
    terminal = is_terminal(sys.stdout)
    if output == "json":
        return JsonView(sys.stdout.buffer, names=names, terminal=sys.stdout.isatty())
    return TextView(
        sys.stdout.buffer,
        exits.remark,
        names=names,
        terminal=terminal,
        colour=has_colour(sys.stdout),
        filtered=sys.stdout.isatty(),
        width=shutil.get_terminal_size().columns,
    )


async def show(
    tail: Tail | AsyncGenerator[Event | Notice, None], view: View, *, over: Connection | None = None
) -> Event | None:
    """Show everything the tail yields; returns the last terminal event that it had.

    Of the connection that it comes `over` it is said, on stderr, that it is lost for a while, and that it is back.
    Raises: BrokenPipeError once nobody reads stdout any more, and what the tail raises.
    """
    shown = asyncio.Event()
    reading = asyncio.create_task(_read(tail, view, shown))
    writing = asyncio.create_task(_write(view, shown))
    tasks = [reading, writing, *([asyncio.create_task(_tell_outages(over))] if over else [])]
    try:
        await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
        return (reading if reading.done() else writing).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await tail.aclose()
        with suppress(BrokenPipeError):
            view.close()


async def _tell_outages(connection: Connection) -> None:
    lost, told = 0.0, False
    while True:
        await asyncio.sleep(LOOK_EVERY)
        lost = 0.0 if connection.connected else lost + LOOK_EVERY
        if told and not lost:
            told = False
            exits.remark("connected again")
        elif lost >= PATIENCE_SECONDS and not told:
            told = True
            exits.remark(f"cut off from {connection.url}: what is said meanwhile comes when it is back")


async def _read(tail: AsyncIterable[Event | Notice], view: View, shown: asyncio.Event) -> Event | None:
    terminal: Event | None = None
    async for item in tail:
        view.show(item)
        shown.set()
        if isinstance(item, Event) and item.terminal:
            terminal = item
    return terminal


async def _write(view: View, shown: asyncio.Event) -> None:
    """Flush whenever the reading pauses, and notice a closed pipe even while nothing comes."""
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY):
                await shown.wait()
        shown.clear()
        view.flush()
        if nobody_reads():
            raise BrokenPipeError


def nobody_reads() -> bool:
    """Whether stdout is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(found & (select.POLLERR | select.POLLHUP) for _, found in poll.poll(0))
