"""Streamed text that is complete is shown without its tokens, and nothing else is touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import DECISIONS, Choices, examples

from natsproc.protocol.compact import Compact
from natsproc.protocol.messages import Event, Notice

CAUGHT_UP = Notice("caught_up")


def event(offset, type, data):
    return Event(offset, 5, 1, "", type, data, position=offset)


def token(offset, stream="a"):
    return event(offset, "token", {"stream": stream, "text": "x"})


def text(offset, first, last, stream="a"):
    return event(offset, "text", {"stream": stream, "text": "xx", "first": first, "last": last})


def output(offset):
    return event(offset, "output", {"stream": "stdout", "text": "line\n"})


def fed(compact, *items):
    return [shown for item in items for shown in compact.feed(item)]


def log(raw):
    """What a process with three streams says, and where in it history meets the live edge."""
    choices = Choices(raw)
    items, opened = [], {}
    for _ in range(choices.below(50)):
        offset, kind, stream = len(items) + 1, choices.below(8), choices.pick("abc")
        if kind < 4:
            opened.setdefault(stream, offset)
            items.append(token(offset, stream))
        elif kind == 4 and stream in opened:
            items.append(text(offset, opened.pop(stream), offset - 1, stream))
        elif kind == 5:  # the process died: this stream begins anew
            opened.pop(stream, None)
            items.append(output(offset))
        else:
            items.append(output(offset))
    return items, choices.below(len(items) + 1)


def covered(item, history):
    """Whether a text event in this history says what that token said."""
    return item.type == "token" and any(
        other.type == "text"
        and other.data["stream"] == item.data["stream"]
        and other.data["first"] <= item.offset <= other.data["last"]
        for other in history
    )


@examples(300)
@given(DECISIONS)
def test_tokens_that_a_text_covers_are_left_out_of_history(raw):
    items, edge = log(raw)
    history, live = items[:edge], items[edge:]
    shown = fed(Compact(), *history, CAUGHT_UP, *live)
    assert shown == [item for item in history if not covered(item, history)] + [CAUGHT_UP, *live]


@examples(300)
@given(DECISIONS, st.integers(0, 5))
def test_however_little_is_kept_nothing_else_is_lost(raw, limit):
    items, edge = log(raw)
    compact = Compact(limit)
    shown = []
    for number, item in enumerate(items[:edge], 1):
        shown += compact.feed(item)
        left_out = sum(covered(other, items[:number]) for other in items[:number])
        assert number - len(shown) - left_out <= limit, "more is kept than may be"
    shown += compact.flush()
    offsets = [item.offset for item in shown]
    assert offsets == sorted(set(offsets))
    lost = [item for item in items[:edge] if item.offset not in set(offsets)]
    assert all(covered(item, items[:edge]) for item in lost)


def test_what_nothing_holds_up_is_shown_at_once():
    compact = Compact()
    assert fed(compact, output(1)) == [output(1)]
    assert fed(compact, token(2), output(3)) == []
    assert fed(compact, text(4, 2, 2)) == [output(3), text(4, 2, 2)]
    assert fed(compact, output(5)) == [output(5)]


def test_one_open_stream_holds_up_another():
    compact = Compact()
    assert fed(compact, token(1, "a"), token(2, "b"), text(3, 2, 2, "b")) == []
    assert fed(compact, text(4, 1, 1, "a")) == [text(3, 2, 2, "b"), text(4, 1, 1, "a")]


def test_tokens_that_no_text_covers_are_shown():
    compact = Compact()
    other = event(1, "output", {"stream": "a", "first": 1, "last": 1})
    assert fed(Compact(), token(1), other, CAUGHT_UP) == [token(1), other, CAUGHT_UP]
    assert fed(compact, token(1), token(2), text(3, 2, 2)) == [token(1), text(3, 2, 2)]


@pytest.mark.parametrize("kind", ["caught_up", "ended"])
def test_at_the_live_edge_what_waits_is_shown_and_the_rest_passes(kind):
    compact = Compact()
    assert fed(compact, token(1), Notice("takeover", {"epoch": 6}), token(2)) == []
    shown = fed(compact, Notice(kind))
    assert shown == [token(1), Notice("takeover", {"epoch": 6}), token(2), Notice(kind)]
    assert fed(compact, token(3), text(4, 1, 3)) == [token(3), text(4, 1, 3)]


@pytest.mark.parametrize(
    "data", [None, 7, "x", [], {}, {"stream": None}, {"stream": 3}, {"stream": []}, {"stream": "a"}]
)
def test_events_of_these_names_with_other_data_pass(data):
    compact = Compact()
    shown = fed(compact, event(1, "text", data), output(2), event(3, "text", data), CAUGHT_UP)
    assert [getattr(item, "offset", None) for item in shown] == [1, 2, 3, None]
    assert len(fed(Compact(), event(1, "token", data), CAUGHT_UP)) == 2


@pytest.mark.parametrize("first", [None, "1", [], 1.5])
def test_a_text_that_covers_nothing_one_can_read_leaves_nothing_out(first):
    closing = event(2, "text", {"stream": "a", "text": "x", "first": first, "last": 1})
    assert fed(Compact(), token(1), closing) == [token(1), closing]
