"""The owner's end of one process's log: gives offsets, and says when what was written counts. Protocol: section 2."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable

from natsproc.errors import AlreadyEnded, BadPayload, Closed, Error, NotAllowed, OwnershipLost, TooLarge
from natsproc.protocol.carried import CARRIED, Carried
from natsproc.protocol.messages import EXITED, LIFECYCLE, NOTICES, Json, encode, encode_event
from natsproc.protocol.names import Address, Names

from .claims import confirm
from .clock import now
from .connection import Connection
from .kv import Bucket
from .writer import Writer

MAX_TYPE = 64
_WIDEST = 10**19  # an offset, for measuring
_HEADERS = 512  # what the server adds when it republishes an event, beside the subject twice


class EventLog:
    """Writes one process's events, for one epoch.

    Appending never waits and may be done from any thread; nothing is promised before `flush` returns.
    """

    def __init__(
        self,
        connection: Connection,
        writer: Writer,
        names: Names,
        address: Address,
        *,
        epoch: int,
        run: int,
        next_offset: int,
        nonce: str,
        carried: Carried | None = None,
    ) -> None:
        self.address = address
        self.epoch = epoch
        self.run = run
        self.offset = next_offset - 1  #: given last
        self.on_lost: Callable[[OwnershipLost], None] = lambda lost: (
            None
        )  #: called, on the I/O loop, by `void`
        self._nonce = nonce
        self._carried = carried.copy() if carried else Carried()  # as of that offset
        self._writer = writer
        self._claims = Bucket(connection, names.claims)
        self._lane = writer.lane(names.events(address), self._on_refused)
        self._shift = self.offset  # an entry's offset is its number in the lane plus this
        self._frame = len(encode_event(_WIDEST, epoch, run, now(), b"", b"", b""))
        self._overhead = _HEADERS + 2 * len(self._lane.subject)
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._error: Error | None = None
        self._terminal = 0  # offset of the terminal event
        self._asked = self._confirmed = 0  # confirmations of ownership
        self._confirming = asyncio.Lock()

    @property
    def ended(self) -> bool:
        """Whether the terminal event has its place in the log, as far as this owner knows."""
        return bool(self._terminal) and not isinstance(self._error, OwnershipLost)

    @property
    def stored(self) -> int:
        """The last offset that the stream has acknowledged."""
        return self._lane.stored_to + self._shift

    @property
    def full(self) -> bool:
        """Whether one should await `room` before appending more; from any thread."""
        return self._lane.full

    async def room(self) -> None:
        """Return when the node's writer has room again."""
        await self._lane.room()

    def append(self, type: str, data: Json = None, *, cause: str | None = None) -> int:
        """Write an event of the user's, from any thread, and return its offset.

        Raises: BadPayload; TooLarge, and no offset is used; AlreadyEnded; OwnershipLost; why an earlier event
        was refused; Closed.
        """
        if not isinstance(type, str) or not type.isprintable() or not 0 < len(type) <= MAX_TYPE:
            raise BadPayload(f"{type!r:.80} cannot be an event type: 1 to {MAX_TYPE} printable characters")
        if type in LIFECYCLE or type in NOTICES:
            raise BadPayload(f"event type {type!r} is natsproc's own; name yours otherwise")
        return self._append(type, data, cause)

    def append_lifecycle(self, type: str, data: Json = None, *, cause: str | None = None) -> int:
        """Write an event that only natsproc writes. Raises: as `append`."""
        return self._append(type, data, cause)

    def _append(self, type: str, data: Json, cause: str | None, *, terminal: bool = False) -> int:
        kind, body = encode(type), encode(data)
        reason = None if cause is None else encode(cause)
        self._check_size(len(kind) + len(body) + len(reason or b""))
        if os.getpid() != self._pid:  # before the lock, which another thread may have held at the fork
            raise Closed(f"this is a forked child: {self.address} belongs to its parent")
        with self._lock:
            if self._error:
                raise self._error
            if self._terminal:
                raise AlreadyEnded(f"run {self.run} of {self.address} has ended; no event can follow")
            offset = self._place(kind, body, reason)
            if terminal:
                self._terminal = offset
            if type in CARRIED:
                self._carried.feed(type, data)
            return offset

    def _check_size(self, variable: int) -> None:
        size, limit = self._frame + variable, self._writer.limit - self._overhead
        if size > limit:
            raise TooLarge(
                f"an event of {size} bytes is too large: the server takes {limit} at most in one (its max_payload, "
                "less what it adds). Send it in parts, or raise max_payload",
                size=size,
                limit=limit,
            )

    def _place(self, kind: bytes, body: bytes, cause: bytes | None = None) -> int:
        offset = self.offset + 1
        number = self._lane.put(encode_event(offset, self.epoch, self.run, now(), kind, body, cause))
        self.offset, self._shift = offset, offset - number
        return offset

    async def flush(self, offset: int | None = None) -> None:
        """Return once everything up to `offset` (default: the last) is stored *and* was written by the owner.

        Stored alone is not enough: a former owner's events are stored too, and do not count. It waits for as
        long as the server is away. Raises: OwnershipLost; why an event was refused; NotAllowed; Closed.
        """
        if self._error:
            raise self._error
        await self._settle(self.offset if offset is None else offset)

    async def confirm(self) -> None:
        """Make sure that the id is still ours, whatever is stored. Raises: OwnershipLost; NotAllowed; Closed."""
        await self._settle(0)

    async def _settle(self, offset: int) -> None:
        number = offset - self._shift
        if number > 0:
            await self._lane.stored(number)
        self._asked += 1
        ticket = self._asked
        async with self._confirming:  # one read of the claim answers all who asked before it began
            if self._confirmed < ticket:
                covered = self._asked
                try:
                    await confirm(self._claims, self.address, self._nonce)
                except OwnershipLost as error:
                    self.void(error)
                self._confirmed = covered
        if isinstance(self._error, OwnershipLost):
            raise self._error

    def void(self, error: OwnershipLost) -> None:
        """A newer epoch owns the id: drop what is queued, and take nothing more. On the I/O loop."""
        with self._lock:
            self._error = error
            self._lane.drop(error)
        self.on_lost(error)

    async def end(self, data: Json) -> int:
        """Write the one terminal event, flush it, and return its offset.

        If an event of this process was refused before, that has ended the run already: its terminal event is
        awaited, and the refusal raised. Raises: AlreadyEnded for every call but one; TooLarge, BadPayload, after
        which it can be called again; and what `flush` raises.
        """
        refusal = self._error
        if refusal and self.ended:
            await self._settle(self._terminal)
            raise refusal
        offset = self._append(EXITED, data, None, terminal=True)
        await self.flush(offset)
        return offset

    def _on_refused(self, error: Error, number: int) -> None:
        """The server takes everything but this event: say so in its place, and end the run there."""
        with self._lock:
            self._lane.drop(error)
            self._terminal = 0
            if self._error:  # even the event that says so was refused
                return
            self._error = error
            self.offset = number + self._shift - 1
            if isinstance(error, NotAllowed):
                return
            self._place(encode("failed"), encode({"why": str(error)}))
            ending = {"status": "failed", "code": 1, "signal": None, "error": str(error)}
            self._terminal = self._place(encode(EXITED), encode(ending))
