"""A run shown once more, on a terminal that draws what its program drew."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import BinaryIO

from natsproc.command.terminal import Size
from natsproc.protocol.messages import Event, Notice
from natsproc_cli.pace import moment
from natsproc_cli.raw import BELOW, CLEAN, over_the_last_line
from natsproc_cli.render import TextView
from natsproc_cli.terminal import Harmless, plain

BEGINS = frozenset({"started", "restarted", "recovered"})
"""Types of events that begin a run, or go on with it in another program."""


class Replay(TextView):
    """Bytes for a terminal in raw mode: output as it was, everything else as `tail` shows it.

    A program that had a terminal of its own (its log says `screen`) has this one for itself; of the other events of such
    a run only beginning and end are shown. What would have a terminal answer, or write elsewhere, is gone.
    """

    def __init__(
        self, out: BinaryIO, say: Callable[[str], None], size: Size | None = None, *, colour: bool = True
    ) -> None:
        super().__init__(out, say, terminal=True, colour=colour, width=(size or Size()).cols)
        self._harmless = Harmless(drawing=True)
        self._ours = size
        self._drawn: Size | None = None  # the screen that a program draws on, if it does
        self._begun = False

    def show(self, item: Event | Notice) -> None:
        if isinstance(item, Event):
            if not self._begun:
                self._begin(item)
            if item.type == "screen" and (size := Size.parse(item.data)):
                return self._draw(size)
            if item.terminal or item.type in BEGINS:
                self._stop_drawing()
            elif self._drawn and item.type != "output":
                return None
        return super().show(item)

    def tell(self, text: str) -> None:
        """Say something of ours, at once."""
        self._remark(text)
        self.flush()

    def close(self) -> None:
        self._stop_drawing()
        super().close()

    def _begin(self, first: Event) -> None:
        """Times of the day on which the run began need no date."""
        self._begun = True
        if (seconds := moment(first.time)) is not None:
            self._today = datetime.fromtimestamp(seconds).date()

    def _draw(self, size: Size) -> None:
        smaller = self._ours and (self._ours.rows < size.rows or self._ours.cols < size.cols)
        if smaller and size != self._drawn:
            self._remark(f"this was drawn on {size.cols}×{size.rows}: a larger terminal shows all of it")
        if not self._drawn:
            self._new_line()
        self._drawn = size

    def _stop_drawing(self) -> None:
        if self._drawn:
            self._write(f"{CLEAN}{BELOW}\r\n")
            self._drawn, self._open = None, ""

    def _remark(self, text: str) -> None:
        if text and self._drawn:
            self._write(over_the_last_line(plain(text), (self._ours or self._drawn).cols))
        else:
            super()._remark(text)

    def _put(self, raw: bytes) -> None:
        super()._put(raw if self._drawn else raw.replace(b"\n", b"\r\n"))
