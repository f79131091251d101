"""What a program's terminal shows now, so that whoever attaches later sees it. Imports pyte, so import it late.

Replaying a full-screen program's bytes cannot repaint it; a terminal emulator that has seen them all can.
"""

from __future__ import annotations

import copy
import threading
import time
from itertools import groupby
from typing import Any

import pyte
from pyte.graphics import BG_AIXTERM, BG_ANSI, FG_AIXTERM, FG_ANSI
from pyte.screens import Char

from .terminal import Size

PENDING_BYTES = 64 * 1024
FLOOD_SECONDS = 0.5  # pyte takes some 0.7 MB/s; what comes faster than it nobody can read
KEEP_BYTES = 8 * 1024

_ALTERNATE = {47, 1047, 1049}
_KEPT_MODES = (1, 1000, 1002, 1003, 1004, 1006, 2004)  # cursor keys, mouse, focus, pasting: how to type to it
_STYLES = {"bold": 1, "italics": 3, "underscore": 4, "blink": 5, "reverse": 7, "strikethrough": 9}
_FG = {name: number for number, name in (FG_ANSI | FG_AIXTERM).items()}
_BG = {name: number for number, name in (BG_ANSI | BG_AIXTERM).items()}


class _Emulator(pyte.Screen):
    """pyte's screen, and the alternate one of editors and pagers, which it lacks."""

    _main: Any = None

    @property
    def alternate(self) -> bool:
        return self._main is not None

    def set_mode(self, *modes: int, **private: Any) -> None:
        if private.get("private") and _ALTERNATE & set(modes) and self._main is None:
            self._main = (copy.deepcopy(self.buffer), copy.copy(self.cursor))
            self.erase_in_display(2)
        super().set_mode(*modes, **private)

    def reset_mode(self, *modes: int, **private: Any) -> None:
        if private.get("private") and _ALTERNATE & set(modes) and self._main is not None:
            (self.buffer, self.cursor), self._main = self._main, None
        super().reset_mode(*modes, **private)


class Screen:
    """Follows what a program writes to its terminal. May be used from any thread."""

    def __init__(self, size: Size) -> None:
        self._screen = _Emulator(size.cols, size.rows)
        self._parser = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self._pending = bytearray()
        self._since = time.monotonic()
        self._offset = 0

    def feed(self, data: bytes, offset: int) -> None:
        """Take what the program wrote, and the offset of its event. Of a flood, beginning and end are enough."""
        with self._lock:
            self._pending += data
            self._offset = offset
            if len(self._pending) >= PENDING_BYTES:
                if time.monotonic() - self._since < FLOOD_SECONDS:
                    tail = self._pending.find(b"\n", len(self._pending) - KEEP_BYTES)
                    del self._pending[KEEP_BYTES : max(tail, KEEP_BYTES)]
                self._catch_up()

    def _catch_up(self) -> None:
        data, self._pending = bytes(self._pending), bytearray()
        self._since = time.monotonic()
        try:
            self._parser.feed(data)
        except Exception:  # pyte trips over sequences that it does not expect; the program will draw on
            self._parser = pyte.ByteStream(self._screen)

    def resize(self, size: Size) -> None:
        with self._lock:
            self._catch_up()
            self._screen.resize(size.rows, size.cols)

    def snapshot(self) -> dict[str, Any]:
        """`text` repaints a terminal of `rows` and `cols`; it shows all events up to `offset`."""
        with self._lock:
            self._catch_up()
            rows, cols = self._screen.lines, self._screen.columns
            return {"rows": rows, "cols": cols, "offset": self._offset, "text": _repaint(self._screen)}


def _repaint(screen: _Emulator) -> str:
    drawn = ["\x1b[?1049h" if screen.alternate else "", "\x1b[0m\x1b[H\x1b[2J"]
    for y in range(screen.lines):
        line = [screen.buffer[y][x] for x in range(screen.columns)]
        while line and line[-1] == screen.default_char:
            line.pop()
        if line:
            drawn.append(f"\x1b[{y + 1};1H")
        for style, run in groupby(line, _style):
            drawn.append(f"\x1b[0{style}m" + "".join(char.data for char in run))
    modes = "".join(f"\x1b[?{mode}h" for mode in _KEPT_MODES if mode << 5 in screen.mode)
    cursor = screen.cursor
    here = f"\x1b[{cursor.y + 1};{min(cursor.x, screen.columns - 1) + 1}H"
    return "".join(
        [*drawn, f"\x1b[0{_style(cursor.attrs)}m", modes, here, f"\x1b[?25{'l' if cursor.hidden else 'h'}"]
    )


def _style(char: Char) -> str:
    numbers = [str(number) for name, number in _STYLES.items() if getattr(char, name)]
    return "".join(
        f";{number}" for number in [*numbers, *_colour(char.fg, _FG, 38), *_colour(char.bg, _BG, 48)]
    )


def _colour(name: str, known: dict[str, int], direct: int) -> list[str]:
    if name == "default":
        return []
    if name in known:
        return [str(known[name])]
    red, green, blue = bytes.fromhex(name)
    return [f"{direct};2;{red};{green};{blue}"]
