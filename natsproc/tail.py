"""Watching processes: what the I/O thread reads, as an async iterator in the viewer's own loop.

A viewer that is slow, asleep or gone costs the process nothing: batches wait here up to a bound, then the
reader on the I/O thread stops reading and later re-reads from the log what it did not take live.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from natsproc.bus.handoff import Handoff
from natsproc.bus.history import History
from natsproc.bus.kv import Bucket
from natsproc.bus.liveness import unreachable
from natsproc.bus.patience import insist
from natsproc.bus.presence import announced
from natsproc.bus.start import read_claim
from natsproc.bus.tail import Start, Straight, follow
from natsproc.bus.thread import IOThread
from natsproc.errors import BadPayload, Closed
from natsproc.protocol.messages import Cursor, Event, Notice
from natsproc.protocol.names import Address, check_name, check_pattern, is_pattern
from natsproc.protocol.records import Record

if TYPE_CHECKING:
    import concurrent.futures

    from pydantic import BaseModel

    from .client import Mesh

T = TypeVar("T")
Item = Event | Notice

BATCHES = 64


class Follow(Generic[T]):
    """An async iterator over what a source on the I/O thread yields in batches."""

    _pump: concurrent.futures.Future[None] | None = None

    def __init__(
        self,
        io: IOThread,
        source: Callable[[], AsyncIterator[Sequence[T]]],
        handoff: Handoff[Sequence[T]] | None = None,
    ) -> None:
        self._io = io
        self._source = source
        self._batch: deque[T] = deque()
        self._handoff: Handoff[Sequence[T]] = Handoff(BATCHES) if handoff is None else handoff

    def __aiter__(self) -> Follow[T]:
        return self

    async def __anext__(self) -> T:
        while not self._batch:
            if self._pump is None:
                self._pump = self._io.submit(_pump(self._source, self._handoff))
            try:
                self._batch.extend(await self._handoff.take())
            except Handoff.Done:
                raise StopAsyncIteration from None
        return self._batch.popleft()

    async def several(self) -> Sequence[T]:
        """What comes next, with all that is here already; nothing once it has ended. A cancelled wait loses nothing."""
        items: list[T] = []
        async for item in self:
            items.append(item)
            if not self._batch:
                break
        return items

    async def within(self, seconds: float) -> Sequence[T] | None:
        """As `several`; None after so many quiet seconds."""
        try:
            async with asyncio.timeout(seconds):
                return await self.several()
        except TimeoutError:
            return None

    async def aclose(self) -> None:
        """Stop watching. What is watched goes on."""
        self._handoff.close()
        self._batch.clear()
        self.__del__()

    def __del__(self) -> None:  # of one that was left early and never closed, too
        if self._pump is not None:
            self._pump.cancel()

    async def __aenter__(self) -> Follow[T]:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


async def _pump(source: Callable[[], AsyncIterator[Sequence[T]]], into: Handoff[Sequence[T]]) -> None:
    try:
        async with aclosing(source()) as batches:  # type: ignore[type-var]
            async for batch in batches:
                into.put(batch)
                await into.room()
    except asyncio.CancelledError:
        into.close(Closed("the mesh was closed"))  # unless the viewer closed it itself
        raise
    except Exception as error:
        into.close(error)
    else:
        into.close()


class Tail(Follow[Item]):
    """What a process says, as `Event`s, and what the reader itself has to say, as `Notice`s.

    Iterate it, in `async with` or with `aclose()` at the end if you leave early. `cursor` is where to go on.
    """

    def __init__(
        self,
        io: IOThread,
        source: Callable[[], AsyncIterator[Sequence[Item]]],
        models: Mapping[str, type[BaseModel]] | None = None,
        handoff: Handoff[Sequence[Item]] | None = None,
    ) -> None:
        super().__init__(io, source, handoff)
        self._models = models or {}
        self._last: Event | None = None

    @property
    def cursor(self) -> str:
        """Where to go on: behind the last event yielded."""
        return self._last.cursor if self._last else ""

    async def __anext__(self) -> Item:
        item = self._batch.popleft() if self._batch else await super().__anext__()
        if isinstance(item, Event):
            self._last = item
            if self._models and (model := self._models.get(item.type)) is not None:
                return replace(item, data=_validated(model, item))
        return item


def _validated(model: type[BaseModel], event: Event) -> BaseModel:
    from pydantic import ValidationError

    try:
        return model.model_validate(event.data)
    except ValidationError as error:
        raise BadPayload(f"event {event.offset} ({event.type}) is no {model.__name__}: {error}") from None


def tail_one(
    mesh: Mesh,
    address: Address,
    *,
    cursor: Cursor | None,
    n: int | None,
    since: float | None,
    run: int | Literal["all"] | None,
    follow: bool,
    compact: bool,
    types: Collection[str],
    models: Mapping[str, type[BaseModel]] | None,
    announce: bool = True,
    ahead: int = BATCHES,
) -> Tail:
    """See `ProcessHandle.tail`; `ahead` is how many batches are read before they are taken."""
    start = _start(cursor, n, since, run)
    handoff: Handoff[Sequence[Item]] = Handoff(ahead)
    source = partial(_read, mesh, address, start, follow, compact, types, handoff.offer, announce)
    return Tail(mesh.io, source, models, handoff)


def _start(
    cursor: Cursor | None, n: int | None, since: float | None, run: int | Literal["all"] | None
) -> Start:
    if sum(choice is not None for choice in (cursor, n, since, run)) > 1:
        raise BadPayload("choose one of after, n, since and run: each says where the tail begins")
    if cursor is not None:
        return Start("cursor", cursor=cursor)
    if n is not None:
        return Start("last", n=n) if n > 0 else Start("new")
    if since is not None:
        return Start("since", seconds=since)
    return Start("first") if run == "all" else Start("run", run=run)


async def _read(
    mesh: Mesh,
    address: Address,
    start: Start,
    live: bool,
    compact: bool,
    types: Collection[str],
    straight: Straight,
    announce: bool = True,
) -> AsyncIterator[Sequence[Item]]:
    """What is to be shown; `announce` counts it among the process's viewers while it is followed."""
    counted = announced(mesh.connection, mesh.names, address) if live and announce else nullcontext()
    latest = await insist(lambda: mesh.registry.get(address)) if start.kind == "first" else None
    gone = unreachable(mesh.connection, mesh.names, address) if live else None

    def take(events: list[Event]) -> bool:
        shown = [event for event in events if event.type in types] if types else events
        return not shown or straight(shown)

    source = follow(
        mesh.connection,
        mesh.names,
        address,
        start=start,
        follow=live,
        until_end=start.kind != "first",
        notices=gone,
        straight=None if compact else take,
    )
    shorten = None
    if compact:
        from natsproc.protocol.compact import Compact

        shorten = Compact()
    seen = False
    async with aclosing(source), counted:
        async for batch in source:
            items: Sequence[Item] = batch
            if shorten is not None:
                items = [kept for item in batch for kept in shorten.feed(item)]
            if types:
                items = [item for item in items if isinstance(item, Notice) or item.type in types]
            if items:
                yield items
            seen = seen or any(isinstance(item, Event) for item in batch)
            nothing = not seen and any(item.type == "caught_up" for item in batch)
            if nothing and (said := await _forgotten(mesh, address, start)):
                yield said
                break
            if latest and any(
                item.type == "ended" and item.data.get("run", 0) >= latest.run for item in batch
            ):
                break
        if shorten is not None and (rest := shorten.flush()):
            yield rest


