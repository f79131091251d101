"""How events look: as text for people, and as JSON for programs."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from natsproc.protocol.messages import Event, Notice
from natsproc.protocol.names import Address
from natsproc_cli.render import JsonView, TextView
from natsproc_cli.table import columns
from natsproc_cli.terminal import Harmless, plain

BUILD = Address("default", "build")
OTHER = Address("prod", "other")
TIME = "2024-02-03T04:05:06.789Z"
DANGEROUS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

hostile = st.lists(
    st.sampled_from(
        ["\x1b", "[", "]", "0;31m", "31m", "K", "2J", "6n", "52;c;AAAA", "\x07", "\x1b\\", "\x9b", "\x90",
         "a", "é", "\r", "\n", "\t", "\b", "\x1b[H", "\x1b]0;title\x07", "P", "c", "\x1b(0", "?1049h", "\x00"]
    ),
    max_size=12,
).map("".join)  # fmt: skip


class Screen:
    """A view over bytes, and what it said beside them."""

    def __init__(self, **options: Any) -> None:
        self.out = io.BytesIO()
        self.said: list[str] = []
        self.view = TextView(self.out, self.said.append, **options)
        self._offset = 0

    def event(self, type: str, data: Any, address: Address = BUILD) -> Screen:
        self._offset += 1
        self.view.show(Event(self._offset, 3, 1, TIME, type, data, position=self._offset, address=address))
        return self

    def output(self, text: str, address: Address = BUILD, stream: str = "stdout") -> Screen:
        return self.event("output", {"stream": stream, "text": text}, address)

    @property
    def text(self) -> str:
        self.view.flush()
        return self.out.getvalue().decode()

    def closed(self) -> str:
        self.view.close()
        return self.text

    @property
    def lines(self) -> list[str]:
        return self.closed().splitlines()


def test_output_that_is_piped_is_verbatim() -> None:
    text = "a\tb\r\nc \x1b[31mred\x1b]0;title\x07 end without newline"
    screen = Screen().output(text[:20]).output(text[20:])
    assert screen.closed() == text


def test_output_that_is_not_text_is_verbatim_too() -> None:
    raw = bytes(range(256))
    screen = Screen().event("output", {"stream": "stdout", "base64": base64.b64encode(raw).decode()})
    screen.view.close()
    assert screen.out.getvalue() == raw


def test_other_events_begin_on_a_line_of_their_own() -> None:
    screen = Screen().output("no newline").event("log", {"level": "info", "text": "hello"}).output("more\n")
    first, second, third = screen.lines
    assert first == "no newline"
    assert second.endswith("hello")
    assert third == "more"


def test_nothing_is_coloured_or_redrawn_when_piped() -> None:
    screen = Screen()
    screen.event("started", {"kind": "command", "host": "h", "pid": 1})
    for done in range(3):
        screen.event("progress", {"done": done, "total": 3})
    screen.event("exited", {"status": "failed", "code": 2})
    assert not DANGEROUS.search(screen.closed())
    assert len(screen.lines) == 5


def test_progress_redraws_its_line_on_a_terminal() -> None:
    screen = Screen(terminal=True)
    screen.event("progress", {"done": 1, "total": 4}).event("progress", {"done": 2, "total": 4})
    screen.event("log", {"level": "info", "text": "done"})
    text = screen.closed()
    assert text.count("\r\x1b[K") == 1
    assert text.count("\n") == 2
    assert "2/4" in text.splitlines()[-2]


def test_tokens_flow_inline_and_their_closing_event_repeats_nothing() -> None:
    screen = Screen()
    for token in ("Once ", "upon ", "a time"):
        screen.event("token", {"stream": "answer", "text": token})
    screen.event("text", {"stream": "answer", "text": "Once upon a time", "first": 1, "last": 3})
    assert len(screen.lines) == 1
    assert screen.lines[0].endswith("Once upon a time")
    assert "answer" in screen.lines[0]


def test_a_closing_event_is_shown_whole_to_who_came_in_the_middle() -> None:
    screen = Screen()
    screen.event("message", "x").event("token", {"stream": "answer", "text": "a time"})
    screen.event("text", {"stream": "answer", "text": "Once upon a time", "first": 1, "last": 2})
    assert screen.lines[-1].endswith("Once upon a time")


def test_a_closing_event_alone_is_shown() -> None:
    screen = Screen().event("text", {"stream": "answer", "text": "whole", "first": 1, "last": 9})
    assert screen.lines[-1].endswith("whole")


def test_a_stream_that_was_interrupted_by_another_event_says_that_it_goes_on() -> None:
    screen = Screen().event("token", {"stream": "a", "text": "one "}).event("log", {"text": "between"})
    screen.event("token", {"stream": "a", "text": "two"})
    assert len(screen.lines) == 3
    assert screen.lines[-1].endswith("… two")


@pytest.mark.parametrize(
    ("type", "data", "said"),
    [
        ("started", {"kind": "command", "host": "h1", "pid": 7, "title": "make -j4"}, "command on h1, pid 7: make -j4"),
        ("started", {"kind": "k", "host": "h1", "pid": 7, "labels": {"a": "b"}}, "k on h1, pid 7  [a=b]"),
        ("interrupted", {"sender": "anna", "reason": "why", "message": {"a": 1}}, 'by anna: why → {"a": 1}'),
        ("paused", {"sender": "anna"}, "by anna"),
        ("refused", {"verb": "pause", "sender": "anna", "why": "no"}, "pause by anna: no"),
        ("received", {"sender": "anna", "message": "m1", "position": 4, "data": "hi"}, "from anna: hi"),
        ("failed", {"why": "too large"}, "too large"),
        ("dropped", {"count": 12, "bytes": 340}, "12 events, 340 bytes: no room for them"),
        ("exited", {"status": "completed", "code": 0}, "completed"),
        ("exited", {"status": "completed", "code": 0, "result": {"a": 1}}, 'completed → {"a": 1}'),
        ("exited", {"status": "failed", "code": 3}, "failed, exit code 3"),
        ("exited", {"status": "failed", "code": 1, "error": "ValueError: x"}, "failed, exit code 1: ValueError: x"),
        ("exited", {"status": "killed", "code": 137, "signal": 9}, "killed by SIGKILL"),
        ("log", {"level": "warning", "text": "slow", "seconds": 2.5}, "slow  seconds=2.5"),
        ("metric", {"loss": 0.30000000000000004, "n": 3}, "loss=0.3  n=3"),
        ("progress", {"done": 3}, "3"),
        ("progress", {"done": 5, "total": 10, "text": "epoch"}, "50%  5/10  epoch"),
        ("progress", {"done": 20, "total": 10}, "100%  20/10"),
        ("progress", {"done": "x", "total": None}, "x"),
        ("message", "hello", "hello"),
        ("message", {"a": [1]}, '{"a": [1]}'),
        ("from_a_newer_version", {"a": 1}, '{"a": 1}'),
        ("log", "not an object", "not an object"),
        ("exited", None, ""),
        ("metric", [1], "[1]"),
    ],
)  # fmt: skip
def test_each_type_says_what_it_means_on_one_line(type: str, data: Any, said: str) -> None:
    (line,) = Screen().event(type, data).lines
    assert line.endswith(said)
    assert re.match(r"2024-02-0\d \d\d:\d\d:\d\d  \w", line)


@given(
    type=st.text(max_size=10).filter(lambda name: name not in ("output", "token", "text")),
    data=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | hostile,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(hostile, inner, max_size=3),
        max_leaves=6,
    ),
    terminal=st.booleans(),
)
def test_no_event_can_paint_or_break_its_line(type: str, data: Any, terminal: bool) -> None:
    screen = Screen(terminal=terminal).event(type, data).event("x\x1b[2J\n", data)
    lines = screen.closed().split("\n")
    assert len(lines) == 3
    assert not any(DANGEROUS.search(line.replace("\r\x1b[K", "")) for line in lines)


@given(st.lists(st.tuples(st.sampled_from([BUILD, OTHER]), hostile), max_size=6))
def test_several_processes_keep_to_their_own_lines(said: list[tuple[Address, str]]) -> None:
    screen = Screen(names=True)
    for address, text in said:
        screen.output(text, address)
    for line in screen.lines:
        assert re.match(r"(build|prod/other) +│ ", line)
        assert not DANGEROUS.search(line)


def test_lines_of_several_processes_are_shown_whole() -> None:
    screen = (
        Screen(names=True)
        .output("he")
        .output("x\n", OTHER)
        .output("llo\nrest")
        .output("drawn 1%\rdrawn 2%\nabcdef\rXY\nabcdef\rXY\x1b[K\r\none\r\x1b[0m\n", OTHER)
    )
    shown = [line.split("│ ")[1] for line in screen.lines]
    assert shown == ["x", "hello", "drawn 2%", "XYcdef", "XY", "one", "rest"]


@given(st.lists(hostile, max_size=6))
@example(["\x1b]0;title\x07", "\x1b[6n", "\x1b[2J"])
def test_a_program_on_a_terminal_keeps_colours_and_returns_and_nothing_else(parts: list[str]) -> None:
    harmless = Harmless()
    shown = "".join(harmless.feed(part) for part in parts)
    rest = re.sub(r"\x1b\[[0-9;:]*m|\x1b\[[0-2]?K", "", shown)
    assert not re.search("[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f]", rest)


def test_a_sequence_that_is_cut_in_two_is_still_one() -> None:
    harmless = Harmless()
    assert harmless.feed("a\x1b[3") + harmless.feed("1mred") == "a\x1b[31mred"
    assert harmless.feed("\x1b") + harmless.feed("]0;title\x07x") == "x"


def test_a_program_cannot_colour_what_comes_after_it() -> None:
    screen = Screen(terminal=True).output("\x1b[31mred\n").event("log", {"text": "mine"})
    assert screen.text.index("\x1b[0m") < screen.text.index("mine")


@given(hostile)
def test_plain_text_has_no_control_character_left(text: str) -> None:
    assert not DANGEROUS.search(plain(text))


def test_plain_text_loses_sequences_whole() -> None:
    assert plain("a\x1b[31mb\x1b]0;t\x07c\nd\te") == "abc\nd\te"


def test_notices_are_said_beside_the_events() -> None:
    screen = Screen().output("half a line")
    screen.view.show(Notice("gap", {"from": 3, "to": 9}, BUILD))
    screen.view.show(Notice("caught_up", {}, BUILD))
    assert screen.said == ["events 3 to 9 of build are gone: the server kept only what came later"]
    assert screen.closed() == "half a line\n"


def test_json_is_one_object_a_line_and_notices_have_no_offset() -> None:
    out = io.BytesIO()
    view = JsonView(out)
    view.show(Event(1, 3, 1, TIME, "log", {"text": "ä\n"}, position=5, address=BUILD))
    view.show(Notice("caught_up", {}, BUILD, "c"))
    view.close()
    event, notice = (json.loads(line) for line in out.getvalue().splitlines())
    assert {name: event[name] for name in ("offset", "epoch", "run", "time", "type", "data")} == {
        "offset": 1, "epoch": 3, "run": 1, "time": TIME, "type": "log", "data": {"text": "ä\n"}
    }  # fmt: skip
    assert event["cursor"]
    assert "process" not in event
    assert "offset" not in notice
    assert notice["type"] == "caught_up"


def test_json_of_several_processes_says_whose_it_is() -> None:
    out = io.BytesIO()
    view = JsonView(out, names=True)
    view.show(Event(1, 3, 1, TIME, "log", {}, position=5, address=OTHER))
    view.close()
    assert json.loads(out.getvalue())["process"] == "prod/other"


def test_json_on_a_terminal_escapes_what_terminals_obey() -> None:
    out = io.BytesIO()
    view = JsonView(out, terminal=True)
    view.show(Event(1, 3, 1, TIME, "log", {"text": "\x9b2J\x1b[2J\x7f"}, position=5, address=BUILD))
    view.close()
    assert not DANGEROUS.search(out.getvalue().decode().rstrip("\n"))
    assert json.loads(out.getvalue())["data"]["text"] == "\x9b2J\x1b[2J\x7f"


def test_columns_line_up_and_the_last_is_as_long_as_it_likes() -> None:
    assert columns(["ID", "STATE", "TITLE"], [["a", "running", "make"], ["longer", "x", ""]]) == [
        "ID      STATE    TITLE",
        "a       running  make",
        "longer  x",
    ]
