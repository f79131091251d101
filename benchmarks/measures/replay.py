"""Replay: events of one process's long log that reach user code in a second."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.harness import Contender, Figure, Samples, Section, Turn
from benchmarks.stats import Goal

RATE = "events/s"


def filled(peer: str, kind: str, sizes: tuple[int, int, int]) -> Callable[[Turn], Awaitable[None]]:
    """Write one log, once. The writer goes then, as its log is to be read when it is at rest."""

    async def prepare(turn: Turn) -> None:
        count, id = turn.size(*sizes), turn.name()
        async with turn.child(
            "roles:fill", peer=peer, url=await turn.url(kind), id=id, count=count
        ) as writer:
            await writer.hear(300)
        turn.state.update(id=id, count=count)

    return prepare


LARGE, SMALL = (1_000_000, 100_000, 2_000), (20_000, 3_000, 200)
_shared: dict[str, Any] = {}  # natsproc's log, which the bare bus reads, too


async def _ours(turn: Turn) -> None:
    url = await turn.url("nats")
    if _shared.get("url") != url:
        await filled("ours", "nats", LARGE)(turn)
        _shared.update(turn.state, url=url)
    turn.state.update(_shared)


def replayed(peer: str, kind: str, **options: Any) -> Callable[[Turn], Awaitable[Samples]]:
    async def run(turn: Turn) -> Samples:
        seconds = turn.size(30.0, 5.0, 2.0)
        arguments = {"id": turn.state["id"], "count": turn.state["count"], "seconds": seconds}
        url = await turn.url(kind)
        async with turn.child("roles:read", peer=peer, url=url, **arguments, **options) as reader:
            found = await reader.hear(200)
        return {RATE: [found["count"] / found["seconds"]]}

    return run


SECTION = Section(
    "replay",
    "Replay",
    "Events of 100 bytes a second that reach user code out of one process's log of 1,000,000 events (DBOS: 20,000), "
    "read from its beginning for 30 seconds at most. What reads with nats-py hands over entries as they are; natsproc parses "
    "them, and decides which count.",
    [Figure(RATE, "1/s", more_is_better=True)],
    [
        Contender("natsproc", replayed("ours", "nats"), _ours),
        Contender("natsproc under uvloop", replayed("ours", "nats", uvloop=True), _ours, modules=("uvloop",)),
        Contender("ordered consumer", replayed("bare:ordered", "nats"), _ours),
        Contender("ordered consumer, iterated", replayed("bare:iterated", "nats"), _ours),
        Contender("push consumer with flow control", replayed("bare:push", "nats"), _ours),
        Contender("Redis XRANGE", replayed("redis", "redis"), filled("redis", "redis", LARGE), modules=("redis",)),
        Contender("SQLite table", replayed("table", "sqlite"), filled("table", "sqlite", LARGE)),
        Contender(
            "PostgreSQL table", replayed("table", "postgres"), filled("table", "postgres", LARGE), modules=("psycopg",)
        ),
        Contender(
            "DBOS stream, PostgreSQL", replayed("dbos", "postgres"), filled("dbos", "postgres", SMALL),
            rounds=2, modules=("dbos", "psycopg"),
        ),
    ],
    [
        Goal("natsproc", RATE, 2.0, "least", "ordered consumer"),
        Goal("natsproc", RATE, 2.0, "least", "ordered consumer, iterated"),
        Goal("natsproc", RATE, 0.6, "least", "push consumer with flow control"),
    ],
    rounds=2,
)  # fmt: skip
