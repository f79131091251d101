"""Growth: what an item costs when there are 10 and 100 times as many."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.children import Channel
from benchmarks.harness import Contender, Figure, Samples, Section, Turn
from benchmarks.measures.cost import RSS
from benchmarks.measures.fanout import LATE, fan
from benchmarks.stats import Goal

EMIT, REPLAY, OPEN = "an event written", "an event replayed", "a tail opened, to its first event"
LIST, MEMORY, VIEWERS = "a process listed", "an idle process", "latency of all viewers"
SIZES = ("1×", "10×", "100×")


async def listing(channel: Channel, url: str, namespace: str) -> None:
    """List a namespace, and say how long that took (ms)."""
    import natsproc

    async with natsproc.connect(url, namespace=namespace) as mesh:
        await mesh.list()
        took = []
        for _ in range(3):
            start = time.perf_counter()
            await mesh.list()
            took.append((time.perf_counter() - start) * 1e3)
        channel.say(took=took)


async def _log(turn: Turn, factor: int) -> dict[str, Any]:
    """Write a log and read it."""
    url, id, count = await turn.url("nats"), turn.name(), turn.size(5_000, 500, 20) * factor
    async with turn.child("roles:flood", peer="ours", url=url, id=id, seconds=600, count=count) as writer:
        await writer.hear()
        writer.say(go=True)
        written = await writer.hear(200)
    async with turn.child("roles:read", peer="ours", url=url, id=id, count=count, seconds=600) as reader:
        read = await reader.hear(200)
    return {
        EMIT: [written["seconds"] / written["count"] * 1e6],
        REPLAY: [read["seconds"] / read["count"] * 1e6],
    }


async def _processes(turn: Turn, factor: int) -> dict[str, Any]:
    """Own processes, list them, and open a tail among as many that have ended long ago."""
    url, namespace, count = await turn.url("nats"), turn.name(), turn.size(100, 10, 1) * factor
    async with turn.child(
        "measures.cost:ours", url=url, count=count, traced=False, namespace=namespace
    ) as owner:
        each = (await owner.hear(200))[RSS]
        async with turn.child("measures.growth:listing", url=url, namespace=namespace) as lister:
            took = (await lister.hear(60))["took"]
    return {MEMORY: [each], LIST: [ms / count * 1e3 for ms in took]}


async def _opened(turn: Turn, factor: int) -> dict[str, Any]:
    url, tag, count = await turn.url("nats"), turn.name(), turn.size(1_000, 50, 2) * factor
    async with turn.child("measures.opening:crowd", url=url, processes=count, length=20, tag=tag) as owner:
        await owner.hear(200)
    async with turn.child(
        "measures.opening:tails", url=url, id=f"short{tag}", cursor="", count=turn.size(50, 10, 2)
    ) as viewer:
        return {OPEN: (await viewer.hear())["took"]}


def grown(factor: int) -> Callable[[Turn], Awaitable[Samples]]:
    async def run(turn: Turn) -> Samples:
        found = await _log(turn, factor) | await _processes(turn, factor) | await _opened(turn, factor)
        viewers = turn.size(10, 1, 1) * factor
        late = await fan(turn, "ours", viewers, turn.size(4.0, 1.0, 0.3), rate=10)
        return found | {VIEWERS: late[LATE]}

    return run


SECTION = Section(
    "growth",
    "Growth",
    "What one item costs natsproc when there are as many as at 1×, ten and a hundred times as many: 5,000 events written and "
    "replayed, 1,000 processes with ten events each beside the one that is tailed, 100 idle processes, and 10 viewers of "
    "10 events a second.",
    [
        Figure(EMIT, "µs"), Figure(REPLAY, "µs"), Figure(OPEN, "ms"), Figure(LIST, "µs"), Figure(MEMORY, "KB"),
        Figure(VIEWERS, "ms"),
    ],
    [Contender(name, grown(10**power)) for power, name in enumerate(SIZES)],
    [Goal("100×", figure, 1.2, "most", "1×") for figure in (EMIT, REPLAY, OPEN, LIST, MEMORY)],
    rounds=2,
    growth=True,
)  # fmt: skip
