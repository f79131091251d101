"""From the I/O thread to consumers: nobody is forgotten, nothing is lost."""

from __future__ import annotations

import asyncio
import contextvars
import random
import sys
import threading

import pytest

from natsproc.bus.handoff import Handoff, together


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


def test_an_offer_leaves_room_for_what_is_put():
    handoff = Handoff(3)
    assert [handoff.offer(item) for item in range(3)] == [True, True, False]
    assert handoff.take_nowait() == 0
    assert handoff.offer(3)
    assert [handoff.take_nowait() for _ in range(2)] == [1, 3]
    assert not Handoff(1).offer(0)


def _uvloop():
    return pytest.importorskip("uvloop").new_event_loop()


def _debugging():
    loop = asyncio.new_event_loop()
    loop.set_debug(True)
    return loop


def _with_tasks(factory):
    loop = asyncio.new_event_loop()
    loop.set_task_factory(factory)
    return loop


def _in_python():
    return _with_tasks(lambda loop, coro, **options: asyncio.tasks._PyTask(coro, loop=loop, **options))


def _eager():
    if sys.version_info < (3, 12):
        pytest.skip("tasks are never eager here")
    return _with_tasks(asyncio.eager_task_factory)


@pytest.fixture(params=[asyncio.new_event_loop, _uvloop, _debugging, _in_python, _eager])
def runner(request):
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


def test_every_way_to_wait_and_to_give_up(runner):
    async def main():
        handoff = Handoff()
        for moment in (0, 0.001):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(handoff.take(), moment)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(moment):
                    await handoff.take()
        task = asyncio.create_task(handoff.take())
        assert await asyncio.wait({task}, timeout=0.001) == (set(), {task})
        task.cancel("why")
        with pytest.raises(asyncio.CancelledError, match="why"):
            await task
        early = asyncio.create_task(handoff.take())
        early.cancel()  # before it waits
        assert isinstance((await asyncio.gather(early, return_exceptions=True))[0], asyncio.CancelledError)
        several = [asyncio.create_task(handoff.take()) for _ in range(3)]
        await asyncio.sleep(0)
        for item in range(3):
            threading.Thread(target=handoff.put, args=(item,)).start()
        async with asyncio.timeout(10):
            assert sorted(await asyncio.gather(*several)) == [0, 1, 2]
        assert not handoff._wakers

    runner.run(main())


def test_waits_that_are_cancelled_as_items_come_lose_none_and_wake_once(runner):
    many, chances = 500 if runner.get_loop().get_debug() else 3000, random.Random(1)
    handoff, got, errors, over = Handoff(), [], [], threading.Event()
    interval = sys.getswitchinterval()

    def produce():
        for item in range(many):
            while len(handoff) and not over.is_set():
                pass
            handoff.put(item)

    async def take_one():
        got.append(await handoff.take())

    async def main():
        # a task that is woken again once it is over, says so to its loop
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        while len(got) < many:
            task = asyncio.create_task(take_one())
            for _ in range(chances.randrange(4)):
                await asyncio.sleep(0)
            if chances.random() < 0.8:
                task.cancel()
            said = (await asyncio.gather(task, return_exceptions=True))[0]
            assert said is None or isinstance(said, asyncio.CancelledError), said

    producer = threading.Thread(target=produce, daemon=True)
    sys.setswitchinterval(1e-5)
    try:
        producer.start()
        runner.run(asyncio.wait_for(main(), 60))
    finally:
        over.set()
        sys.setswitchinterval(interval)
    assert not errors
    assert got == list(range(many))


async def test_a_wait_that_is_cancelled_as_an_item_comes_takes_nothing_along():
    handoff = Handoff()
    waiting = asyncio.create_task(handoff.take())
    await asyncio.sleep(0)
    handoff.put("item")
    waiting.cancel()
    assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)
    assert await asyncio.wait_for(handoff.take(), 10) == "item"


async def test_who_waits_runs_in_the_turn_after_the_item_came():
    handoff = Handoff()
    waiting = asyncio.create_task(handoff.take())
    await asyncio.sleep(0)
    handoff.put("item")
    await asyncio.sleep(0)
    assert waiting.done()


async def test_an_item_that_comes_between_looking_and_waiting_is_seen():
    class Late(Handoff):
        def take_nowait(self):
            item = super().take_nowait()
            if item is None:
                self.put("late")
            return item

    taking, woken = Late().take(), []
    wait = taking.send(None)  # as a task does it
    wait.add_done_callback(woken.append, context=contextvars.copy_context())
    await asyncio.sleep(0)
    assert woken == [wait]
    with pytest.raises(StopIteration, match="late"):
        taking.send(None)


async def test_what_lies_there_can_be_taken_after_closing():
    handoff = Handoff()
    handoff.put(1)
    handoff.close(ValueError("why"))
    handoff.put(2)
    assert await handoff.take() == 1
    with pytest.raises(ValueError, match="why"):
        await handoff.take()


async def test_many_are_woken_by_one_word_and_those_who_gave_up_meanwhile_too(monkeypatch, request):
    loop, words = asyncio.get_running_loop(), []
    say = loop.call_soon_threadsafe

    def heard(*call, **options):
        words.append(call)
        return say(*call, **options)

    handoffs = [Handoff() for _ in range(5)]
    waiting = [asyncio.create_task(handoff.take()) for handoff in handoffs[:4]]
    request.addfinalizer(lambda: [task._fut_waiter.run_soon() for task in waiting if not task.done()])
    blocked = asyncio.create_task(asyncio.to_thread(handoffs[4].take_blocking, 30))
    while not handoffs[4]._wakers:
        await asyncio.sleep(0)
    put, go_on = threading.Event(), threading.Event()

    def produce():
        try:
            with together():
                for number, handoff in enumerate(handoffs):
                    handoff.put(number)
                put.set()
                go_on.wait(30)
                raise ValueError("they are woken all the same")
        except ValueError:
            pass

    producer = threading.Thread(target=produce)
    producer.start()
    while not put.is_set():
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        assert await blocked == 4  # a thread is no loop, and is woken at once
    monkeypatch.setattr(loop, "call_soon_threadsafe", heard)
    assert not any(task.done() for task in waiting)
    waiting[1].cancel()
    await asyncio.sleep(0)
    assert not waiting[1].done()
    go_on.set()
    while producer.is_alive():
        await asyncio.sleep(0)
    assert len(words) == 1
    said = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
    assert [said[0], *said[2:]] == [0, 2, 3]
    assert isinstance(said[1], asyncio.CancelledError)
    assert handoffs[1].take_nowait() == 1
