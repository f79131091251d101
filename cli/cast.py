"""A run as an asciicast, version 2: what asciinema, its web player, agg and svg-term all take.

The format: https://docs.asciinema.org/manual/asciicast/v2
"""

from __future__ import annotations

import codecs
import io
from typing import Any, BinaryIO

from natsproc.command.terminal import Size
from natsproc.protocol.messages import LIFECYCLE, Event, Notice, encode
from natsproc_cli.describe import describe
from natsproc_cli.pace import moment
from natsproc_cli.replay import BEGINS, Replay
from natsproc_cli.terminal import DIM, one_line, paint, plain

MARKER = 80  # characters of a marker's label


class CastView:
    """Lines of an asciicast: what a terminal would show and when, resizes, and a marker for each landmark."""

    def __init__(self, out: BinaryIO, title: str) -> None:
        self._out = out
        self._title = title
        self._shown = io.BytesIO()  # at the time that was reached, and not written yet
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._replay = Replay(self._shown, self._say)
        self._began = 0.0
        self._reached: float | None = None
        self._at = 0.0  # seconds from the beginning
        self._early: list[bytes] | None = []  # lines that wait for the header

    def show(self, item: Event | Notice) -> None:
        if isinstance(item, Event):
            self._reach(item.time)
            size = Size.parse(item.data) if item.type == "screen" else None
            if self._early is None and size:
                self._line("r", f"{size.cols}x{size.rows}")
            elif self._early is not None and item.type not in BEGINS:
                self._head(size or Size())
            if item.type in LIFECYCLE:
                self._line("m", f"{item.type}: {describe(item)}"[:MARKER])
        self._replay.show(item)

    def flush(self) -> None:
        self._out.flush()

    def close(self) -> None:
        self._replay.close()
        self._drain()
        if self._early is not None:
            self._head(Size())
        self.flush()

    def _reach(self, time: str) -> None:
        """Times never go back: a clock that does counts as no time at all."""
        now = moment(time)
        if now is None or now == self._reached:
            return
        if self._reached is None:
            self._began = now
        elif now > self._reached:
            self._drain()
            self._at += now - self._reached
        self._reached = now

    def _say(self, text: str) -> None:
        self._line("m", one_line(text)[:MARKER])
        self._shown.write(paint(f"natsproc: {plain(text)}", DIM).encode() + b"\r\n")

    def _line(self, code: str, data: str) -> None:
        self._drain()
        self._write([round(self._at, 6), code, data])

    def _drain(self) -> None:
        self._replay.flush()
        if drawn := self._shown.getvalue():
            self._shown.seek(0)
            self._shown.truncate()
            if text := self._text.decode(drawn):
                self._write([round(self._at, 6), "o", text])

    def _head(self, size: Size) -> None:
        early, self._early = self._early or [], None
        self._write(
            {
                "version": 2,
                "width": size.cols,
                "height": size.rows,
                **({} if self._reached is None else {"timestamp": int(self._began)}),
                "title": self._title,
                "env": {"TERM": "xterm-256color"},
            }
        )
        self._out.writelines(early)

    def _write(self, value: Any) -> None:
        line = encode(value) + b"\n"
        if self._early is None:
            self._out.write(line)
        else:
            self._early.append(line)
