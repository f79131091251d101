"""When a replay shows what: the arithmetic, without a clock."""

from __future__ import annotations

from math import inf, isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsproc_cli.pace import FASTEST, SLACK, SLOWEST, Pace, format_speed, moment, parse_speed

gaps = st.lists(st.floats(0, 1000), min_size=1, max_size=20)
speeds = st.floats(SLOWEST, FASTEST) | st.just(inf)
pauses = st.floats(0, 100) | st.just(inf)
steps = st.lists(st.tuples(st.sampled_from(["faster", "slower", "pause", "skip", "wait"]), st.floats(0, 1)))


def shown(pace: Pace, times: list[float], now: float = 50.0) -> list[float]:
    """When a viewer who is never late sees each event."""
    seen = []
    for time in times:
        pace.reach(time, now)
        now += pace.left(now)
        seen.append(now)
    return seen


def times_of(gaps: list[float]) -> list[float]:
    return [1e6 + sum(gaps[: n + 1]) for n in range(len(gaps))]


@given(gaps, speeds, pauses)
def test_each_wait_is_the_gap_at_that_speed_and_never_longer_than_asked(gaps, speed, longest):
    times = times_of(gaps)
    seen = shown(Pace(speed, longest), times)
    assert seen[0] == 50.0
    for before, after, gap in zip(seen, seen[1:], gaps[1:], strict=False):
        assert isclose(after - before, min(gap / speed, longest), abs_tol=1e-6)


@given(gaps, st.floats(0, 1000))
def test_at_the_highest_speed_nothing_is_waited_for(gaps, now):
    pace = Pace(parse_speed("max"))
    assert shown(pace, times_of(gaps), now)[-1] == now


@given(st.lists(st.floats(-1e6, 1e6) | st.none(), min_size=1), speeds)
def test_a_clock_that_went_back_or_says_nothing_costs_no_time(times, speed):
    pace, now = Pace(speed), 0.0
    before = None
    for time in times:
        pace.reach(time, now)
        waited = pace.left(now)
        assert waited >= 0
        if time is None or before is None or time <= before:
            assert waited == 0
        before = before if time is None else time
        now += waited


@given(st.floats(0.1, 1000), speeds, pauses, steps)
def test_no_key_makes_a_wait_longer_than_asked_and_skipping_shortens_it(gap, speed, longest, steps):
    pace, now = Pace(speed, longest), 0.0
    pace.reach(0.0, now)
    pace.reach(gap, now)
    for key, share in steps:
        left = pace.left(now)
        match key:
            case "wait":
                now += share * left if left < inf else 1.0
            case "skip":
                pace.skip(10.0, now)
                assert pace.paused or isclose(pace.left(now), max(0.0, left - 10.0), abs_tol=1e-6)
            case key:
                getattr(pace, key)(now)
        assert pace.left(now) == inf if pace.paused else 0 <= pace.left(now) <= longest + 1e-6
        assert SLOWEST <= pace.speed <= FASTEST * 2 or pace.speed == inf


@given(st.floats(0.1, 1000), st.floats(0.1, 100), st.floats(0, 1), st.floats(0, 1000))
def test_pausing_costs_nothing_of_what_there_was_to_wait(gap, speed, share, for_long):
    pace = Pace(speed)
    pace.reach(0.0, 0.0)
    pace.reach(gap, 0.0)
    now = share * pace.left(0.0)
    left = pace.left(now)
    pace.pause(now)
    assert pace.left(now + for_long) == inf
    pace.pause(now + for_long)
    assert isclose(pace.left(now + for_long), left, abs_tol=1e-6)


@given(st.floats(0.1, 1000), st.floats(0.1, 100), st.floats(0, 1))
def test_twice_as_fast_halves_what_is_left(gap, speed, share):
    pace = Pace(speed)
    pace.reach(0.0, 0.0)
    pace.reach(gap, 0.0)
    now = share * gap / speed
    left = pace.left(now)
    pace.faster(now)
    assert isclose(pace.left(now), left / 2, abs_tol=1e-6)
    pace.slower(now)
    assert isclose(pace.left(now), left, abs_tol=1e-6)


@given(gaps, st.floats(0.1, 100), st.floats(0, 1000))
def test_skipping_ahead_leaves_out_so_much_of_waiting_and_no_more(gaps, speed, seconds):
    times = times_of(gaps)
    plain = shown(Pace(speed), times)[-1] - 50.0
    pace = Pace(speed)
    pace.skip(seconds, 50.0)
    assert isclose(shown(pace, times)[-1] - 50.0, max(0.0, plain - seconds), abs_tol=1e-3)


def test_who_waited_for_a_live_run_does_not_rush_through_what_comes_then():
    pace = Pace(1.0)
    pace.reach(0.0, 0.0)
    pace.reach(100.0, 500.0)  # it came that late
    assert pace.left(500.0) == 100.0 - SLACK


@pytest.mark.parametrize(
    ("text", "speed"), [("10x", 10), ("0.5x", 0.5), ("2", 2), ("MAX", inf), (" 1x ", 1), ("1024x", 1024)]
)
def test_speeds_as_people_write_them(text, speed):
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["", "x", "fast", "0x", "-1x", "1e3x", "nan", "inf", "1025x", "0.001x"])
def test_what_is_no_speed(text):
    with pytest.raises(ValueError, match="is no speed"):
        parse_speed(text)


@pytest.mark.parametrize(("speed", "text"), [(0.5, "0.5x"), (20, "20x"), (1024, "1024x"), (inf, "max")])
def test_speeds_are_said_as_they_are_written(speed, text):
    assert format_speed(speed) == text
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["", "soon", "9999-99-99T00:00:00Z", "\x00", "0001-01-01T00:00:00"])
def test_a_time_that_is_none(text):
    assert moment(text) is None or text.startswith("0001")
