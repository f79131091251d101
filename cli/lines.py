"""Attaching to a process line by line: its tail here, and each line that is typed in its inbox."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING

from natsproc.errors import Error
from natsproc.handle import Exit
from natsproc_cli import exits, viewer

if TYPE_CHECKING:
    from natsproc.handle import ProcessHandle

BLOCK = 64 * 1024


async def attached(process: ProcessHandle, output: str, last: int | None) -> Exit:
    """Show the process until its run ends, and send it what is typed. Returns how it ended."""
    typing = asyncio.create_task(_send_lines(process))
    try:
        end = await viewer.show(
            process.tail(n=last), viewer.stdout_view(output), over=process.mesh.connection
        )
    finally:
        typing.cancel()
    return Exit.of(end) if end else await process.wait()


async def _send_lines(process: ProcessHandle) -> None:
    rest = b""
    async for block in typed():
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            await _send(process, line)
    if rest:
        await _send(process, rest)
    if sys.stdin.isatty():
        exits.remark(f"no more input from here; to end its own: natsproc send {process.address} --eof")


async def _send(process: ProcessHandle, line: bytes) -> None:
    try:
        await process.send(line.decode("utf-8", "replace").rstrip("\r"))
    except Error as error:
        exits.remark(f"not sent: {error}")


async def typed() -> AsyncIterator[bytes]:
    """What arrives on stdin, as it comes, until its end.

    A thread reads it: a file is never ready, and a terminal that is shared must not be made non-blocking.
    """
    loop = asyncio.get_running_loop()
    blocks: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        block = b"."
        with suppress(RuntimeError):  # the loop is closed, and nobody listens any more
            while block:
                try:
                    block = os.read(0, BLOCK)
                except OSError:  # no stdin, or its terminal is gone
                    block = b""
                loop.call_soon_threadsafe(blocks.put_nowait, block)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    while block := await blocks.get():
        yield block
