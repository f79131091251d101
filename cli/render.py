"""Events and notices on stdout: as text for people, or one JSON object a line."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, BinaryIO, Protocol

from natsproc.protocol.messages import LIFECYCLE, Event, Notice, encode
from natsproc_cli.describe import describe, how_to_answer, notice
from natsproc_cli.questions import Questions
from natsproc_cli.terminal import (
    CYAN,
    DIM,
    GREEN,
    NAMES,
    RED,
    YELLOW,
    Harmless,
    harmless_json,
    one_line,
    paint,
    plain,
)

LABEL_WIDTH = 11
BLOCK = 64 * 1024

_ERASURE = re.compile(r"\x1b\[[02]?K")
_LEVELS = {"debug": DIM, "warning": YELLOW, "warn": YELLOW, "error": RED, "critical": RED}


class View(Protocol):
    """Where a command shows what it reads."""

    def show(self, item: Event | Notice) -> None:
        """Show one more; it may stay in the buffer until `flush`."""

    def flush(self) -> None:
        """Write what is buffered. Raises: BrokenPipeError."""

    def close(self) -> None:
        """Finish the last line, and flush."""


class _Buffered:
    """Bytes on their way out, written a block at a time or when asked."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._parts: list[bytes] = []
        self._size = 0

    def _put(self, raw: bytes) -> None:
        self._parts.append(raw)
        self._size += len(raw)
        if self._size >= BLOCK:
            self.flush()

    def flush(self) -> None:
        if self._parts:
            block = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            self._out.write(block)
            self._out.flush()


class JsonView(_Buffered):
    """One JSON object a line; with `names` it says which process, too."""

    def __init__(self, out: BinaryIO, *, names: bool = False, terminal: bool = False) -> None:
        super().__init__(out)
        self._names = names
        self._terminal = terminal

    def show(self, item: Event | Notice) -> None:
        record = item.to_json()
        if self._names:
            record = {"process": str(item.address), **record}
        line = encode(record) + b"\n"
        self._put(harmless_json(line.decode()).encode() if self._terminal else line)

    def close(self) -> None:
        self.flush()


