"""Scopes in async and plain code: what an interrupt, a pause and a cancellation do to them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from natsproc import stacks
from natsproc.errors import Cancelled, Interrupted
from natsproc.interruptions import Interruptions
from natsproc.protocol.messages import Outcome

DEADLINE = 20.0

Future = concurrent.futures.Future[Outcome]


def stop(word: str = "stop") -> Interrupted:
    return Interrupted(word, message={"do": word}, sender="alice", command=f"c-{word}")


async def told(future: Future) -> Outcome:
    return await asyncio.wait_for(asyncio.wrap_future(future), DEADLINE)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.005)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.fixture
async def code() -> AsyncIterator[Interruptions]:
    interruptions = Interruptions(asyncio.get_running_loop())
    yield interruptions
    interruptions.close()


@pytest.fixture
def plain() -> Iterator[Interruptions]:
    interruptions = Interruptions(None)
    yield interruptions
    interruptions.close()


# In one task.


async def test_an_interrupt_is_raised_at_the_exit_of_the_scope_and_spares_what_follows(
    code: Interruptions,
) -> None:
    seen: list[str] = []
    code.on_scope_exit = lambda interrupt: seen.append(interrupt.command)
    async with code.main_scope():
        with pytest.raises(Interrupted) as raised:
            async with code.scope():
                future = code.interrupt(stop("turn"))
                try:
                    await for_ever()
                finally:
                    await turns()  # cleaning up may wait
                    assert not future.done()
                    assert not seen
        assert (raised.value.reason, raised.value.message) == ("turn", {"do": "turn"})
        assert (raised.value.sender, raised.value.command) == ("alice", "c-turn")
        assert seen == ["c-turn"]
        assert future.result(0) == Outcome("applied")
        await turns()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_no_interrupt_is_lost_when_wait_for_finishes_in_the_same_tick(code: Interruptions) -> None:
    loop = asyncio.get_running_loop()
    raised = 0
    async with code.main_scope():
        for number in range(300):
            ready: asyncio.Future[int] = loop.create_future()
            outcome: list[Future] = []

            def both(ready: asyncio.Future[int] = ready, outcome: list[Future] = outcome) -> None:
                ready.set_result(1)
                outcome.append(code.interrupt(stop()))

            loop.call_soon(both)
            try:
                async with code.scope():
                    await asyncio.wait_for(ready, DEADLINE)
                    await turns(3)
            except Interrupted:
                raised += 1
            await turns(1 + number % 3)
            assert (await told(outcome[0])).status == "applied"
    assert raised == 300


async def test_interrupts_at_any_moment_are_raised_once_each(code: Interruptions) -> None:
    rounds = 300
    queue: asyncio.Queue[int] = asyncio.Queue()
    commands: list[str] = []
    applied: list[Outcome] = []

    def controller() -> None:
        for number in range(rounds):
            time.sleep(number % 7 / 20_000)
            applied.append(code.interrupt(stop(str(number))).result(DEADLINE))

    async def work() -> None:
        queue.put_nowait(1)
        await asyncio.wait_for(queue.get(), DEADLINE)  # swallows cancellations, on 3.11
        async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
            group.create_task(turns(2))
        await asyncio.gather(turns(1), asyncio.shield(turns(1)))

    async with code.main_scope():
        thread = threading.Thread(target=controller)
        thread.start()
        while len(commands) < rounds:
            try:
                async with code.scope():
                    await work()
            except Interrupted as interrupt:
                commands.append(interrupt.command)
    thread.join(DEADLINE)
    assert commands == [f"c-{number}" for number in range(rounds)]
    assert applied == [Outcome("applied")] * rounds


async def test_code_that_swallows_the_cancellation_is_interrupted_all_the_same(code: Interruptions) -> None:
    async with code.main_scope():
        with pytest.raises(Interrupted):
            async with code.scope():
                code.interrupt(stop())
                with pytest.raises(asyncio.CancelledError):
                    await for_ever()
        await turns()


async def test_an_interrupt_from_inside_spares_what_follows(code: Interruptions) -> None:
    async with code.main_scope():
        with pytest.raises(Interrupted):
            async with code.scope():
                code.interrupt(stop())
                await code.gate()
                pytest.fail("came through the gate")
        await turns()


async def test_only_the_innermost_scope_of_a_task_fires(code: Interruptions) -> None:
    steps: list[str] = []
    async with code.main_scope():
        async with code.scope():
            try:
                async with code.scope():
                    code.interrupt(stop())
                    await for_ever()
            except Interrupted:
                steps.append("inner")
            await turns()
            steps.append("outer went on")
        steps.append("end")
    assert steps == ["inner", "outer went on", "end"]


async def test_outside_any_scope_the_function_ends(code: Interruptions) -> None:
    with pytest.raises(Interrupted, match="stop"):
        async with code.main_scope():
            async with code.scope():
                pass
            future = code.interrupt(stop())
            await for_ever()
    assert (await told(future)).status == "applied"


async def test_an_interrupt_before_the_function_began_waits_for_it(code: Interruptions) -> None:
    future = code.interrupt(stop())
    await turns()
    assert not future.done()
    with pytest.raises(Interrupted):
        async with code.main_scope():
            pass  # its cancellation is under way still
    await turns()
    assert (await told(future)).status == "applied"


async def test_an_error_on_the_way_out_becomes_the_cause(code: Interruptions) -> None:
    async with code.main_scope():
        with pytest.raises(Interrupted) as raised:
            async with code.scope():
                code.interrupt(stop())
                try:
                    await for_ever()
                finally:
                    raise ValueError("clean-up failed")
    assert isinstance(raised.value.__cause__, ValueError)


async def test_a_second_interrupt_cancels_once_more_and_the_last_one_is_raised(code: Interruptions) -> None:
    async with code.main_scope():
        with pytest.raises(Interrupted, match="second"):
            async with code.scope():
                first = code.interrupt(stop("first"))
                try:
                    await for_ever()
                finally:
                    second = code.interrupt(stop("second"))
                    await for_ever()  # a clean-up that hangs
        await turns()
    assert [(await told(future)).status for future in (first, second)] == ["applied", "applied"]


# Other cancellations beside it.


async def test_a_timeout_inside_the_scope_is_its_own_affair(code: Interruptions) -> None:
    async with code.main_scope():
        async with code.scope():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await for_ever()
        with pytest.raises(Interrupted):
            async with code.scope():
                async with asyncio.timeout(DEADLINE):
                    code.interrupt(stop())
                    await for_ever()


async def test_a_timeout_around_the_scope_wins(code: Interruptions) -> None:
    async with code.main_scope():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(DEADLINE) as timeout:
                async with code.scope():
                    future = code.interrupt(stop())
                    timeout.reschedule(0)
                    await for_ever()
        assert future.result(0).status == "too_late"
        await turns()


@pytest.mark.parametrize("interrupt_first", [True, False])
@pytest.mark.parametrize("swallowed", [True, False])
async def test_an_outer_cancellation_wins(
    code: Interruptions, interrupt_first: bool, swallowed: bool
) -> None:
    futures: list[Future] = []
    entered = asyncio.Event()

    async def function() -> None:
        async with code.main_scope(), code.scope():
            entered.set()
            try:
                await for_ever()
            except asyncio.CancelledError:
                if not swallowed:
                    raise

    def interrupt() -> None:  # fires one turn later
        futures.append(code.interrupt(stop()))

    def cancel() -> None:
        loop.call_soon(task.cancel)

    task = asyncio.create_task(function())
    await entered.wait()
    loop = asyncio.get_running_loop()
    for call in (interrupt, cancel) if interrupt_first else (cancel, interrupt):
        loop.call_soon(call)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert futures[0].result(0).status == "too_late"
    assert task.cancelling() == 1


# In several tasks.


async def test_in_every_task_the_innermost_scope_fires_and_applied_means_all(code: Interruptions) -> None:
    log: list[str] = []
    release = asyncio.Event()

    async def child(name: str, slow: bool) -> None:
        async with code.scope():
            try:
                async with code.scope():
                    log.append(f"{name} in")
                    try:
                        await for_ever()
                    finally:
                        if slow:
                            await release.wait()
            except Interrupted as interrupt:
                log.append(f"{name} {interrupt.reason}")
            await turns()
            log.append(f"{name} went on")

    async with code.main_scope():
        async with asyncio.TaskGroup() as group:
            group.create_task(child("a", False))
            group.create_task(child("b", True))
            await until(lambda: len(log) == 2)
            future = code.interrupt(stop("halt"))
            await until(lambda: "a went on" in log)
            assert not future.done()
            release.set()
        assert (await told(future)).status == "applied"
    assert sorted(log) == ["a halt", "a in", "a went on", "b halt", "b in", "b went on"]


@pytest.mark.parametrize("scoped_children", [True, False])
async def test_a_scope_around_a_task_group_ends_all_of_it(code: Interruptions, scoped_children: bool) -> None:
    ended: list[str] = []

    async def child() -> None:
        try:
            if not scoped_children:
                await for_ever()
            async with code.scope():
                await for_ever()
        finally:
            ended.append("child")

    async with code.main_scope():
        with pytest.raises(Interrupted):
            async with code.scope(), asyncio.TaskGroup() as group:
                group.create_task(child())
                group.create_task(child())
                await turns()
                future = code.interrupt(stop())
        assert ended == ["child", "child"]
        assert (await told(future)).status == "applied"
        await turns()


async def test_a_scope_left_by_another_task_is_an_error_and_forgotten(code: Interruptions) -> None:
    async with code.main_scope():
        scope = code.scope()
        await scope.__aenter__()

        async def leave() -> None:
            await scope.__aexit__(None, None, None)

        with pytest.raises(RuntimeError, match="task or thread that entered it"):
            await asyncio.create_task(leave())
        with pytest.raises(Interrupted):
            async with code.scope():
                code.interrupt(stop())
                await for_ever()
        await turns()


@pytest.mark.parametrize("collected", [True, False])
async def test_a_scope_in_an_abandoned_generator_ends_what_is_around_it_only(
    code: Interruptions, collected: bool
) -> None:
    async def numbers() -> AsyncIterator[int]:
        async with code.scope():
            yield 1
            yield 2

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # its aclose() comes in vain
    async with code.main_scope():
        with pytest.raises(Interrupted):
            async with code.scope():
                generator = numbers()
                async for _ in generator:
                    break
                future = code.interrupt(stop())
                try:
                    await for_ever()
                finally:
                    if collected:
                        del generator
                        gc.collect()
                        await turns()
        assert (await told(future)).status == "applied"
        await turns(20)
        with pytest.raises(Interrupted):
            async with code.scope():
                code.interrupt(stop())
                await for_ever()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_task_that_ends_with_a_scope_open_does_not_hold_up_the_answer(code: Interruptions) -> None:
    async def child() -> None:
        await code.scope().__aenter__()
        await for_ever()

    async with code.main_scope():
        task = asyncio.create_task(child())
        await turns()
        future = code.interrupt(stop())
        assert (await told(future)).status == "applied"
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(Interrupted):  # that scope is gone: now it is the function's turn
            async with code.main_scope():
                code.interrupt(stop())
                await for_ever()


# Threads and plain functions.


def in_thread(call: Callable[[], Any]) -> concurrent.futures.Future[Any]:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def polls(interruptions: Interruptions) -> None:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        interruptions.check()
        time.sleep(0.001)
    pytest.fail("check() let it by")


def test_a_plain_function_is_interrupted_at_its_check_and_may_go_on(plain: Interruptions) -> None:
    outcomes: list[concurrent.futures.Future[Any]] = []
    with plain.main_thread_scope():
        for word in ("one", "two"):
            outcomes.append(in_thread(lambda word=word: plain.interrupt(stop(word)).result(DEADLINE)))
            with pytest.raises(Interrupted, match=word):
                polls(plain)
            plain.check()
    assert [outcome.result(DEADLINE).status for outcome in outcomes] == ["applied", "applied"]


def test_a_plain_scope_raises_at_its_exit_and_lets_the_clean_up_check(plain: Interruptions) -> None:
    with plain.main_thread_scope():
        with pytest.raises(Interrupted), plain.thread_scope():
            unchecked = plain.interrupt(stop())
        with pytest.raises(Interrupted), plain.thread_scope():
            future = plain.interrupt(stop())
            try:
                polls(plain)
            finally:
                plain.check()
                assert not future.done()
        plain.check()
    assert unchecked.result(0).status == future.result(0).status == "applied"


def test_a_plain_function_that_returns_first_keeps_its_result(plain: Interruptions) -> None:
    with plain.main_thread_scope():
        interrupt, cancel = plain.interrupt(stop()), plain.cancel()
    assert interrupt.result(0) == cancel.result(0) == Outcome("too_late", "the function returned first")


def test_an_exit_of_the_interpreter_passes_a_fired_scope(plain: Interruptions) -> None:
    with pytest.raises(SystemExit), plain.main_thread_scope(), plain.thread_scope():
        future = plain.interrupt(stop())
        sys.exit(3)
    assert future.result(0).status == "too_late"


def test_a_plain_scope_left_by_another_thread_is_an_error(plain: Interruptions) -> None:
    with plain.main_thread_scope():
        scope = plain.thread_scope()
        scope.__enter__()
        with pytest.raises(RuntimeError, match="task or thread that entered it"):
            in_thread(lambda: scope.__exit__(None, None, None)).result(DEADLINE)


async def test_plain_scopes_are_refused_in_async_code(code: Interruptions) -> None:
    async with code.main_scope():
        with pytest.raises(RuntimeError, match="async with"), code.thread_scope():
            pass


async def test_threads_of_an_interrupted_task_stop_at_their_check(code: Interruptions) -> None:
    thread_ended: concurrent.futures.Future[str] = concurrent.futures.Future()

    def in_worker() -> None:
        try:
            polls(code)
        except Interrupted as interrupt:
            thread_ended.set_result(interrupt.reason)

    async with code.main_scope():
        with pytest.raises(Interrupted):
            async with code.scope():
                worker = asyncio.to_thread(in_worker)
                code.interrupt(stop())
                await worker
        assert await asyncio.wait_for(asyncio.wrap_future(thread_ended), DEADLINE) == "stop"
        code.check()


async def test_check_in_async_code_is_reached_though_the_loop_cannot_turn(code: Interruptions) -> None:
    async with code.main_scope():
        with pytest.raises(Interrupted):
            async with code.scope():
                future = code.interrupt(stop())
                code.check()
                pytest.fail("check() let it by")
        assert future.result(0).status == "applied"
        await turns()


async def test_code_that_never_suspends_is_reached_at_the_gate(code: Interruptions) -> None:
    async with code.main_scope():
        with pytest.raises(Interrupted):
            async with code.scope():
                in_thread(lambda: code.interrupt(stop()))
                deadline = time.monotonic() + DEADLINE
                while time.monotonic() < deadline:
                    await code.gate()


# Pause and resume.


async def test_a_pause_holds_at_the_gate_until_resumed(code: Interruptions) -> None:
    passed: list[int] = []

    async def walk() -> None:
        while True:
            await code.gate()
            passed.append(1)
            await asyncio.sleep(0)

    async def moves() -> None:
        before = len(passed)
        await until(lambda: len(passed) > before)

    async with code.main_scope():
        task = asyncio.create_task(walk())
        for _ in range(3):
            await moves()
            assert code.pause().result(0) == Outcome("applied")
            assert code.paused
            count = len(passed)
            assert code.pause().result(0) == Outcome("applied", "already paused")
            await turns(20)
            assert len(passed) == count
            assert code.resume().result(0) == Outcome("applied")
            assert code.resume().result(0) == Outcome("applied", "not paused")
        await moves()
        task.cancel()


async def test_an_interrupt_lands_while_paused_and_cleaning_up_is_not_held(code: Interruptions) -> None:
    steps: list[str] = []
    async with code.main_scope():
        code.pause()
        try:
            async with code.scope():
                future = code.interrupt(stop())
                try:
                    await code.gate()
                finally:
                    await code.gate()
                    steps.append("cleaned up")
        except Interrupted:
            steps.append("interrupted")
        assert (await told(future)).status == "applied"
        assert code.paused
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(code.gate(), 0.05)
    assert steps == ["cleaned up", "interrupted"]


async def test_a_cancellation_lands_while_paused(code: Interruptions) -> None:
    with pytest.raises(Cancelled):
        async with code.main_scope():
            code.pause()
            future = code.cancel()
            try:
                await code.gate()
            finally:
                await code.gate()
    assert (await told(future)).status == "applied"


@pytest.mark.parametrize("command", ["interrupt", "cancel", "resume"])
def test_a_paused_plain_function_waits_in_its_check(plain: Interruptions, command: str) -> None:
    waiting = threading.Event()

    def function() -> str:
        with plain.main_thread_scope():
            plain.pause()
            waiting.set()
            plain.check()
            return "went on"

    running = in_thread(function)
    assert waiting.wait(DEADLINE)
    with pytest.raises(TimeoutError):
        running.result(0.05)
    if command == "resume":
        assert plain.resume().result(0).status == "applied"
        assert running.result(DEADLINE) == "went on"
        return
    future = plain.cancel() if command == "cancel" else plain.interrupt(stop())
    with pytest.raises(Cancelled if command == "cancel" else Interrupted):
        running.result(DEADLINE)
    assert future.result(DEADLINE).status == "applied"


# Cancellation, and too late.


async def test_a_cancellation_passes_every_scope(code: Interruptions) -> None:
    with pytest.raises(Cancelled):
        async with code.main_scope(), code.scope():
            future = code.cancel()
            try:
                await for_ever()
            finally:
                await turns()
                assert not future.done()
    assert (await told(future)).status == "applied"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await turns()


async def test_a_cancellation_wins_over_an_interrupt(code: Interruptions) -> None:
    with pytest.raises(Cancelled):
        async with code.main_scope(), code.scope():
            interrupt, cancel = code.interrupt(stop()), code.cancel()
            await for_ever()
    assert (await told(interrupt)).status == "too_late"
    assert (await told(cancel)).status == "applied"


async def test_a_function_that_returns_in_spite_of_it_was_not_cancelled(code: Interruptions) -> None:
    async with code.main_scope():
        future = code.cancel()
        try:
            await for_ever()
        except asyncio.CancelledError:
            pass
    assert future.result(0) == Outcome("too_late", "the function returned first")
    await turns()


def test_no_except_exception_stops_a_cancellation(plain: Interruptions) -> None:
    def function() -> None:
        with plain.main_thread_scope():
            try:
                try:
                    plain.check()
                except Exception:
                    pytest.fail("swallowed")
            finally:
                plain.check()  # cleaning up goes on
                cleaned.append(True)

    cleaned: list[bool] = []
    future = plain.cancel()
    with pytest.raises(Cancelled):
        function()
    assert cleaned
    assert future.result(0).status == "applied"


async def test_whatever_comes_when_it_has_ended_is_too_late(code: Interruptions) -> None:
    async with code.main_scope():
        pass
    pending = code.interrupt(stop())
    await turns()
    code.close()
    late = [pending, code.interrupt(stop()), code.pause(), code.resume(), code.cancel()]
    assert [future.result(0).status for future in late] == ["too_late"] * 5
    assert not code.paused


def test_a_closed_loop_is_too_late() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    assert Interruptions(loop).interrupt(stop()).result(0).status == "too_late"


# Forks, and looking in.


def test_a_forked_child_never_hangs(plain: Interruptions) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with plain._changed:
            held.set()
            done.wait(DEADLINE)

    plain.pause()
    holder = in_thread(hold)
    assert held.wait(DEADLINE)
    child = os.fork()
    if child == 0:
        try:
            with plain.main_thread_scope(), plain.thread_scope():
                plain.check()
            os._exit(7)
        finally:
            os._exit(1)
    done.set()
    deadline = time.monotonic() + DEADLINE
    while (status := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, 9)
        time.sleep(0.01)
    holder.result(DEADLINE)
    assert os.waitstatus_to_exitcode(status[1]) == 7


async def waits_deep_inside() -> None:
    await for_ever()


def main_thread_is_in(function: str, code: Interruptions) -> bool:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        for name, lines in code.stacks().items():
            if name.startswith("thread MainThread") and f"in {function}" in lines[-1]:
                return True
    return False


async def test_the_stacks_show_where_tasks_and_threads_are(code: Interruptions) -> None:
    async with code.main_scope():
        task = asyncio.create_task(waits_deep_inside(), name="deep")
        await turns()
        found = await asyncio.to_thread(code.stacks)
        in_loop = await asyncio.to_thread(main_thread_is_in, "select", code)
        task.cancel()
    assert "waits_deep_inside" in "".join(found["task deep"])
    assert "in for_ever" in found["task deep"][-1]
    assert in_loop


async def test_a_loop_that_does_not_turn_is_told_by_its_age(
    code: Interruptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "PULSE", 0.02)
    loop = asyncio.get_running_loop()
    assert code.loop_age() is None
    async with code.main_scope():
        async with code.scope():
            assert stacks.age(loop) is not None
        until_old = time.monotonic() + DEADLINE
        while not code.loop_age() and time.monotonic() < until_old:
            time.sleep(0.01)  # noqa: ASYNC251
        assert code.loop_age()
        await until(lambda: code.loop_age() == 0)
    assert code.loop_age() is None