async def _forgotten(mesh: Mesh, address: Address, start: Start) -> Sequence[Notice]:
    """What is left to say of a run that has ended and whose whole log was trimmed since: what is gone, and its end."""
    history = History(mesh.connection, mesh.names.event_stream)
    if await insist(lambda: history.last_from_leader(mesh.names.events(address))):
        return ()
    claims = Bucket(mesh.connection, mesh.names.claims)
    claim, _ = await insist(lambda: read_claim(claims, address))
    record = await insist(lambda: mesh.registry.get(address))
    if claim is None or record is None or not record.ended or start.run not in (None, record.run):
        return ()
    last, first = int(claim.extra.get("last", 0)), start.cursor.offset + 1 if start.cursor else 1
    end = {"run": record.run, "status": record.state, "code": record.code}
    gap = [Notice("gap", {"from": first, "to": last}, address)] if last >= first else []
    return [*gap, Notice("ended", end, address)]


def tail_many(
    mesh: Mesh,
    patterns: Sequence[str],
    *,
    kind: str | None,
    follow: bool,
    n: int | None,
    since: float | None,
    types: Collection[str],
    compact: bool,
) -> Tail:
    """See `Mesh.tail`."""
    start = _start(None, n, since, None)
    wanted = _Selection(mesh, patterns, kind)

    def read(address: Address, start: Start, straight: Straight) -> AsyncIterator[Sequence[Item]]:
        return _read(mesh, address, start, follow, compact, types, straight)

    return Tail(mesh.io, lambda: _merge(mesh, wanted, read, start, follow))


