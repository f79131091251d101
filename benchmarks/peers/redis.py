"""Redis streams, the usual hand-built way: XADD, XREAD BLOCK, and a stop key that the work looks at.

Writing: `` (pipelines of whatever has come since the last round trip, 100 at most), `await` (each XADD awaited). Stopping: `key` (looked at every 10 ms of work),
`list` (a task waits in BLPOP).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError, TimeoutError

from benchmarks.roles import Body, Text

BATCH = 100


async def write(url: str, id: str, body: Body, how: str) -> None:
    redis = Redis.from_url(url)
    if how == "await":
        await body(lambda text: redis.xadd(id, {"d": text}), redis.ping)
    else:
        pipelined = Pipelined(redis, id)
        await body(pipelined.add, pipelined.flush)
    await redis.aclose()


class Pipelined:
    def __init__(self, redis: Redis, id: str) -> None:
        self._pipe, self._id = redis.pipeline(transaction=False), id
        self._waiting: list[str] = []
        self._sending: asyncio.Task[None] | None = None

    async def add(self, text: str) -> None:
        self._waiting.append(text)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())
        if len(self._waiting) >= BATCH:
            await self._sending

    async def flush(self) -> None:
        while self._sending:
            await self._sending

    async def _send(self) -> None:
        while self._waiting:
            for text in self._waiting:
                self._pipe.xadd(self._id, {"d": text})
            self._waiting.clear()
            await self._pipe.execute()
        self._sending = None


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[Redis]:
    redis = Redis.from_url(url)
    yield redis
    await redis.aclose()


async def watch(url: str, id: str, on: Callable[[Text], None], how: str) -> None:
    async with connection(url) as redis:
        await follow(redis, id, on, how)


async def follow(redis: Redis, id: str, on: Callable[[Text], None], how: str, last: Any = "$") -> None:
    """Read whatever comes behind the entry read last; a lost connection is tried again."""
    while True:
        try:
            found = await redis.xread({id: last}, count=1000, block=1000)
        except (ConnectionError, TimeoutError):
            await asyncio.sleep(0.1)
            continue
        for _, entries in found or ():
            for last, fields in entries:  # noqa: B007
                on(fields[b"d"])


async def catch_up(redis: Redis, id: str, on: Callable[[Text], None], how: str) -> None:
    await follow(redis, id, on, how, "0")


async def replay(url: str, id: str, on: Callable[[Text], None], how: str) -> None:
    redis = Redis.from_url(url)
    last: Any = "-"
    while entries := await redis.xrange(id, min=last, count=1000):
        for last, fields in entries:  # noqa: B007
            on(fields[b"d"])
        last = b"(" + last


async def work(
    url: str, id: str, started: Callable[[], None], stopped: Callable[..., None], how: str
) -> None:
    redis = Redis.from_url(url)
    while True:
        started()
        if how == "key":
            while not await redis.getdel(f"stop:{id}"):
                await asyncio.sleep(0.01)  # a piece of work
        else:
            task = asyncio.create_task(asyncio.sleep(3600))
            await redis.blpop([f"stop:{id}"])
            task.cancel()
            await asyncio.wait([task])
        stopped()


@asynccontextmanager
async def controls(url: str, id: str, how: str) -> AsyncIterator[Callable[[], Any]]:
    redis = Redis.from_url(url)
    yield partial(redis.set if how == "key" else redis.rpush, f"stop:{id}", "1")
    await redis.aclose()
