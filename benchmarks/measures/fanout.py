"""Fan-out: many viewers on one process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from benchmarks.children import Channel
from benchmarks.harness import Contender, Figure, Samples, Section, Turn
from benchmarks.roles import Watcher
from benchmarks.stats import Goal

LATE, RATE = "latency of all viewers", "publisher's rate"
PER_SECOND = 100
PROCESSES = 4


async def audience(channel: Channel, url: str, id: str, count: int, ours: bool) -> None:
    """So many viewers over one connection; says how late events were (ms), for a part of them."""
    import nats

    import natsproc
    from benchmarks.peers.ours import there

    waiting = count

    def seen() -> None:
        nonlocal waiting
        waiting -= 1
        if not waiting:
            channel.say(ready=True)

    watchers = [Watcher(seen) for _ in range(count)]

    async def follow(tail: natsproc.Tail, watcher: Watcher) -> None:
        async for item in tail:
            if item.type == "tick":
                watcher(item.data)

    async with AsyncExitStack() as stack:
        if ours:
            mesh = await stack.enter_async_context(natsproc.connect(url))
            await there(mesh, id)
            tasks = [asyncio.create_task(follow(mesh.process(id).tail(n=0), watcher)) for watcher in watchers]
        else:
            nc = await nats.connect(url)
            tasks = []
            for watcher in watchers:

                async def heard(msg: object, watcher: Watcher = watcher) -> None:
                    watcher(msg.data)  # type: ignore[attr-defined]

                await nc.subscribe(f"core.{id}", cb=heard)
        for watcher in watchers:
            await watcher.ended.wait()
        channel.say(
            latencies=[
                late / 1e6 for watcher in watchers for late in watcher.latencies[:: max(1, count // 10)]
            ]
        )
        for task in tasks:
            task.cancel()


async def fan(turn: Turn, peer: str, viewers: int, seconds: float, rate: float = PER_SECOND) -> Samples:
    """A writer at a pace, and its viewers in four OS processes (fewer for a few viewers)."""
    url, id = await turn.url("nats"), turn.name()
    processes = min(PROCESSES, viewers) if viewers else 0
    async with AsyncExitStack() as stack:
        writer = await stack.enter_async_context(
            turn.child("roles:stream", peer=peer, url=url, id=id, rate=rate, seconds=seconds)
        )
        rooms = [
            await stack.enter_async_context(
                turn.child(
                    "measures.fanout:audience",
                    url=url,
                    id=id,
                    count=viewers // processes,
                    ours=peer == "ours",
                )
            )
            for _ in range(processes)
        ]
        await writer.hear()
        for room in rooms:
            await room.hear(120)
        writer.say(go=True)
        written = await writer.hear(120)
        late = [sample for room in rooms for sample in (await room.hear(120))["latencies"]]
    return {RATE: [written["count"] / written["seconds"]], **({LATE: late} if late else {})}


def fanned(peer: str, few: bool = False) -> Callable[[Turn], Awaitable[Samples]]:
    async def run(turn: Turn) -> Samples:
        viewers = 4 if few else turn.size(1000, 100, 8)
        return await fan(turn, peer, viewers, turn.size(5.0, 1.0, 0.3))

    return run


SECTION = Section(
    "fanout",
    "Fan-out",
    "1,000 viewers, in four OS processes, of one process that writes 100 events a second; beside it 4 viewers.",
    [Figure(RATE, "1/s", more_is_better=True), Figure(LATE, "ms")],
    [
        Contender("natsproc", fanned("ours")),
        Contender("natsproc, 4 viewers", fanned("ours", few=True)),
        Contender("core pub/sub", fanned("bare:core")),
    ],
    [Goal("natsproc", RATE, 0.95, "least", "natsproc, 4 viewers")],
    rounds=3,
)
