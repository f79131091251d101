"""Whose turn it is: busy event loops give way to the I/O thread, and commands find threads that let go soon."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from natsproc.bus import yielding
from natsproc.bus.thread import IOThread

MOMENT = 0.2


@pytest.fixture
def io(monkeypatch):
    monkeypatch.setattr(yielding, "MOMENT", MOMENT)
    monkeypatch.setattr(yielding, "BUSY", 0)
    thread = IOThread()
    yield thread
    thread.stop()


@contextmanager
def stuck(io):
    """The I/O thread in the middle of something, as it is when it waits for the interpreter's lock."""
    there, go_on = threading.Event(), threading.Event()
    io.post(lambda: (there.set(), go_on.wait(20)))
    assert there.wait(20)
    try:
        yield
    finally:
        go_on.set()


async def turn() -> float:
    """Seconds that a turn of a busy loop takes."""
    start = time.monotonic()
    await asyncio.sleep(0)
    return time.monotonic() - start


async def test_a_busy_loop_lets_the_io_thread_go_first(io):
    with io.first(), io.first(), stuck(io):
        assert await turn() >= MOMENT
    selector = asyncio.get_running_loop()._selector
    assert "select" not in vars(selector)
    with stuck(io):
        await turn()


async def test_it_gives_way_to_each_of_several(io):
    other = IOThread()
    try:
        with other.first(), io.first(), stuck(io):
            assert await turn() >= MOMENT
        with other.first(), io.first(), stuck(other):
            assert await turn() >= MOMENT
    finally:
        other.stop()


async def test_it_loses_no_time_while_the_io_thread_waits(io, monkeypatch):
    idle = io._attention
    while idle.wanted:
        await asyncio.sleep(0.01)
    monkeypatch.setattr(yielding, "MOMENT", 3600)
    with io.first():
        await turn()
        io.stop()  # and none once that is gone
        await turn()


async def test_a_loop_that_has_just_waited_gives_no_way(io, monkeypatch):
    with io.first():
        await asyncio.sleep(0.01)  # now nothing else is left to do
        monkeypatch.setattr(yielding, "BUSY", 3600)
        monkeypatch.setattr(yielding, "MOMENT", -1)  # for which no thread can sleep
        with stuck(io):
            await asyncio.sleep(0.01)
            await turn()


def test_what_comes_in_and_what_is_due_is_seen_from_outside():
    loop = asyncio.new_event_loop()
    attention = yielding.attention(loop)
    try:
        attention._until = float("inf")  # as if it waited, in a thread of its own
        assert not attention.wanted
        loop.call_soon_threadsafe(int)
        assert attention.wanted
        loop.run_until_complete(asyncio.sleep(0))
        attention._until = float("inf")
        assert not attention.wanted
        attention._until = time.monotonic() - 1
        assert attention.wanted
    finally:
        loop.close()


@pytest.mark.parametrize(
    ("before", "meanwhile"), [(0.005, yielding.SHORT), (0.0001, 0.0001), (yielding.SHORT, yielding.SHORT)]
)
def test_in_a_hurry_threads_let_go_sooner_and_then_as_before(before, meanwhile):
    usual = sys.getswitchinterval()
    sys.setswitchinterval(before)
    io = IOThread()
    try:
        for _ in range(2):
            assert io.wait(_hurry()) == pytest.approx(meanwhile)
        io.stop()
        assert sys.getswitchinterval() == pytest.approx(before)
    finally:
        sys.setswitchinterval(usual)


def test_a_loop_that_ended_in_a_hurry_is_in_none():
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    try:
        for _ in range(2):
            assert asyncio.run(_hurry()) == pytest.approx(yielding.SHORT)
            assert sys.getswitchinterval() == pytest.approx(yielding.SHORT)  # nobody was there to set it back
        io = IOThread()
        assert io.wait(_hurry()) == pytest.approx(yielding.SHORT)
        io.stop()
        assert sys.getswitchinterval() == pytest.approx(0.005)
        assert not yielding._hurries
    finally:
        sys.setswitchinterval(usual)


def test_what_somebody_sets_in_a_hurry_stays(monkeypatch):
    monkeypatch.setattr(yielding, "HURRY", 3600)
    usual = sys.getswitchinterval()
    io = IOThread()
    try:
        io.wait(_hurry())
        sys.setswitchinterval(0.002)
        io.stop()
        assert sys.getswitchinterval() == pytest.approx(0.002)
    finally:
        sys.setswitchinterval(usual)


async def _hurry() -> float:
    yielding.hurry()
    return sys.getswitchinterval()
