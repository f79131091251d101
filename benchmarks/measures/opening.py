"""Open a tail: how long it takes until the first event is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.children import Channel
from benchmarks.harness import Contender, Figure, Samples, Section, Turn
from benchmarks.roles import event
from benchmarks.stats import Goal

MANY, MIDDLE = "first event, one of many", "first event, from the middle"
EACH = 10
PAUSE = 0.002  # seconds between two, for everybody, so that none is about closing the one before
_log: dict[str, Any] = {}


async def crowd(channel: Channel, url: str, processes: int, length: int, tag: str = "") -> None:
    """Give the event stream a crowd of other processes' events, and own one of ten events and one of `length`.

    The crowd is written straight into the stream: as ballast, its events need no owners.
    """
    import nats

    import natsproc
    from benchmarks.peers.bare import Ingest

    nc = await nats.connect(url)
    ingest = Ingest(nc, "")
    text = (
        '{"offset":1,"epoch":1,"run":1,"time":"2026-01-01T00:00:00.000Z","type":"tick","data":"'
        + event(1)
        + '"}'
    )
    async with (
        natsproc.connect(url) as mesh,
        mesh.own(f"long{tag}") as long,
        mesh.own(f"short{tag}") as short,
    ):
        for number in range(EACH * processes):
            if number == EACH * processes // 2:
                for _ in range(EACH):
                    await short.emit("tick", event(1))
                await short.flush()
            ingest.subject = f"proc.default.c{number % processes}{tag}.events"
            await ingest.emit(text)
        await ingest.flush()
        for _ in range(length):
            await long.emit("tick", event(1))
        await long.flush()
        middle = ""
        async with mesh.process(f"long{tag}").tail(n=length // 2, follow=False) as tail:
            async for item in tail:
                if item.type == "tick":
                    middle = item.cursor
                    break
        channel.say(cursor=middle)
        await channel.gone()


async def _prepare(turn: Turn) -> None:
    url = await turn.url("nats")
    if _log.get("url") != url:
        processes, length = turn.size((100_000, 1_000_000), (5_000, 50_000), (200, 500))
        async with turn.child(
            "measures.opening:crowd", url=url, processes=processes, length=length
        ) as writer:
            _log.update(await writer.hear(220), url=url)


async def tails(channel: Channel, url: str, id: str, cursor: str, count: int) -> None:
    """Open tails, one after the other, and say how long each took to its first event (ms)."""
    import natsproc

    took = []
    async with natsproc.connect(url) as mesh:
        for number in range(count + 2):
            start = time.perf_counter()
            async with mesh.process(id).tail(after=cursor or None) as tail:
                async for item in tail:
                    if item.type == "tick":
                        break
                if number >= 2:
                    took.append((time.perf_counter() - start) * 1e3)
            await asyncio.sleep(PAUSE)
    channel.say(took=took)


async def gets(channel: Channel, url: str, id: str, cursor: str, count: int) -> None:
    """The least that a viewer needs, by hand: one direct get of the first event."""
    import nats

    nc = await nats.connect(url)
    ask = b'{"next_by_subj":"proc.default.%s.events","seq":1}' % id.encode()
    took = []
    for number in range(count + 2):
        start = time.perf_counter()
        await nc.request("$JS.API.DIRECT.GET.PROC_EVENTS", ask, timeout=10)
        if number >= 2:
            took.append((time.perf_counter() - start) * 1e3)
        await asyncio.sleep(PAUSE)
    channel.say(took=took)


async def ordered(channel: Channel, url: str, id: str, cursor: str, count: int) -> None:
    """nats-py's ordered consumer, to the first event."""
    import nats

    nc = await nats.connect(url)
    js = nc.jetstream()
    took = []
    for number in range(count + 2):
        start = time.perf_counter()
        subscription = await js.subscribe(
            f"proc.default.{id}.events", stream="PROC_EVENTS", ordered_consumer=True
        )
        await subscription.next_msg(10)
        if number >= 2:
            took.append((time.perf_counter() - start) * 1e3)
        await subscription.unsubscribe()
        await asyncio.sleep(PAUSE)
    channel.say(took=took)


def opened(role: str, *, middle: bool = True) -> Callable[[Turn], Awaitable[Samples]]:
    async def run(turn: Turn) -> Samples:
        url, count = await turn.url("nats"), turn.size(100, 20, 3)
        found: dict[str, list[float]] = {}
        for figure, id, cursor in ((MANY, "short", ""), (MIDDLE, "long", _log["cursor"])):
            if middle or not cursor:
                async with turn.child(
                    f"measures.{role}", url=url, id=id, cursor=cursor, count=count
                ) as child:
                    found[figure] = (await child.hear(120))["took"]
        return found

    return run


async def _round_trips(turn: Turn) -> Samples:
    from benchmarks.measures.interrupt import TIME, round_trips

    took = (await round_trips(turn))[TIME]
    return {MANY: took, MIDDLE: took}


async def _fill_redis(turn: Turn) -> None:
    async with turn.child(
        "measures.opening:redis_crowd", url=await turn.url("redis"), processes=turn.size(100_000, 5_000, 200)
    ) as writer:
        await writer.hear(220)


async def redis_crowd(channel: Channel, url: str, processes: int) -> None:
    from redis.asyncio import Redis

    pipe = Redis.from_url(url).pipeline(transaction=False)
    for number in range(processes):
        for _ in range(EACH):
            pipe.xadd(f"c{number}", {"d": event(1)})
        if len(pipe) >= 1000:
            await pipe.execute()
    await pipe.execute()
    channel.say(done=True)


async def redis_first(channel: Channel, url: str, count: int) -> None:
    from redis.asyncio import Redis

    redis = Redis.from_url(url)
    took = []
    for number in range(count + 2):
        start = time.perf_counter()
        await redis.xread({f"c{number}": "0"}, count=1000)
        if number >= 2:
            took.append((time.perf_counter() - start) * 1e3)
        await asyncio.sleep(PAUSE)
    channel.say(took=took)


async def _redis(turn: Turn) -> Samples:
    async with turn.child(
        "measures.opening:redis_first", url=await turn.url("redis"), count=turn.size(100, 20, 3)
    ) as child:
        return {MANY: (await child.hear())["took"]}


SECTION = Section(
    "opening",
    "Open a tail",
    "Milliseconds until the first event is there: of one process among 100,000 in a log of 1,000,000 events, and from a cursor "
    "in the middle of one process's 1,000,000 events. The connection is there already.",
    [Figure(MANY, "ms"), Figure(MIDDLE, "ms")],
    [
        Contender("natsproc", opened("opening:tails"), _prepare),
        Contender("request round trip", _round_trips, _prepare),
        Contender("one direct get", opened("opening:gets", middle=False), _prepare),
        Contender("ordered consumer", opened("opening:ordered", middle=False), _prepare),
        Contender("Redis XREAD", _redis, _fill_redis, modules=("redis",)),
    ],
    [
        Goal("natsproc", MANY, 3.0, "most", "request round trip"),
        Goal("natsproc", MIDDLE, 30.0, "most", "request round trip"),
    ],
    rounds=3,
)
