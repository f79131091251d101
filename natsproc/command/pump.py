"""From a program's output to events: read, echoed at once, and cut into chunks for the log.

`Chunker` decides what a chunk is and is pure; `Pump` is the thread that reads. A thread, because echoing may
block as it would block the program itself, and neither control nor heartbeats shall notice.
"""

from __future__ import annotations

import os
import re
import select
import sys
import threading
import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from math import inf

LIMIT = 16 * 1024  # bytes of one event
GATHER_SECONDS = 0.005  # between two events, so that a line each does not become an event each
PARTIAL_SECONDS = 0.04  # for a line without its end; 50 ms are promised
READ_BYTES = 64 * 1024
LAST_READS = 16  # what a pipe may hold when we stop reading it

Deliver = Callable[[str | bytes, str], object]
Tell = Callable[[], object]

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RESET = re.compile(r"\x1b\[0*(?:;[0-9;]*)?m")
_ERASURE = re.compile(r"\x1b\[[02]?K")
# text, colours and erasures to the end of the line; what moves the cursor otherwise has to stay
_DRAWING = re.compile(rf"(?:[^\x00-\x1f\x7f-\x9f]|{_COLOUR.pattern}|{_ERASURE.pattern})*")
_LINE = float(sys.maxsize)  # columns: more than any line has


def merge_redraws(data: bytes, continues: bool) -> bytes:
    """Leave out, of a line that was redrawn with carriage returns, each drawing that a later one covers.

    A terminal shows the same. `continues` says that the beginning of the first line was written before.
    """
    if b"\r" not in data:
        return data
    try:
        first, *rest = data.decode().split("\n")
    except UnicodeDecodeError:  # bytes are no drawing: none of them is dropped
        return data
    return "\n".join([_merged(first, continues), *(_merged(line, False) for line in rest)]).encode()


def _merged(line: str, continues: bool) -> str:
    body = line.rstrip("\r")
    drawn = body.split("\r")
    try:
        reaches = [_reach(drawing) for drawing in drawn]
    except ValueError:
        return line
    if continues or not drawn[0]:
        reaches[0] = inf  # it began nobody knows where, or nothing but a return is left of it
    kept: list[tuple[str, float]] = []
    for drawing, reach in zip(drawn, reaches, strict=True):
        colours = ""
        while kept and kept[-1][1] <= reach:
            colours = _colours(kept.pop()[0] + colours)
        kept.append((colours + drawing, reach))
    return "\r".join(drawing for drawing, _ in kept) + line[len(body) :]


def _reach(drawing: str) -> float:
    """How many columns it draws over. Raises: ValueError if that cannot be said."""
    if not _DRAWING.fullmatch(drawing):
        raise ValueError
    text = _ERASURE.sub("", _COLOUR.sub("", drawing))
    width = len(text) if text.isascii() else sum(map(_width, text))
    return _LINE if _ERASURE.search(drawing) else width


def _width(character: str) -> int:
    jamo = "\u1160" <= character <= "\u11ff" or "\ud7b0" <= character <= "\ud7ff"
    if jamo or unicodedata.category(character)[0] in "MC" or character in "\u2028\u2029":
        raise ValueError  # combines with what is before it, or terminals differ
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _colours(drawing: str) -> str:
    """What it leaves the colours at: its sequences from the last reset on, each once."""
    found = _COLOUR.findall(drawing)
    last = max((place for place, colour in enumerate(found) if _RESET.fullmatch(colour)), default=0)
    return "".join(reversed(dict.fromkeys(reversed(found[last:]))))


def _unfinished(data: bytes | bytearray) -> int:
    """How many bytes at the end begin a character of UTF-8 that is not complete."""
    for back, byte in enumerate(reversed(data[-3:]), 1):
        if byte & 0xC0 != 0x80:
            length = (
                2 if byte >> 5 == 0b110 else 3 if byte >> 4 == 0b1110 else 4 if byte >> 3 == 0b11110 else 1
            )
            return back if length > back else 0
    return 0


