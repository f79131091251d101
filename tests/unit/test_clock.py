"""How long something has gone on without a break, by clocks that stand still, jump and are set."""

from __future__ import annotations

import pytest

from natsproc.bus.clock import Steady


class Clocks:
    """One that stands still while the machine sleeps, and one that may be set."""

    def __init__(self):
        self.steady, self.wall = 100.0, 1e9

    def __call__(self):
        return self.steady, self.wall

    def go(self, seconds, wall=None):
        self.steady += seconds
        self.wall += seconds if wall is None else wall


@pytest.fixture
def clocks():
    return Clocks()


@pytest.fixture
def steady(clocks):
    return Steady(2.5, clocks)


def beats(steady, clocks, count=10):
    for _ in range(count):
        steady.beat()
        clocks.go(1)


def test_it_counts_from_the_first_beat(steady, clocks):
    assert steady.seconds == 0
    steady.beat()
    beats(steady, clocks)
    assert steady.seconds == 10
    clocks.go(1.4)
    assert steady.seconds == pytest.approx(11.4)


@pytest.mark.parametrize(
    ("seconds", "wall"),
    [(3, 3), (0, 3600), (1, -3600), (3, 0)],
    ids=["silent", "slept", "set back", "skewed"],
)
def test_after_a_break_it_counts_anew(steady, clocks, seconds, wall):
    beats(steady, clocks)
    clocks.go(seconds, wall)
    assert steady.seconds == 0
    beats(steady, clocks, 4)
    assert steady.seconds == 4


def test_what_broke_off_counts_anew_at_once(steady, clocks):
    beats(steady, clocks)
    steady.stop()
    assert steady.seconds == 0
    beats(steady, clocks, 1)
    assert steady.seconds == 1
