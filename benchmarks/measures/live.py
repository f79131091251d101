"""Live read: events that one viewer takes in a second while they are being written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.harness import Contender, Figure, Samples, Section, Turn
from benchmarks.measures.latency import watched
from benchmarks.stats import Goal

RATE = "events/s"


def rushed(peer: str, kind: str, viewer: str = "", **options: Any) -> Callable[[Turn], Awaitable[Samples]]:
    async def run(turn: Turn) -> Samples:
        # longer, and the server would cut a bare subscription off: it keeps 64 MB for it
        _, seen = await watched(turn, peer, kind, 0, turn.size(1.5, 0.7, 0.3), viewer, **options)
        return {RATE: [len(seen["latencies"]) / seen["seconds"]]}

    return run


SECTION = Section(
    "live",
    "Live read",
    "Events of 100 bytes that one viewer takes in a second, from the first to the last, while another OS process writes them "
    "as fast as it goes. The republish subscription hears what natsproc's writer writes, without reading what it says.",
    [Figure(RATE, "1/s", more_is_better=True)],
    [
        Contender("natsproc", rushed("ours", "nats")),
        Contender("natsproc under uvloop", rushed("ours", "nats", uvloop=True), modules=("uvloop",)),
        Contender("republish subscription", rushed("ours", "nats", "bare:proc")),
        Contender("fast-ingest loop and republish subscription", rushed("bare:live", "nats")),
        Contender("core pub/sub", rushed("bare:core", "nats")),
        Contender("Synadia agent SDKs", rushed("synadia", "nats"), rounds=2, modules=("synadia_ai",)),
        Contender("Redis streams", rushed("redis", "redis"), modules=("redis",)),
        Contender(
            "Temporal workflow stream", rushed("temporal", "temporal"), rounds=2, modules=("temporalio",)
        ),
        Contender(
            "DBOS stream, PostgreSQL", rushed("dbos", "postgres"), rounds=2, modules=("dbos", "psycopg")
        ),
    ],
    [Goal("natsproc", RATE, 0.7, "least", "republish subscription")],
)
