"""What a wrapped command reads: from the inbox, and with `-i` from natsproc's own stdin as well."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

from natsproc.protocol.messages import Json, Message, encode

from .terminal import Terminal

BUFFER_BYTES = 1024 * 1024
PIPE_BYTES = 64 * 1024  # what a pipe holds


def typed(data: Json) -> bytes:
    """What a message types: text as a line of its own, `{"text": …, "raw": true}` as it is, all else as JSON."""
    raw = isinstance(data, dict) and bool(data.get("raw"))
    text = data.get("text") if isinstance(data, dict) else data
    line = text.encode() if isinstance(text, str) else encode(data)
    return line if raw or line.endswith(b"\n") else line + b"\n"


def unread_messages(
    unread: bytes, pieces: Iterable[tuple[int, Message | None]]
) -> tuple[list[Message], bytes]:
    """The messages that lie wholly in what is unread, and the rest of it.

    `pieces` are what was written last, up to the end of `unread`: how many bytes, and the message if it was one.
    """
    pieces = list(pieces)
    messages: list[Message] = []
    start = len(unread) - sum(size for size, _ in pieces)
    rest = unread[: max(start, 0)]
    for size, message in pieces:
        if message and start >= 0:
            messages.append(message)
        else:
            rest += unread[max(start, 0) : max(start + size, 0)]
        start += size
    return messages, rest


class Feeder:
    """The way into a command's stdin. A command that does not read blocks nothing but its own input.

    Takes over a descriptor to write to, which is closed with the feeder.
    """

    def __init__(self, descriptor: int, terminal: Terminal | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor  # -1 once closed
        self._reader = -1  # of a pipe whose end has come
        self._terminal = terminal
        self._within_line = False
        self._ended = False
        self._unsent = bytearray()
        self._pieces: deque[tuple[int, Message | None]] = (
            deque()
        )  # what may lie in the pipe, and what is unsent
        self._size = 0  # of the pieces, in bytes
        self._room = asyncio.Event()
        self._room.set()
        os.set_blocking(descriptor, False)

    def put(self, data: bytes, message: Message | None = None) -> bool:
        """Write as soon as the command reads; False if nothing can reach it any more."""
        if data and not self._ended:
            self._within_line = not data.endswith(b"\n")
            self._unsent += data
            self._pieces.append((len(data), message))
            self._size += len(data)
            self._send()
            while self._pieces and self._size - self._pieces[0][0] >= PIPE_BYTES + len(self._unsent):
                self._size -= self._pieces.popleft()[0]
        return not self._ended

    def _send(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: os.write(self._descriptor, self._unsent)]
        except BlockingIOError:
            self._loop.add_writer(self._descriptor, self._send)
        except OSError:  # nobody reads there any more
            self.close()
        else:
            self._loop.remove_writer(self._descriptor)
            if self._ended:
                self._hang_up()
        if self._ended or len(self._unsent) < BUFFER_BYTES:
            self._room.set()
        else:
            self._room.clear()

    async def room(self) -> None:
        """Wait while more than a mebibyte lies unread."""
        await self._room.wait()

    def end(self) -> None:
        """End the command's input, behind what was put."""
        if self._terminal:
            self.put(self._terminal.end_of_input(self._within_line))
            self._within_line = False
        elif not self._ended:
            self._reader = self._opened_anew(self._descriptor, os.O_RDONLY)
            self._ended = True
            self._send()

    def take_back(self) -> list[Message]:
        """Take from the command's stdin the messages of which it has read nothing yet, in order.

        There are none in a terminal, and where a pipe cannot be opened anew (macOS).
        """
        if not self._ended and not self._terminal:
            self._reader = self._opened_anew(self._descriptor, os.O_RDONLY)
        if self._reader < 0:
            return []
        if self._descriptor < 0:  # the end has to come behind what is put back
            self._descriptor = self._opened_anew(self._reader, os.O_WRONLY)
        with os.fdopen(self._reader, "rb", 0) as pipe:
            self._reader = -1
            unread = (pipe.read(BUFFER_BYTES) or b"") + self._unsent
            messages, rest = unread_messages(unread, self._pieces)
            self._unsent[:], self._size = rest, len(rest)
            self._pieces = deque([(len(rest), None)] if rest else [])
            self._send()
        return messages

    @staticmethod
    def _opened_anew(descriptor: int, flags: int) -> int:
        try:
            return os.open(f"/proc/self/fd/{descriptor}", flags | os.O_NONBLOCK)
        except OSError:
            return -1

    def _hang_up(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_writer(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def close(self) -> None:
        """Write nothing more."""
        self._ended = True
        self._unsent.clear()
        self._room.set()
        self._hang_up()
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1

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
