"""Buckets: key-value records on raw JetStream, with compare-and-set and expiry (ADR-8). Protocol: section 7.

nats-py's own key-value store can't renew with a TTL, and its watchers miss an expiry after a server restart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from natsproc.errors import Error

from .connection import ApiError, Connection, Headers
from .history import History, StoredEntry

_WRONG_LAST_SEQUENCE = 10071
_PASSES = 10
_OPERATION = "KV-Operation"
_REASON = "Nats-Marker-Reason"
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_MARKERS = {"DEL": "deleted", "PURGE": "purged", "MaxAge": "expired", "Remove": "deleted", "Purge": "purged"}


class Conflict(Error):
    """Somebody else changed the key first: nothing was written. Read it again and decide anew."""


class Value(NamedTuple):
    """What a key holds."""

    payload: bytes
    revision: int
    stamp: str  #: the server's time of the write, RFC 3339


def marker_of(headers: Mapping[str, str]) -> str:
    """What the headers say has become of the key: `deleted`, `purged`, `expired`, or "" for a value."""
    return _MARKERS.get(headers.get(_REASON) or headers.get(_OPERATION) or "", "")


def _expiring(ttl: int | None) -> Headers:
    return {"Nats-TTL": str(ttl)} if ttl else {}


def _gone(entry: StoredEntry) -> bool:
    return not entry.payload and bool(marker_of(entry.headers or {}))  # a marker has no payload (ADR-8)


def _value(entry: StoredEntry) -> Value | None:
    """What a key holds after this write; None if it is gone."""
    return None if _gone(entry) else Value(entry.payload, entry.position, entry.time)


async def purge(connection: Connection, stream: str, subject: str, upto: int) -> None:
    """Remove what a stream has of a subject, wildcards included, up to a position. Raises: as `Connection.api`."""
    if upto:
        await connection.api(f"STREAM.PURGE.{stream}", {"filter": subject, "seq": upto + 1}, timeout=30)


class Bucket:
    """One bucket. A revision is the position of the write in the bucket's stream: it only ever rises."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self.name = name
        self._history = History(connection, f"KV_{name}")

    def subject(self, key: str) -> str:
        return f"$KV.{self.name}.{key}"

    async def get(self, key: str, *, leader: bool = False) -> Value | None:
        """Return what a key holds, or None.

        With `leader` it is what was last acknowledged to anybody; without, a replica may answer with less,
        but faster. Raises: what `Connection.request` raises.
        """
        read = self._history.last_from_leader if leader else self._history.last
        entry = await read(self.subject(key))
        return _value(entry) if entry else None

    async def all(
        self, filter: str = ">", read: Callable[[str, StoredEntry], Any] = lambda key, entry: entry
    ) -> dict[str, Any]:
        """Return what every key holds that the subject filter matches, as `default.*`; 200,000 keys are fine.

        `read` makes something else of a key and its entry, while the server sends the next ones.
        A key that holds something all the while is always in it. Raises: ReadFailed, NotAllowed.
        """
        values: dict[str, Any] = {}
        behind, start = 0, len(self.subject(""))
        # A key that is written while it is read moves to the end, so go on until the end stays where it is.
        # Each pass is the shorter for the one before; a key that escapes them all is written every millisecond.
        for _ in range(_PASSES):
            last = await self._history.last_from_leader(self.subject(filter))
            if last is None or last.position <= behind:
                break
            async for entries in self._history.read(self.subject(filter), behind, last.position):
                for entry in entries:
                    key = entry.subject[start:]
                    if _gone(entry):
                        values.pop(key, None)
                    else:
                        values[key] = read(key, entry)
            behind = last.position
        return values

    async def last(self, key: str) -> tuple[int, bool]:
        """Return the revision of the last write to a key (0: none), and whether it holds a value. As `get`."""
        entry = await self._history.last_from_leader(self.subject(key))
        return (entry.position, _value(entry) is not None) if entry else (0, False)

    async def put(self, key: str, value: bytes, ttl: int | None = None) -> int:
        """Write unconditionally and return the revision; `ttl` is in whole seconds, at least 1.

        Raises: what `Connection.store` raises.
        """
        return await self._store(key, value, _expiring(ttl))

    async def update(self, key: str, value: bytes, revision: int, ttl: int | None = None) -> int:
        """Write if the key's last revision still is `revision` (0: never written), and return the new one.

        Raises: Conflict; TimedOut, after which nobody knows: read the key from the leader.
        """
        return await self._store(key, value, {_EXPECTED: str(revision)} | _expiring(ttl))

    async def create(self, key: str, value: bytes, ttl: int | None = None) -> int:
        """Write if the key holds nothing, which it also does once deleted or expired.

        Raises: Conflict; TimedOut, after which nobody knows: read the key from the leader.
        """
        try:
            return await self.update(key, value, 0, ttl)
        except Conflict:
            last = await self._history.last_from_leader(self.subject(key))
            if last is None or _value(last):
                raise
        return await self.update(key, value, last.position, ttl)

    async def purge(self, key: str, ttl: int | None = None, *, revision: int = 0) -> int:
        """Remove the key and its history, leaving a marker, for `ttl` seconds if given. Returns its revision.

        Raises: Conflict, if a `revision` is given and is not the key's last.
        """
        headers = {_OPERATION: "PURGE", "Nats-Rollup": "sub"} | _expiring(ttl)
        return await self._store(key, b"", headers | ({_EXPECTED: str(revision)} if revision else {}))

    async def forget(self, key: str, upto: int) -> None:
        """Remove what was written to a key up to a revision, markers too. Raises: what `Connection.api` raises."""
        await purge(self.connection, f"KV_{self.name}", self.subject(key), upto)

    async def _store(self, key: str, value: bytes, headers: Headers) -> int:
        try:
            return int((await self.connection.store(self.subject(key), value, headers=headers))["seq"])
        except ApiError as error:
            if error.err_code == _WRONG_LAST_SEQUENCE:
                raise Conflict(f"{self.name}: {key} was changed meanwhile") from None
            raise
