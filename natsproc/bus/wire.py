"""A connection's socket, for threads that have something to send at once: beside the I/O thread, never in between.

A thread that hands its message to the I/O thread has to wait until that one runs, a third of what a lone event takes
to its viewer.
"""

from __future__ import annotations

import asyncio
import os
import threading
from asyncio import selector_events
from collections import deque
from collections.abc import Iterable
from typing import Any


class Wire:
    """What is sent here from any thread lies whole between two of the messages that the event loop sends.

    Each write of either takes its lock, or does without: nobody waits for it, as a signal handler may run, and whatever the
    garbage collector calls, wherever it is held. Of what the socket does not take at once the rest is kept, and
    goes out before anything else. The loop's transport is told to come by here; nothing of it is used once the connection is lost.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._socket = transport.get_extra_info("socket").fileno()
        self._lock = threading.Lock()
        self._rest = b""
        self._later: deque[bytes] = deque()  # what the loop had to send while another thread did
        self._inside = False  # whether the loop has the lock because the socket takes more
        self._write = transport.write
        self._more = transport._write_ready  # type: ignore[attr-defined]
        protocol = transport.get_protocol()
        self._connection_lost = protocol.connection_lost
        vars(transport).update(write=self.write, writelines=self._write_lines, _write_ready=self._write_ready)
        # called before the socket is closed, and its number perhaps given to another
        vars(protocol)["connection_lost"] = self._on_lost

    @classmethod
    def of(cls, transport: Any) -> Wire | None:
        """That of a transport on the running loop; None over TLS, WebSocket, and on loops such as uvloop's."""
        plain: type = selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
        return cls(transport) if isinstance(transport, plain) else None  # type: ignore[arg-type]

    def send(self, data: bytes) -> bool:
        """From any thread, without waiting: have it sent whole, or not at all, which returns False."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            return self._send(data)
        finally:
            self._release()

    def _send(self, data: bytes) -> bool:
        transport = self._transport
        if transport.is_closing() or transport.get_write_buffer_size() or self._rest or self._later:
            return False
        try:
            sent = os.write(self._socket, data)
        except OSError:  # it would block; or it is broken, which the loop will see
            return False
        if sent < len(data):
            self._rest = data[sent:]
            self._loop.call_soon_threadsafe(self.write, b"")
        return True

    def _release(self) -> None:
        self._lock.release()
        if self._later:  # looked at behind the release, as the loop puts it there before it tries the lock
            self._loop.call_soon_threadsafe(self.write, b"")

    def write(self, data: bytes) -> None:
        """On the loop: as the transport's."""
        self._later.append(data)
        if self._lock.acquire(blocking=False):
            try:
                while self._later:
                    rest, self._rest = self._rest, b""
                    self._write(rest + self._later.popleft())
            finally:
                self._release()

    def _write_lines(self, lines: Iterable[bytes]) -> None:
        self.write(b"".join(lines))

    def _write_ready(self) -> None:
        """On the loop: the socket takes more of what the transport has, which may look empty meanwhile (from 3.12 on)."""
        if not self._lock.acquire(blocking=False):
            return  # and is called again
        self._inside = True
        try:
            self._more()
        finally:
            self._inside = False
            self._release()

    def _on_lost(self, error: Exception | None) -> None:
        # whoever is longer at it than this has written already, and does something else now; nobody begins any more
        if not self._inside and self._lock.acquire(timeout=1.0):
            self._lock.release()
        self._connection_lost(error)
