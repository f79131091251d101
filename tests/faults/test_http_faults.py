"""HTTP streams while things break: each offset once and in order, a slow client costs nobody anything."""

from __future__ import annotations

import asyncio
import json
import socket

import httpx
import psutil
from meshes import make_mesh, until
from serving import serving

import natsproc


def everybody(request, namespace, id, right):
    return True


async def follow(base, path, offsets, last=""):
    """What an EventSource does: read, come back with the id of the last event, until there is no more."""
    while True:
        headers = {"last-event-id": last} if last else {}
        try:
            async with (
                httpx.AsyncClient(base_url=base(), timeout=None) as http,
                http.stream("GET", path, headers=headers) as response,
            ):
                if response.status_code == 204:
                    return
                assert response.status_code == 200, await response.aread()
                async for line in response.aiter_lines():
                    if line.startswith("id: "):
                        last = line[4:]
                    elif line.startswith("data: "):
                        item = json.loads(line[6:])
                        if "offset" in item:
                            offsets.append(item["offset"])
        except (httpx.TransportError, httpx.UnsupportedProtocol):
            await asyncio.sleep(0.05)


async def test_a_stream_outlives_its_nats_server(server):
    await make_mesh(server.url)
    offsets = []
    async with natsproc.connect(server.url, sender="worker") as mesh:
        with serving(natsproc.asgi(server=server.url, authorize=everybody, heartbeat=0.2)) as base:
            async with mesh.own("job") as proc:
                await proc.flush()
                watching = asyncio.create_task(follow(lambda: base, "/job/events", offsets))
                for burst in range(3):
                    for number in range(200):
                        await proc.log(f"{burst}.{number}")
                    await until(lambda: something(offsets))
                    server.kill()
                    await proc.log("while it is away")
                    await asyncio.to_thread(server.start)
                await proc.flush()
            await asyncio.wait_for(watching, 60)
    assert offsets == list(range(1, 3 * 201 + 3))


async def something(items):
    return bool(items)


async def test_a_client_goes_on_at_another_replica(server):
    """The HTTP server that it was connected to is gone in the middle; another one knows where it was."""
    await make_mesh(server.url)
    offsets = []
    async with natsproc.connect(server.url, sender="worker") as mesh, mesh.own("job") as proc:
        await proc.flush()
        place = [""]
        watching = asyncio.create_task(follow(lambda: place[0], "/job/events", offsets))
        for round in range(1, 4):
            with serving(natsproc.asgi(server=server.url, authorize=everybody)) as place[0]:
                for number in range(100):
                    await proc.log(str(number))
                await until(lambda: reached(offsets, round * 100 + 1))  # noqa: B023
        watching.cancel()
    assert offsets == list(range(1, 302))


async def reached(items, number):
    return len(items) >= number


async def test_a_client_that_reads_nothing_costs_a_bounded_amount(server):
    """It neither keeps the process waiting nor this server's memory growing, and is forgotten when it goes."""
    await make_mesh(server.url)
    me = psutil.Process()
    async with natsproc.connect(server.url, sender="worker") as mesh, mesh.own("job") as proc:
        await proc.flush()
        with serving(natsproc.asgi(server=server.url, sender="web", authorize=everybody)) as base:
            host, port = base.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as slow:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                slow.sendall(b"GET /job/events HTTP/1.1\r\nHost: x\r\n\r\n")

                async def watched():
                    return proc.viewers == {"web": 1}

                await until(watched)
                before = me.memory_info().rss
                for _ in range(150):
                    for _ in range(10):
                        await proc.emit("blob", "x" * 100_000)
                    await proc.flush()  # 150 MB, at the process's own speed
                grown = me.memory_info().rss - before
                assert grown < 100e6, grown

            async def unwatched():
                return not proc.viewers

            await until(unwatched, 10)
