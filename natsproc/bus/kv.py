"""Buckets: key-value records on raw JetStream, with compare-and-set and expiry (ADR-8). Protocol: section 7.

nats-py's own key-value store can't renew with a TTL, and its watchers miss an expiry after a server restart.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import NamedTuple

from natsproc.errors import Error

from .connection import ApiError, Connection, Headers

_WRONG_LAST_SEQUENCE = 10071
_NO_MESSAGE = 10037
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


class Change(NamedTuple):
    """One write to a bucket, as its stream keeps or republishes it."""

    key: str
    payload: bytes
    revision: int
    stamp: str
    marker: str = ""  #: `deleted`, `purged` or `expired` where it says that the key is gone

    @property
    def value(self) -> Value | None:
        """What the key holds after it; None if it is gone."""
        return None if self.marker else Value(self.payload, self.revision, self.stamp)


def marker_of(headers: Mapping[str, str]) -> str:
    """What the headers say has become of the key: `deleted`, `purged`, `expired`, or "" for a value."""
    return _MARKERS.get(headers.get(_REASON) or headers.get(_OPERATION) or "", "")


def parse_change(payload: bytes, headers: Mapping[str, str] | None) -> Change:
    """Read a message that a bucket's stream republished or gave to a direct get.

    The key comes from the header that the server adds, because the republish subject is another one.
    Raises: KeyError or ValueError, if the message did not come from a stream.
    """
    headers = headers or {}
    key = headers["Nats-Subject"].split(".", 2)[2]
    sequence, stamp = int(headers["Nats-Sequence"]), headers.get("Nats-Time-Stamp", "")
    return Change(key, payload, sequence, stamp, marker_of(headers))


def parse_raw_headers(block: bytes) -> Headers:
    """Read a header block as `STREAM.MSG.GET` returns it."""
    lines = (line.partition(":") for line in block.decode("utf-8", "replace").split("\r\n")[1:])
    return {name.strip(): value.strip() for name, colon, value in lines if colon}


class Bucket:
    """One bucket. A revision is the position of the write in the bucket's stream: it only ever rises."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self.name = name
        self.stream = f"KV_{name}"

    def subject(self, key: str) -> str:
        return f"$KV.{self.name}.{key}"

    async def get(self, key: str, *, leader: bool = False) -> Value | None:
        """Return what a key holds, or None.

        With `leader` it is what was last acknowledged to anybody; without, a replica may answer with less,
        but faster. Raises: what `Connection.request` raises.
        """
        change = await (self._leader_change(key) if leader else self._direct_change(key))
        return change and change.value

    async def _direct_change(self, key: str) -> Change | None:
        subject = self.connection.api_subject(f"DIRECT.GET.{self.stream}.{self.subject(key)}")
        reply = await self.connection.request(subject, node=True)
        if "Nats-Sequence" not in (reply.headers or {}):
            return None
        return parse_change(reply.data, reply.headers)

    async def _leader_change(self, key: str) -> Change | None:
        try:
            answer = await self.connection.api(
                f"STREAM.MSG.GET.{self.stream}", {"last_by_subj": self.subject(key)}
            )
        except ApiError as error:
            if error.err_code == _NO_MESSAGE:
                return None
            raise
        message = answer["message"]
        headers = parse_raw_headers(base64.b64decode(message.get("hdrs", "")))
        payload = base64.b64decode(message.get("data", ""))
        return Change(key, payload, message["seq"], message["time"], marker_of(headers))

    async def put(self, key: str, value: bytes, ttl: int | None = None) -> int:
        """Write unconditionally and return the revision; `ttl` is in whole seconds, at least 1.

        Raises: what `Connection.store` raises.
        """
        return await self._store(key, value, {"Nats-TTL": str(ttl)} if ttl else {})

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Write if the key's last revision still is `revision` (0: never written), and return the new one.

        Raises: Conflict; TimedOut, after which nobody knows: read the key from the leader.
        """
        return await self._store(key, value, {_EXPECTED: str(revision)})

    async def create(self, key: str, value: bytes) -> int:
        """Write if the key holds nothing, which it also does once deleted or expired.

        Raises: Conflict; TimedOut, after which nobody knows: read the key from the leader.
        """
        try:
            return await self.update(key, value, 0)
        except Conflict:
            last = await self._leader_change(key)
            if last is None or not last.marker:
                raise
        return await self.update(key, value, last.revision)

    async def purge(self, key: str, ttl: int | None = None) -> int:
        """Remove the key and its history, leaving a marker, for `ttl` seconds if given. Returns its revision."""
        headers = {_OPERATION: "PURGE", "Nats-Rollup": "sub"}
        return await self._store(key, b"", headers | ({"Nats-TTL": str(ttl)} if ttl else {}))

    async def _store(self, key: str, value: bytes, headers: Headers) -> int:
        try:
            return int((await self.connection.store(self.subject(key), value, headers=headers))["seq"])
        except ApiError as error:
            if error.err_code == _WRONG_LAST_SEQUENCE:
                raise Conflict(f"{self.name}: {key} was changed meanwhile") from None
            raise
