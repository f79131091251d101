"""The ways to store entries in order: fast-ingest batches and windows of plain publishes. Protocol: section 7.

Both acknowledge from the front only: what is acknowledged lies in the stream, and so does all before it. Either
ends early by raising Broken, after which everything unacknowledged is sent again; its offset voids a repeat.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any

from nats.aio.msg import Msg

from natsproc.errors import Error, NoServer, NotAllowed, TimedOut, TooLarge
from natsproc.protocol.messages import decode_object
from natsproc.protocol.names import new_token, node_inbox

from .connection import ApiError, Connection, NoResponders
from .parts import taken, too_large

if TYPE_CHECKING:
    from .direct import Beside, Direct

SILENCE = 3.0  #: seconds without any answer after which an attempt is given up
GRACE = 0.1  #: seconds to wait, after an error, for how much was stored before it
IDLE = 0.005  #: seconds without a new entry after which a batch is committed
AGE = 0.1  #: seconds without progress after which a batch is committed
FLOW = 500  #: entries for each acknowledgement of a batch, at most
AHEAD = 4  #: acknowledgements that may be due: nats-server gives them by twos when it has had much to do
BLOCK = 250  #: entries that are sent at once, at most: the server begins with them while the next are made
WINDOW = 256  #: entries in a window, at most
WINDOW_BYTES = 128 * 1024  # so small that an entry a stream may find too large has nothing behind it

_COMMIT = "3.$FI"


Answer = tuple[str, dict[str, Any], Error | None]
"""The rest of the reply subject ("" if it concerns none), the fields, and the error in place of an acknowledgement."""


class Broken(Exception):
    """An attempt ended before everything that it sent was acknowledged."""

    def __init__(self, reason: Error) -> None:
        super().__init__(str(reason))
        self.reason = reason


Entry = tuple[Any, int, bytes]
"""What is stored as one message: the writer's Lane, its number there, and the payload."""


class Pipe:
    """Entries on their way into the stream, and the inbox for what acknowledges them.

    `put` on a lane appends to `queue` and calls `rouse` from any thread; all else belongs to the I/O loop.
    """

    def __init__(
        self, connection: Connection, on_progress: Callable[[], None], urgent: Callable[[], bool]
    ) -> None:
        self.connection = connection
        self.queue: deque[Entry] = deque()
        self.flying: deque[Entry] = deque()
        self.direct: Direct | Beside | None = None  #: sends what is put at once, while there is one
        self.sending = False  #: whether it does at this moment
        self.bytes_in = 0  #: ever put
        self.bytes_out = 0  #: ever acknowledged or dropped
        self.stored = 0  #: entries ever acknowledged
        self._on_progress = on_progress
        self.urgent = urgent  #: whether somebody waits for an entry that was sent
        self.wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.sleeping = False  #: whether a new entry has to wake the loop
        self._prefix = f"{node_inbox(connection.sender)}.{new_token(12)}."
        self._attempt = ""
        self.arrived: list[Answer] = []  #: answers that nobody has taken yet

    async def open(self) -> None:
        """Subscribe for acknowledgements. Raises: Closed."""
        self._subscription = await self.connection.nc.listen(f"{self._prefix}>", self._on_reply)
        lost = NoServer(f"the connection to {self.connection.url} was lost")
        self._forget = self.connection.on_disconnect(lambda: self.tell(lost))

    async def close(self) -> None:
        self._forget()
        await self.connection.unsubscribe(self._subscription)

    @property
    def held(self) -> int:
        """Bytes that are not acknowledged yet."""
        return self.bytes_in - self.bytes_out

    def rouse(self) -> None:
        """Wake the loop, which sleeps: once for a burst. From any thread."""
        self.sleeping = False
        self._loop.call_soon_threadsafe(self.wake.set)

    def take(self, most: int) -> list[Entry]:
        """The next entries to send, which are in flight from now on; dropped ones are passed over."""
        taken: list[Entry] = []
        queue = self.queue
        while queue and len(taken) < most:
            lane, number, payload = entry = queue.popleft()
            if number > lane.dropped:
                lane.sent = number
                taken.append(entry)
            else:
                self.bytes_out += len(payload)
        self.flying += taken
        return taken

    def put_back(self) -> None:
        """The entry that was taken last is not sent yet."""
        self.queue.appendleft(self.flying.pop())

    def acknowledge(self, count: int) -> None:
        """The first `count` entries in flight are in the stream."""
        land, size = self.flying.popleft, 0
        for _ in range(count):
            lane, number, payload = land()
            lane.stored_to = number
            size += len(payload)
        self.bytes_out += size
        self.stored += count
        self._on_progress()

    def requeue(self) -> None:
        """Put what is in flight back, to be sent again first."""
        self.queue.extendleft(reversed(self.flying))
        self.flying.clear()

    def begin(self) -> tuple[str, str]:
        """Start an attempt: its name, and the beginning of the reply subjects that count until the next one."""
        self._attempt = new_token(20)
        self.arrived = []
        return self._attempt, self._prefix + self._attempt

    async def publish(self, subject: str, payload: bytes, reply: str) -> None:
        """Send a message. Raises: TooLarge, Broken."""
        if len(payload) > (limit := self.connection.max_payload):
            raise too_large(subject, payload, limit)
        self._insist_on_connection()
        try:
            await self.connection.publish(subject, payload, reply=reply)
        except Error as error:
            raise Broken(error) from None

    async def publish_all(self, messages: Sequence[bytes]) -> None:
        """Send messages in their form on the wire, in order; not through a gate. Raises: Broken."""
        self._insist_on_connection()
        await self.connection.nc.publish_all(messages)

    def _insist_on_connection(self) -> None:
        if not self.connection.nc.is_connected:  # nats-py would keep it and send it late
            raise Broken(NoServer(f"the connection to {self.connection.url} was lost"))

    async def rest(self, seconds: float | None, *, entries: bool = False) -> bool:
        """Sleep until an answer comes, somebody begins to wait or, with `entries`, there is one to send.

        Returns whether that was within the time.
        """
        self.wake.clear()
        self.sleeping = entries  # before the look at the queue, so that no entry slips in between
        if self.arrived or (entries and self.queue):
            self.wake.set()
            await asyncio.sleep(0)
        try:
            async with asyncio.timeout(seconds):
                await self.wake.wait()
            return True
        except TimeoutError:
            return False
        finally:
            self.sleeping = False

    def tell(self, error: Error) -> None:
        """Have the attempt under way hear of an error that concerns no single reply."""
        self.arrived.append(("", {}, error))
        self.wake.set()

    def answers(self) -> list[Answer]:
        """What has arrived since."""
        arrived, self.arrived = self.arrived, []
        return arrived

    def _on_reply(self, msg: Msg) -> None:
        attempt, _, place = msg.subject[len(self._prefix) :].partition(".")
        if attempt != self._attempt:
            return
        error: Error | None = None
        fields: dict[str, Any] = {}
        if msg.data:
            fields = decode_object(msg.data, "acknowledgement")
            if isinstance(refusal := fields.get("error"), dict):
                error = ApiError("an event", refusal)
        elif (msg.headers or {}).get("Status") == "503":
            error = NoResponders("no stream takes events")
        else:
            error = Error("it has no leader")  # an empty reply acknowledges nothing
        if self.direct and self.direct.hear(place, fields, error):
            return
        self.arrived.append((place, fields, error))
        self.wake.set()


