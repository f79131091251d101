"""What may go to a terminal: colours when it is one, and other people's text made harmless."""

from __future__ import annotations

import os
import re
import sys
from typing import Any, Final

DIM: Final = "2"
BOLD: Final = "1"
RED: Final = "31"
GREEN: Final = "32"
YELLOW: Final = "33"
CYAN: Final = "36"
NAMES: Final = ("36", "35", "34", "32", "33", "96", "95", "94")
"""Colours that tell processes apart."""

_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SEQUENCE: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # control sequences
    r"|\x1b[]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)"  # strings: titles, clipboard, device control
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]"
)
_HARMLESS: Final = re.compile(r"\x1b\[[0-9;:]*m|\x1b\[[0-2]?K")
_C1: Final = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
_DRAWING: Final = re.compile(
    r"\x1b\[[0-9;:]*[@A-MPSTXZ`a-bdefgmrsu]"
    r"|\x1b\[\?(?:(?:[567]|12|25|4[57]|69|104[789]|2026);?)+[hl]"  # how it draws; not mouse, focus or pasting
    r"|\x1b[78DEHMc]|\x1b[()][0AB]|[\x0e\x0f]"
)
_UNFINISHED: Final = re.compile(
    r"\x1b(?:[ -/]{0,8}|\[[0-?]{0,64}[ -/]{0,8}|[]PX^_][^\x07\x1b\n]{0,4096}\x1b?)\Z"
)


def hidden_line(prompt: str) -> str:
    """Ask on the terminal for a line without showing it, however long it is."""
    import termios

    before = termios.tcgetattr(0)
    quiet = [*before[:3], before[3] & ~(termios.ECHO | termios.ICANON), *before[4:]]
    try:
        termios.tcsetattr(0, termios.TCSADRAIN, quiet)
        print(prompt, end="", file=sys.stderr, flush=True)
        return sys.stdin.readline()
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        print(file=sys.stderr)


def is_terminal(stream: Any) -> bool:
    """Whether `stream` goes to a terminal that can be drawn on."""
    return bool(stream.isatty()) and os.environ.get("TERM", "") != "dumb"


def has_colour(stream: Any) -> bool:
    """Whether `stream` may be coloured: a terminal, and nobody said NO_COLOR."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def paint(text: str, colour: str) -> str:
    """Colour text; one that is empty, or has no colour, stays as it is."""
    return f"\x1b[{colour}m{text}\x1b[0m" if text and colour else text


def plain(text: str) -> str:
    """Take out control sequences and characters, all but tab and newline: text can't move or paint anything."""
    return text if text.isprintable() else _CONTROL.sub("", _SEQUENCE.sub("", text))


def one_line(text: str) -> str:
    """The same for text that has to stay on its line."""
    return plain(text.replace("\n", "⏎"))


def harmless_json(line: str) -> str:
    """Escape the control characters above ASCII, which JSON leaves as they are and some terminals obey."""
    return line.translate(_C1)


class Harmless:
    """Lets through a program's colours, carriage returns and line clears, and drops what could do harm.

    Titles, clipboard writes, reports that type into the reader's shell, cursor movement: all gone. A
    sequence may be cut anywhere between two calls. With `drawing` the cursor may move, too, and the screen be
    cleared: for who gives the whole of it to one program.
    """

    def __init__(self, *, drawing: bool = False) -> None:
        self._kept = _DRAWING if drawing else _HARMLESS
        self._rest = ""
        self.coloured = False  #: whether a colour may still be on

    def feed(self, text: str) -> str:
        """Return what of `text` may be shown now."""
        text = self._rest + text
        unfinished = _UNFINISHED.search(text)
        self._rest = unfinished[0] if unfinished else ""
        if unfinished:
            text = text[: unfinished.start()]
        shown = _SEQUENCE.sub(self._keep, text)
        self.coloured = self.coloured or "\x1b[" in shown
        return shown

    def _keep(self, found: re.Match[str]) -> str:
        return found[0] if self._kept.fullmatch(found[0]) else ""
