"""Many entries in one message of a gate's answer, and an answer that is too large for one. Protocol: section 9.

A bundle is a JSON object in one line, and the entries' payloads one behind the other. It says which entry of the same
answer it comes after, so that one that is lost on the way is noticed, as with single entries. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from natsproc.errors import BadPayload

from .messages import decode_object, encode

BUNDLE = "Natsproc-Bundle"  #: a header: of a question that takes bundles and parts, and of an answer that is a bundle
PART = "Natsproc-Part"  #: a header of a part of an answer: which, and of how many
MORE = ("KV-Operation", "Nats-Marker-Reason", "Nats-TTL")  #: headers of an entry that readers want to know


class StoredEntry(NamedTuple):
    """One message of a stream."""

    position: int
    payload: bytes
    time: str  #: the server's clock, RFC 3339
    subject: str
    headers: Mapping[str, str] | None = None


class Bundle:
    """Entries that are being bundled: never more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begin(0)

    def _begin(self, after: int) -> None:
        self._after = self._position = after
        self._subject = ""
        self._rows: list[bytes] = []
        self._payloads: list[bytes] = []
        self._size = 64  # of what is around the rows

    def add(self, entry: StoredEntry, after: int) -> bool:
        """Take an entry that comes after that position; False if it does not fit, and `take` has to be called first."""
        if not self._rows:
            self._begin(after)
        row = [entry.position, entry.time, len(entry.payload)]
        more = {name: entry.headers[name] for name in MORE if name in entry.headers} if entry.headers else {}
        if more or entry.subject != self._subject:
            row += [entry.subject, more] if more else [entry.subject]
        written = encode(row)
        size = self._size + len(written) + 1 + len(entry.payload)
        if after != self._position or size > self._limit:
            return False
        self._rows.append(written)
        self._payloads.append(entry.payload)
        self._position, self._subject, self._size = entry.position, entry.subject, size
        return True

    def take(self) -> bytes:
        """Give what there is as the payload of a message, and begin anew; nothing if there is nothing."""
        if not self._rows:
            return b""
        head = b'{"after":%d,"entries":[%b]}\n' % (self._after, b",".join(self._rows))
        payload = head + b"".join(self._payloads)
        self._begin(0)
        return payload


def unbundle(payload: bytes) -> tuple[int, list[StoredEntry]]:
    """Read a bundle: the position that it comes after, and its entries. Raises: BadPayload."""
    line, _, rest = payload.partition(b"\n")
    head = decode_object(line, "bundle")
    entries: list[StoredEntry] = []
    after, start, subject = head.get("after"), 0, ""
    try:
        before = after
        for position, time, size, *more in head["entries"]:
            if more:
                subject = more[0]
            headers: dict[str, str] | None = more[1] if len(more) > 1 else None
            known = type(position) is type(size) is int and type(time) is type(subject) is str
            if not (
                known and position > before and size >= 0 and subject and isinstance(headers or {}, dict)
            ):
                raise BadPayload(f"a bundle has an entry that is none: {position!r}")
            entries.append(StoredEntry(position, rest[start : start + size], time, subject, headers))
            before, start = position, start + size
    except (KeyError, TypeError, ValueError) as error:
        raise BadPayload(f"that is no bundle: {error!r}") from None
    if type(after) is not int or start != len(rest) or not entries:
        raise BadPayload("a bundle has more or less than it says")
    return after, entries


def in_parts(payload: bytes, limit: int) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Give what goes in messages of `limit` bytes, and the header that each has: none, if one is enough."""
    count = max(1, -(-len(payload) // limit))
    for number in range(count):
        header = {PART: f"{number + 1}/{count}"} if count > 1 else {}
        yield payload[number * limit : (number + 1) * limit], header


class Parts:
    """Puts an answer together again."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def join(self, part: str, payload: bytes) -> bytes | None:
        """Take the next part; gives the whole with the last one. Raises: BadPayload, if one is missing."""
        self._parts.append(payload)
        number, _, count = part.partition("/")
        if number != str(len(self._parts)):
            raise BadPayload(f"part {number} of {count} came as the {len(self._parts)}th")
        if number != count:
            return None
        whole, self._parts = b"".join(self._parts), []
        return whole
