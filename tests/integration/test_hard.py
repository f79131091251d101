"""Hard interrupts: real signals and real threads against code that never awaits."""

from __future__ import annotations

import asyncio
import concurrent.futures
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from natsproc import hard, interruptions
from natsproc.errors import Cancelled, HardInterrupt, Interrupted
from natsproc.interruptions import BEST_EFFORT, Interruptions
from natsproc.protocol.messages import Outcome

DEADLINE = 20.0


_never_stopped: list[str] = []  # asserted in the end: a fired scope would hide an error


@pytest.fixture(autouse=True)
def _nothing_stays_behind() -> Iterator[None]:
    before = signal.getsignal(hard.SIGNAL)
    _never_stopped.clear()
    yield
    assert not _never_stopped
    assert signal.getsignal(hard.SIGNAL) is before


def spin(started: threading.Event) -> None:
    deadline = time.monotonic() + DEADLINE
    started.set()
    while time.monotonic() < deadline:
        pass
    _never_stopped.append("spin")


def sleep(started: threading.Event) -> None:
    started.set()
    time.sleep(DEADLINE)
    _never_stopped.append("sleep")


def when(started: threading.Event, call: Callable[[], Any]) -> concurrent.futures.Future[Any]:
    """Do it in a thread once the code has started, as the I/O thread would; a future's result counts."""
    done: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            assert started.wait(DEADLINE)
            found = call()
            done.set_result(found.result(DEADLINE) if isinstance(found, concurrent.futures.Future) else found)
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done


def hit(code: Interruptions, word: str = "stop") -> Callable[[], concurrent.futures.Future[Outcome]]:
    return lambda: code.interrupt(Interrupted(word), hard=True)


@pytest.mark.parametrize("block", [spin, sleep])
@pytest.mark.parametrize("scoped", [True, False])
def test_async_code_that_blocks_its_loop(block: Callable[[threading.Event], None], scoped: bool) -> None:
    started = threading.Event()
    seen: list[str] = []

    async def main() -> Outcome:
        code = Interruptions(asyncio.get_running_loop())
        outcome = when(started, hit(code))
        try:
            async with code.main_scope():
                try:
                    if not scoped:
                        block(started)
                    async with code.scope():
                        try:
                            block(started)
                        except Exception:
                            _never_stopped.append("`except Exception` caught it")
                        except HardInterrupt:
                            await asyncio.sleep(0.01)  # cleaning up may wait
                            seen.append("cleaned up")
                            raise
                except Interrupted:
                    seen.append("scope")
        except Interrupted:
            seen.append("function")
        await asyncio.sleep(0.01)
        return await asyncio.wait_for(asyncio.wrap_future(outcome), DEADLINE)

    assert asyncio.run(main()) == Outcome("applied")
    assert seen == (["cleaned up", "scope"] if scoped else ["function"])


def test_a_child_task_that_blocks_ends_with_its_group() -> None:
    started = threading.Event()
    siblings: list[str] = []

    async def main() -> Outcome:
        code = Interruptions(asyncio.get_running_loop())
        outcome = when(started, hit(code))

        async def sibling() -> None:
            try:
                await asyncio.sleep(DEADLINE)
            finally:
                siblings.append("cancelled")

        async def child() -> None:
            await asyncio.sleep(0)
            spin(started)

        async with code.main_scope():
            with pytest.raises(Interrupted):
                async with code.scope(), asyncio.TaskGroup() as group:
                    group.create_task(sibling())
                    group.create_task(child())
            await asyncio.sleep(0.01)
        return await asyncio.wait_for(asyncio.wrap_future(outcome), DEADLINE)

    assert asyncio.run(main()) == Outcome("applied")
    assert siblings == ["cancelled"]


def test_a_bare_except_does_not_lose_it() -> None:
    started = threading.Event()

    async def main() -> None:
        code = Interruptions(asyncio.get_running_loop())
        outcome = when(started, hit(code))
        async with code.main_scope():
            with pytest.raises(Interrupted):
                async with code.scope():
                    try:
                        spin(started)
                    except:  # noqa: E722
                        pass
        assert (await asyncio.wait_for(asyncio.wrap_future(outcome), DEADLINE)).status == "applied"

    asyncio.run(main())


def test_code_that_awaits_is_asked_and_not_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruptions, "GRACE", DEADLINE)

    async def main() -> None:
        code = Interruptions(asyncio.get_running_loop())
        async with code.main_scope():
            with pytest.raises(Interrupted) as raised:
                async with code.scope():
                    hit(code)()
                    await asyncio.sleep(DEADLINE)
            assert isinstance(raised.value.__cause__, asyncio.CancelledError)

    asyncio.run(main())


