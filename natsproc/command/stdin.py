"""What a wrapped command reads: from the inbox, and with `-i` from natsproc's own stdin as well."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress

from natsproc.protocol.messages import Json, encode

from .terminal import Terminal

BUFFER_BYTES = 1024 * 1024


def typed(data: Json) -> bytes:
    """What a message types: text as a line of its own, `{"text": …, "raw": true}` as it is, all else as JSON."""
    raw = isinstance(data, dict) and bool(data.get("raw"))
    text = data.get("text") if isinstance(data, dict) else data
    line = text.encode() if isinstance(text, str) else encode(data)
    return line if raw or line.endswith(b"\n") else line + b"\n"


class Feeder:
    """The way into a command's stdin. A command that does not read blocks nothing but its own input."""

    def __init__(self, writer: asyncio.StreamWriter, terminal: Terminal | None) -> None:
        self._writer = writer
        self._terminal = terminal
        self._within_line = False
        writer.transport.set_write_buffer_limits(BUFFER_BYTES)

    @classmethod
    async def open(cls, descriptor: int, terminal: Terminal | None = None) -> Feeder:
        """Take over a descriptor to write to, which is closed with the feeder."""
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), os.fdopen(descriptor, "wb", 0)
        )
        return cls(asyncio.StreamWriter(transport, protocol, None, loop), terminal)

    def put(self, data: bytes) -> bool:
        """Write as soon as the command reads; False if nothing can reach it any more."""
        if self._writer.is_closing():
            return False
        if data:
            self._writer.write(data)
            self._within_line = not data.endswith(b"\n")
        return True

    async def room(self) -> None:
        """Wait while more than a mebibyte lies unread."""
        with suppress(ConnectionError):
            await self._writer.drain()

    def end(self) -> None:
        """End the command's input, behind what was put."""
        if self._terminal:
            self.put(self._terminal.end_of_input(self._within_line))
            self._within_line = False
        elif not self._writer.is_closing():
            self._writer.write_eof()

    def close(self) -> None:
        """Write nothing more."""
        self._writer.close()

    def pass_on(self, descriptor: int) -> None:
        """Have a thread copy a descriptor of ours to the command, and its end too."""
        loop = asyncio.get_running_loop()

        def copy() -> None:
            with suppress(OSError, RuntimeError):  # it is gone, or the loop is
                while data := os.read(descriptor, BUFFER_BYTES):
                    asyncio.run_coroutine_threadsafe(self._take(data), loop).result()
                loop.call_soon_threadsafe(self.end)

        threading.Thread(target=copy, name="natsproc-stdin", daemon=True).start()

    async def _take(self, data: bytes) -> None:
        self.put(data)
        await self.room()
