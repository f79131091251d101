"""The bare bus, by hand with nats-py: the floor, and what one would write without natsproc.

Writing: `core` (nothing is stored), `fast` (fast-ingest batches, ADR-50), `live` (the same into a stream that
republishes), `async` (JetStream's publish_async), `await` (each publish awaited). Watching: `core`, `live`.
Reading: `ordered` (nats-py's ordered consumer, with a callback), `iterated` (the same with `async for`), `push` (a push
consumer with flow control).
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from benchmarks.roles import Body, Text

_SETTINGS = {"storage": "file", "allow_direct": True, "allow_batched": True, "discard": "old"}
STREAMS: list[dict[str, Any]] = [
    {"name": "PLAIN", "subjects": ["plain.*"], **_SETTINGS},
    {
        "name": "LIVE",
        "subjects": ["stored.*"],
        "republish": {"src": "stored.*", "dest": "live.{{wildcard(1)}}"},
        **_SETTINGS,
    },
]
FLOW, AHEAD = 500, 4  # as natsproc, so that the server has as much in hand


class Ingest:
    """One fast-ingest batch: entries with the place in their reply subject, acknowledged every FLOW of them."""

    def __init__(self, nc: Client, subject: str) -> None:
        self._nc, self.subject = nc, subject
        self._sent = self._stored = 0
        self._limit = 1
        self._heard = asyncio.Event()
        self._done = True

    async def _begin(self) -> None:
        stem = f"{self._nc.new_inbox()}.{uuid.uuid4().hex}"
        self._sent = self._stored = 0
        self._limit, self._done = 1, False
        self._stem = f"{stem}.{FLOW}.fail"
        self._subscription = await self._nc.subscribe(f"{stem}.>", cb=self._hear)

    async def _hear(self, msg: Msg) -> None:
        answer = json.loads(msg.data)
        if answer.get("type") == "ack":
            self._stored = int(answer["seq"])
            self._limit = self._stored + AHEAD * int(answer["msgs"])
        elif "batch" in answer:
            self._done = int(answer["count"]) == self._sent
        else:
            raise RuntimeError(answer)
        self._heard.set()

    async def emit(self, text: str) -> None:
        if self._done:
            await self._begin()
        while self._sent >= self._limit:
            self._heard.clear()
            await self._heard.wait()
        self._sent += 1
        reply = f"{self._stem}.{self._sent}.{0 if self._sent == 1 else 1}.$FI"
        await self._nc.publish(self.subject, text.encode(), reply)

    async def flush(self) -> None:
        if self._done:
            return
        await self._nc.publish(self.subject, b"", f"{self._stem}.{self._sent + 1}.3.$FI")
        while not self._done:
            self._heard.clear()
            await self._heard.wait()
        await self._subscription.unsubscribe()


async def write(url: str, id: str, body: Body, how: str) -> None:
    nc = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    if how == "core":

        async def publish(text: str) -> None:
            await nc.publish(f"core.{id}", text.encode())

        await body(publish, nc.flush)
    elif how in ("fast", "live"):
        ingest = Ingest(nc, f"{'plain' if how == 'fast' else 'stored'}.{id}")
        await body(ingest.emit, ingest.flush)
    elif how == "single":  # stored and republished, one at a time: for what is written slowly
        js = nc.jetstream(publish_async_max_pending=4000)

        async def store(text: str) -> None:
            await js.publish_async(f"stored.{id}", text.encode())

        await body(store, js.publish_async_completed)
    elif how == "async":
        js = nc.jetstream(publish_async_max_pending=4000)

        async def begin(text: str) -> None:
            await js.publish_async(f"plain.{id}", text.encode())

        await body(begin, js.publish_async_completed)
    else:
        js = nc.jetstream()

        async def stored(text: str) -> None:
            await js.publish(f"plain.{id}", text.encode(), timeout=1)

        await body(stored, nc.flush)
    await nc.close()


async def watch(url: str, id: str, on: Callable[[Text], None], how: str) -> None:
    """`proc` watches what natsproc writes, without reading it: the subject is where its events are republished."""
    nc = await nats.connect(url)

    async def heard(msg: Msg) -> None:
        on(msg.data)

    async def heard_event(msg: Msg) -> None:
        start = msg.data.find(b'"data":"') + 8
        if msg.data[start : start + 1].isdigit():
            on(msg.data[start:])

    if how == "proc":
        await nc.subscribe(f"proc.default.{id}.live", cb=heard_event)
    else:
        await nc.subscribe(f"{'live' if how in ('live', 'single') else 'core'}.{id}", cb=heard)
    await asyncio.Event().wait()


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[Client]:
    nc = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    yield nc
    await nc.close()


async def follow(nc: Client, id: str, on: Callable[[Text], None], how: str) -> None:
    """nats-py's ordered consumer, from the next message on."""
    await _ordered(nc, id, on, DeliverPolicy.NEW)