async def any_match(mesh: Mesh, patterns: Sequence[str], kind: str | None) -> bool:
    """Whether something runs now that `tail_many` would show. Raises: NotAllowed, Closed."""
    running = await mesh.io.call(insist(lambda: mesh.registry.list()))
    return any(map(_Selection(mesh, patterns, kind).takes, running))


class _Selection:
    """Which processes are meant: some by id, some by pattern."""

    def __init__(self, mesh: Mesh, patterns: Sequence[str], kind: str | None) -> None:
        self.named = [mesh.address(text) for text in patterns if not is_pattern(text)]
        self.kind = kind
        self.patterns: list[tuple[str, str]] = []
        for text in patterns or ("*",):
            if is_pattern(text):
                namespace, slash, id_pattern = text.rpartition("/")
                space = (
                    (namespace if namespace == "*" else check_name(namespace, "namespace")) if slash else ""
                )
                self.patterns.append((space or mesh.namespace, check_pattern(id_pattern)))

    def takes(self, record: Record) -> bool:
        address = record.address
        return (self.kind is None or record.kind == self.kind) and any(
            fnmatchcase(address.namespace, namespace) and fnmatchcase(address.id, pattern)
            for namespace, pattern in self.patterns
        )


async def _merge(
    mesh: Mesh,
    wanted: _Selection,
    read: Callable[[Address, Start, Straight], AsyncIterator[Sequence[Item]]],
    start: Start,
    live: bool,
) -> AsyncIterator[Sequence[Item]]:
    merged: Handoff[Sequence[Item]] = Handoff(BATCHES)
    tasks: set[asyncio.Task[None]] = set()
    followed: set[Address] = set()
    newest: dict[Address, int] = {}  # run that the registry has told of
    shown: dict[Address, int] = {}  # run that was shown to its end

    def spawn(work: Coroutine[None, None, None]) -> None:
        tasks.add(task := asyncio.create_task(work))
        task.add_done_callback(finished)

    def finished(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            merged.close(error)
        elif not tasks:
            merged.close()

    def begin(address: Address, run: int = 1) -> None:
        newest[address] = max(run, newest.get(address, 0))
        if address not in followed and newest[address] > shown.get(address, 0):
            followed.add(address)
            spawn(forward(address))

    async def forward(address: Address) -> None:
        while newest[address] > (last := shown.get(address, 0)):
            source = read(address, Start("run", run=last + 1) if last else start, merged.offer)
            async with aclosing(source):  # type: ignore[type-var]
                async for batch in source:
                    merged.put(batch)
                    await merged.room()
                    for item in batch:
                        if item.type == "ended":
                            shown[address] = item.data["run"]
            if not live:
                break
        followed.discard(address)

    async def discover() -> None:
        if live:
            async for _, record in mesh.registry.watch(present=True):
                if record is not None and wanted.takes(record):
                    begin(record.address, record.run)
        else:
            for record in await mesh.registry.list(ended=True):
                if wanted.takes(record):
                    begin(record.address)

    try:
        for address in wanted.named:
            begin(address)
        if wanted.patterns:
            spawn(discover())
        while True:
            try:
                yield await merged.take()
            except Handoff.Done:
                return
    finally:
        for task in tasks:
            task.cancel()
