"""Many who watch the same process on one HTTP server: each sees all of it, and they share one live tail."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing

import pytest
from meshes import make_mesh, until

import natsproc
from natsproc.http import shared
from natsproc.http.shared import Shared, Stream, Wish
from natsproc.protocol.messages import Cursor


@pytest.fixture
async def url(server):
    await make_mesh(server.url)
    return server.url


@pytest.fixture
async def mesh(url):
    async with natsproc.connect(url, sender="worker") as mesh:
        yield mesh


@pytest.fixture
async def web(url):
    async with natsproc.connect(url, sender="web") as web:
        yield web


class Client:
    """One that is shown a process, and what it was shown."""

    def __init__(self, everybody, mesh, id="job", *, delay=lambda: 0.0, types=(), compact=False, **begin):
        self.items = []
        self.stream = Stream(everybody, Wish(mesh.process(id), True, compact, types, begin))
        self.delay = delay
        self.task = asyncio.create_task(self._read())

    async def _read(self):
        async with aclosing(self.stream):
            while True:
                try:
                    async with asyncio.timeout(0.02):  # as heartbeats do, which lose nothing
                        lines = await self.stream.several()
                except TimeoutError:
                    continue
                if not lines:
                    return
                self.items += [line.item for line in lines]
                await asyncio.sleep(self.delay())

    @property
    def offsets(self):
        return [item.offset for item in self.items if isinstance(item, natsproc.Event)]

    def said(self, type):
        return sum(item.type == type for item in self.items)

    async def seen(self, type):
        return any(item.type == type for item in self.items)


async def leave(*clients):
    for client in clients:
        client.task.cancel()
    await asyncio.gather(*(client.task for client in clients), return_exceptions=True)


async def test_each_sees_all_of_it_in_order_whenever_it_comes_and_however_slow_it_is(mesh, web, monkeypatch):
    monkeypatch.setattr(shared, "RING_ITEMS", 50)  # so that the slow ones fall behind it
    chance, everybody, clients = random.Random(7), Shared(), []
    async with mesh.own("job") as proc:
        cursors = [""]
        for number in range(1500):
            offset = await proc.log(str(number))
            if number % 60 == 0:
                slow = chance.choice((0.0, 0.0, 0.001, 0.3))
                clients.append(Client(everybody, web, delay=lambda slow=slow: slow * chance.random()))
            if number % 200 == 100:
                await proc.flush()
                (found,) = [i async for i in web.process("job").tail(n=1, follow=False) if i.type == "log"]
                cursors.append(found.cursor)
                clients.append(Client(everybody, web, cursor=Cursor.parse(found.cursor)))
                clients.append(Client(everybody, web, n=3))
            if number % 20 == 0:
                await asyncio.sleep(0.01)
    async with asyncio.timeout(90):
        await asyncio.gather(*(client.task for client in clients))
    last = offset + 1
    for client in clients:
        first = client.offsets[0]
        assert client.offsets == list(range(first, last + 1))
        begin = client.stream._wish.begin
        if "cursor" in begin:
            assert first == begin["cursor"].offset + 1
        elif not begin:
            assert first == 1
        assert (client.said("caught_up"), client.said("ended")) == (1, 1)
    assert not everybody.watching
    assert not everybody._live


async def test_one_live_tail_is_enough(mesh, web):
    everybody = Shared()
    async with mesh.own("job") as proc:
        await proc.log("first")
        await proc.flush()
        clients = [Client(everybody, web) for _ in range(20)]
        for client in clients:
            await until(lambda: client.seen("caught_up"))  # noqa: B023
        await until(lambda: viewers(proc, {"web": 2}))  # that of the first, and that of all the others
        await proc.log("second")
        await until(lambda: all_have(clients, 3))
        await leave(*clients)
        await until(lambda: viewers(proc, {}))
    assert not everybody._live


async def viewers(proc, expected):
    return proc.viewers == expected


async def all_have(clients, offset):
    return all(client.offsets[-1:] == [offset] for client in clients)


async def test_who_has_read_further_than_the_live_tail_sees_nothing_twice(mesh, web, monkeypatch):
    held = asyncio.Event()

    class Held(shared.Live):
        async def _read(self):
            await held.wait()
            await super()._read()

    monkeypatch.setattr(shared, "Live", Held)
    everybody = Shared()
    async with mesh.own("job") as proc:
        await proc.flush()
        alone, early = Client(everybody, web), Client(everybody, web)
        await until(lambda: early.seen("caught_up"))
        await proc.log("behind the place of the live tail")
        await proc.flush()
        late = Client(everybody, web)
        await until(lambda: late.seen("caught_up"))
        assert (early.offsets, late.offsets) == ([1], [1, 2])
        held.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*(client.task for client in (alone, early, late)))
    assert alone.offsets == early.offsets == late.offsets == [1, 2, 3]


async def test_types_and_streamed_texts(mesh, web):
    everybody = Shared()
    async with mesh.own("job") as proc:
        first = Client(everybody, web)
        async with proc.stream() as stream:
            await stream.token("a ")
            await stream.token("b")
        await proc.log("one")
        await proc.flush()
        await until(lambda: first.seen("log"))
        some = Client(everybody, web, types=("log",))
        short = Client(everybody, web, compact=True)
        await until(lambda: some.seen("caught_up"))
        await until(lambda: short.seen("caught_up"))
        await proc.emit("other", 1)
        await proc.log("two")
    async with asyncio.timeout(30):
        await asyncio.gather(first.task, some.task, short.task)
    kinds = [[item.type for item in client.items] for client in (first, some, short)]
    assert kinds[0].count("token") == 2
    assert kinds[1] == ["log", "caught_up", "log", "ended"]
    assert kinds[2] == ["started", "text", "log", "caught_up", "other", "log", "exited", "ended"]


async def test_an_owner_that_vanishes_is_said_to_each_once(url, web):
    everybody = Shared()
    lost = await natsproc.connect(url, sender="worker").__aenter__()
    own = lost.own("job")
    proc = await own.__aenter__()
    await proc.log("before")
    await proc.flush()
    clients = [Client(everybody, web) for _ in range(5)]
    for client in clients:
        await until(lambda: client.seen("caught_up"))  # noqa: B023
    lost.io.stop()  # as kill -9
    for client in clients:
        await until(lambda: client.seen("unreachable"), 40)  # noqa: B023
    late = Client(everybody, web)
    await until(lambda: late.seen("unreachable"), 40)
    async with natsproc.connect(url, sender="another") as mesh, mesh.own("job") as proc:
        await proc.log("after")
    async with asyncio.timeout(30):
        await asyncio.gather(*(client.task for client in (*clients, late)))
    for client in (*clients, late):
        assert client.offsets == list(range(1, 6))
        assert [client.said(type) for type in ("unreachable", "takeover", "caught_up", "ended")] == [
            1,
            1,
            1,
            1,
        ]


async def test_a_mesh_that_is_closed_ends_them_with_its_reason(url, mesh):
    everybody = Shared()
    async with mesh.own("job") as proc:
        await proc.flush()
        async with natsproc.connect(url, sender="web") as web:
            clients = [Client(everybody, web) for _ in range(3)]
            for client in clients:
                await until(lambda: client.seen("caught_up"))  # noqa: B023
        ended = await asyncio.gather(*(client.task for client in clients), return_exceptions=True)
        assert [type(error) for error in ended] == [natsproc.Closed] * 3