def silence() -> TimedOut:
    """That nothing is acknowledged."""
    return TimedOut(f"the event stream acknowledged nothing for {SILENCE:g} s")


async def window(pipe: Pipe, limit: int = WINDOW) -> None:
    """Send up to `limit` entries, and return when all of them are acknowledged.

    Raises: Broken, with the reason of the first unacknowledged entry where that one has its own.
    """
    _, stem = pipe.begin()
    parts = taken(pipe, limit, WINDOW_BYTES)
    places = {part.places[0]: part.places for part in parts}
    errors: dict[int, Error] = {}
    async with AsyncExitStack() as hooks:
        for subject in dict.fromkeys(part.subject for part in parts):
            await hooks.enter_async_context(pipe.connection.denials(subject, pipe.tell))
        for part in parts:
            try:
                await pipe.publish(part.subject, b"\n".join(part.lines), f"{stem}.{part.places[0]}")
            except TooLarge as error:
                errors[part.places[0]] = error
                break
        await settle(pipe, lambda place: places.get(place, []), errors=errors)


async def settle(
    pipe: Pipe,
    places: Callable[[int], Sequence[int]],
    stored: int = 0,
    errors: dict[int, Error] | None = None,
) -> None:
    """Return when everything in flight is acknowledged, from the front, of which the first `stored` places are.

    `places` are those that an answer to one place is about, in order; `errors` are known already, by place.
    Raises: Broken, with the reason of the first unacknowledged entry where that one has its own.
    """
    acknowledged: set[int] = set()
    errors = errors or {}
    denial: NotAllowed | None = None
    while pipe.flying:
        if stored + 1 in errors:
            raise Broken(errors[stored + 1])
        if denial and denial.subject == pipe.flying[0][0].subject:
            raise Broken(denial)
        if not await pipe.rest(GRACE if denial else SILENCE):
            raise Broken(denial or silence())
        for place, answer, failure in pipe.answers():
            if isinstance(failure, NotAllowed):
                denial = failure
            elif not place:
                raise Broken(failure or silence())
            elif place.isdigit():
                done = int(answer.get("count", not failure and "seq" in answer))
                sent = places(int(place))
                acknowledged.update(sent[:done])
                if failure and sent[done:]:
                    errors[sent[done]] = failure
        before = stored
        while stored + 1 in acknowledged:
            stored += 1
        pipe.acknowledge(stored - before)


