"""What the measured OS processes do, whoever the peer: write events, fast or at a pace, and watch them.

An event is a text of 100 characters that begins with the nanosecond at which it was written, on the clock that all
processes of a machine share. A peer is a module of `peers` and a way, as in `bare:fast`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, Protocol

from .children import Channel

Emit = Callable[[str], Awaitable[object]]
Flush = Callable[[], Awaitable[object]]
Body = Callable[[Emit, Flush], Awaitable[None]]
Text = str | bytes

DIGITS = 20
PROBE, END = 0, 10**DIGITS - 1
_LATE = 1.0  # seconds behind its pace at which a writer gives up


class Peer(Protocol):
    """What a module of `peers` offers, as far as it can."""

    async def write(self, url: str, id: str, body: Body, how: str) -> None:
        """Call `body(emit, flush)` where events are written; `flush` returns when they are stored."""

    async def watch(self, url: str, id: str, on: Callable[[Text], None], how: str) -> None:
        """Call `on` for each event from now on, until cancelled; the process may not be there yet."""

    async def replay(self, url: str, id: str, on: Callable[[Text], None], how: str) -> None:
        """Call `on` for each event from the first to the last."""

    async def work(
        self, url: str, id: str, started: Callable[[], None], stopped: Callable[..., None], how: str
    ) -> None:
        """Do something again and again that is interrupted, and say when it begins and has stopped (now, or a time)."""

    def controls(self, url: str, id: str, how: str) -> Any:
        """An async context manager that gives `stop()`."""


def peer_of(text: str) -> tuple[Any, str]:
    name, _, how = text.partition(":")
    return import_module(f"benchmarks.peers.{name}"), how


def event(stamp: int) -> str:
    return f"{stamp:0{DIGITS}d}".ljust(100, "x")


async def flood(channel: Channel, peer: str, url: str, id: str, seconds: float, count: int = 0) -> None:
    """Write for some seconds, or `count` events, as fast as it goes, and say how many are stored and how long it took."""
    module, how = peer_of(peer)

    async def body(emit: Emit, flush: Flush) -> None:
        text = event(1)
        for _ in range(20):
            await emit(text)
        await flush()
        channel.say(ready=True)
        await channel.hear()
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds and (not count or done < count):
            for _ in range(20):
                await emit(text)
            done += 20
        await flush()
        channel.say(count=done, seconds=time.perf_counter() - start)
        await channel.gone()

    await module.write(url, id, body, how)


async def stream(channel: Channel, peer: str, url: str, id: str, rate: float, seconds: float) -> None:
    """Write at a rate (0: as fast as it goes) once somebody watches, and mark the end."""
    module, how = peer_of(peer)

    async def body(emit: Emit, flush: Flush) -> None:
        channel.say(ready=True)
        asked = asyncio.create_task(channel.hear())
        while not asked.done():
            await emit(event(PROBE))
            await asyncio.wait([asked], timeout=0.05)
        await flush()
        start = time.monotonic()
        sent = await (_pace(emit, rate, seconds, start) if rate else _rush(emit, seconds, start))
        took = time.monotonic() - start
        await emit(event(END))
        await flush()
        channel.say(count=sent, seconds=took)
        await channel.gone()

    await module.write(url, id, body, how)


async def _pace(emit: Emit, rate: float, seconds: float, start: float) -> int:
    total = int(rate * seconds)
    for number in range(total):
        delay = start + number / rate - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)
        elif delay < -_LATE:
            return number
        await emit(event(time.monotonic_ns()))
    return total


async def _rush(emit: Emit, seconds: float, start: float) -> int:
    sent = 0
    while time.monotonic() - start < seconds:
        for _ in range(20):
            await emit(event(time.monotonic_ns()))
        sent += 20
        await asyncio.sleep(0)
    return sent


class Watcher:
    """Takes what a watcher of a stream sees."""

    def __init__(self, seen: Callable[[], None]) -> None:
        self._seen = seen
        self.latencies: list[int] = []
        self.first = self.last = 0
        self.ended = asyncio.Event()
        self._probed = False

    def __call__(self, text: Text) -> None:
        now = time.monotonic_ns()
        stamp = int(text[:DIGITS])
        if stamp == PROBE:
            if not self._probed:
                self._probed = True
                self._seen()
        elif stamp == END:
            self.ended.set()
        else:
            self.first = self.first or now
            self.last = now
            self.latencies.append(now - stamp)


async def view(channel: Channel, peer: str, url: str, id: str) -> None:
    """Watch a stream to its end, and say how late events were (ms), and how long it took from the first to the last."""
    module, how = peer_of(peer)
    watcher = Watcher(lambda: channel.say(ready=True))
    watching = asyncio.create_task(module.watch(url, id, watcher, how))
    ended = asyncio.create_task(watcher.ended.wait())
    await asyncio.wait([watching, ended], return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        await watching  # its error
        raise RuntimeError("watching ended before the stream did")
    channel.say(
        latencies=[round(latency / 1e6, 4) for latency in watcher.latencies],
        seconds=(watcher.last - watcher.first) / 1e9,
    )
    watching.cancel()


async def read(channel: Channel, peer: str, url: str, id: str, count: int, seconds: float) -> None:
    """Read what is stored, all of it or for some seconds; says how many events came behind the first tenth, in what time."""
    module, how = peer_of(peer)
    done = asyncio.Event()
    seen, first, last = 0, 0.0, 0.0
    skipped = max(1, count // 10)

    def on(text: Text) -> None:
        nonlocal seen, first, last
        seen += 1
        if seen == skipped:
            first = time.perf_counter()
        if first and (not seen % 100 or seen >= count):
            last = time.perf_counter()
            if seen >= count or last - first > seconds:
                done.set()

    reading = asyncio.create_task(module.replay(url, id, on, how))
    waiting = asyncio.create_task(done.wait())
    await asyncio.wait([reading, waiting], return_when=asyncio.FIRST_COMPLETED)
    if reading.done():
        await reading
    channel.say(count=seen - skipped, seconds=max(last - first, 1e-6))
    reading.cancel()


async def fill(channel: Channel, peer: str, url: str, id: str, count: int) -> None:
    """Write so many events, and stay."""
    module, how = peer_of(peer)

    async def body(emit: Emit, flush: Flush) -> None:
        for _ in range(count):
            await emit(event(1))
        await flush()
        channel.say(count=count)
        await channel.gone()

    await module.write(url, id, body, how)


async def work(channel: Channel, peer: str, url: str, id: str) -> None:
    """Be interrupted again and again, and say when the code had stopped."""
    module, how = peer_of(peer)
    await module.work(
        url,
        id,
        lambda: channel.say(started=True),
        lambda at=None: channel.say(stopped=at or time.monotonic_ns()),
        how,
    )


async def control(channel: Channel, peer: str, url: str, id: str) -> None:
    """Interrupt whenever told to, and say when it was begun."""
    module, how = peer_of(peer)
    async with module.controls(url, id, how) as stop:
        channel.say(ready=True)
        while True:
            await channel.hear()
            begun = time.monotonic_ns()
            await stop()
            channel.say(begun=begun)
