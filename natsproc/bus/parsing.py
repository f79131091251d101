"""nats-py's parser, with a shorter way for what is listened to: a replay is millions of messages."""

from __future__ import annotations

import re
from typing import Any

from nats.protocol import parser
from nats.protocol.parser import AWAITING_CONTROL_LINE, AWAITING_MSG_PAYLOAD, CRLF_SIZE, Parser

# nats-py splits at any white space, and takes a subject with a vertical tab in it for a broken connection
_PART = rb"[ \t]+([^ \t\r\n]+)"
parser.MSG_RE = re.compile(rb"\AMSG" + _PART * 2 + rb"[ \t]+(([^ \t\r\n]+)[ \t]+)?(\d+)\r\n")
parser.HMSG_RE = re.compile(rb"\AHMSG" + _PART * 2 + rb"[ \t]+(([^ \t\r\n]+)[ \t]+)?(\d+)[ \t]+(\d+)\r\n")

Raw = tuple[bytes, bytes, bytes, bytes]
"""A message as it came: its subject, reply, payload and block of headers; empty where there is none."""

_HELD = 64 * 1024  #: bytes of a message that is cut, kept for what comes next; of more nats-py takes care
_HELD_LINE = 512  #: and of its first line


class ListParser(Parser):
    """Hands over in lists what is listened to. Everything else nats-py's own parser gets, piece by piece."""

    def reset(self) -> None:
        super().reset()
        self._held = b""  # how a message begins that is not there yet
        self._cut = False  # whether that is why `hear` stopped

    @property
    def between(self) -> bool:
        """Whether what comes next begins a message, or goes on with one that is held."""
        return self.state == AWAITING_CONTROL_LINE and not self.buf

    async def parse(self, data: bytes = b"") -> None:
        data, start = self._with_held(data), 0
        while start < len(data):
            if self.state == AWAITING_MSG_PAYLOAD:
                end = start + self.needed + CRLF_SIZE - len(self.buf)
            else:
                if not self.buf:
                    start = self._hear_all(data, start)
                end = data.find(b"\n", start) + 1 or len(data)
            await super().parse(data[start:end])
            start = end

    def take(self, data: bytes) -> bytes:
        """Hand over what comes next and is listened to, and return what is left to parse. Only while it is `between`."""
        data = self._with_held(data)
        return data[self._hear_all(data, 0) :]

    def _with_held(self, data: bytes) -> bytes:
        held, self._held = self._held, b""
        return held + data if held else data

    def _hear_all(self, data: bytes, start: int) -> int:
        """As `hear`, and keep the beginning of a message that is cut: so the next one begins where bytes do that come."""
        start = self.hear(data, start)
        if self._cut and len(data) - start <= _HELD:
            self._held, start = data[start:], len(data)
        return start

    def hear(self, data: bytes, start: int = 0) -> int:
        """Hand over the whole messages that come next and are listened to, and return where something else begins.

        Only while it is `between` two messages.
        """
        last = b""
        listener: Any = None
        messages: list[Raw] = []
        cut = again = False
        while (end := data.find(b"\r\n", start)) > 0:
            line = data[start:end]
            parts = line.split()
            count = len(parts)
            if count < 4 or b" ".join(parts) != line:
                break
            if parts[0] == b"MSG" and count < 6:
                head = 0
            elif parts[0] == b"HMSG" and 4 < count < 7 and parts[-2].isdigit():
                head, count = int(parts[-2]), count - 1
            else:
                break
            body = end + CRLF_SIZE
            if not parts[-1].isdigit():
                break
            after = body + int(parts[-1])
            if cut := after + CRLF_SIZE > len(data):
                break
            if parts[2] != last:
                if messages:
                    self.nc.hand_over(listener, messages)
                last, messages = parts[2], []
                if not (listener := self.nc.listener(last)):
                    break
                if (read_to := self.nc.read_on(listener, data, start)) > start:
                    start, last, again = read_to, b"", True
                    continue
            text = body + head
            messages.append((parts[1], parts[3] if count == 5 else b"", data[text:after], data[body:text]))
            start = after + CRLF_SIZE
            if again:  # it reads most of it: behind this one, too
                self.nc.hand_over(listener, messages)
                last, messages, again = b"", [], False
        else:
            cut = end < 0 and 0 < len(data) - start <= _HELD_LINE
        if messages:
            self.nc.hand_over(listener, messages)
        self._cut = cut
        return start
