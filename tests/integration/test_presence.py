"""Who watches a process is seen by it, and by everybody in lists; who goes, or vanishes, is not."""

from __future__ import annotations

import asyncio

import pytest
from granting import granted
from homes import a_home
from meshes import make_mesh

import natsproc
from natsproc.bus import presence
from natsproc.server import embedded


@pytest.fixture
async def url(server):
    await make_mesh(server.url)
    return server.url


async def until(condition, timeout=15.0):
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


async def watch(handle, **options):
    async with handle.tail(**options) as tail:
        async for _ in tail:
            pass


async def test_viewers_are_counted_while_they_watch(url):
    async with (
        natsproc.connect(url, sender="worker") as mesh,
        natsproc.connect(url, sender="alice") as alice,
        natsproc.connect(url, sender="bob") as bob,
        mesh.own("job") as proc,
    ):
        await proc.flush()
        assert proc.viewers == {}
        tails = [asyncio.create_task(watch(m.process("job"))) for m in (alice, alice, bob)]
        await until(lambda: proc.viewers == {"alice": 2, "bob": 1})

        async def shown(expected):
            async with asyncio.timeout(10):
                while (await bob.process("job").record()).viewers != expected:
                    await asyncio.sleep(0.05)

        await shown({"alice": 2, "bob": 1})
        (info,) = await bob.list()
        assert info.to_json()["viewers"] == {"alice": 2, "bob": 1}
        tails[0].cancel()
        await until(lambda: proc.viewers == {"alice": 1, "bob": 1})
        for tail in tails:
            tail.cancel()
        await until(lambda: proc.viewers == {})
        await shown({})
    assert (await mesh_record(url)).viewers == {}


async def mesh_record(url):
    async with natsproc.connect(url) as mesh:
        return await mesh.process("job").record()


async def test_only_who_follows_and_likes_to_be_seen_counts(url):
    async with natsproc.connect(url, sender="worker") as mesh, natsproc.connect(url, sender="alice") as alice:
        async with mesh.own("job") as proc:
            await proc.flush()
            handle = alice.process("job")
            async for _ in handle.tail(follow=False):
                pass
            quiet = asyncio.create_task(watch(handle, announce=False))
            waiting = asyncio.create_task(handle.wait())
            seen = asyncio.create_task(watch(handle))
            await until(lambda: proc.viewers)
            assert proc.viewers == {"alice": 1}
            quiet.cancel()
            seen.cancel()
        assert (await waiting).status == "completed"


async def test_who_vanishes_without_a_word_is_forgotten(url, monkeypatch):
    monkeypatch.setattr(presence, "FORGET_SECONDS", 1.0)
    monkeypatch.setattr(presence, "ANNOUNCE_SECONDS", 0.3)
    async with natsproc.connect(url, sender="worker") as mesh, mesh.own("job") as proc:
        await proc.flush()
        async with natsproc.connect(url, sender="alice") as alice:
            watching = asyncio.create_task(watch(alice.process("job")))
            await until(lambda: proc.viewers)
            for _ in range(20):  # it goes on being seen
                await asyncio.sleep(0.1)
                assert proc.viewers == {"alice": 1}
            await alice.io.call(silence(alice.connection))
            await until(lambda: not proc.viewers)
        watching.cancel()


async def silence(connection):
    """As a machine that loses power."""
    connection.nc._transport.close()
    connection.nc._server_pool.clear()


async def test_nobody_says_for_another_that_it_watches(tmp_path, monkeypatch):
    with a_home(tmp_path / "home", monkeypatch) as home:
        embedded.start(home)
        async with (
            granted(home, "worker", "own", "job") as mesh,
            granted(home, "alice", "watch", "job") as alice,
            mesh.own("job") as proc,
        ):
            await proc.flush()
            for who in ("bob", "alice"):
                await alice.io.call(
                    alice.connection.publish(f"proc.default.job.viewers.{who}", b'{"viewer":"x"}')
                )
            await until(lambda: proc.viewers)
            assert proc.viewers == {"alice": 1}
            watching = asyncio.create_task(watch(alice.process("job")))
            await until(lambda: proc.viewers == {"alice": 2})
            watching.cancel()
