"""The terminal of a command that wants one, and the one that natsproc itself may have been started from."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import termios
import tty
from collections.abc import Iterator
from typing import NamedTuple

MAX_SIDE = 1000


class Size(NamedTuple):
    """Of a terminal, in characters."""

    rows: int = 24
    cols: int = 80

    @classmethod
    def of(cls, descriptor: int) -> Size | None:
        """The size of the terminal behind a descriptor; None where there is none, or it does not know."""
        try:
            cols, rows = os.get_terminal_size(descriptor)
        except OSError:
            return None
        return cls(rows, cols) if rows and cols else None

    @classmethod
    def parse(cls, data: object) -> Size | None:
        """The size in a message, `{"rows", "cols"}`; None if there is none that a terminal can have."""
        match data:
            case {"rows": int(rows), "cols": int(cols)} if 0 < rows <= MAX_SIDE and 0 < cols <= MAX_SIDE:
                return cls(rows, cols)
        return None


class Terminal:
    """A pseudo-terminal: the program has `slave`, we have `master`."""

    def __init__(self, size: Size) -> None:
        self.master, self.slave = os.openpty()
        self.resize(size)

    def close(self) -> None:
        """Close our end; whatever still holds the other gets SIGHUP."""
        os.close(self.master)
        self.master = -1

    def resize(self, size: Size) -> None:
        """Change the window's size; the program gets SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def interrupt(self) -> bytes:
        """Press Ctrl-C past everything typed before; returns what has to be typed instead, if anything.

        A program that has turned the signal off wants the character.
        """
        attributes = termios.tcgetattr(self.master)
        if attributes[3] & termios.ISIG:
            with contextlib.suppress(OSError):  # nothing in the foreground
                os.killpg(os.tcgetpgrp(self.master), signal.SIGINT)
            return b""
        return b"\x03"

    def end_of_input(self, within_line: bool) -> bytes:
        """What has to be typed to end the program's input; within a line it takes two."""
        key: bytes = termios.tcgetattr(self.master)[6][termios.VEOF]
        return key * (2 if within_line else 1)


@contextlib.contextmanager
def raw(descriptor: int, *, forget: bool = False) -> Iterator[None]:
    """Have a terminal of ours pass on every key as it is, until the end of the block.

    With `forget`, what it holds unread then is dropped: its answers to what was drawn are nobody's keys.
    """
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH if forget else termios.TCSADRAIN, before)
