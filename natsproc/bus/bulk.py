"""A bounded read of many stored entries through one ephemeral consumer. Protocol: section 7.

Own deliver subject, no acknowledgements, flow control and heartbeats: without flow control the server cuts a
slow reader off. nats-py's ordered consumer is not used: it loses entries when slow and restarts from the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

from nats.aio.subscription import Subscription

from natsproc.errors import Error
from natsproc.protocol.bundle import StoredEntry
from natsproc.protocol.names import new_token, node_inbox

from .connection import Connection, Headers
from .parsing import Raw

PATIENCE = 5.0  #: seconds without any progress after which a read is given up
_HEARTBEAT = 500_000_000
_FORGET_AFTER = 5_000_000_000


class ReadFailed(Error):
    """A read of stored entries broke off. What it gave holds; begin anew behind the last entry."""


@lru_cache
def _second(seconds: str) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%S")


def parse_header_block(block: bytes) -> Headers:
    """Read a header block as it is on the wire, and as `STREAM.MSG.GET` returns it."""
    lines = (line.partition(":") for line in block.decode("utf-8", "replace").split("\r\n")[1:])
    return {name.strip(): value.strip() for name, colon, value in lines if colon}


class Answered(StoredEntry):
    """An entry as a direct get answers it: what few readers want to know is read when they ask for it."""

    __slots__ = ()

    @property
    def time(self) -> str:
        raw: Any = self[2]
        return str(raw, "ascii")

    @property
    def subject(self) -> str:
        raw: Any = self[3]
        return str(raw, "utf-8", "replace")

    @property
    def headers(self) -> Headers | None:
        raw: Any = self[4]
        return parse_header_block(raw) if raw else None


class _Delivered(Answered):
    """An entry as a consumer delivers it."""

    __slots__ = ()

    @property
    def time(self) -> str:
        nanoseconds = super().time
        return f"{_second(nanoseconds[:-9])}.{nanoseconds[-9:]}Z"


new = tuple.__new__


class Bulk:
    """An ephemeral consumer, read up to a position; used with `async with`.

    The server sends at most one window of flow control (2 MB, growing to 32 MB) ahead of what was taken.
    """

    def __init__(self, connection: Connection, stream: str, subject: str, after: int, upto: int) -> None:
        self._connection = connection
        self._stream = stream
        self._subject, self._upto = subject, upto
        self._name = f"natsproc-{new_token()}"
        self._config = {
            "name": self._name,
            "deliver_subject": f"{node_inbox(connection.sender)}.{new_token()}",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after + 1,
            "filter_subject": self._subject,
            "ack_policy": "none",
            "max_deliver": 1,
            "flow_control": True,
            "idle_heartbeat": _HEARTBEAT,
            "inactive_threshold": _FORGET_AFTER,
            "mem_storage": True,
            "num_replicas": 1,
        }
        self._subscription: Subscription | None = None
        self._created: asyncio.Future[dict[str, Any]] | None = None
        self._entries: list[StoredEntry] = []
        self._number = 0  # of the last message that this consumer delivered
        self._flow = ""  # a flow-control request that came behind `_entries`
        self._due = ""  # one whose entries have been given out
        self._done = False
        self._failure = ""
        self._heard = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._forget = self._connection.on_disconnect(lambda: self._fail("the connection was lost"))
        try:
            deliver = str(self._config["deliver_subject"])
            self._subscription = await self._connection.nc.listen_in_lists(deliver, self._take)
            self._listen_by(self._subscription)
            body = {"stream_name": self._stream, "config": self._config}
            call = f"CONSUMER.CREATE.{self._stream}.{self._name}"
            self._created = asyncio.ensure_future(self._connection.api(call, body))
            await asyncio.shield(self._created)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    def _listen_by(self, subscription: Any) -> None:
        """Have that subscription read what comes, as long as each line begins as those of this consumer's entries do."""
        reply = f"$JS.ACK.{self._stream}.{self._name}.1."
        self._stem = f"MSG {self._subject} {subscription._id} {reply}".encode()
        subscription.read = self._read

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forget()
        if self._subscription:
            await self._connection.unsubscribe(self._subscription)
        if self._created and self._created.done():
            await self._delete()
        elif self._created:  # the server would look for it before it has made it
            self._created.add_done_callback(self._on_created_late)

    def _on_created_late(self, created: asyncio.Future[dict[str, Any]]) -> None:
        if not created.cancelled() and created.exception() is None:
            asyncio.ensure_future(self._delete())

    async def _delete(self) -> None:
        """Nobody waits for the answer: the server forgets a consumer that nobody hears by itself."""
        subject = self._connection.api_subject(f"CONSUMER.DELETE.{self._stream}.{self._name}")
        with suppress(Error):
            await self._connection.publish(subject, b"")

    async def next(self) -> list[StoredEntry]:
        """Return the entries that came since, at least one, or none once `upto` is reached.

        Asking again means that the entries before have been dealt with. Raises: ReadFailed.
        """
        await self._answer(self._due)
        self._due = ""
        while not self._entries:
            if self._failure:
                raise ReadFailed(f"{self._stream}: {self._failure}")
            if self._done:
                return []
            await self._answer(self._flow)
            self._flow = ""
            self._heard.clear()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._heard.wait()
            except TimeoutError:
                self._fail(f"the server sent nothing for {PATIENCE:g} s")
        taken, self._entries = self._entries, []
        self._due, self._flow = self._flow, ""
        return taken

    async def _answer(self, flow: str) -> None:
        if flow and not self._failure:
            await self._connection.publish(flow, b"")

    def _fail(self, why: str) -> None:
        self._failure = self._failure or why
        self._heard.set()

    def _read(self, data: bytes, start: int) -> tuple[int, int]:
        """Take what comes next as long as it is entries that simply follow: as `_take`, which gets the rest, at half the price."""
        last, upto, entries = self._number, self._upto, self._entries
        stem, length, subject, whole = self._stem, len(self._stem), self._subject.encode(), len(data) - 2
        more = not (self._done or self._failure)
        with suppress(ValueError):  # something else
            while more and data[start : (head := start + length)] == stem:
                if (end := data.find(b"\r\n", head)) < 0:
                    break
                there, number, time, rest = data[head:end].split(b".")
                _, size = rest.split(b" ")
                if not size.isdigit():
                    break
                text, position = end + 2, int(there)
                after = text + int(size)
                if after > whole or position >= upto or int(number) != last + 1:
                    break
                entries.append(new(_Delivered, (position, data[text:after], time, subject, b"")))
                start, last = after + 2, last + 1
        if count := last - self._number:
            self._number = last
            self._heard.set()
        return start, count

    def _take(self, messages: Sequence[Raw]) -> None:
        last, upto, entries = self._number, self._upto, self._entries
        for subject, reply, payload, block in messages:
            if self._done or self._failure:
                break
            if not reply.startswith(b"$JS.ACK."):
                self._take_status(reply.decode(), parse_header_block(block))
                continue
            # $JS.ACK.stream.consumer.deliveries.position.number.time.pending; the newer form has the domain and
            # the account before the stream, and a token at the end
            tokens = reply.split(b".")
            there, number, time = tokens[5:8] if len(tokens) < 11 else tokens[7:10]
            if int(number) != last + 1:
                self._fail(f"entries were lost on the way (the {int(number)}th came after the {last}th)")
                break
            self._number = last = last + 1
            position = int(there)
            if position <= upto:
                entries.append(new(_Delivered, (position, payload, time, subject, block)))
            if position >= upto:
                self._done = True
        self._heard.set()

    def _take_status(self, reply: str, headers: Mapping[str, str]) -> None:
        if reply:
            self._flow = reply
        elif last := headers.get("Nats-Last-Consumer"):
            if int(last) != self._number:
                self._fail(f"entries were lost on the way ({last} sent, {self._number} came)")
            elif stalled := headers.get("Nats-Consumer-Stalled"):
                self._flow = stalled
            else:  # idle: whatever it has passed by is gone from the stream
                self._done = int(headers["Nats-Last-Stream"]) >= self._upto
