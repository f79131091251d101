"""The statistics of the benchmarks, and who is measured when."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness import Contender, Figure, Section, Turn, turns
from benchmarks.stats import Goal, Summary, percentile, ratio, thin

numbers = st.floats(0, 1e9, allow_nan=False)
samples = st.lists(numbers, min_size=1, max_size=50)


@given(samples)
def test_the_median_is_the_median(values: list[float]) -> None:
    assert percentile(values, 50) == pytest.approx(statistics.median(values))


@given(samples, st.floats(0, 100))
def test_a_percentile_lies_where_that_share_of_values_is_below(values: list[float], q: float) -> None:
    found = percentile(values, q)
    assert min(values) <= found <= max(values)
    slack = 1e-9 * max(values)
    assert sum(value <= found + slack for value in values) >= math.floor((len(values) - 1) * q / 100) + 1


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)


@given(st.lists(numbers, min_size=12, max_size=300))
def test_thinned_samples_keep_extremes_and_median(values: list[float]) -> None:
    few = thin(values, 11)
    assert len(few) == 11
    assert (few[0], few[-1]) == (min(values), max(values))
    assert percentile(few, 50) == pytest.approx(percentile(values, 50))


def test_a_summary_pools_the_rounds() -> None:
    summary = Summary.of([[1.0, 2.0], [], [3.0]])
    assert (summary.count, summary.p50, summary.least, summary.most) == (3, 2.0, 1.0, 3.0)


def test_a_ratio_compares_within_rounds() -> None:
    # the machine was three times slower in the second and third round: within each, ours is twice theirs
    assert ratio([[20.0], [60.0], [66.0]], [[10.0], [30.0], [33.0]]) == 2.0
    assert ratio([[20.0], [60.0], [60.0]], [[10.0], []]) == 2.0
    with pytest.raises(ValueError, match="no round together"):
        ratio([[1.0]], [[]])


def test_a_goal_is_met_on_its_side_of_the_bound() -> None:
    goal = Goal("natsproc", "stored/s", 2.5, "least", "publish_async")
    assert goal.found([[50.0]], [[20.0]]) == 2.5
    assert goal.met(2.5)
    assert not goal.met(2.4)
    most = Goal("natsproc", "latency", 25.0, statistic="p99")
    assert most.found([[1.0, 2.0], [30.0]], None) == pytest.approx(29.44)
    assert not most.met(29.44)
    assert "p99 ≤ 25" in most.text()


def test_every_contender_has_its_turn_in_every_round_and_the_first_place_moves_on() -> None:
    async def run(turn: Turn) -> dict[str, list[float]]:
        return {}

    contenders = [Contender("a", run), Contender("b", run), Contender("slow", run, rounds=1)]
    section = Section("s", "S", "", [Figure("f", "ms")], contenders)
    order = [(number, contender.name) for number, contender in turns(section, 3)]
    assert order == [(0, "a"), (0, "b"), (0, "slow"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]
