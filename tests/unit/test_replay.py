"""What a replay draws, and what an asciicast is, by the rules that its format has published."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsproc.command.terminal import Size
from natsproc.errors import BadPayload
from natsproc.protocol.messages import Event, Notice
from natsproc.protocol.names import Address
from natsproc_cli.cast import CastView
from natsproc_cli.recorded import is_file, parse
from natsproc_cli.render import JsonView
from natsproc_cli.replay import Replay

BUILD = Address("default", "build")
BEGIN = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
STARTED = {"kind": "sh", "node": "n", "host": "h", "pid": 1}

hostile = st.lists(
    st.sampled_from(
        ["\x1b", "[", "]", "31m", "2J", "6n", "c", "52;c;AAAA", "\x07", "\x1b\\", "\x9b", "\x90", "a", "é", "\r", "\n",
         "\x1b[H", "\x1b]0;title\x07", "\x1b[>c", "\x1b[6n", "\x1b[?1049h", "\x1b[?1000h", "\x1b[18t", "\x1bZ", "\x00", "🎉"]
    ),
    max_size=10,
).map("".join)  # fmt: skip
json_values = st.recursive(
    st.none() | st.integers(-9, 9) | hostile,
    lambda each: st.lists(each) | st.dictionaries(hostile, each),
    max_leaves=5,
)
output = st.builds(lambda text: ("output", {"stream": "stdout", "text": text}), hostile)
screen = st.builds(
    lambda rows, cols: ("screen", {"rows": rows, "cols": cols}), st.integers(-1, 1200), st.integers(-1, 1200)
)
anything = st.tuples(
    st.sampled_from(["started", "exited", "log", "token", "text", "progress", "asked", "paused", "mine"]),
    json_values,
)
logs = st.lists(st.tuples(output | screen | anything, st.integers(-5000, 5000)), max_size=15)
notices = st.sampled_from(
    [
        Notice("gap", {"from": 1, "to": 3}, BUILD),
        Notice("takeover", {"epoch": 2}, BUILD),
        Notice("caught_up", {}, BUILD),
    ]
)


def event(offset: int, type: str, data: Any, ms: int = 0) -> Event:
    time = (BEGIN + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Event(offset, 1, 1, time, type, data, position=offset, address=BUILD)


def cast_of(items: list[Event | Notice]) -> list[Any]:
    out = io.BytesIO()
    view = CastView(out, "default/build")
    for item in items:
        view.show(item)
    view.close()
    return check_asciicast(out.getvalue())


def check_asciicast(raw: bytes) -> list[Any]:
    """Hold to docs.asciinema.org/manual/asciicast/v2, and return the lines."""
    assert raw.endswith(b"\n")
    header, *events = lines = [json.loads(line) for line in raw.decode().split("\n")[:-1]]
    assert header["version"] == 2
    assert all(type(header[side]) is int and header[side] > 0 for side in ("width", "height"))
    assert type(header.get("timestamp", 0)) is int
    assert type(header["title"]) is str
    assert all(type(value) is str for value in header["env"].values())
    assert set(header) <= {
        "version",
        "width",
        "height",
        "timestamp",
        "duration",
        "idle_time_limit",
        "command",
        "title",
        "env",
        "theme",
    }
    before = 0.0
    for time, code, data in events:
        assert type(time) in (int, float)
        assert time >= before
        assert code in ("o", "m", "r")
        assert type(data) is str
        assert code != "r" or re.fullmatch(r"[1-9]\d*x[1-9]\d*", data)
        assert code != "m" or "\n" not in data
        before = time
    return lines


def shown(lines: list[Any]) -> str:
    return "".join(data for _, code, data in lines[1:] if code == "o")


DANGEROUS = re.compile(
    r"\x1b\[[0-?]*[ -/]*[ncqtxyp]|\x1b\[\?(?:9|100\d|2004)[hl]|\x1b[]PX^_Z]|[\x00-\x07\x7f-\x9f]"
)


@given(logs, st.lists(notices, max_size=2))
def test_whatever_a_log_says_the_cast_keeps_to_its_format_and_is_harmless(log, said):
    lines = cast_of([*said, *(event(n, type, data, ms) for n, ((type, data), ms) in enumerate(log, 1))])
    text = shown(lines).replace("\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l", "")
    assert not DANGEROUS.search(text)


def test_a_command_is_shown_as_it_went():
    lines = cast_of([
        event(1, "started", STARTED),
        event(2, "output", {"stream": "stdout", "text": "\x1b[32mone\x1b[0m\n"}, 100),
        event(3, "output", {"stream": "stdout", "base64": "/2E="}, 2600),
        Notice("gap", {"from": 4, "to": 9}, BUILD),
        event(10, "output", {"stream": "stdout", "text": "\x1b[1Atwo\n"}, 2500),
        event(11, "exited", {"status": "completed", "code": 0}, 3600),
        Notice("ended", {"run": 1}, BUILD),
    ])  # fmt: skip
    header, *rest = lines
    assert (header["width"], header["height"], header["timestamp"]) == (80, 24, 1769860800)
    assert [[time, code] for time, code, _ in rest] == [
        [0, "m"], [0, "o"], [0.1, "o"], [2.6, "o"], [2.6, "m"], [2.6, "o"], [3.7, "m"], [3.7, "o"],
    ]  # fmt: skip
    assert rest[2][2] == "\x1b[32mone\x1b[0m\r\n"
    assert rest[4][2].startswith("events 4 to 9 of build are gone")
    assert "events 4 to 9" in rest[5][2]
    assert "\x1b[1Atwo\r\n" in rest[5][2]
    assert "completed" in rest[7][2]


def test_a_program_with_a_terminal_has_it_for_itself():
    lines = cast_of([
        event(1, "started", STARTED),
        event(2, "screen", {"rows": 30, "cols": 100}, 10),
        event(3, "output", {"stream": "stdout", "text": "\x1b[?1049h\x1b]0;tit"}, 20),
        event(4, "output", {"stream": "stdout", "text": "le\x07\x1b[2;3Hvi\n"}, 30),
        event(5, "log", {"level": "info", "text": "beside it"}, 40),
        event(6, "screen", {"rows": 20, "cols": 90}, 50),
        event(7, "exited", {"status": "completed", "code": 0}, 60),
    ])  # fmt: skip
    assert (lines[0]["width"], lines[0]["height"]) == (100, 30)
    assert [event[1:] for event in lines[1:] if event[1] == "r"] == [["r", "90x20"]]
    text = shown(lines)
    assert "\x1b[?1049h\x1b[2;3Hvi\n\x1b[?1049l" in text
    assert "beside it" not in text
    assert "title" not in text
    assert text.endswith("completed\x1b[0m\r\n")


def test_an_empty_log_is_an_empty_cast():
    assert len(cast_of([])) == 1


def test_a_replay_on_a_smaller_terminal_says_so():
    out, said = io.BytesIO(), list[str]()
    view = Replay(out, said.append, Size(10, 40))
    view.show(event(1, "screen", {"rows": 30, "cols": 100}))
    assert said == ["this was drawn on 100×30: a larger terminal shows all of it"]
    view.tell("paused")
    assert b"\x1b[999;1H" in out.getvalue()
    assert len(said) == 1


@given(st.lists(st.tuples(output | screen | anything, st.integers(0, 5000)), max_size=8), st.lists(notices))
def test_what_was_exported_is_read_back(log, said):
    items = [*said, *(event(n, type, data, ms) for n, ((type, data), ms) in enumerate(log, 1))]
    out = io.BytesIO()
    view = JsonView(out)
    for item in items:
        view.show(item)
    view.close()
    back = [parse(line) for line in out.getvalue().splitlines()]
    assert [item.to_json() for item in back] == [item.to_json() for item in items]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"no json", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"{}", "no event"),
        (b'{"type":"gap","data":7}', "no event"),
        (b'{"offset":1,"epoch":1,"run":1,"type":7}', "no event"),
        (b'{"version":2,"width":80,"height":24}', "asciinema play"),
    ],
)
def test_what_is_no_export_is_said(line, says):
    with pytest.raises(BadPayload, match=says):
        parse(line)


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("build", False),
        ("prod/build", False),
        ("-", True),
        ("b.jsonl", True),
        ("/tmp/b", True),
        ("./b", True),
    ],
)
def test_a_file_is_told_from_an_id(text, file):
    assert is_file(text) == file
