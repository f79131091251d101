"""The owner's end of one process's log: gives offsets, and says when what was written counts. Protocol: section 2."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

from natsproc.errors import (
    AlreadyEnded,
    Closed,
    CredentialEnded,
    Error,
    NotAllowed,
    OwnershipLost,
)
from natsproc.protocol.carried import CARRIED, Carried
from natsproc.protocol.messages import EXITED, Json, encode, encode_event, encode_frame, encode_type
from natsproc.protocol.names import Address, Names

from . import forks
from .claims import confirm
from .clock import now
from .connection import Connection
from .history import shared
from .kv import Bucket
from .overflow import Overflow
from .parts import event_too_large
from .spool import Spool
from .writer import Lane, Writer

_kind, _users_kind = lru_cache(256)(encode), lru_cache(256)(encode_type)  # of few types there are many events
_WIDEST = 10**19  # an offset, for measuring
_Parts = tuple[bytes, bytes, bytes, Sequence[list[bytes]]]  # type, data and cause as JSON; who else gets it
_NONE: list[_Parts] = []
_HEADERS = 512  # what the server adds when it republishes an event, beside the subject twice


def _nobody(*_: Error) -> None: ...


class EventLog:
    """Writes one process's events, for one epoch.

    Appending never waits and may be done from any thread; nothing is promised before `flush` returns. While the
    writer is full, events go to the `spool`, if there is one, and from there to the writer before anything newer.
    With `drop` nobody waits for room: events of the user's that find none are left out, and one stored `dropped`
    event counts them in their place.
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
        spool: Spool | None = None,
        drop: bool = False,
        on_trouble: Callable[[str], object] = lambda text: None,
    ) -> None:
        """`on_trouble` is called on the I/O loop when the spool cannot be used, with a sentence. `drop` needs one."""
        self.address = address
        self.epoch = epoch
        self.run = run
        self.offset = next_offset - 1  #: given last
        self.on_lost: Callable[[Error], None] = _nobody  #: called, on the I/O loop, by `void`
        self.on_goal: Callable[[], None] = _nobody  #: see `tell_at`; must not wait
        self._goal = _WIDEST
        self._nonce = nonce
        self._carried = carried.copy() if carried else Carried()  # as of that offset
        self._writer = writer
        self._claims = shared(Bucket, connection, names.claims)
        self._lane = writer.lane(names.events(address), self._on_refused)
        self._shift = self.offset  # an entry's offset is its number in the lane, once it has one, plus this
        self._time = now()  # of the frame
        self._frame = encode_frame(epoch, run, self._time)
        self._bare = len(encode_event(_WIDEST, self._frame, b"", b""))  # bytes of an event without its parts
        self._overhead = _HEADERS + 2 * len(self._lane.subject)
        self._lock = threading.RLock()
        self._placing: int | None = None  # the offset up to which events are being written
        self._between = _NONE  # those that came up meanwhile, in the same thread
        self._generation = forks.generation
        self._error: Error | None = None
        self._terminal = 0  # offset of the terminal event
        self._asked = self._confirmed = 0  # confirmations of ownership
        self._confirming = asyncio.Lock()
        self._drop = drop
        self._dropped = [0, 0]  # events and bytes that no event says yet
        self._way: Overflow | Lane = self._lane
        if spool:
            self._way = Overflow(
                self._lane, spool, self._alone, self._say_dropped, on_trouble=on_trouble, on_loss=self._break
            )

    @property
    def _overflow(self) -> Overflow | None:
        return self._way if isinstance(self._way, Overflow) else None

    @property
    def ended(self) -> bool:
        """Whether the terminal event has its place in the log, as far as this owner knows."""
        return bool(self._terminal) and not isinstance(self._error, OwnershipLost | CredentialEnded)

    @property
    def stored(self) -> int:
        """The last offset that the stream has acknowledged."""
        return self._lane.stored_to + self._shift

    @property
    def repeats(self) -> int:
        """How often this node's writer has begun to send again what may be stored already; on the I/O loop."""
        return self._writer.stats.broken

    @property
    def spooled(self) -> int:
        """Bytes on disk that wait for the writer."""
        return self._overflow.spooled if self._overflow else 0

    @property
    def full(self) -> bool:
        """Whether one should await `room` before appending more; from any thread."""
        return not self._drop and self._way.full

    async def room(self) -> None:
        """Return when the node's writer, or the spool, has room again."""
        await self._way.room()

    def append(
        self,
        type: str,
        data: Json = None,
        cause: str | None = None,
        copies: Sequence[list[bytes]] = (),
        *,
        own: bool = False,
    ) -> int:
        """Write an event, from any thread, and return its offset; if it is dropped, that of what says so.

        What is written goes to `copies`, too. One of natsproc's `own` types is never dropped, and nothing follows `exited`.

        Raises: BadPayload; TooLarge, and no offset is used; AlreadyEnded; OwnershipLost; why an earlier event
        was refused; Closed.
        """
        kind = _kind(type) if own else _users_kind(type)
        body, reason = encode(data), b"" if cause is None else encode(cause)
        size = self._bare + len(kind) + len(body) + len(reason)
        if size > (limit := self._writer.limit - self._overhead):
            raise event_too_large(size, limit)
        # before the lock, which another thread may have held at the fork
        if forks.generation != self._generation:
            raise Closed(f"this is a forked child: {self.address} belongs to its parent")
        with self._lock:
            if self._error:
                raise self._error
            if self._terminal:
                raise AlreadyEnded(f"run {self.run} of {self.address} has ended; no event can follow")
            if self._drop and not own and self._overflow and self._overflow.full:
                self._dropped = [self._dropped[0] + 1, self._dropped[1] + len(body)]
                self._overflow.wake()
                return self._next
            if self._dropped[0]:
                self._say_dropped()
            if own and type == EXITED:
                self._terminal = self._next  # before it is written, so that nothing comes in and follows it
            try:
                offset = self._place(kind, body, reason, copies)
            except BaseException:
                self._terminal = 0
                raise
            if type in CARRIED:
                self._carried.feed(type, data, offset)
            if offset >= self._goal:
                self._goal = _WIDEST
                self.on_goal()
            return offset

    def append_lifecycle(self, type: str, data: Json = None, *, cause: str | None = None) -> int:
        """Write an event that only natsproc writes; it is never dropped. Raises: as `append`.

        One that names a sender says so if the server does not hold senders to their names.
        """
        if isinstance(data, dict) and data.get("sender") and not self._claims.connection.verified:
            data = {**data, "verified": False}
        return self.append(type, data, cause, own=True)

    @property
    def turns(self) -> bool:
        """Whether a turn was begun in this run, by whichever owner."""
        return self._carried.turns

    def tell_at(self, offset: int) -> None:
        """Call `on_goal` once, in the thread of whoever writes the event of that offset, or the next one."""
        self._goal = offset

    def snapshot(self) -> tuple[int, Carried]:
        """The offset given last, and what a successor has to know there; from any thread."""
        with self._lock:
            return self.offset, self._carried.copy()

    @property
    def _next(self) -> int:
        return (self.offset if self._placing is None else self._placing + len(self._between)) + 1

    def _place(self, kind: bytes, body: bytes, cause: bytes = b"", copies: Sequence[list[bytes]] = ()) -> int:
        """Write an event with the next offset; what a signal handler or a finalizer writes meanwhile goes behind it."""
        if self._placing is not None:
            self._between.append((kind, body, cause, copies))
            return self._next - 1
        self._between = []  # first, as making it may have garbage collected
        self._placing = offset = self.offset + 1
        try:
            self._put(offset, (kind, body, cause, copies))
            for parts in self._between:  # which may grow on the way
                self._put(self.offset + 1, parts)
        finally:
            self._placing, self._between = None, _NONE
        return offset

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Inside, nobody else changes what waits: what this thread itself is made to write meanwhile goes behind it."""
        with self._lock:
            self._between = []
            self._placing = self.offset
            try:
                yield
                for parts in self._between:
                    self._put(self.offset + 1, parts)
            finally:
                self._placing, self._between = None, _NONE

    def _put(self, offset: int, parts: _Parts) -> None:
        kind, body, cause, copies = parts
        if (time := now()) is not self._time:
            self._time, self._frame = time, encode_frame(self.epoch, self.run, time)
        payload = encode_event(offset, self._frame, kind, body, cause)
        self._way.put(payload)
        self.offset = offset
        for copy in copies:
            copy.append(payload)

    def _say_dropped(self) -> None:
        count, size = self._dropped
        if count:
            self._dropped = [0, 0]
            self._place(encode("dropped"), encode({"count": count, "bytes": size}))

    async def flush(self, offset: int | None = None) -> None:
        """Return once everything up to `offset` (default: the last) is stored *and* was written by the owner.

        Stored alone is not enough: a former owner's events are stored too, and do not count. It waits for as
        long as the server is away. Raises: OwnershipLost; why an event was refused; NotAllowed; Closed.
        """
        if self._error:
            raise self._error
        with self._lock:
            self._say_dropped()
        await self._settle(self.offset if offset is None else offset)

    async def confirm(self) -> None:
        """Make sure that the id is still ours, whatever is stored. Raises: OwnershipLost; NotAllowed; Closed."""
        await self._settle(0)

    async def reach(self, offset: int) -> None:
        """Return once the event of that offset is stored, written or not by now, whoever owns the id then.

        Raises: as `flush`, but for OwnershipLost.
        """
        number = offset - self._shift
        if number > 0:
            await self._lane.stored(number)

    async def _settle(self, offset: int) -> None:
        await self.reach(offset)
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

    def void(self, error: Error) -> None:
        """The id is lost, or nothing can be stored any more: drop what waits, and take nothing more. On the I/O loop."""
        self._break(error)
        self.on_lost(error)

    def _break(self, error: Error) -> None:
        with self._lock:
            self._error = error
            self._forget(error)

    def _forget(self, error: Error) -> None:
        self._lane.drop(error)
        self._dropped = [0, 0]
        if self._overflow:
            self._overflow.forget()

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
        offset = self.append(EXITED, data, own=True)
        await self.flush(offset)
        return offset

    def _on_refused(self, error: Error, number: int) -> None:
        """The server takes everything but this event: say so in its place, and end the run there."""
        with self._lock:
            self._forget(error)
            self._terminal = 0
            if self._error:  # even the event that says so was refused
                return
            self._error = error
            self.offset = number + self._shift - 1
            if isinstance(error, NotAllowed):
                return
            self._shift = self.offset - self._lane.last
            self._place(encode("failed"), encode({"why": str(error)}))
            ending = {"status": "failed", "code": 1, "signal": None, "error": str(error)}
            self._terminal = self._place(encode(EXITED), encode(ending))
