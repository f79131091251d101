"""Reconnect: a server that is killed and comes back, and a viewer that is far behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from benchmarks.children import Channel
from benchmarks.harness import Contender, Figure, Samples, Section, Turn
from benchmarks.roles import DIGITS, END, Text, peer_of
from benchmarks.servers import Server

BACK, BEHIND = "server back → every tail shows what is new", "10,000 events behind → caught up"
TAILS, READERS = 100, 5


async def writer(channel: Channel, peer: str, url: str, id: str) -> None:
    """Write 50 events a second, whatever happens to the server, and the last one when told to."""
    from benchmarks.roles import Emit, Flush, event

    module, how = peer_of(peer)

    async def body(emit: Emit, flush: Flush) -> None:
        channel.say(ready=True)
        while not channel.left.done():
            try:
                async with asyncio.timeout(5):
                    await emit(event(time.monotonic_ns()))
            except Exception:  # the server is away
                pass
            await asyncio.sleep(0.02)

    await module.write(url, id, body, how)


async def tails(channel: Channel, peer: str, url: str, id: str, count: int) -> None:
    """Many viewers over one connection where the peer's client can; says when each has seen what was written after `since`."""
    module, how = peer_of(peer)
    newest = [0] * count

    def watcher(number: int) -> Callable[[Text], None]:
        def on(text: Text) -> None:
            if (stamp := int(text[:DIGITS])) < END:
                newest[number] = stamp

        return on

    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(module.connection(url))
        for number in range(count):
            asyncio.create_task(module.follow(connection, id, watcher(number), how))
        while not all(newest):
            await asyncio.sleep(0.01)
        channel.say(ready=True)
        since = (await channel.hear())["since"]
        while min(newest) < since:
            await asyncio.sleep(0.002)
        channel.say(at=time.monotonic_ns())
        await channel.gone()


async def behind(channel: Channel, peer: str, url: str, id: str, count: int) -> None:
    """Read the last `count` events of a log, and say how long it took (ms)."""
    module, how = peer_of(peer)
    seen = 0
    done = asyncio.Event()

    def on(text: Text) -> None:
        nonlocal seen
        seen += 1
        if seen >= count:
            done.set()

    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(module.connection(url))
        start = time.perf_counter()
        task = asyncio.create_task(module.catch_up(connection, id, on, how))
        await done.wait()
        channel.say(took=(time.perf_counter() - start) * 1e3)
        task.cancel()


def bounced(peer: str, kind: str) -> Callable[[Turn], Awaitable[Samples]]:
    async def run(turn: Turn) -> Samples:
        found = {BACK: [await _bounce(turn, peer, kind)]}
        url, id, count = await turn.url(kind), turn.name(), turn.size(10_000, 10_000, 500)
        async with turn.child("roles:fill", peer=peer, url=url, id=id, count=count) as filler:
            await filler.hear(120)
            found[BEHIND] = []
            for _ in range(READERS):
                async with turn.child(
                    "measures.reconnect:behind", peer=peer, url=url, id=id, count=count
                ) as reader:
                    found[BEHIND].append((await reader.hear(120))["took"])
        return found

    return run


async def _bounce(turn: Turn, peer: str, kind: str) -> float:
    """Kill the server and start it again; milliseconds from when it answers."""
    server, id = await turn.server(kind), turn.name()
    assert isinstance(server, Server)
    count = turn.size(TAILS, 20, 3)
    async with (
        turn.child("measures.reconnect:writer", peer=peer, url=server.url, id=id) as writing,
        turn.child("measures.reconnect:tails", peer=peer, url=server.url, id=id, count=count) as tails,
    ):
        await writing.hear()
        await tails.hear(120)
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(Server.start, server)
        back = time.monotonic_ns()
        tails.say(since=back)
        return float((await tails.hear(120))["at"] - back) / 1e6


SECTION = Section(
    "reconnect",
    "Reconnect",
    "The server is killed (`kill -9`) with 100 tails attached to a process that writes 50 events a second, and is back a second "
    "later: milliseconds until all tails have shown an event that was written after it answered. And: milliseconds that a "
    "viewer needs to catch up on 10,000 events.",
    [Figure(BACK, "ms"), Figure(BEHIND, "ms")],
    [
        Contender("natsproc", bounced("ours", "nats")),
        Contender("ordered consumers", bounced("bare:await", "nats"), rounds=3),
        Contender("Redis streams", bounced("redis:await", "redis"), modules=("redis",)),
    ],
    rounds=5,
)
