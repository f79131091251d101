"""The gate: carries out what narrow credentials may ask of JetStream, and nothing else. Protocol: section 9.

Whoever reaches JetStream chooses the subject that it answers on, with the server's own rights: API subjects and
others' logs included. So a narrow credential does not; it asks here. The server's permissions decide who may ask for
what, `protocol/gate.py` what that is, and answers go into the asker's own inboxes only.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from natsproc.errors import BadName, BadPayload, Error, NoServer, NotAllowed
from natsproc.protocol.bundle import BUNDLE, Bundle, StoredEntry, in_parts
from natsproc.protocol.gate import RIGHTS, TARGET, Ask, Scope, understand
from natsproc.protocol.messages import decode_object, encode
from natsproc.protocol.names import new_token, node_inbox, reply_is_own

from .connection import Connection
from .history import entry_of
from .route import GATE, Headers

QUEUE = "gate"  #: of all gates on a server, one answers
READS = 4  #: long reads at once
LINE = 100  #: of one sender that wait
LARGEST = 256 * 1024  #: bytes of a bundle of entries
AROUND = 4096  #: bytes for the headers of an answer
PATIENCE = 10.0  #: seconds after which nothing more is passed on of an answer
_TOLD = ("ts", "config", "type")  # what a stream's description says that is nobody's in particular
_PASSED = (
    "Nats-Sequence", "Nats-Last-Sequence", "Nats-Num-Pending", "Nats-Subject", "Nats-Stream", "Nats-Time-Stamp",
    "Nats-TTL", "Nats-Marker-Reason", "KV-Operation", "Status", "Description",
)  # fmt: skip


@dataclass(slots=True)
class _Asked:
    """A request under way."""

    sender: str
    reply: str
    ask: Ask
    bundles: bool  #: whether who asks takes bundles, and answers in parts
    bundle: Bundle = field(default_factory=lambda: Bundle(LARGEST))
    until: float = 0.0
    count: int = 1  #: messages that it came to
    stored: dict[int, dict[str, Any]] = field(default_factory=dict)  #: what was said of each


class Gate:
    """Answers for every mesh on one account. Several may run: they share the work."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._clock = asyncio.get_running_loop().time
        self._prefix = f"{node_inbox(connection.sender)}.{new_token(16)}"
        self._asked: dict[str, _Asked] = {}
        self._numbers = itertools.count()
        self._waiting: dict[str, deque[_Asked]] = {}  # by sender, long reads whose turn has not come
        self._reading: set[str] = set()  # senders whose long read is under way
        self._subscriptions: list[Subscription] = []
        self.served = 0  #: requests passed on
        self.refused = 0

    async def start(self) -> None:
        """Answer from now on. Raises: Closed."""
        self._forget = (self._connection.on_denial(self._deny), self._connection.on_disconnect(self._lost))
        subscribe = self._connection.subscribe
        self._subscriptions.append(await subscribe(f"{self._prefix}.>", self._pass_on))
        for right in RIGHTS:
            self._subscriptions.append(await subscribe(f"*.*.*.{right}.*", self._hear, queue=QUEUE))
        self._sweeping = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Answer nothing more."""
        for forget in self._forget:
            forget()
        self._sweeping.cancel()
        for subscription in self._subscriptions:
            await self._connection.unsubscribe(subscription)

    async def _hear(self, msg: Msg) -> None:
        """Take one request. What is not answerable into the asker's own inbox is left alone."""
        try:
            names, scope = Scope.parse(msg.subject)
        except (BadName, ValueError, TypeError):
            return
        if not reply_is_own(msg.reply, scope.sender):
            return
        headers: Mapping[str, str] = msg.headers or {}
        target = headers.get(TARGET, "")
        try:
            if not target:
                raise BadPayload(f"no {TARGET} says what is asked for")
            takes, ask = understand(names, scope.sender, target, msg.data, headers)
            if takes != scope:
                raise NotAllowed(f"that takes {takes.subject(names)}, not {msg.subject}")
        except (NotAllowed, BadPayload) as error:
            await self._refuse(msg.reply, str(error))
            return
        self.served += 1
        asked = _Asked(scope.sender, msg.reply, ask, BUNDLE in headers)
        if ask.answers != "many":
            await self._make(asked)
        elif len(waiting := self._waiting.setdefault(scope.sender, deque())) < LINE:
            waiting.append(asked)  # else the asker hears nothing, and asks again
            await self._read_on()

    async def _read_on(self) -> None:
        """Begin long reads: one for each sender, and few in all, or the server would cut the gate off as too slow."""
        while len(self._reading) < READS:
            sender = next((sender for sender in self._waiting if sender not in self._reading), None)
            if sender is None:
                return
            waiting = self._waiting.pop(sender)
            asked = waiting.popleft()
            if waiting:
                self._waiting[sender] = waiting  # behind those of others
            self._reading.add(sender)
            await self._make(asked)

    async def _make(self, asked: _Asked) -> None:
        """Make the request that was understood."""
        ask, token = asked.ask, str(next(self._numbers))
        parts = ask.payload.split(b"\n") if ask.answers == "lines" else [ask.payload]
        asked.count, asked.until = len(parts), self._clock() + PATIENCE
        self._asked[token] = asked
        try:
            for number, part in enumerate(parts):
                if not self._connection.connected:  # nats-py would keep it and send it late
                    raise NoServer("the connection was lost")
                reply = f"{self._prefix}.{number}.{token}"
                await self._connection.publish(ask.subject, part, reply=reply, headers=ask.headers)
        except Error:  # cut off: the asker asks again
            await self._over(token)

    def _lost(self) -> None:
        """Cut off: nothing of what is under way is answered any more, and whoever asked asks again."""
        for requests in (self._asked, self._waiting, self._reading):
            requests.clear()

    async def _over(self, token: str) -> None:
        """Nothing more is passed on of this one."""
        asked = self._asked.pop(token, None)
        if asked and asked.ask.answers == "many":
            self._reading.discard(asked.sender)
            await self._read_on()

    async def _pass_on(self, msg: Msg) -> None:
        """Give the asker what JetStream says."""
        number, token = msg.subject.rsplit(".", 2)[1:]
        asked = self._asked.get(token)
        if asked is None:
            return
        found, data = msg.headers or {}, msg.data
        kind = asked.ask.answers
        if kind == "lines":
            asked.stored[int(number)] = _parsed(data)
            if len(asked.stored) < asked.count:
                return
            data = encode(_summed_up(asked.stored))
        if kind == "info":
            data = _trimmed(data)
        entry = entry_of(msg) if kind == "many" else None
        if entry and asked.bundles:
            await self._bundle(asked, entry, int(found["Nats-Last-Sequence"]), found)
        else:
            await self._send(asked)
            await self._answer(asked, data, _passed(found))
        if entry:
            asked.until = self._clock() + PATIENCE
        else:
            await self._over(token)

    async def _bundle(
        self, asked: _Asked, entry: StoredEntry, after: int, headers: Mapping[str, str]
    ) -> None:
        """Put an entry into a bundle; one that is too large for any goes by itself."""
        if asked.bundle.add(entry, after):
            return
        await self._send(asked)
        if not asked.bundle.add(entry, after):
            await self._answer(asked, entry.payload, _passed(headers))

    async def _send(self, asked: _Asked) -> None:
        if data := asked.bundle.take():
            await self._answer(asked, data, {BUNDLE: "1", GATE: "1"})

    async def _answer(self, asked: _Asked, data: bytes, headers: Headers) -> None:
        """Answer in as many messages as it takes."""
        limit = self._connection.max_payload - AROUND
        if len(data) > limit and not asked.bundles:
            await self._refuse(
                asked.reply, "that is more than fits into one message: a newer natsproc reads it"
            )
            return
        for part, header in in_parts(data, limit):
            await self._publish(asked.reply, part, headers | header)

    async def _refuse(self, reply: str, why: str) -> None:
        self.refused += 1
        await self._publish(
            reply, b"", {"Status": "403", "Description": " ".join(why.split())[:500], GATE: "1"}
        )

    def _deny(self, subject: str) -> None:
        """The server does not let the gate do it: its own credential is too narrow."""
        for token, asked in list(self._asked.items()):
            if asked.ask.subject.lower() == subject.lower():
                why = f"the gate itself may not publish to {asked.ask.subject}: it runs with too narrow a credential"
                asyncio.create_task(self._refuse(asked.reply, why))
                asyncio.create_task(self._over(token))

    async def _publish(self, reply: str, data: bytes, headers: Headers) -> None:
        try:
            await self._connection.publish(reply, data, headers=headers)
        except Error:
            pass

    async def _sweep(self) -> None:
        """Forget requests whose answers do not come: a stream without a leader, a connection that was lost."""
        while True:
            await asyncio.sleep(PATIENCE / 5)
            now = self._clock()
            for token in [token for token, asked in self._asked.items() if asked.until < now]:
                await self._over(token)


def _passed(headers: Mapping[str, str]) -> Headers:
    return {name: headers[name] for name in _PASSED if name in headers} | {GATE: "1"}


def _parsed(data: bytes) -> dict[str, Any]:
    with suppress(BadPayload):
        return decode_object(data, "answer")
    return {}


def _summed_up(answers: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """One acknowledgement for all: how many from the first on are stored, and why the next one is not."""
    for count in range(len(answers)):
        if "error" in answers[count] or "seq" not in answers[count]:
            return answers[count] | {"count": count}
    return answers[len(answers) - 1] | {"count": len(answers)}


def _trimmed(data: bytes) -> bytes:
    """A stream's description without what it says of others: the server's clock, settings, and subjects asked for."""
    info = _parsed(data)
    if "error" in info:
        return data
    told = {name: info[name] for name in _TOLD if name in info}
    subjects = info.get("state", {}).get("subjects")
    return encode(told | {"state": {"subjects": subjects} if subjects else {}})
