"""Watch latency: from the call that emits to a viewer in another OS process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.harness import Contender, Figure, Samples, Section, Turn
from benchmarks.stats import Goal

RATES = (10, 1_000, 10_000)
HELD = 0.95  # of its pace that a writer has to keep for the figure to count


def figure(rate: int) -> str:
    return f"latency at {rate:,}/s"


async def watched(
    turn: Turn, peer: str, kind: str, rate: float, seconds: float, viewer: str = "", **options: Any
) -> Any:
    """One writer and one viewer: what both say at the end."""
    where, id = await turn.url(kind), turn.name()
    async with (
        turn.child(
            "roles:stream", peer=peer, url=where, id=id, rate=rate, seconds=seconds, **options
        ) as writer,
        turn.child("roles:view", peer=viewer or peer, url=where, id=id, **options) as watcher,
    ):
        await writer.hear()
        await watcher.hear()
        writer.say(go=True)
        written = await writer.hear(120)
        return written, await watcher.hear(120)


def paced(
    peer: str, kind: str, rates: tuple[int, ...] = RATES, **options: Any
) -> Callable[[Turn], Awaitable[Samples]]:
    """The latency at each rate; at one that the writer can't keep there is none."""

    async def run(turn: Turn) -> Samples:
        found: dict[str, list[float]] = {}
        for rate in rates:
            seconds = turn.size({10: 6.0, 1_000: 3.0, 10_000: 2.0}[rate], 1.0, 0.3)
            written, seen = await watched(turn, peer, kind, rate, seconds, **options)
            if written["count"] < HELD * rate * written["seconds"]:
                break
            found[figure(rate)] = seen["latencies"]
        return found

    return run


def _goals(rate: int) -> list[Goal]:
    name = figure(rate)
    return [
        Goal("natsproc", name, 1.25, "most", "core pub/sub", "p50"),
        Goal("natsproc", name, 2.0, "most", "core pub/sub", "p99"),
    ]


SLOW = (10, 1_000)
SECTION = Section(
    "latency",
    "Watch latency",
    "Milliseconds from the call that emits an event of 100 bytes to its viewer's code, in another OS process of the same "
    "machine (one clock). natsproc, Redis, the tables, Temporal and DBOS show only what is stored; core pub/sub stores "
    "nothing, and neither do the Synadia SDKs. Whoever can't keep a rate has no figure there.",
    [Figure(figure(rate), "ms") for rate in RATES],
    [
        Contender("natsproc", paced("ours", "nats")),
        Contender("natsproc under uvloop", paced("ours", "nats", uvloop=True), modules=("uvloop",)),
        Contender("core pub/sub", paced("bare:core", "nats")),
        Contender("stored and republished", paced("bare:single", "nats")),
        Contender("Synadia agent SDKs", paced("synadia", "nats"), rounds=2, modules=("synadia_ai",)),
        Contender("Redis streams", paced("redis", "redis"), modules=("redis",)),
        Contender("polling SQLite", paced("table", "sqlite"), rounds=2),
        Contender("polling PostgreSQL", paced("table", "postgres"), rounds=2, modules=("psycopg",)),
        Contender(
            "Temporal workflow stream", paced("temporal", "temporal", SLOW), rounds=2, modules=("temporalio",)
        ),
        Contender("DBOS stream, SQLite", paced("dbos", "sqlite", SLOW), rounds=2, modules=("dbos",)),
        Contender(
            "DBOS stream, PostgreSQL", paced("dbos", "postgres", SLOW), rounds=2, modules=("dbos", "psycopg")
        ),
    ],
    [goal for rate in RATES for goal in _goals(rate)],
    rounds=4,
)
