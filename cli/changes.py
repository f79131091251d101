"""`ps -w -o json`: what runs now, then each process that changes, a JSON object a line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from natsproc_cli import exits
from natsproc_cli.viewer import nobody_reads

if TYPE_CHECKING:
    from natsproc.bus.liveness import Gone
    from natsproc.client import Mesh, ProcessInfo
    from natsproc.protocol.names import Address
    from natsproc.protocol.records import Record

LOOK_SECONDS = 1.0


class Changes:
    """Prints the changes of the processes that are `wanted`, those of being reachable, too."""

    def __init__(self, mesh: Mesh, namespace: str, wanted: Callable[[Record], bool]) -> None:
        self._mesh = mesh
        self._namespace = namespace
        self._wanted = wanted
        self._changed: asyncio.Queue[tuple[Address, Record | None]] = asyncio.Queue()
        self._live: dict[Address, Record] = {}
        self._gone: dict[Address, Gone] = {}  # as was said last

    async def print(self, read: Callable[[], Awaitable[Sequence[ProcessInfo]]]) -> None:
        """Print what `read` returns, and what changes from then on."""
        following = asyncio.create_task(self._follow())  # so that nothing falls between it and the list
        tasks = [following, asyncio.create_task(self._show(read))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            done.pop().result()
        finally:
            for task in tasks:
                task.cancel()

    async def _follow(self) -> None:
        async for change in self._mesh.watch(namespace=self._namespace):
            self._changed.put_nowait(change)

    async def _show(self, read: Callable[[], Awaitable[Sequence[ProcessInfo]]]) -> None:
        for info in await read():
            exits.print_json(info.to_json())
            if not info.record.ended:
                self._live[info.address] = info.record
            if info.gone:
                self._gone[info.address] = info.gone
        looking = asyncio.create_task(self._look())
        try:
            while not looking.done():
                change = None
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        change = await self._changed.get()
                if change:
                    await self._take(*change)
                if nobody_reads():
                    raise BrokenPipeError
            looking.result()
        finally:
            looking.cancel()

    async def _take(self, address: Address, changed: Record | None) -> None:
        record, before = changed or await self._mesh.process(address).record(), self._live.pop(address, None)
        if not (record and before) or record.ended or record.epoch != before.epoch:
            self._gone.pop(address, None)
        if record is None or not self._wanted(record):
            return
        if not record.ended:
            self._live[address] = record
        self._say(record)

    async def _look(self) -> None:
        """See again and again who can be reached."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            looked = dict(self._live)
            gone = await self._mesh.unreachable(looked.values())
            for address in gone.keys() ^ self._gone.keys():
                if (record := looked.get(address)) and record is self._live.get(address):
                    self._gone.pop(address, None)
                    if address in gone:
                        self._gone[address] = gone[address]
                    self._say(record)

    def _say(self, record: Record) -> None:
        from natsproc.client import ProcessInfo

        line = ProcessInfo(record, gone=self._gone.get(record.address)).to_json()
        del line["quiet"]  # which nobody has asked for now
        exits.print_json(line)
