"""Tails through real faults: each offset once, in order, whatever happens to server, link and viewer."""

import asyncio
import resource
from contextlib import aclosing, asynccontextmanager

import pytest
from harness import SERVERS, running
from rawlog import A, RawLog, Viewer

from natsproc.bus import streams, tail
from natsproc.bus.connection import Connection, Endpoint
from natsproc.bus.tail import Start, follow
from natsproc.protocol.messages import Event
from natsproc.protocol.names import Address, Names

NAMES = Names()
ON_BOTH = pytest.mark.parametrize("version", SERVERS, ids=[version or "newest" for version in SERVERS])
NEVER = 10_000.0


@asynccontextmanager
async def connected(url, sender="viewer"):
    connection = await Connection.open(Endpoint((url,), sender=sender))
    try:
        yield connection
    finally:
        await asyncio.wait_for(connection.close(), 10)


@asynccontextmanager
async def mesh(folder, version):
    """A server with a mesh, and the writer's end of a claimed log on a connection of its own."""
    with running(folder / "nats", version) as server:
        async with connected(server.url, "writer") as connection:
            await streams.setup(connection, NAMES)
            log = RawLog(connection, NAMES, A)
            await log.claim()
            yield server, log


class Link:
    """A TCP link to a server that can be cut and mended."""

    def __init__(self, port):
        self.port = port
        self.peers = set()
        self.up = True

    async def __aenter__(self):
        self.listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{self.listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.cut()
        self.listener.close()

    async def _accept(self, reader, writer):
        if not self.up:
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.peers |= {writer, far_writer}
        await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    def cut(self):
        self.up = False
        for writer in self.peers:
            writer.transport.abort()
        self.peers.clear()


@ON_BOTH
async def test_kill_9_of_the_server_while_the_process_emits(tmp_path, version):
    async with mesh(tmp_path, version) as (server, log), connected(server.url) as connection:
        viewer = Viewer(connection)
        writing = True

        async def write():
            while writing:
                await log.emit(100)
            await log.end()

        writer = asyncio.create_task(write())
        for _ in range(3):
            seen = len(viewer.offsets)
            await viewer.until(lambda seen=seen: len(viewer.offsets) > seen + 1000)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        seen = len(viewer.offsets)
        await viewer.until(lambda: len(viewer.offsets) > seen + 1000)
        writing = False
        await writer
        await viewer.end()
        assert viewer.offsets == list(range(1, log.offset + 1))
        assert viewer.notices == ["caught_up", "ended"]


async def test_kill_9_of_the_server_while_a_long_history_is_read(tmp_path, version):
    async with mesh(tmp_path, version) as (server, log), connected(server.url) as connection:
        await log.store_all([log.payload(data="x" * 1000) for _ in range(20_000)])
        await log.end()
        offsets = []
        killed = 0
        async with aclosing(follow(connection, NAMES, A, start=Start("first"))) as source:
            async for items in source:
                offsets += [item.offset for item in items if isinstance(item, Event)]
                if len(offsets) > 6000 * (killed + 1) and killed < 2:
                    killed += 1
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
        assert killed == 2
        assert offsets == list(range(1, 20_002))


async def test_a_viewer_asleep_past_its_limit_costs_nothing_and_misses_nothing(
    tmp_path, version, monkeypatch
):
    monkeypatch.setattr(tail, "BUFFER", 1000)
    async with mesh(tmp_path, version) as (server, log), connected(server.url) as connection:
        await log.emit(1)
        offsets = []
        async with aclosing(follow(connection, NAMES, A, start=Start("first"), probe=NEVER)) as source:
            while not offsets:
                offsets += [item.offset for item in await anext(source) if isinstance(item, Event)]
            await log.emit(5000)
            await connection.ping()
            received = connection.nc.stats["in_msgs"]
            await log.emit(5000)
            await connection.ping()
            assert connection.nc.stats["in_msgs"] == received  # the server was told to stop
            emitting = asyncio.create_task(log.emit(2000))
            async for items in source:
                offsets += [item.offset for item in items if isinstance(item, Event)]
                if offsets[-1] == 12_002:
                    break
                if offsets[-1] == log.offset == 12_001:
                    await log.emit(1)  # live again
            await emitting
        assert offsets == list(range(1, 12_003))


@pytest.mark.parametrize("how", ["probe", "next event"])
async def test_the_very_last_event_lost_on_the_way(tmp_path, version, monkeypatch, how):
    hear = tail._Tail._on_live

    def lossy(self, entries):
        hear(self, [entry for entry in entries if b'"offset":7,' not in entry[1]])

    monkeypatch.setattr(tail._Tail, "_on_live", lossy)
    async with mesh(tmp_path, version) as (server, log), connected(server.url) as connection:
        await log.emit(3)
        viewer = Viewer(connection, probe=0.2 if how == "probe" else NEVER)
        await viewer.until(lambda: viewer.notices == ["caught_up"])
        await log.emit(4)
        if how == "probe":
            await viewer.until(lambda: viewer.offsets == [1, 2, 3, 4, 5, 6, 7])
        await log.end()
        await viewer.end()
        assert viewer.offsets == [1, 2, 3, 4, 5, 6, 7, 8]
        assert viewer.notices == ["caught_up", "ended"]


async def test_what_came_while_the_viewer_was_cut_off_is_read_when_it_is_back(tmp_path, version):
    async with (
        mesh(tmp_path, version) as (server, log),
        Link(server.port) as link,
        connected(link.url) as connection,
    ):
        await log.emit(3)
        viewer = Viewer(connection, probe=NEVER)
        await viewer.until(lambda: viewer.notices == ["caught_up"])
        for count in (1, 2500):
            link.cut()
            await log.emit(count)
            link.up = True
            await viewer.until(lambda: viewer.offsets[-1] == log.offset)
        link.cut()
        await log.end()
        link.up = True
        await viewer.end()
        assert viewer.offsets == list(range(1, log.offset + 1))
        assert viewer.notices == ["caught_up", "ended"]


async def test_a_link_that_keeps_breaking_while_the_process_emits(tmp_path, version):
    async with (
        mesh(tmp_path, version) as (server, log),
        Link(server.port) as link,
        connected(link.url) as connection,
    ):
        await log.emit(5000)
        viewer = Viewer(connection, Start("run"))
        for _ in range(8):
            await log.emit(1500)
            link.cut()
            await log.emit(300)
            link.up = True
        await log.end()
        await viewer.end()
        assert viewer.offsets == list(range(1, log.offset + 1))


async def test_a_hundred_viewers_of_one_process(tmp_path, version):
    async with (
        mesh(tmp_path, version) as (server, log),
        connected(server.url) as one,
        connected(server.url) as other,
    ):
        await log.emit(200)
        viewers = [Viewer(connection) for _ in range(50) for connection in (one, other)]
        await log.emit(300)
        await asyncio.gather(*(viewer.until(lambda v=viewer: "caught_up" in v.notices) for viewer in viewers))
        await log.emit(100)
        await log.end()
        for viewer in viewers:
            await viewer.end()
            assert viewer.offsets == list(range(1, 602))
            assert viewer.notices == ["caught_up", "ended"]


async def read_long_history(folder, version, count):
    async with mesh(folder, version) as (server, log), connected(server.url) as connection:
        for _ in range(count // 10_000):
            await log.emit(10_000)
        await log.end()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        last = 0
        async with aclosing(follow(connection, NAMES, A, start=Start("first"))) as source:
            async for items in source:
                for item in items:
                    if isinstance(item, Event):
                        assert item.offset == last + 1
                        last = item.offset
        assert last == count + 1
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


@ON_BOTH
async def test_a_history_of_50_000_events(tmp_path, version):
    await read_long_history(tmp_path, version, 50_000)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_history_of_1_000_000_events_in_bounded_memory(tmp_path, version):
    assert await read_long_history(tmp_path, version, 1_000_000) < 200_000  # KB


async def test_many_tails_ask_together_after_a_cut(tmp_path, version):
    """Some are of one log, and one is of another; they ask for the logs' ends and what they missed by few requests."""
    async with (
        mesh(tmp_path, version) as (server, log),
        Link(server.port) as link,
        connected(link.url) as connection,
    ):
        other = RawLog(log.connection, NAMES, Address("default", "b"))
        await other.claim()
        viewers = [Viewer(connection, Start("new"), probe=NEVER) for _ in range(30)]
        viewers.append(Viewer(connection, Start("new"), address=other.address, probe=NEVER))
        for viewer in viewers:
            await viewer.until(lambda viewer=viewer: viewer.notices == ["caught_up"])
        link.cut()
        await log.emit(50)
        await other.emit(50)
        asked, publish = [], connection.publish

        async def counted(subject, *args, **options):
            asked.append(subject)
            return await publish(subject, *args, **options)

        connection.publish = counted
        link.up = True
        for viewer in viewers:
            await viewer.until(lambda viewer=viewer: len(viewer.offsets) == 50)
        assert len(asked) < 30, asked
        await log.emit(1)
        await log.end()
        await other.emit(1)
        await other.end()
        for viewer in viewers:
            await viewer.end()
            assert viewer.offsets == list(range(1, 53))
