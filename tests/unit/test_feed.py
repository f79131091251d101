"""One subscription for many: all of it for all, in order, and the loop has its turns."""

from __future__ import annotations

import asyncio
from collections import Counter

import nats.errors
import pytest

from natsproc.bus.feed import LATE, TURN, Feed
from natsproc.errors import Closed


class Connection:
    """What a feed needs of one; `come` is what the server sends."""

    def __init__(self):
        self.shared, self.nc = {}, self
        self.subscribed = self.ended = 0
        self.errors, self.denied, self.closed = [], {}, False

    async def listen_in_lists(self, subject, hear):
        if self.closed:
            raise nats.errors.ConnectionClosedError
        self.subscribed += 1
        self.come = hear
        return self.subscribed

    async def unsubscribe(self, subscription):
        self.ended += subscription is not None

    async def wait_connected(self):
        if self.closed:
            raise Closed("the connection is closed")

    def on_denial(self, callback):
        self.denied[callback] = None
        return lambda: self.denied.pop(callback)

    def failed(self, error):
        self.errors.append(str(error))


class Hearer:
    def __init__(self, turns=None):
        self.heard, self.turns = [], Counter() if turns is None else turns

    def __call__(self, items):
        self.heard += items
        self.turns[Clock.turn] += len(items)


class Clock:
    turn = 0

    @classmethod
    async def run(cls, until):
        async with asyncio.timeout(30):
            while not until():
                cls.turn += 1
                await asyncio.sleep(0)


async def test_however_many_hear_it_the_loop_has_its_turns():
    connection, turns = Connection(), Counter()
    hearers = [Hearer(turns) for _ in range(40)]
    for hearer in hearers:
        await Feed.join(connection, "a", list, hearer)
    connection.come(list(range(100)))
    connection.come(list(range(100, 299)))
    connection.come([299])  # which is not much
    assert hearers[-1].heard == list(range(TURN // 40))
    late = Hearer(turns)
    leaver = hearers.pop(-2)
    await Clock.run(lambda: 50 < len(leaver.heard) < len(hearers[0].heard))  # it would be next
    feed = await Feed.join(connection, "a", list, late)
    await feed.leave(leaver)
    gone = list(leaver.heard)
    await Clock.run(lambda: len(hearers[-1].heard) == 300)
    for hearer in hearers:
        assert hearer.heard == list(range(300))
    assert gone == leaver.heard == list(range(len(gone)))
    assert late.heard == list(range(300 - len(late.heard), 300))
    assert late.heard
    assert max(turns.values()) <= TURN + TURN // 40
    assert connection.subscribed == 1
    connection.come(["now"])  # at once again
    assert hearers[0].heard[-1] == late.heard[-1] == "now"


async def test_what_comes_faster_than_it_is_heard_is_dropped_as_a_whole():
    connection, hearer = Connection(), Hearer()
    await Feed.join(connection, "a", list, hearer)
    connection.come(list(range(TURN + 1)))
    for start in range(1000, 1000 + LATE, 1000):
        connection.come(list(range(start, start + 1000)))
    connection.come([-1])
    await Clock.run(lambda: hearer.heard[-1:] == [-1])
    assert hearer.heard == [*range(TURN + 1), -1]


async def test_who_leaves_as_it_is_heard_hears_no_more_and_who_fails_fails_alone():
    connection, heard = Connection(), []

    def leave(items):
        heard.append("leaves")
        asyncio.ensure_future(feed.leave(leave))

    def fail(items):
        raise ValueError("its own fault")

    for hear in (leave, fail, heard.extend):
        feed = await Feed.join(connection, "a", list, hear)
    for item in (1, 2):
        connection.come([item])
        await asyncio.sleep(0)
    connection.come([])
    assert heard == ["leaves", 1, 2]
    assert connection.errors == ["its own fault"] * 2
    for hear in (fail, heard.extend):
        await feed.leave(hear)
    assert connection.ended == 1
    assert not connection.shared
    assert not connection.denied


async def test_what_the_server_has_refused_is_joined_by_nobody():
    connection = Connection()
    first = await Feed.join(connection, "A.b", list, print)
    assert await Feed.join(connection, "A.b", list, repr) is first
    for denied in list(connection.denied):
        denied("another.subject")
    assert await Feed.join(connection, "A.b", list, str) is first
    for denied in list(connection.denied):
        denied("a.b")  # nats-py writes it so
    second = await Feed.join(connection, "A.b", list, len)
    assert second is not first
    for hear in (print, repr, str):
        await first.leave(hear)
    assert await Feed.join(connection, "A.b", list, sum) is second
    assert (connection.subscribed, connection.ended) == (2, 1)


async def test_on_a_closed_connection_nobody_joins():
    connection = Connection()
    connection.closed = True
    for _ in range(2):
        with pytest.raises(Closed):
            await Feed.join(connection, "a", list, print)
    assert not connection.shared
