"""A load balancer as plain as they come: each request goes to the next replica, and one that is away is passed over.

It stands for whatever is before your own replicas, and knows nothing of sessions, conversations or natsproc.
"""

from __future__ import annotations

import asyncio
import re
from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence
from contextlib import closing, suppress

AWAY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
CONNECTION = re.compile(rb"(?im)^(connection|keep-alive):.*\r\n")
REPLICA = re.compile(rb"(?im)^x-replica: *([0-9]+)")


class Proxy:
    """Give `serve` to `asyncio.start_server`."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._next = 0

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Hand on one request and its answer, however long that streams; the next one has a connection of its own."""
        with closing(writer), suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            there = await self._connect(head)
            if there is None:
                writer.write(AWAY)
                return
            from_replica, to_replica = there
            with closing(to_replica):
                to_replica.write(CONNECTION.sub(b"", head)[:-2] + b"Connection: close\r\n\r\n")
                ways = [_pump(reader, to_replica), _pump(from_replica, writer)]
                _, other = await asyncio.wait(
                    map(asyncio.create_task, ways), return_when=asyncio.FIRST_COMPLETED
                )
                for task in other:
                    task.cancel()

    async def _connect(self, head: bytes) -> tuple[StreamReader, StreamWriter] | None:
        """Connect to the replica whose turn it is, or that `X-Replica: 1` asks for, or one of the others."""
        asked = REPLICA.search(head)
        first = int(asked[1]) - 1 if asked else self._next
        self._next += not asked
        for i in range(len(self._ports)):
            with suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", self._ports[(first + i) % len(self._ports)])
        return None


async def _pump(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(OSError):
        while some := await reader.read(65536):
            writer.write(some)
            await writer.drain()