def test_an_idle_loop_survives_any_number_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruptions, "GRACE", 0.0)  # so that the signals really come
    signals: list[int] = []
    strike = hard.strike

    def counted(claim: hard.Claim) -> None:
        signals.append(1)
        strike(claim)
        for _ in range(5):  # as often as it may hit something
            signal.pthread_kill(threading.main_thread().ident or 0, hard.SIGNAL)

    monkeypatch.setattr(hard, "strike", counted)

    async def main() -> int:
        code = Interruptions(asyncio.get_running_loop())
        count = 0
        idle, over = threading.Event(), threading.Event()

        def controller() -> None:
            while not over.is_set():
                if idle.wait(0.1):
                    idle.clear()
                    assert hit(code)().result(DEADLINE).status == "applied"

        thread = threading.Thread(target=controller)
        async with code.main_scope():
            thread.start()
            # a quick machine needs few signals, if any: then more of them
            while count < 200 or (not signals and count < 10_000):
                try:
                    async with code.scope():
                        idle.set()
                        await asyncio.sleep(DEADLINE)
                except Interrupted:
                    count += 1
            over.set()
        thread.join(DEADLINE)
        return count

    assert asyncio.run(main()) >= 200
    assert signals


def test_it_spares_other_code_in_the_same_loop() -> None:
    started, sent = threading.Event(), threading.Event()

    async def main() -> None:
        code = Interruptions(asyncio.get_running_loop())

        async def process() -> None:
            async with code.main_scope():
                await asyncio.sleep(DEADLINE)

        task = asyncio.create_task(process())
        await asyncio.sleep(0)
        struck: list[int] = []

        def strike() -> concurrent.futures.Future[Outcome]:
            future = hit(code)()
            for _ in range(3):
                time.sleep(2 * interruptions.GRACE)
                struck.append(1)
            sent.set()
            return future

        outcome = when(started, strike)
        started.set()
        while not sent.is_set():  # this task is not the process's
            pass
        with pytest.raises(Interrupted):
            await task
        assert (await asyncio.wait_for(asyncio.wrap_future(outcome), DEADLINE)).status == "applied"

    asyncio.run(main())


def test_of_two_processes_in_one_loop_only_the_one_meant() -> None:
    started = threading.Event()

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        outer, inner = Interruptions(loop), Interruptions(loop)
        outcome = when(started, hit(outer))
        seen: list[str] = []
        async with outer.main_scope():
            try:
                async with outer.scope():
                    try:
                        async with inner.main_scope(), inner.scope():
                            spin(started)
                    except Interrupted:
                        seen.append("inner")
            except Interrupted:
                seen.append("outer")
        assert (await asyncio.wait_for(asyncio.wrap_future(outcome), DEADLINE)).status == "applied"
        return seen

    assert asyncio.run(main()) == ["outer"]


@pytest.mark.parametrize("block", [spin, sleep])
@pytest.mark.parametrize("verb", ["interrupt", "cancel"])
def test_a_plain_function_in_the_main_thread(block: Callable[[threading.Event], None], verb: str) -> None:
    code = Interruptions(None)
    started = threading.Event()
    outcome = when(started, hit(code) if verb == "interrupt" else lambda: code.cancel(hard=True))
    with pytest.raises(Interrupted if verb == "interrupt" else Cancelled), code.main_thread_scope():
        block(started)
    assert outcome.result(DEADLINE) == Outcome("applied")


def test_a_plain_scope_in_the_main_thread() -> None:
    code = Interruptions(None)
    started = threading.Event()
    outcome = when(started, hit(code))
    with code.main_thread_scope():
        with pytest.raises(Interrupted), code.thread_scope():
            spin(started)
        assert outcome.result(DEADLINE) == Outcome("applied")
        code.check()


def test_a_plain_function_in_another_thread_at_best() -> None:
    code = Interruptions(None)
    started = threading.Event()

    def function() -> str:
        with code.main_thread_scope():
            try:
                with code.thread_scope():
                    spin(started)
            except Interrupted as interrupt:
                return interrupt.reason
        return "returned"

    worker = concurrent.futures.ThreadPoolExecutor(1)
    result = worker.submit(function)
    assert when(started, hit(code)).result(DEADLINE) == Outcome("applied", BEST_EFFORT)
    assert result.result(DEADLINE) == "stop"
    assert worker.submit(lambda: "unharmed").result(DEADLINE) == "unharmed"
    worker.shutdown()


TRACED = """
import sys, threading
sys.path.insert(0, {folder!r})
import test_hard
test_hard.test_a_plain_function_in_another_thread_at_best()
test_hard.test_one_that_comes_too_late_is_taken_back()
sys.settrace(lambda *_: None)
threading.get_ident(), test_hard.hit(None)
print("traced")
"""


def test_debuggers_and_coverage_tools_work_in_a_program_after_one() -> None:
    """CPython 3.11 hangs in the first call that is traced, if an exception for a thread was merely taken away."""
    script = TRACED.format(folder=str(Path(__file__).parent))
    traced = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (traced.stdout, traced.returncode) == ("traced\n", 0), traced.stderr


def test_one_that_comes_too_late_is_taken_back() -> None:
    def work() -> str:
        try:
            with hard.shield:
                hard.raise_in(threading.get_ident())
                hard.take_back()
        except HardInterrupt:
            pass  # it was quicker
        hard.take_back()
        return "unharmed"

    with concurrent.futures.ThreadPoolExecutor(1) as worker:
        assert [worker.submit(work).result(DEADLINE) for _ in range(20)] == 20 * ["unharmed"]