class Chunker:
    """Cuts a stream of bytes into the chunks that become events: bytes and the time go in, chunks come out.

    A chunk ends with a line where it can, is text where it can be, and bytes where it is not UTF-8.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._since: float | None = None  # when the oldest of it came; None while it waits for more
        self._taken = float("-inf")
        self._continues = False  # whether the last chunk ended behind the beginning of a line

    def feed(self, data: bytes, now: float) -> None:
        """Add what was read at time `now` (seconds)."""
        self._buffer += data
        if self._since is None:
            self._since = now

    @property
    def due(self) -> float | None:
        """When `take` will have something, if nothing else is fed."""
        if not self._buffer or self._since is None:
            return None
        if len(self._buffer) >= self._limit:
            return self._since
        if b"\n" in self._buffer:
            return self._taken + GATHER_SECONDS
        return self._since + PARTIAL_SECONDS

    def take(self, now: float, *, lines: bool = False, end: bool = False) -> list[str | bytes]:
        """Take the chunks that are due at time `now`, with `lines` all whole lines, or with `end` all that is left."""
        if not lines and not end and (self.due is None or now < self.due):
            return []
        partial = end or (self._since is not None and now >= self._since + PARTIAL_SECONDS)
        chunks = []
        while cut := self._cut(partial, end):
            chunks.append(self._chunk(cut))
        self._taken = now
        self._since = None if partial or not self._buffer else now
        return chunks

    def _cut(self, partial: bool, end: bool) -> int:
        size = len(self._buffer)
        if size > self._limit or not partial:
            if lines := self._buffer.rfind(b"\n", 0, self._limit) + 1:
                return lines
            if size < self._limit:
                return 0
        head = self._buffer[: self._limit]
        return size if end and size <= self._limit else len(head) - _unfinished(head)

    def _chunk(self, size: int) -> str | bytes:
        data = merge_redraws(bytes(self._buffer[:size]), self._continues)
        del self._buffer[:size]
        self._continues = not data.endswith((b"\n", b"\r"))
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it, waiting as often as need be. Raises: OSError if nobody reads there any more, or it is full."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


class Pump(threading.Thread):
    """Reads a program's stream to its end: echoes it, and delivers it in chunks.

    `deliver` is called on this thread with a chunk and the stream's name, and may block: so does the program then.
    When it raises, `failed` holds what it raised and the rest is echoed only. When the echo cannot be written any more,
    `cut_off` says why and the stream is closed, and the program finds out as it does at a closed pipe. `tell` is called
    on this thread after a failure and at the end.
    """

    def __init__(
        self,
        source: int,
        stream: str,
        deliver: Deliver,
        *,
        echo: int | None = None,
        tell: Tell = lambda: None,
        limit: int = LIMIT,
    ) -> None:
        super().__init__(name=f"natsproc-{stream}", daemon=True)
        self.failed: Exception | None = None
        self.cut_off: OSError | None = None
        self._source = source
        self._stream = stream
        self._deliver = deliver
        self._echo = echo
        self._tell = tell
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        self._chunker = Chunker(limit)
        self._lock = threading.Lock()  # over what follows
        self._ended = self._stopping = False
        self._waiting: list[Future[None]] = []

    def stop(self) -> None:
        """Read what is there now, and no longer: somebody else holds the stream open."""
        with self._lock:
            self._stopping = True
            self._wake()

    def settled(self) -> Future[None]:
        """Done once every whole line that was written before this call is delivered."""
        future: Future[None] = Future()
        with self._lock:
            self._waiting.append(future)
            self._wake()
        return future

    def _wake(self) -> None:
        if self._ended:
            self._settle(self._waiting)
        else:
            os.write(self._waker, b".")

    @staticmethod
    def _settle(waiting: list[Future[None]]) -> None:
        while waiting:
            if (future := waiting.pop()).set_running_or_notify_cancel():
                future.set_result(None)

    def run(self) -> None:
        source, either = select.poll(), select.poll()
        source.register(self._source, select.POLLIN)
        either.register(self._source, select.POLLIN)
        either.register(self._woken, select.POLLIN)
        waiting: list[Future[None]] = []
        reads = LAST_READS
        while reads:
            due = self._chunker.due
            either.poll(None if due is None else max(0.0, due - time.monotonic()) * 1000)
            with self._lock, suppress(BlockingIOError):
                stopping, waiting, self._waiting = self._stopping, self._waiting, waiting
                os.read(self._woken, 4096)
            # looked at after those who wait were, whose output has to be read
            if source.poll(0):
                if not self._read():
                    break
            elif stopping:
                break
            self._give(self._chunker.take(time.monotonic(), lines=bool(waiting)))
            self._settle(waiting)
            reads -= stopping
        os.close(self._source)
        self._give(self._chunker.take(time.monotonic(), end=True))
        with self._lock:
            self._ended = True
            self._settle(waiting + self._waiting)
            os.close(self._woken)
            os.close(self._waker)
        self._tell()

    def _read(self) -> bool:
        try:
            data = os.read(self._source, READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:  # a terminal that no program holds any more
            return False
        self._chunker.feed(data, time.monotonic())
        try:
            if self._echo is not None:
                write_all(self._echo, data)
        except OSError as error:
            self.cut_off = error
        return bool(data) and not self.cut_off

    def _give(self, chunks: list[str | bytes]) -> None:
        for chunk in chunks:
            if self.failed is None:
                try:
                    self._deliver(chunk, self._stream)
                except Exception as error:
                    self.failed = error
                    self._tell()
