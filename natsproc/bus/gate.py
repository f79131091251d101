"""The gate: carries out what narrow credentials may ask of JetStream, and nothing else. Protocol: section 9.

Whoever reaches JetStream chooses the subject that it answers on, with the server's own rights: API subjects and
others' logs included. So a narrow credential does not; it asks here. The server's permissions decide who may ask for
what, `protocol/gate.py` what that is, and answers go into the asker's own inboxes only.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from natsproc.errors import BadName, BadPayload, Error, NotAllowed
from natsproc.protocol.gate import RIGHTS, TARGET, Ask, Scope, understand
from natsproc.protocol.messages import decode_object, encode
from natsproc.protocol.names import new_token, node_inbox, reply_is_own

from .connection import Connection
from .route import GATE, Headers

QUEUE = "gate"  #: of all gates on a server, one answers
PATIENCE = 30.0  #: seconds after which nothing more is passed on of an answer
_TOLD = ("ts", "config", "type")  # what a stream's description says that is nobody's in particular
_PASSED = (
    "Nats-Sequence", "Nats-Last-Sequence", "Nats-Num-Pending", "Nats-Subject", "Nats-Stream", "Nats-Time-Stamp",
    "Nats-TTL", "Nats-Marker-Reason", "KV-Operation", "Status", "Description",
)  # fmt: skip


@dataclass(slots=True)
class _Asked:
    """A request under way."""

    reply: str
    ask: Ask
    until: float
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
        self._subscriptions: list[Subscription] = []
        self.served = 0  #: requests passed on
        self.refused = 0

    async def start(self) -> None:
        """Answer from now on. Raises: Closed."""
        self._connection.on_denial = self._deny
        subscribe = self._connection.subscribe
        self._subscriptions.append(await subscribe(f"{self._prefix}.>", self._pass_on))
        for right in RIGHTS:
            self._subscriptions.append(await subscribe(f"*.*.*.{right}.*", self._hear, queue=QUEUE))
        self._sweeping = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Answer nothing more."""
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
        token = str(next(self._numbers))
        parts = ask.payload.split(b"\n") if ask.answers == "lines" else [ask.payload]
        self._asked[token] = _Asked(msg.reply, ask, self._clock() + PATIENCE, len(parts))
        try:
            for number, part in enumerate(parts):
                reply = f"{self._prefix}.{number}.{token}"
                await self._connection.publish(ask.subject, part, reply=reply, headers=ask.headers)
        except Error:  # cut off: the asker asks again
            self._asked.pop(token, None)

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
        if kind == "many" and "Nats-Sequence" in found:
            asked.until = self._clock() + PATIENCE
        else:
            del self._asked[token]
        if kind == "info":
            data = _trimmed(data)
        headers = {name: found[name] for name in _PASSED if name in found}
        await self._answer(asked.reply, data, headers | {GATE: "1"})

    async def _refuse(self, reply: str, why: str) -> None:
        self.refused += 1
        await self._answer(
            reply, b"", {"Status": "403", "Description": " ".join(why.split())[:500], GATE: "1"}
        )

    def _deny(self, subject: str) -> None:
        """The server does not let the gate do it: its own credential is too narrow."""
        for token, asked in list(self._asked.items()):
            if asked.ask.subject.lower() == subject.lower():
                del self._asked[token]
                why = f"the gate itself may not publish to {asked.ask.subject}: it runs with too narrow a credential"
                asyncio.create_task(self._refuse(asked.reply, why))

    async def _answer(self, reply: str, data: bytes, headers: Headers) -> None:
        try:
            await self._connection.publish(reply, data, headers=headers)
        except Error:
            pass

    async def _sweep(self) -> None:
        """Forget requests whose answers do not come: a stream without a leader, a connection that was lost."""
        while True:
            await asyncio.sleep(PATIENCE / 3)
            now = self._clock()
            for token in [token for token, asked in self._asked.items() if asked.until < now]:
                del self._asked[token]


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
