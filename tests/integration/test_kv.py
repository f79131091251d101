"""Buckets on a real server: compare-and-set, markers told from values, expiry, and every key listed."""

import asyncio

import pytest

from natsproc.bus.kv import Bucket, Conflict, marker_of
from natsproc.protocol.names import Names


async def test_a_value_is_read_back_from_any_replica_and_from_the_leader(connection):
    bucket = Bucket(connection, Names().claims)
    assert await bucket.get("default.a") is None
    assert await bucket.get("default.a", leader=True) is None
    revision = await bucket.put("default.a", b"one")
    for leader in (False, True):
        value = await bucket.get("default.a", leader=leader)
        assert value is not None
        assert value[:2] == (b"one", revision)
        assert value.stamp.startswith("20")


async def test_compare_and_set_lets_exactly_one_of_many_win(connection):
    bucket = Bucket(connection, Names().claims)
    revision = await bucket.create("default.a", b"0")
    rivals = [bucket.update("default.a", b"%d" % n, revision) for n in range(20)]
    results = await asyncio.gather(*rivals, return_exceptions=True)
    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 19
    winner = next(n for n, result in enumerate(results) if isinstance(result, int))
    assert (await bucket.get("default.a", leader=True))[0] == b"%d" % winner


async def test_create_refuses_a_key_that_holds_something_and_takes_one_that_was_purged(connection):
    bucket = Bucket(connection, Names().registry)
    await bucket.create("default.a", b"one")
    with pytest.raises(Conflict, match=r"default\.a"):
        await bucket.create("default.a", b"two")
    await bucket.purge("default.a")
    assert await bucket.get("default.a") is None
    assert await bucket.get("default.a", leader=True) is None
    assert await bucket.create("default.a", b"three") == 3


async def test_an_expired_lease_is_announced_as_such_and_reads_as_nothing(connection):
    names = Names()
    bucket = Bucket(connection, names.leases)
    heard = asyncio.Queue()

    async def hear(msg):
        heard.put_nowait((msg.subject.split(".")[2], marker_of(msg.headers), msg.data))

    await connection.subscribe(names.lease(), hear)
    await bucket.put("node-1", b"alive", ttl=1)
    await bucket.put("node-2", b"alive", ttl=60)
    await bucket.purge("node-2", ttl=60)
    async with asyncio.timeout(20):
        changes = [await heard.get() for _ in range(4)]
    assert changes == [
        ("node-1", "", b"alive"),
        ("node-2", "", b"alive"),
        ("node-2", "purged", b""),
        ("node-1", "expired", b""),
    ]
    assert await bucket.get("node-1") is None
    assert await bucket.get("node-1", leader=True) is None