async def catch_up(nc: Client, id: str, on: Callable[[Text], None], how: str) -> None:
    await _ordered(nc, id, on, DeliverPolicy.ALL)


async def _ordered(nc: Client, id: str, on: Callable[[Text], None], start: DeliverPolicy) -> None:
    async def take(msg: Msg) -> None:
        on(msg.data)

    await nc.jetstream().subscribe(f"plain.{id}", cb=take, ordered_consumer=True, deliver_policy=start)
    await _for_ever()


async def replay(url: str, id: str, on: Callable[[Text], None], how: str) -> None:
    """Read natsproc's log of a process: the entries as they are, without deciding whether they count."""
    nc = await nats.connect(url)
    js = nc.jetstream()
    subject = f"proc.default.{id}.events"
    if how == "iterated":
        subscription = await js.subscribe(
            subject, stream="PROC_EVENTS", ordered_consumer=True, pending_msgs_limit=-1
        )
        async for msg in subscription.messages:
            on(msg.data)
        return None
    if how == "ordered":

        async def take(msg: Msg) -> None:
            on(msg.data)

        await js.subscribe(subject, stream="PROC_EVENTS", cb=take, ordered_consumer=True)
        return await _for_ever()
    inbox = nc.new_inbox()

    async def heard(msg: Msg) -> None:
        if msg.reply.startswith("$JS.ACK"):
            on(msg.data)
        elif msg.reply:  # flow control
            await nc.publish(msg.reply, b"")

    await nc.subscribe(inbox, cb=heard, pending_msgs_limit=-1, pending_bytes_limit=-1)
    config = ConsumerConfig(
        deliver_subject=inbox, filter_subject=subject, ack_policy=AckPolicy.NONE, flow_control=True,
        idle_heartbeat=0.5, max_deliver=1, mem_storage=True, num_replicas=1, inactive_threshold=5,
    )  # fmt: skip
    await js.add_consumer("PROC_EVENTS", config)
    return await _for_ever()


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def work(
    url: str, id: str, started: Callable[[], None], stopped: Callable[..., None], how: str
) -> None:
    """A task that a message on a subject cancels, and the answer that it has stopped."""
    nc = await nats.connect(url)
    task: asyncio.Task[None] | None = None

    async def heard(msg: Msg) -> None:
        assert task
        task.cancel()
        await asyncio.wait([task])
        await msg.respond(b"")

    await nc.subscribe(f"control.{id}", cb=heard)
    await nc.flush()
    while True:
        task = asyncio.create_task(_for_ever())
        await asyncio.sleep(0)
        started()
        await asyncio.wait([task])
        stopped()


@asynccontextmanager
async def controls(url: str, id: str, how: str) -> AsyncIterator[Callable[[], Any]]:
    nc = await nats.connect(url)
    yield partial(nc.request, f"control.{id}", b"stop", timeout=10)
    await nc.close()
