"""Durable emit: events that one OS process gets acknowledged in a second."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.harness import Contender, Figure, Samples, Section, Turn
from benchmarks.stats import Goal

RATE = "stored/s"


def flood(peer: str, kind: str, **options: Any) -> Callable[[Turn], Awaitable[Samples]]:
    """A writer that is given some seconds, until all it wrote is stored."""

    async def run(turn: Turn) -> Samples:
        seconds = turn.size(2.0, 0.7, 0.3)
        where = await turn.url(kind)
        async with turn.child(
            "roles:flood", peer=peer, url=where, id=turn.name(), seconds=seconds, **options
        ) as writer:
            await writer.hear()
            writer.say(go=True)
            found = await writer.hear(120)
        return {RATE: [found["count"] / found["seconds"]]}

    return run


SECTION = Section(
    "emit",
    "Durable emit",
    "Events of 100 bytes that one OS process writes in a second and that are all stored and acknowledged.",
    [Figure(RATE, "1/s", more_is_better=True)],
    [
        Contender("natsproc", flood("ours", "nats")),
        Contender("natsproc under uvloop", flood("ours", "nats", uvloop=True), modules=("uvloop",)),
        Contender("fast-ingest loop", flood("bare:fast", "nats")),
        Contender("fast-ingest loop, republished", flood("bare:live", "nats")),
        Contender("publish_async", flood("bare:async", "nats")),
        Contender("publish, awaited", flood("bare:await", "nats"), rounds=2),
        Contender("Redis XADD, pipelined", flood("redis", "redis"), modules=("redis",)),
        Contender("Redis XADD, awaited", flood("redis:await", "redis"), rounds=2, modules=("redis",)),
        Contender("SQLite table", flood("table", "sqlite"), rounds=2),
        Contender("PostgreSQL table", flood("table", "postgres"), rounds=2, modules=("psycopg",)),
        Contender(
            "Temporal workflow stream", flood("temporal", "temporal"), rounds=2, modules=("temporalio",)
        ),
        Contender("DBOS stream, SQLite", flood("dbos", "sqlite"), rounds=2, modules=("dbos",)),
        Contender(
            "DBOS stream, PostgreSQL", flood("dbos", "postgres"), rounds=2, modules=("dbos", "psycopg")
        ),
    ],
    [
        Goal("natsproc", RATE, 2.5, "least", "publish_async"),
        Goal("natsproc", RATE, 0.7, "least", "fast-ingest loop"),
    ],
)
