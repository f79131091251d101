"""What a stream has stored: bounded reads of a subject, single entries, and the search for an offset.

Short reads are direct gets in chunks, long ones an ephemeral consumer (`bulk.py`). A read gives every entry up
to where it was asked for, in order, or raises ReadFailed: never less in silence. Protocol: section 2.2.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    aclosing,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from typing import Any, NamedTuple, TypeVar

from nats.aio.msg import Msg

from natsproc.errors import NoServer, NotAllowed, ServerUnfit, TimedOut
from natsproc.protocol.bundle import BUNDLE, StoredEntry, unbundle
from natsproc.protocol.messages import Entry, encode
from natsproc.protocol.names import new_token, node_inbox
from natsproc.protocol.records import Cut

from .bulk import PATIENCE, Answered, Bulk, ReadFailed, new, parse_header_block
from .connection import ApiError, Connection, NoResponders
from .joint import Joint, another

__all__ = ["History", "ReadFailed", "StoredEntry", "shared"]

T = TypeVar("T")

_FEW = 32  # entries in the first direct get of a read: somebody waits for the first of them
_AHEAD = 8  # entries that are fetched before it is known whether they are wanted
_CHUNK = 1000  # entries in each other one, or in one list given to a reader
_CHUNK_BYTES = 4 * 1024 * 1024  # well below what a server keeps pending before it cuts a client off
_SUBJECTS = 1000  # the server takes 1,024 in one request
_NO_MESSAGE = 10037
_UNAVAILABLE = 503
_FIELD = re.compile(rb"\r\n([^:\r]+): ([^\r]*)")
_SAID = (b"Nats-Subject", b"Nats-Sequence", b"Nats-Time-Stamp", b"Nats-Last-Sequence")
_PLAIN = re.compile(  # as nats-server answers of an entry without headers
    rb"NATS/1\.0\r\nNats-Stream: [^\r\n]*\r\nNats-Subject: ([^\r\n]*)\r\nNats-Sequence: (\d+)\r\n"
    rb"Nats-Time-Stamp: ([^\r\n]*)\r\nNats-Num-Pending: \d+\r\nNats-Last-Sequence: (\d+)\r\n\r\n"
)


def entry_of(msg: Msg) -> StoredEntry | None:
    """A direct get's reply; None if it is a status. A sender's own `Status` header fools nobody."""
    headers: Mapping[str, str] = msg.headers or {}
    if "Nats-Sequence" not in headers:
        return None
    position, time = int(headers["Nats-Sequence"]), headers["Nats-Time-Stamp"]
    return StoredEntry(position, msg.data, time, headers["Nats-Subject"], headers)


def _entries_of(msg: Msg) -> tuple[int, list[StoredEntry]]:
    """What an answer to a read of many has, and which entry that comes after; nothing if it is a status."""
    headers: Mapping[str, str] = msg.headers or {}
    if entry := entry_of(msg):
        return int(headers["Nats-Last-Sequence"]), [entry]
    if BUNDLE in headers:
        return unbundle(msg.data)
    return int(headers.get("Nats-Last-Sequence", 0)), []


def _said_of(block: bytes) -> Sequence[bytes] | None:
    """Subject, position, time, and the position before it among the answers; None if it is a status."""
    if plain := _PLAIN.fullmatch(block):
        return plain.groups()
    fields = dict(_FIELD.findall(block))  # what the server says itself comes last
    return [fields[name] for name in _SAID] if b"Nats-Sequence" in fields else None


@contextmanager
def read_failures() -> Iterator[None]:
    """Whatever passes by itself, as a lost connection or a missing leader, is a ReadFailed."""
    try:
        yield
    except (NoServer, ServerUnfit, TimedOut, NoResponders) as error:  # unfit: JetStream is not up again yet
        raise ReadFailed(f"the log could not be read: {error}") from error
    except ApiError as error:
        if error.code != _UNAVAILABLE:
            raise
        raise ReadFailed(f"the log could not be read: {error}") from error


class Ahead(NamedTuple):
    """The first entries of a read that is about to be made; `History.ahead` begins to fetch them."""

    after: int
    fetching: asyncio.Future[tuple[list[StoredEntry], int]]


def shared(make: Callable[[Connection, str], T], connection: Connection, name: str) -> T:
    """What `make` makes of a stream's or bucket's name, once for all on the connection: it has nothing of its users."""
    kept = connection.shared
    if (make, name) not in kept:
        kept[make, name] = make(connection, name)
    found: T = kept[make, name]
    return found


class History:
    """Reads of one stream. Direct gets may be answered by a replica that is a little behind its leader."""

    def __init__(self, connection: Connection, stream: str) -> None:
        self.connection = connection
        self.stream = stream
        self._direct = connection.api_subject(f"DIRECT.GET.{stream}")
        self._joint = Joint.of(connection)

    async def last(self, subject: str) -> StoredEntry | None:
        """Return a subject's last entry. Raises: what `Connection.request` raises."""
        return await self._ask(f"{self._direct}.{subject}")

    async def first(self, subject: str, at: int = 1) -> StoredEntry | None:
        """Return a subject's first entry at or behind position `at`. Raises: as `last`."""
        return await self._get({"seq": max(at, 1), "next_by_subj": subject})

    async def since(self, subject: str, time: str) -> StoredEntry | None:
        """Return a subject's first entry at or after a time of the server's clock. Raises: as `last`."""
        return await self._get({"start_time": time, "next_by_subj": subject})

    async def _get(self, body: dict[str, Any]) -> StoredEntry | None:
        return await self._ask(self._direct, encode(body))

    async def _ask(self, subject: str, body: bytes = b"") -> StoredEntry | None:
        async with self.there():
            return entry_of(await self.connection.request(subject, body, node=True))

    async def last_of(
        self, subjects: Sequence[str], *, turn: AbstractAsyncContextManager[Any] | None = None
    ) -> dict[str, StoredEntry]:
        """Return the last entries of many literal subjects, a thousand a request, which take turns with long reads.

        They have a `turn` of their own if one is given. Raises: ReadFailed.
        """
        found: dict[str, StoredEntry] = {}
        read = self._batch if self.connection.gated else self._batch_in_lists

        async def add(some: Sequence[str]) -> None:
            body = {"multi_last": list(some), "max_bytes": _CHUNK_BYTES}
            pending, behind = 1, 0
            while pending:
                async with turn or self.connection.reads:
                    entries, pending = await read(body | {"seq": behind + 1} if behind else body)
                found.update((entry.subject, entry) for entry in entries)
                behind = entries[-1].position if entries else 0

        starts = range(0, len(subjects), _SUBJECTS)
        await asyncio.gather(*(add(subjects[start : start + _SUBJECTS]) for start in starts))
        return found

    async def end_of(self, subject: str) -> int:
        """Return the position of a subject's last entry, 0 if there is none; whoever asks at the same time asks along.

        Raises: what `last` and `last_of` raise.
        """
        ends = await self._joint.ask_about(("ends", self.stream), subject, self._ask_ends)
        found = ends.get(subject, 0)
        if isinstance(found, BaseException):
            raise another(found)
        return found

    async def _ask_ends(self, subjects: Sequence[str]) -> dict[str, int | BaseException]:
        if len(subjects) > 1:
            with suppress(NotAllowed):  # where they are granted one by one
                # at once: a tail that waits for this shows nothing meanwhile, and long reads may take seconds
                last = await self.last_of(subjects, turn=nullcontext())
                return {subject: entry.position for subject, entry in last.items()}
        found = await asyncio.gather(*map(self.last, subjects), return_exceptions=True)
        return {
            subject: last.position if isinstance(last, StoredEntry) else last
            for subject, last in zip(subjects, found, strict=True)
            if last is not None
        }

    async def last_from_leader(self, subject: str) -> StoredEntry | None:
        """Return what was stored last for anybody, not what a replica knows; wildcards may be used.

        Raises: ApiError, and what `Connection.request` raises.
        """
        return await self._leader_get({"last_by_subj": subject})

    def end_from_leader(self, subject: str) -> asyncio.Future[StoredEntry | None]:
        """As `last_from_leader`; whoever asks at the same time asks along."""
        return self._joint.ask(("last", self.stream, subject), lambda: self.last_from_leader(subject))

    async def first_from_leader(self, subject: str, at: int = 1) -> StoredEntry | None:
        """Return the first entry at or behind position `at`, as the leader has it. Raises: as the last one."""
        return await self._leader_get({"seq": max(at, 1), "next_by_subj": subject})

    async def _leader_get(self, body: dict[str, Any]) -> StoredEntry | None:
        try:
            message = (await self.connection.api(f"STREAM.MSG.GET.{self.stream}", body))["message"]
        except ApiError as error:
            if error.err_code == _NO_MESSAGE:
                return None
            raise
        payload, block = (base64.b64decode(message.get(name, "")) for name in ("data", "hdrs"))
        headers = parse_header_block(block)
        return StoredEntry(message["seq"], payload, message["time"], message["subject"], headers)

    async def now(self) -> str:
        """Return the server's clock, RFC 3339. Raises: NoMesh, if there is no such stream; as `Connection.api`."""
        return str((await self.connection.api(f"STREAM.INFO.{self.stream}"))["ts"])

    @asynccontextmanager
    async def there(self) -> AsyncIterator[None]:
        """Nobody listens inside, or there is no such stream: then that is what is raised (NoMesh)."""
        try:
            yield
        except NoResponders:
            await self.now()
            raise

    def ahead(self, subject: str, after: int) -> Ahead:
        """Begin to fetch what lies behind position `after`, for a `read` from there or further down."""
        return Ahead(after, self._fetch(subject, after, _AHEAD))

    async def read(
        self, subject: str, after: int = 0, upto: int | None = None, *, ahead: Ahead | None = None
    ) -> AsyncGenerator[list[StoredEntry], None]:
        """Give a subject's entries behind position `after` up to `upto`, in order and complete, in lists.

        Without `upto` it goes up to the last entry at the time of the call. It waits for a connection, and two
        reads fetch at once per connection; memory stays bounded however slowly the lists are taken.
        Raises: ReadFailed, if the connection is lost, an entry is lost on the way, or nothing moves for five
        seconds; NotAllowed, Closed.
        """
        await self.connection.wait_connected()
        if upto is None:
            with read_failures():
                last = await self.end_from_leader(subject)
            upto = last.position if last else 0
        async with aclosing(self._lists(subject, after, upto, ahead)) as lists:
            async for entries in lists:
                wanted = entries
                if entries and entries[-1].position > upto:
                    wanted = [entry for entry in entries if entry.position <= upto]
                if wanted:
                    after = wanted[-1].position
                    yield wanted
                if len(wanted) < len(entries):
                    return
        if after < upto:
            await self._make_sure(subject, after, upto)

    async def _lists(
        self, subject: str, after: int, upto: int, ahead: Ahead | None = None
    ) -> AsyncGenerator[list[StoredEntry], None]:
        """As `read`, as some replica has it, and maybe beyond. One list is fetched while another is dealt with."""
        long = False
        if ahead:
            known, pending = await self._behind(ahead, after)
            if known:
                after, long = known[-1].position, self._is_long(pending)
                yield known
        fetching = self._fetch(subject, after, _FEW) if after < upto and not long else None
        try:
            while fetching:
                entries, pending = await fetching
                after = entries[-1].position if entries else upto
                long = self._is_long(pending)
                more = pending and after < upto and not long
                fetching = self._fetch(subject, after, _CHUNK) if more else None
                yield entries
        finally:
            if fetching:
                fetching.cancel()
        if long and after < upto:
            async with aclosing(self._bulk(subject, after, upto)) as bulk:
                async for entries in bulk:
                    yield entries

    def _is_long(self, pending: int) -> bool:
        """Whether so many more entries are better read by a consumer."""
        return pending > _CHUNK and not self.connection.gated

    async def _behind(self, ahead: Ahead, after: int) -> tuple[list[StoredEntry], int]:
        """What was fetched ahead of what lies behind position `after`, and how much more there is."""
        if after < ahead.after:
            return [], 0
        entries, pending = await ahead.fetching
        return [entry for entry in entries if entry.position > after], pending

    def _fetch(self, subject: str, after: int, most: int) -> asyncio.Future[tuple[list[StoredEntry], int]]:
        body = {"seq": after + 1, "next_by_subj": subject, "batch": most, "max_bytes": _CHUNK_BYTES}
        question = ("read", self.stream, subject, after, most)
        return self._joint.ask(question, lambda: self._batch(body), self.connection.reads)

    async def _bulk(self, subject: str, after: int, upto: int) -> AsyncGenerator[list[StoredEntry], None]:
        with read_failures():
            async with Bulk(self.connection, self.stream, subject, after, upto) as bulk:
                while True:
                    async with self.connection.reads:
                        entries = await bulk.next()
                    if not entries:
                        return
                    for start in range(0, len(entries), _CHUNK):
                        yield entries[start : start + _CHUNK]

    async def _make_sure(self, subject: str, after: int, upto: int) -> None:
        """A replica knew of no more entries: ask the leader, who knows whether there are any up to `upto`."""
        with read_failures():
            missing = await self.first_from_leader(subject, after + 1)
        if missing and missing.position <= upto:
            raise ReadFailed(f"{self.stream}: a replica is behind and lacks position {missing.position}")

    async def _batch(self, body: dict[str, Any]) -> tuple[list[StoredEntry], int]:
        """Make one direct get of many entries; also return how many more there are. Raises: ReadFailed."""
        entries: list[StoredEntry] = []
        with read_failures():
            async with self.connection.replies(self._direct, node=True) as (reply, queue):
                await self.connection.publish(self._direct, encode(body), reply=reply)
                while True:
                    item = await self._next_reply(queue)
                    after, found = _entries_of(item)
                    if not found:
                        return self._over(entries, item.headers or {})
                    self._insist_on(after, entries)
                    entries += found

    async def _batch_in_lists(self, body: dict[str, Any]) -> tuple[list[StoredEntry], int]:
        """As `_batch`, where no gate is asked: by a subscription of its own, which makes an entry cheap."""
        entries: list[StoredEntry] = []
        with read_failures():
            async with self._lists_of_answers() as (reply, lists):
                await self.connection.publish(self._direct, encode(body), reply=reply)
                while True:
                    for _, _, payload, block in await self._next_reply(lists):
                        if (said := _said_of(block)) is None:
                            return self._over(entries, await self._status(block))
                        subject, position, time, previous = said
                        self._insist_on(int(previous), entries)
                        entries.append(new(Answered, (int(position), payload, time, subject, block)))

    @asynccontextmanager
    async def _lists_of_answers(self) -> AsyncIterator[tuple[str, Any]]:
        """Give a reply subject, and a queue of lists of what arrives there, or of why nothing will."""
        connection, reply = self.connection, f"{node_inbox(self.connection.sender)}.{new_token()}"
        async with connection.replies(self._direct, node=True) as (_, queue):
            lists: Any = queue
            subscription = await connection.nc.listen_in_lists(reply, lists.put_nowait)
            try:
                yield reply, lists
            finally:
                await connection.unsubscribe(subscription)

    async def _status(self, block: bytes) -> Mapping[str, str]:
        """The headers of a message that is no entry, with what nats-py makes of their first line."""
        line, _, _ = block.decode("utf-8", "replace").partition("\r\n")
        _, status, description = f"{line}  ".split(" ", 2)
        if status == "503":
            async with self.there():
                raise NoResponders(f"nobody listens on {self._direct}")
        return parse_header_block(block) | {"Status": status, "Description": description.strip()}

    def _over(self, entries: list[StoredEntry], headers: Mapping[str, str]) -> tuple[list[StoredEntry], int]:
        """What a batch has given that ends with this status. Raises: ReadFailed."""
        if (status := headers.get("Status")) == "404":
            return [], 0
        if status != "204":
            raise ReadFailed(f"{self.stream}: {headers.get('Description', 'not understood')}")
        self._insist_on(int(headers.get("Nats-Last-Sequence", 0)), entries)
        return entries, int(headers["Nats-Num-Pending"])

    def _insist_on(self, after: int, entries: list[StoredEntry]) -> None:
        """Make sure that what comes after that position comes after these entries. Raises: ReadFailed."""
        if after != (entries[-1].position if entries else 0):
            raise ReadFailed(f"{self.stream}: an entry was lost on the way")

    async def _next_reply(self, queue: asyncio.Queue[T | Exception]) -> T:
        if queue.empty():
            try:
                async with asyncio.timeout(PATIENCE):
                    item = await queue.get()
            except TimeoutError:
                raise ReadFailed(f"{self.stream}: nothing came for {PATIENCE:g} s") from None
        else:
            item = queue.get_nowait()
        if isinstance(item, Exception):
            async with self.there():
                raise item
        return item

    async def find_offset(self, subject: str, offset: int, cuts: Sequence[Cut]) -> int:
        """Return the position of the entry before `offset`, by binary search among the entries of its epoch.

        The answer is 0 if the log has to be read from its first entry, and the epoch's last event if it has
        not come as far as `offset`. Void entries and repeats only cost time. Raises: as `last`, ReadFailed.
        """
        index = max((i for i, cut in enumerate(cuts) if cut.offset <= offset), default=None)
        if index is None:
            return 0
        cut = cuts[index]
        low = cut.position
        if offset == cut.offset:
            return low
        if index + 1 < len(cuts):
            high = cuts[index + 1].position
        else:
            last = await self.last(subject)
            high = last.position + 1 if last else 0
        return await self.find_before(subject, cut.epoch, offset, low, high)

    async def find_before(self, subject: str, epoch: int, offset: int, low: int, high: int) -> int:
        """Return the position of the last event of an epoch that has a lower offset, in (low, high); else `low`.

        Void entries only cost time; where there are repeats it is some event with a lower offset, with the next or a
        copy of it behind it. Raises: as `first`, ReadFailed.
        """
        while high - low > 1:
            middle = (low + high) // 2
            position, found = await self._event_of(subject, epoch, middle, high)
            if found and found < offset:
                low = position
            else:
                high = middle
        return low

    async def _event_of(self, subject: str, epoch: int, start: int, end: int) -> tuple[int, int]:
        """Position and offset of the first event of that epoch in [start, end); zeros if there is none."""
        first = await self.first(subject, start)
        entries = [first] if first else []
        while entries:
            for stored in entries:
                if stored.position >= end:
                    return 0, 0
                entry = Entry.parse(stored.payload)
                if entry.epoch == epoch and entry.offset:
                    return stored.position, entry.offset
            body = {"seq": entries[-1].position + 1, "next_by_subj": subject}
            entries, _ = await self._batch(body | {"batch": _CHUNK, "max_bytes": _CHUNK_BYTES})
        return 0, 0
