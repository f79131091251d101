"""Interrupt: from the command until user code has stopped."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.children import Channel
from benchmarks.harness import Contender, Figure, Samples, Section, Turn
from benchmarks.stats import Goal

TIME = "command → stopped"
FAST, SLOW = (60, 15, 4), (15, 4, 2)
SELDOM = (0.02, 0.05)  # seconds between two commands, at no particular moment of what is interrupted


def stopped(peer: str, kind: str, sizes: tuple[int, int, int] = FAST) -> Callable[[Turn], Awaitable[Samples]]:
    """A worker that is stopped again and again by a controller; both are OS processes of their own."""

    async def run(turn: Turn) -> Samples:
        url, id = await turn.url(kind), turn.name()
        found: list[float] = []
        async with (
            turn.child("roles:work", peer=peer, url=url, id=id) as worker,
            turn.child("roles:control", peer=peer, url=url, id=id) as controller,
        ):
            await controller.hear()
            await worker.hear()
            for number in range(turn.size(*sizes) + 1):
                await asyncio.sleep(random.uniform(*SELDOM))
                controller.say(stop=True)
                begun, ended = (await controller.hear())["begun"], (await worker.hear())["stopped"]
                if number:  # the first one warms up
                    found.append((ended - begun) / 1e6)
                await worker.hear()
        return {TIME: found}

    return run


async def echo(channel: Channel, url: str) -> None:
    """Answer requests."""
    import nats

    nc = await nats.connect(url)

    async def answer(msg: Any) -> None:
        await msg.respond(b"")

    await nc.subscribe("echo", cb=answer)
    await nc.flush()
    channel.say(ready=True)


async def ask(channel: Channel, url: str, count: int, pause: tuple[float, float]) -> None:
    """Make requests, so many seconds apart, and say how long each took (ms)."""
    import nats

    nc = await nats.connect(url)
    took = []
    for number in range(count + 10):
        start = time.perf_counter()
        await nc.request("echo", b"", timeout=10)
        if number >= 10:
            took.append((time.perf_counter() - start) * 1e3)
        await asyncio.sleep(random.uniform(*pause))
    channel.say(took=took)


async def round_trips(turn: Turn) -> Samples:
    """Of requests that keep everybody awake."""
    return await _round_trips(turn, turn.size(300, 60, 10), (0.002, 0.002))


async def seldom(turn: Turn) -> Samples:
    """Of requests as rare as commands: a processor that has slept takes about twice the time for the same."""
    return await _round_trips(turn, turn.size(*FAST), SELDOM)


async def _round_trips(turn: Turn, count: int, pause: tuple[float, float]) -> Samples:
    url = await turn.url("nats")
    async with turn.child("measures.interrupt:echo", url=url) as responder:
        await responder.hear()
        async with turn.child("measures.interrupt:ask", url=url, count=count, pause=pause) as asker:
            return {TIME: (await asker.hear())["took"]}


def _dbos(how: str, kind: str) -> Callable[[Turn], Awaitable[Samples]]:
    return stopped(f"dbos:{how}", kind, SLOW)


SECTION = Section(
    "interrupt",
    "Interrupt",
    "Milliseconds from the command until user code has stopped, the two in OS processes of their own. natsproc's commands are "
    "stored besides, and answered once the code has stopped. `hard` reaches Python that does not let its loop turn; code in "
    "one long call of C (here some 0.2 s) is reached when that returns.",
    [Figure(TIME, "ms")],
    [
        Contender("request round trip", seldom),
        Contender("request round trips, 2 ms apart", round_trips),
        Contender("natsproc", stopped("ours:idle", "nats")),
        Contender("natsproc, busy loop, turns of 0.2 ms", stopped("ours:busy", "nats")),
        Contender("natsproc, busy loop, turns of 0.02 ms", stopped("ours:short", "nats")),
        Contender("natsproc, busy loop, turns of 10 ms", stopped("ours:long", "nats")),
        Contender("natsproc, beside two threads that compute", stopped("ours:threads", "nats")),
        Contender("natsproc, blocked in Python (hard)", stopped("ours:python", "nats")),
        Contender("natsproc, blocked in a system call (hard)", stopped("ours:call", "nats")),
        Contender("natsproc, blocked in C (hard)", stopped("ours:c", "nats", SLOW)),
        Contender("natsproc, wrapped command", stopped("ours:wrapped", "nats")),
        Contender("nats-py, a subject that cancels a task", stopped("bare", "nats")),
        Contender("Redis stop key, looked at every 10 ms", stopped("redis:key", "redis"), modules=("redis",)),
        Contender("Redis BLPOP that cancels a task", stopped("redis:list", "redis"), modules=("redis",)),
        Contender("polling PostgreSQL", stopped("table", "postgres", SLOW), rounds=2, modules=("psycopg",)),
        Contender("Temporal signal", stopped("temporal:signal", "temporal", SLOW), rounds=2, modules=("temporalio",)),
        Contender("Temporal update", stopped("temporal:update", "temporal", SLOW), rounds=2, modules=("temporalio",)),
        Contender(
            "Temporal cancel, activity with heartbeats", stopped("temporal:cancel", "temporal", SLOW),
            rounds=2, modules=("temporalio",),
        ),
        Contender("DBOS send → recv, SQLite", _dbos("told", "sqlite"), rounds=2, modules=("dbos",)),
        Contender("DBOS send → recv, PostgreSQL", _dbos("told", "postgres"), rounds=2, modules=("dbos", "psycopg")),
        Contender("DBOS cancel, PostgreSQL", _dbos("cancel", "postgres"), rounds=2, modules=("dbos", "psycopg")),
    ],
    [
        Goal("natsproc", TIME, 2.5, "most", "request round trip"),
        Goal("natsproc, blocked in Python (hard)", TIME, 25.0, "most", statistic="p99"),
    ],
    rounds=4,
)  # fmt: skip
