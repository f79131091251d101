"""Durations on the command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsproc_cli.durations import format_age, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("10m", 600),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("90", 90),
        ("0", 0),
        ("0.25", 0.25),
        (" 1H ", 3600),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "10x", "m", "10 m", "1h 30m", "-5s", "1e3", "inf", "nan", "s10", "1.s"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write 10s, 5m, 1h30m"):
        parse_duration(text)


def test_a_duration_of_more_than_a_century_is_refused() -> None:
    with pytest.raises(ValueError, match="century"):
        parse_duration("9" * 30)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_parts_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@given(st.text(max_size=12))
def test_any_text_is_either_a_duration_or_refused(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert seconds >= 0
    assert text.strip()[0].isdigit()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"),
        (0.9, "0s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (599, "9m59s"),
        (600, "10m"),
        (3599, "59m"),
        (3600, "1h00m"),
        (86_399, "23h59m"),
        (93_600, "1d02h"),
    ],
)
def test_ages_have_two_units_at_most(seconds: float, text: str) -> None:
    assert format_age(seconds) == text


@given(st.floats(0, 10**9))
def test_an_age_reads_back_as_no_more_than_it_was(seconds: float) -> None:
    assert parse_duration(format_age(seconds)) <= seconds
