"""Questions that several ask at once: whoever comes in time joins in, and nobody gets an answer older than the question."""

from __future__ import annotations

import asyncio
import sys

import pytest

from natsproc.bus.joint import Joint
from natsproc.errors import NotAllowed


class Bus:
    """Counts what it is asked, and answers when it is told to."""

    def __init__(self):
        self.asked = 0
        self.cancelled = 0
        self.answer = asyncio.get_running_loop().create_future()

    async def send(self):
        self.asked += 1
        number = self.asked
        try:
            await asyncio.shield(self.answer)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return number


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_who_asks_before_it_is_sent_joins_in_and_who_asks_later_asks_anew():
    bus, joint = Bus(), Joint()
    early = [joint.ask("q", bus.send) for _ in range(3)]
    other = joint.ask("another", bus.send)
    await turns()
    late = [joint.ask("q", bus.send) for _ in range(2)]
    await turns()
    bus.answer.set_result(None)
    assert await asyncio.gather(*early, other, *late) == [1, 1, 1, 2, 3, 3]
    assert not joint._waiting


async def test_what_waits_for_its_turn_can_still_be_joined():
    bus, joint, turn = Bus(), Joint(), asyncio.Semaphore(1)
    bus.answer.set_result(None)
    async with turn:
        early = joint.ask("q", bus.send, turn)
        await turns()
        late = joint.ask("q", bus.send, turn)
        await turns()
        assert bus.asked == 0
    assert await asyncio.gather(early, late) == [1, 1]


async def test_one_that_gives_up_takes_nobody_along():
    bus, joint = Bus(), Joint()
    first, second = joint.ask("q", bus.send), joint.ask("q", bus.send)
    await turns()
    first.cancel()
    await turns()
    bus.answer.set_result(None)
    assert await second == 1
    assert not bus.cancelled


@pytest.mark.parametrize("sent", [False, True])
async def test_with_the_last_asker_the_question_goes(sent):
    bus, joint = Bus(), Joint()
    askers = [joint.ask("q", bus.send) for _ in range(2)]
    if sent:
        await turns()
    for asker in askers:
        asker.cancel()
    again = None if sent else joint.ask("q", bus.send)
    await turns()
    assert bus.cancelled == bool(sent)
    assert bus.asked == 1
    if again:
        bus.answer.set_result(None)
        assert await again == 1
    assert not joint._waiting


async def test_what_is_asked_about_comes_together_each_part_once():
    joint, sent = Joint(), []

    async def send(parts):
        sent.append(parts)
        return {part: len(part) for part in parts}

    asked = [joint.ask_about("lengths", part, send) for part in ("a", "bb", "a", "ccc")]
    asked[3].cancel()
    assert await asyncio.gather(*asked[:3]) == [{"a": 1, "bb": 2, "ccc": 3}] * 3
    assert await joint.ask_about("lengths", "d", send) == {"d": 1}
    assert sent == [["a", "bb", "ccc"], ["d"]]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks are never eager here")
async def test_an_eager_loop_asks_at_once():
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    bus, joint = Bus(), Joint()
    bus.answer.set_result(None)
    assert [await joint.ask("q", bus.send) for _ in range(2)] == [1, 2]


async def test_what_was_given_up_before_its_turn_is_not_joined():
    bus, joint, turn = Bus(), Joint(), asyncio.Semaphore(1)
    bus.answer.set_result(None)
    async with turn:
        given_up = [joint.ask("q", bus.send, turn) for _ in range(2)]
        await turns()
        for asker in given_up:
            asker.cancel()
        await turns()
        again = joint.ask("q", bus.send, turn)
    assert await again == 1
    assert not joint._waiting


async def test_what_goes_wrong_goes_wrong_for_all_who_asked(caplog):
    joint = Joint()

    async def fail():
        raise NotAllowed("why", subject="s")

    asked, errors = [joint.ask("q", fail) for _ in range(4)], []
    for answer in asked[:3]:
        with pytest.raises(NotAllowed, match="why") as raised:
            await answer
        errors.append(raised.value)
        raised.value.add_note("its own")
    assert len({id(error) for error in errors}) == 3
    assert {(error.subject, tuple(error.__notes__)) for error in errors} == {("s", ("its own",))}
    del asked, answer  # the fourth is awaited by nobody, and says nothing of it
    await turns()
    assert not caplog.records
