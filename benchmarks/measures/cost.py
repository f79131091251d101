"""Cost per process: memory of a node with many idle ones, and what they take up on the bus."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import psutil

from benchmarks.children import Channel
from benchmarks.harness import Contender, Figure, Samples, Section, Turn
from benchmarks.stats import Goal

RSS, TRACED, TAKES = "memory of the OS process, each", "Python objects, each", "to start one"
CONSUMERS = "JetStream consumers, each"
AT_ONCE = 50


class Meter:
    """What has been allocated since."""

    def __init__(self, traced: bool) -> None:
        self._traced = traced
        gc.collect()
        if traced:
            tracemalloc.start()
        self._before = self._now()
        self._start = time.perf_counter()

    def _now(self) -> int:
        return tracemalloc.get_traced_memory()[0] if self._traced else int(psutil.Process().memory_info().rss)

    def of(self, count: int) -> dict[str, float]:
        took = time.perf_counter() - self._start
        gc.collect()
        each = (self._now() - self._before) / 1024 / count
        return {TRACED: each} if self._traced else {RSS: each, TAKES: took / count * 1e3}


async def ours(channel: Channel, url: str, count: int, traced: bool, namespace: str = "idle") -> None:
    """Own so many processes in one OS process."""
    import natsproc

    async with natsproc.connect(url, namespace=namespace) as mesh, AsyncExitStack() as stack:
        await mesh.node()
        meter = Meter(traced)
        for start in range(0, count, AT_ONCE):
            opened = [mesh.own() for _ in range(min(AT_ONCE, count - start))]
            await asyncio.gather(*(_owned(own, stack) for own in opened))
        await asyncio.sleep(0.5)
        channel.say(**meter.of(count))
        await channel.gone()


async def _owned(own: Any, stack: AsyncExitStack) -> None:
    """Keep one open in a task of its own, as a server would."""
    ready = asyncio.Event()

    async def live() -> None:
        async with own as proc:
            await proc.emit("tick", "one")
            ready.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(live())
    stack.callback(task.cancel)
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task  # its error


async def subscriptions(channel: Channel, url: str, count: int, traced: bool) -> None:
    """By hand: a subscription with a callback for each, and no more."""
    import nats

    nc = await nats.connect(url)
    await nc.flush()
    meter = Meter(traced)
    for number in range(count):

        async def heard(msg: object) -> None: ...

        await nc.subscribe(f"control.{number}", cb=heard)
    await nc.flush()
    channel.say(**meter.of(count))
    await channel.gone()


async def agents(channel: Channel, url: str, count: int, traced: bool) -> None:
    """An agent of the Synadia SDK for each."""
    import nats
    from synadia_ai.agent_service import AgentService

    nc = await nats.connect(url)
    meter = Meter(traced)
    services = []
    for number in range(count):
        services.append(
            AgentService(agent="bench", owner="bench", session_name=f"s{number}", nc=nc, description="idle")
        )

        async def answer(envelope: object, stream: object) -> None: ...

        services[-1].on_prompt(answer)
        await services[-1].start()
    channel.say(**meter.of(count))
    await channel.gone()


async def _consumers(url: str) -> int:
    """How many JetStream consumers the server has."""
    import nats

    nc = await nats.connect(url)
    streams = await nc.jetstream().streams_info()
    await nc.close()
    return sum(info.state.consumer_count for info in streams)


def idle(
    role: str, sizes: tuple[int, int, int], traced_sizes: tuple[int, int, int]
) -> Callable[[Turn], Awaitable[Samples]]:
    """RSS with many, then what tracemalloc says with fewer, as it makes everything slower."""

    async def run(turn: Turn) -> Samples:
        url = await turn.url("nats")
        found: dict[str, list[float]] = {}
        for traced, choice in ((False, sizes), (True, traced_sizes)):
            count = turn.size(*choice)
            before = await _consumers(url)
            async with turn.child(f"measures.cost:{role}", url=url, count=count, traced=traced) as child:
                found |= {name: [value] for name, value in (await child.hear(200)).items()}
                if not traced:
                    found[CONSUMERS] = [(await _consumers(url) - before) / count]
        return found

    return run


SECTION = Section(
    "cost",
    "Cost per process",
    "10,000 idle processes in one OS process (1,000 of the Synadia SDK's agents), each of which has written one event: "
    "what the OS process has grown by, what Python's objects take (tracemalloc, with 1,000), and what each takes up on the bus.",
    [Figure(RSS, "KB"), Figure(TRACED, "KB"), Figure(TAKES, "ms"), Figure(CONSUMERS, "")],
    [
        Contender("natsproc", idle("ours", (10_000, 500, 20), (1_000, 100, 10))),
        Contender("a subscription each", idle("subscriptions", (10_000, 500, 20), (1_000, 100, 10))),
        Contender(
            "Synadia agent SDKs", idle("agents", (1_000, 100, 5), (200, 50, 5)), modules=("synadia_ai",)
        ),
    ],
    [Goal("natsproc", RSS, 16.0), Goal("natsproc", CONSUMERS, 0.0)],
    rounds=2,
)