class Batch:
    """One fast-ingest batch (ADR-50, gap mode `fail`): entries for as long as they come quickly, then the commit.

    Only the commit has all acknowledged, so it follows at once when somebody waits for what was sent; unless that is so
    much that the next acknowledgements are due, as a batch that goes on costs less than a new one.
    """

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._name, stem = pipe.begin()
        self.stem = f"{stem}.{FLOW}.fail"
        self._clock = asyncio.get_running_loop().time
        self._since = self._clock()  # the last progress
        self.sent = self._stored = 0
        self._flow = 0  # entries for each acknowledgement; 0 before the first answer
        self._failure: Error | None = None
        self._closing = self._over = False

    async def run(self, door: AbstractContextManager[object]) -> None:
        """Send, as others may who come in by the `door`, until everything sent is acknowledged. Raises: Broken."""
        if not (taken := self._pipe.take(1)):
            return
        lane, _, payload = taken[0]
        subject = lane.subject
        async with self._pipe.connection.denials(subject, self._pipe.tell):
            await self._begin(subject, payload)
            due = False
            while not self._over:
                if self._flow and not self._closing:
                    await self._fill()
                    if due or self._failure or (self.room and self._pipe.urgent()):
                        self._closing, self._since = True, self._clock()
                        await self._pipe.publish(subject, b"", f"{self.stem}.{self.sent + 1}.{_COMMIT}")
                with door:
                    due = not await self._rest()
                for answer in self._pipe.answers():
                    self._hear(*answer)

    async def _fill(self) -> None:
        if self.sent == self._stored:
            self._since = self._clock()
        while taken := self._pipe.take(min(self.room, BLOCK)):
            await self._send(taken)
            if len(taken) < BLOCK:
                break
            await asyncio.sleep(0)  # in which they leave

    async def _send(self, taken: Sequence[Entry]) -> None:
        messages: list[bytes] = []
        limit, sent = self._pipe.connection.max_payload, self.sent
        before, head = None, b""
        for lane, _, payload in taken:
            size = len(payload)
            if size > limit:
                self._fail(too_large(lane.subject, payload, limit))
                break
            if lane is not before:
                before, head = lane, f"PUB {lane.subject} {self.stem}.".encode()
            sent += 1
            messages.append(b"%b%d.1.$FI %d\r\n%b\r\n" % (head, sent, size, payload))
        if messages:
            self.sent = sent
            await self._pipe.publish_all(messages)

    @property
    def room(self) -> int:
        return 0 if self._closing or self._failure else max(0, self._stored + AHEAD * self._flow - self.sent)

    async def _begin(self, subject: str, payload: bytes) -> None:
        try:
            await self._pipe.publish(subject, payload, f"{self.stem}.1.0.$FI")
            self.sent = 1
        except TooLarge as error:
            self._fail(error)

    async def _rest(self) -> bool:
        """Wait for answers; returns False when the batch is to be committed."""
        patience = self._since - self._clock()
        if self._closing or not self._flow:
            if not await self._pipe.rest(patience + (GRACE if self._failure else SILENCE)):
                raise Broken(self._failure or silence())
            return True
        patience, sent, room = patience + AGE, self.sent, self.room
        heard = await self._pipe.rest(min(patience, IDLE) if room else patience, entries=room > 0)
        return heard or (self.sent > sent and self._clock() < self._since + AGE)

    def _hear(self, place: str, answer: dict[str, Any], error: Error | None) -> None:
        if not place and error and not isinstance(error, NotAllowed):
            raise Broken(error)
        if answer.get("type") == "ack":
            self._flow = min(max(1, int(answer["msgs"])), FLOW)
            self._progress(int(answer["seq"]))
        elif answer.get("batch") == self._name:
            self._progress(int(answer.get("count", 0)))
            self._over = self._stored == self.sent
            if self._failure or not self._over:
                raise Broken(self._failure or Error("the server ended a batch early"))
        else:
            self._fail(error or Error("the server missed a part of a batch"))
            if place.endswith(_COMMIT):  # the batch is gone, and how much of it was stored will not be told
                raise Broken(error or silence())

    def _fail(self, error: Error) -> None:
        """Send nothing more, and hear how much is stored; before the first answer that is nothing."""
        if not self._flow:
            raise Broken(error)
        self._failure, self._since = self._failure or error, self._clock()

    def _progress(self, count: int) -> None:
        """The first `count` entries are stored; what is above what was sent is ignored."""
        if self._stored < count <= self.sent:
            self._pipe.acknowledge(count - self._stored)
            self._stored, self._since = count, self._clock()