def test_a_loop_in_another_thread_at_best() -> None:
    started = threading.Event()
    outcomes: list[Outcome] = []

    async def main() -> str:
        code = Interruptions(asyncio.get_running_loop())
        outcome = when(started, hit(code))
        async with code.main_scope():
            try:
                async with code.scope():
                    spin(started)
            except Interrupted as interrupt:
                await asyncio.sleep(0)
                outcomes.append(await asyncio.wait_for(asyncio.wrap_future(outcome), DEADLINE))
                return interrupt.reason
        return "returned"

    with concurrent.futures.ThreadPoolExecutor(1) as worker:
        assert worker.submit(asyncio.run, main()).result(DEADLINE) == "stop"
    assert outcomes == [Outcome("applied", BEST_EFFORT)]


def short_code(counts: list[int]) -> None:
    counts[0] += 1
    for _ in range(200):
        pass
    counts[1] += 1


@hard.shielded
def shielded(counts: list[int]) -> None:
    short_code(counts)


def behind_the_shield(counts: list[int]) -> None:
    with hard.shield:
        short_code(counts)


@pytest.mark.parametrize("whole", [shielded, behind_the_shield])
def test_a_shield_keeps_short_code_whole(
    whole: Callable[[list[int]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interruptions, "GRACE", 0.0)
    code = Interruptions(None)
    counts = [0, 0]

    def count() -> None:
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            whole(counts)
        _never_stopped.append("count")

    with code.main_thread_scope():
        for _ in range(20):
            started = threading.Event()
            outcome = when(started, hit(code))
            with pytest.raises(Interrupted), code.thread_scope():
                started.set()
                count()
            assert outcome.result(DEADLINE).status == "applied"
            assert counts[0] == counts[1]


@pytest.mark.parametrize("module", ["asyncio.base_events", "natsproc.bus.log"])
def test_code_of_the_event_loop_and_our_own_is_hit_behind(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = threading.Event()
    strikes: list[int] = []
    strike = hard.strike

    def counted(claim: hard.Claim) -> None:
        strikes.append(1)
        strike(claim)

    monkeypatch.setattr(hard, "strike", counted)
    theirs: dict[str, Any] = {"__name__": module}
    exec(
        "def wait(strikes, clock, deadline):\n"
        "    while len(strikes) < 3 and clock() < deadline: pass\n"
        "    return len(strikes)",
        theirs,
    )

    async def main() -> None:
        code = Interruptions(asyncio.get_running_loop())
        outcome = when(started, hit(code))
        whole: list[int] = []
        async with code.main_scope():
            with pytest.raises(Interrupted):
                async with code.scope():
                    started.set()
                    whole.append(theirs["wait"](strikes, time.monotonic, time.monotonic() + DEADLINE))
                    spin(started)
        assert whole
        assert whole[0] >= 3
        assert (await asyncio.wait_for(asyncio.wrap_future(outcome), DEADLINE)).status == "applied"

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:coroutine 'TaskScope.__aexit__' was never awaited")
def test_hits_at_any_moment_stop_the_code_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruptions, "GRACE", 0.0)
    rounds = 100

    async def main() -> tuple[list[str], str]:
        code = Interruptions(asyncio.get_running_loop())
        applied: list[str] = []
        last = ""

        def controller() -> None:
            for number in range(rounds):
                time.sleep(number % 7 / 10_000)
                applied.append(hit(code, str(number))().result(DEADLINE).status)

        async def turn() -> None:
            async with code.scope():
                await asyncio.sleep(0)
                sum(range(500))

        async def several() -> None:
            nonlocal last
            while len(applied) < rounds:
                try:
                    await turn()
                except Interrupted as interrupt:
                    last = interrupt.reason

        async def guarded() -> None:  # gets what comes between two turns
            async with code.scope():
                await several()

        thread = threading.Thread(target=controller)
        thread.start()
        while len(applied) < rounds:
            try:
                async with code.main_scope():  # and this what comes between two scopes
                    await guarded()
            except Interrupted as interrupt:
                last = interrupt.reason
        thread.join(DEADLINE)
        return applied, last

    assert asyncio.run(main()) == (["applied"] * rounds, str(rounds - 1))


def test_a_handler_of_the_users_is_called_too_and_put_back() -> None:
    heard: list[int] = []

    def handler(number: int, frame: object) -> None:
        heard.append(number)

    before = signal.signal(hard.SIGNAL, handler)
    try:
        code = Interruptions(None)
        started = threading.Event()
        outcome = when(started, hit(code))
        with pytest.raises(Interrupted), code.main_thread_scope():
            spin(started)
        assert outcome.result(DEADLINE).status == "applied"
        assert set(heard) == {hard.SIGNAL}
        assert signal.getsignal(hard.SIGNAL) is handler
    finally:
        signal.signal(hard.SIGNAL, before)
