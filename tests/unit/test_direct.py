"""When what was sent directly counts as unanswered: only what was on its way for a whole period."""

import threading
from collections import deque
from types import SimpleNamespace

import pytest

from natsproc.bus import direct
from natsproc.bus.direct import Direct
from natsproc.bus.ingest import Broken

A_PERIOD = False


@pytest.fixture
def staying(monkeypatch):
    """How `_stay` ends where, in each of its rests, something of a script happens and the time passes."""
    monkeypatch.setattr(direct, "SILENCE", 0.0)

    async def stay(*script):
        steps = iter(script)

        async def rest(seconds, *, entries):
            next(steps)(pipe)
            return A_PERIOD

        pipe = SimpleNamespace(
            flying=deque(), queue=[], arrived=[], stored=0, rest=rest,
            begin=lambda: ("", ""), connection=SimpleNamespace(max_payload=100),
        )  # fmt: skip
        pipe.direct = Direct(pipe, None, threading.RLock())
        await pipe.direct._stay()

    return stay


def sent(pipe):
    pipe.flying.append("entry")


def stored(pipe):
    pipe.flying.popleft()
    pipe.stored += 1


def nothing(pipe):
    pass


def queued(pipe):
    pipe.queue.append("entry")


async def test_what_was_sent_at_the_end_of_an_idle_period_has_a_period_of_its_own(staying):
    await staying(sent, stored, nothing, sent, stored, nothing, queued)


async def test_progress_begins_a_new_period(staying):
    await staying(
        sent, lambda pipe: (sent(pipe), stored(pipe)), lambda pipe: (sent(pipe), stored(pipe)), queued
    )


async def test_what_has_no_answer_for_a_whole_period_is_unanswered(staying):
    with pytest.raises(Broken, match="acknowledged nothing"):
        await staying(sent, nothing, nothing)
