"""Streamed text with an identity: token events that name their stream, and one event that closes it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from natsproc.errors import TooLarge
from natsproc.protocol.messages import encode

from .speaking import BlockingSpeaking, Speaking

STREAM_PART = 256 * 1024


class _Stream:
    """The text of one stream so far, and which offsets it covers."""

    def __init__(self, name: str, most: int, write: Callable[[Any], object]) -> None:
        """`write` is given the data of each closing event, of about `most` bytes."""
        self.name = name
        self.most = most
        self._write = write
        self._parts: list[str] = []
        self._size = 0
        self._first = self._last = 0

    @property
    def text(self) -> str:
        """What was streamed since the last closing event."""
        return "".join(self._parts)

    def _piece(self, text: str) -> dict[str, str]:
        self._size += len(encode(text))
        if self._size > self.most and self._parts:
            self._close()
            self._size = len(encode(text))
        return {"stream": self.name, "text": text}

    def _add(self, text: str, offset: int) -> int:
        self._parts.append(text)
        self._first, self._last = self._first or offset, offset
        return offset

    def _close(self) -> None:
        """Write the closing event; without a wait, so that an interrupted stream has it as well."""
        if self._parts:
            data = {"stream": self.name, "text": self.text, "first": self._first, "last": self._last}
            self._parts, self._size, self._first = [], 0, 0
            with suppress(TooLarge):  # one piece that only just fitted: it stays as it is
                self._write(data)


class TextStream(_Stream):
    """A text that is streamed piece by piece; made by `Process.stream`."""

    def __init__(self, process: Speaking, name: str, most: int, write: Callable[[Any], object]) -> None:
        super().__init__(name, most, write)
        self._process = process

    async def token(self, text: str) -> int:
        """Write the next piece; returns its offset."""
        return self._add(text, await self._process.emit("token", self._piece(text)))

    async def __aenter__(self) -> TextStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()


class BlockingTextStream(_Stream):
    """See `TextStream`; made by `BlockingProcess.stream`."""

    def __init__(
        self, process: BlockingSpeaking, name: str, most: int, write: Callable[[Any], object]
    ) -> None:
        super().__init__(name, most, write)
        self._process = process

    def token(self, text: str) -> int:
        """Write the next piece; returns its offset."""
        return self._add(text, self._process.emit("token", self._piece(text)))

    def __enter__(self) -> BlockingTextStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
