"""From the I/O thread to consumers: nobody is forgotten, nothing is lost."""

from __future__ import annotations

import asyncio

import pytest

from natsproc.bus.handoff import Handoff


async def test_every_producer_that_waits_for_room_gets_it():
    handoff = Handoff(1)
    handoff.put(0)

    async def produce(item):
        await handoff.room()
        handoff.put(item)

    producers = [asyncio.create_task(produce(item)) for item in (1, 2, 3)]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        assert sorted([await handoff.take() for _ in range(4)]) == [0, 1, 2, 3]
        await asyncio.gather(*producers)


async def test_a_wait_that_is_cancelled_as_an_item_comes_takes_nothing_along():
    handoff = Handoff()
    for _ in range(100):
        waiting = asyncio.create_task(handoff.take())
        await asyncio.sleep(0)
        handoff.put("item")
        await asyncio.sleep(0)  # the wake-up is under way
        waiting.cancel()
        got = (await asyncio.gather(waiting, return_exceptions=True))[0]
        if isinstance(got, asyncio.CancelledError):
            assert await asyncio.wait_for(handoff.take(), 10) == "item"
        assert len(handoff) == 0


async def test_what_lies_there_can_be_taken_after_closing():
    handoff = Handoff()
    handoff.put(1)
    handoff.close(ValueError("why"))
    handoff.put(2)
    assert await handoff.take() == 1
    with pytest.raises(ValueError, match="why"):
        await handoff.take()
