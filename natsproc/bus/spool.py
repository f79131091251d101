"""A bounded queue on disk, for what a process says while the server takes nothing.

Its file has no name from the moment it is there, so whatever ends this program gives the space back.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO

DEFAULT_SIZE = 1024**3
_READ_BYTES = 256 * 1024
_LENGTH = 4  # bytes in front of each payload


class Spool:
    """Payloads, first in, first out: on disk within `size` bytes, in memory beyond them.

    `full` says that no more should come. Not for several threads at once.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.trouble = ""  #: why the disk is not used, though it may be; until all is taken
        self._folder = folder
        self._size = size
        self._file: IO[bytes] | None = None
        self._read = self._written = 0  # bytes ever; the file is a ring
        self._beyond: deque[bytes] = deque()

    @property
    def empty(self) -> bool:
        return self._read == self._written and not self._beyond

    @property
    def full(self) -> bool:
        return bool(self._beyond) or self.used >= self._size

    @property
    def used(self) -> int:
        """Bytes on disk that wait."""
        return self._written - self._read

    def put(self, payload: bytes) -> None:
        """Add one. Never fails: what the disk does not take stays in memory."""
        if self._beyond or not self._write(payload):
            self._beyond.append(payload)

    def take(self) -> list[bytes]:
        """Remove and return the oldest, a few hundred kilobytes at once. Raises: OSError."""
        taken = self._read_some()
        if self._read == self._written:
            taken += self._beyond
            self.clear()
        while self._beyond and self._write(self._beyond[0]):
            self._beyond.popleft()
        return taken

    def clear(self) -> None:
        """Forget everything, and give the disk its space back."""
        if self._file:
            self._file.close()
        self._file, self._read, self._written, self.trouble = None, 0, 0, ""
        self._beyond.clear()

    def _write(self, payload: bytes) -> bool:
        data = memoryview(len(payload).to_bytes(_LENGTH, "little") + payload)
        if self.trouble or self.used + len(data) > self._size:
            return False
        try:
            self._file = self._file or self._open()
            for place, size in self._places(self._written, len(data)):
                while size:
                    done = os.pwrite(self._file.fileno(), data[:size], place)
                    data, size, place = data[done:], size - done, place + done
        except OSError as error:
            self.trouble = f"{self._folder}: {error.strerror}"
            return False
        self._written += _LENGTH + len(payload)
        return True

    def _open(self) -> IO[bytes]:
        for folder in (self._folder.parent, self._folder):
            if not folder.exists():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=self._folder, buffering=0)

    def _places(self, position: int, size: int) -> Iterator[tuple[int, int]]:
        """Where in the ring so many bytes lie: place and size, once or twice."""
        place = position % self._size
        before_the_end = min(size, self._size - place)
        yield place, before_the_end
        yield 0, size - before_the_end

    def _read_some(self) -> list[bytes]:
        data = self._bytes(min(_READ_BYTES, self.used))
        taken: list[bytes] = []
        place = 0
        while place + _LENGTH <= len(data):
            end = place + _LENGTH + int.from_bytes(data[place : place + _LENGTH], "little")
            if end > len(data):
                if taken:
                    break
                data = self._bytes(end)  # one that is longer than what is read at once
            taken.append(data[place + _LENGTH : end])
            place = end
        self._read += place
        return taken

    def _bytes(self, size: int) -> bytes:
        """The next bytes to read."""
        if not self._file or not size:
            return b""
        places = self._places(self._read, size)
        return b"".join(os.pread(self._file.fileno(), length, place) for place, length in places)
