"""Values of any size, written once under a name of their own, as object stores keep them (ADR-20). Protocol: section 7.

Not nats-py's object store: it reads through its ordered consumer, which can lose the end. What is read here is
complete, or an error.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib

from natsproc.protocol.messages import encode

from .connection import Connection
from .history import History

CHUNK_BYTES = 512 * 1024
_AT_ONCE = 8  # chunks under way
_HEADROOM = 1024


class Objects:
    """One bucket of objects. A name has the form of subject tokens, such as `default.build.41-7`."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self.name = name
        self.stream = f"OBJ_{name}"

    def _chunks(self, name: str) -> str:
        return f"$O.{self.name}.C.{name}"

    def _meta(self, name: str) -> str:
        return f"$O.{self.name}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"

    async def write(self, name: str, payload: bytes) -> None:
        """Write an object.

        After an error a part of it may be there: write it again under another name. Raises: as `Connection.store`.
        """
        size = min(CHUNK_BYTES, self.connection.max_payload - _HEADROOM)
        chunks = [payload[start : start + size] for start in range(0, len(payload), size)]
        digest = base64.urlsafe_b64encode(hashlib.sha256(payload).digest()).decode()
        meta = {
            "name": name, "bucket": self.name, "nuid": name, "size": len(payload), "chunks": len(chunks),
            "digest": f"SHA-256={digest}", "options": {"max_chunk_size": size},
        }  # fmt: skip
        messages = [(self._chunks(name), chunk) for chunk in chunks] + [(self._meta(name), encode(meta))]
        for start in range(0, len(messages), _AT_ONCE):
            some = messages[start : start + _AT_ONCE]
            await asyncio.gather(*(self.connection.store(subject, data) for subject, data in some))

    async def read(self, name: str) -> bytes:
        """Return what is stored of an object; whether it is all that was written is for the caller to know.

        Raises: ReadFailed, NotAllowed, Closed.
        """
        chunks = []
        async for entries in History(self.connection, self.stream).read(self._chunks(name)):
            chunks += [entry.payload for entry in entries]
        return b"".join(chunks)

    async def names(self, beginning: str) -> list[str]:
        """The names of the objects that begin with these tokens, as far as they have any bytes."""
        first = self._chunks("")
        body = {"subjects_filter": f"{first}{beginning}.>"}
        state = (await self.connection.api(f"STREAM.INFO.{self.stream}", body))["state"]
        return [subject.removeprefix(first) for subject in state.get("subjects") or ()]

    async def remove(self, name: str) -> None:
        """Remove an object, or what there is of it. Raises: ApiError, and what `Connection.request` raises."""
        for subject in (self._chunks(name), self._meta(name)):
            await self.connection.api(f"STREAM.PURGE.{self.stream}", {"filter": subject})
