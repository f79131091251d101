"""Many open event streams on one HTTP worker: memory for each, and when one event has reached all of them.

    python -m benchmarks.http_streams --streams 1000 --processes 1
    python -m benchmarks.http_streams --bare

A worker (uvicorn, an OS process of its own), a nats-server and the clients all run on this machine. `--bare` is what the same
streams cost that only wait, and hand on bytes that somebody else has read and encoded: the floor.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from harness import running
from meshes import make_mesh

import natsproc
from natsproc.http.request import ClientGone, while_there
from natsproc.protocol.messages import encode


class Bare:
    """Streams that wait for what one tail brings, without a past, a place or a bound."""

    def __init__(self, nats: str) -> None:
        self._mesh = natsproc.connect(nats, sender="web")
        self._streams: set[asyncio.Queue[bytes]] = set()
        self._reading: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            return await send({"type": "lifespan.shutdown.complete"})
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        queue.put_nowait(b'data: {"type":"caught_up"}\n\n')
        self._streams.add(queue)
        self._reading = self._reading or asyncio.create_task(self._read())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            async with while_there(receive):
                while True:
                    await send({"type": "http.response.body", "body": await queue.get(), "more_body": True})
        except ClientGone:
            self._streams.discard(queue)

    async def _read(self) -> None:
        async with self._mesh:
            async for item in self._mesh.process("job-0").tail(n=0):
                for queue in self._streams:
                    queue.put_nowait(b"data: %s\n\n" % encode(item.to_json()))


def serve(nats: str, listening: socket.socket, bare: bool) -> None:
    """The worker."""
    import uvicorn

    app: Any = Bare(nats) if bare else natsproc.asgi(server=nats, sender="web", authorize=lambda *_: True)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    uvicorn.Server(config).run([listening])


class Stream:
    """One client."""

    def __init__(self) -> None:
        self.caught_up = asyncio.Event()
        self.times: dict[int, float] = {}  #: when which event came
        self.bytes = 0

    async def follow(self, port: int, id: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /{id}/events?n=0 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        try:
            while line := await reader.readline():
                self.bytes += len(line)
                if not line.startswith(b"data: "):
                    continue
                item = json.loads(line[6:])
                if item["type"] == "caught_up":
                    self.caught_up.set()
                elif item["type"] == "tick":
                    self.times[item["data"]] = time.monotonic()
        finally:
            writer.close()


async def measure(nats: str, port: int, worker: psutil.Process, streams: int, processes: int) -> None:
    async with natsproc.connect(nats, sender="owner") as mesh:
        owned = [mesh.own(f"job-{n}") for n in range(processes)]
        procs = [await one.__aenter__() for one in owned]
        for proc in procs:
            await proc.flush()
        warm = Stream()
        warming = asyncio.create_task(warm.follow(port, "job-0"))
        await warm.caught_up.wait()
        warming.cancel()
        await asyncio.sleep(1)
        before, began = worker.memory_info().rss, time.monotonic()
        clients = [Stream() for _ in range(streams)]
        following = []
        for number, client in enumerate(clients):
            following.append(asyncio.create_task(client.follow(port, f"job-{number % processes}")))
            if number % 50 == 49:
                await asyncio.sleep(0.02)
        await asyncio.gather(*(client.caught_up.wait() for client in clients))
        opened = time.monotonic() - began
        await asyncio.sleep(2)
        grown = worker.memory_info().rss - before
        print(
            f"{streams} streams of {processes} processes open in {opened:.1f} s, {grown / streams / 1024:.1f} KB each"
        )
        idle = cpu_of(worker)
        await asyncio.sleep(10)
        print(f"idle: {(cpu_of(worker) - idle) * 10:.1f} % of a core")
        for tick in range(5):
            begin, busy = time.monotonic(), cpu_of(worker)
            for proc in procs:
                await proc.emit("tick", tick)
            while not all(tick in client.times for client in clients):
                await asyncio.sleep(0.005)
            took = sorted((client.times[tick] - begin) * 1000 for client in clients)
            print(
                f"one event: first {took[0]:.0f} ms, median {statistics.median(took):.0f} ms, "
                f"last {took[-1]:.0f} ms; {(cpu_of(worker) - busy) * 1000:.0f} ms of CPU in the worker"
            )
            await asyncio.sleep(0.5)
        for task in following:
            task.cancel()
        await asyncio.sleep(3)
        print(
            f"after all have left: {(worker.memory_info().rss - before) / 1024 / 1024:.1f} MB more than before"
        )
        for one in owned:
            await one.__aexit__(None, None, None)


def cpu_of(worker: psutil.Process) -> float:
    used = worker.cpu_times()
    return float(used.user + used.system)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--streams", type=int, default=1000)
    options.add_argument("--processes", type=int, default=1)
    options.add_argument("--bare", action="store_true")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as server:
        asyncio.run(make_mesh(server.url))
        with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
            worker = multiprocessing.get_context("fork").Process(
                target=serve, args=(server.url, listening, chosen.bare)
            )
            worker.start()
            try:
                print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
                port, pid = listening.getsockname()[1], psutil.Process(worker.pid)
                asyncio.run(measure(server.url, port, pid, chosen.streams, chosen.processes))
            finally:
                worker.terminate()
                worker.join(10)
                if worker.is_alive():
                    worker.kill()


if __name__ == "__main__":
    main()