class TextView(_Buffered):
    """Text for people: output verbatim, tokens and progress in place, one line for each other event.

    `names` puts the process before each line, for several of them; `terminal` makes redrawing and
    `colour` colouring possible; `filtered` makes a program's output harmless on a terminal that cannot even be
    drawn on; `say` takes remarks, which go elsewhere.
    """

    def __init__(
        self,
        out: BinaryIO,
        say: Callable[[str], None],
        *,
        names: bool = False,
        terminal: bool = False,
        colour: bool = False,
        filtered: bool = False,
        width: int = 80,
    ) -> None:
        super().__init__(out)
        self._say = say
        self._names = names
        self._terminal = terminal
        self._colour = colour
        self._filtered = terminal or filtered
        self._width = width
        self._name_width = 12
        self._today = datetime.now().astimezone().date()
        self._open = ""  # what the cursor's line holds: nothing, "output", "progress" or a stream of tokens
        self._harmless = Harmless()
        self._streams: dict[tuple[str, str], int] = {}  # streams of tokens → offset of the first one shown
        self._questions = Questions()
        self._unfinished: dict[tuple[str, str], str] = {}  # with names: lines that are not complete

    def show(self, item: Event | Notice) -> None:
        if isinstance(item, Notice):
            self._remark(notice(item))
        elif item.type == "output":
            self._output(item)
        elif item.type == "token":
            self._token(item)
        elif item.type == "text":
            self._text(item)
        else:
            self._event(item)
        for question in self._questions.feed(item):
            self._remark(how_to_answer(question))

    def close(self) -> None:
        self._finish_lines()
        if self._terminal or self._open != "output":
            self._new_line()
        self.flush()

    def _write(self, text: str) -> None:
        self._put(text.encode("utf-8", "replace"))

    def _paint(self, text: str, colour: str) -> str:
        return paint(text, colour) if self._colour else text

    def _remark(self, text: str) -> None:
        if text:
            self._new_line()
            self.flush()
            self._say(text)

    def _new_line(self) -> None:
        if self._harmless.coloured:
            self._write("\x1b[0m")
            self._harmless.coloured = False
        if self._open:
            self._write("\n")
            self._open = ""

    def _output(self, event: Event) -> None:
        raw = output_bytes(event.data)
        if self._names:
            stream = str(event.data.get("stream")) if isinstance(event.data, dict) else ""
            return self._lines(event, stream, raw.decode("utf-8", "replace"))
        if self._open and self._open != "output":
            self._new_line()
        if self._filtered:
            raw = self._harmless.feed(raw.decode("utf-8", "replace")).encode()
        if raw:
            self._put(raw)
            self._open = "" if raw.endswith(b"\n") else "output"
        return None

    def _lines(self, event: Event, stream: str, text: str) -> None:
        """Show complete lines, each behind the name of its process."""
        key = (str(event.address), stream)
        *lines, rest = (self._unfinished.pop(key, "") + text).split("\n")
        for line in lines:
            self._write(f"{self._name(key[0])}{_last_drawn(line)}\n")
        if rest:
            self._unfinished[key] = rest
        if len(rest) > BLOCK:
            self._finish_lines(key[0])

    def _finish_lines(self, address: str | None = None) -> None:
        for key in [key for key in self._unfinished if address in (None, key[0])]:
            self._write(f"{self._name(key[0])}{_last_drawn(self._unfinished.pop(key))}\n")

    def _token(self, event: Event) -> None:
        data = event.data if isinstance(event.data, dict) else {}
        stream, text = str(data.get("stream", "")), str(data.get("text", ""))
        key = (str(event.address), stream)
        if self._names:
            return self._lines(event, stream, text)
        here = f"token {stream}"
        if self._open != here:
            self._new_line()
            self._write(self._head(event, stream or "text", CYAN) + ("… " if key in self._streams else ""))
            self._open = here
        self._streams.setdefault(key, event.offset)
        self._write(plain(text))
        return None

    def _text(self, event: Event) -> None:
        data = event.data if isinstance(event.data, dict) else {}
        stream = str(data.get("stream", ""))
        first_shown = self._streams.pop((str(event.address), stream), None)
        self._finish_lines(str(event.address))
        if first_shown is not None and first_shown <= data.get("first", 0):
            return self._new_line()
        self._new_line()
        return self._write(
            self._head(event, stream or "text", CYAN) + plain(str(data.get("text", ""))) + "\n"
        )

    def _event(self, event: Event) -> None:
        if event.terminal:
            self._finish_lines(str(event.address))
        in_place = event.type == "progress" and self._terminal and not self._names
        if in_place and self._open == "progress":
            self._write("\r\x1b[K")
        else:
            self._new_line()
        label, colour = _label(event)
        text = describe(event)
        if in_place:
            text = text[: max(20, self._width - LABEL_WIDTH - 16)]
        if event.type in LIFECYCLE:
            text = self._paint(text, DIM)
        self._write(self._head(event, label, colour) + text)
        self._open = "progress" if in_place else ""
        if not in_place:
            self._write("\n")

    def _head(self, event: Event, label: str, colour: str) -> str:
        name = self._name(str(event.address)) if self._names else ""
        time = self._paint(self._clock(event.time), DIM)
        return f"{name}{time}  {self._paint(f'{one_line(label):<{LABEL_WIDTH}}', colour)} "

    def _name(self, address: str) -> str:
        self._name_width = max(self._name_width, len(address))
        colour = NAMES[sum(address.encode()) % len(NAMES)]
        return self._paint(f"{address:<{self._name_width}}", colour) + self._paint("│", DIM) + " "

    def _clock(self, time: str) -> str:
        try:
            local = datetime.fromisoformat(time).astimezone()
        except ValueError:
            return "??:??:??.???"
        if local.date() != self._today:
            return f"{local:%Y-%m-%d %H:%M:%S}"
        return f"{local:%H:%M:%S}.{local.microsecond // 1000:03}"


def _label(event: Event) -> tuple[str, str]:
    """The word before an event's line, and its colour."""
    data = event.data if isinstance(event.data, dict) else {}
    if event.type == "log":
        level = str(data.get("level", "info"))
        return level, _LEVELS.get(level, "")
    if event.type == "exited":
        return event.type, GREEN if data.get("status") == "completed" else RED
    if event.type == "failed":
        return event.type, RED
    return event.type, DIM if event.type in LIFECYCLE else CYAN


def output_bytes(data: Any) -> bytes:
    """What an output event holds, exactly."""
    if not isinstance(data, dict):
        return f"{data}\n".encode()
    if "base64" in data:
        try:
            return base64.b64decode(data["base64"])
        except (TypeError, binascii.Error):
            return b""
    return str(data.get("text", "")).encode("utf-8", "replace")


def _last_drawn(line: str) -> str:
    """What a line shows after its carriage returns, without anything that could paint elsewhere."""
    shown = ""
    for drawing in reversed(line.split("\r")):  # what is under a shorter one shows beside it
        shown += plain(drawing)[len(shown) :]
        if _ERASURE.search(drawing):
            break
    return shown
