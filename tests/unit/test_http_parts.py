"""The pure parts of the HTTP room: paths, formats, what is asked for, and what it costs to import."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsproc import errors
from natsproc.http.formats import Array, Lines, ServerSentEvents, chosen
from natsproc.http.problems import Problem
from natsproc.http.request import Request
from natsproc.http.routes import VERBS, Route, route
from natsproc.http.shared import Line
from natsproc.protocol.messages import Event, Notice
from natsproc.protocol.names import TOKEN, Address

WORDS = {*VERBS, "events", "record"}
name = st.from_regex(f"(?a:{TOKEN})", fullmatch=True)


@given(name, name, st.sampled_from(sorted(WORDS)))
def test_every_process_can_be_named_whatever_it_is_called(namespace, id, what):
    assert route(f"/{id}/{what}", "default") == Route(what, Address("default", id))
    assert route(f"/{namespace}/{id}/{what}", "default") == Route(what, Address(namespace, id))
    assert route(f"/{id}", "chat") == Route("record", Address("chat", id))
    if id not in WORDS:
        assert route(f"/{namespace}/{id}", "default") == Route("record", Address(namespace, id))


@given(st.text())
def test_any_path_is_a_route_or_a_problem(path):
    try:
        found = route(path, "default").what
    except Problem as problem:
        found = str(problem.status)
    assert found in {*WORDS, "list", "openapi.json", "404"}


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        ("", "/job", "/job"),
        ("/proc", "/proc/job", "/job"),
        ("/proc", "/proc", "/"),
        ("/proc/", "/proc/job", "/job"),
        ("/proc", "/process/job", "/process/job"),
        ("/proc", "/job", "/job"),  # a server that takes the root away by itself
    ],
)
def test_a_path_is_read_below_where_it_is_mounted(root, path, expected):
    scope = {"type": "http", "method": "get", "path": path, "root_path": root, "headers": []}
    assert Request.of(scope).path == expected


def test_a_request_is_typed():
    headers = [(b"Accept", b"a"), (b"accept", b"b"), (b"cookie", b"x=1"), (b"cookie", b"y=2")]
    scope = {
        "method": "GET",
        "path": "/",
        "headers": headers,
        "query_string": b"n=1&n=2&e=",
        "client": ("1.2.3.4", 5),
    }
    request = Request.of(scope)
    assert request.headers["accept"] == "a, b"
    assert request.cookies == {"x": "1", "y": "2"}
    assert request.query == {"n": ["1", "2"], "e": [""]}
    assert request.client == "1.2.3.4"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", ServerSentEvents),
        ("*/*", ServerSentEvents),
        ("text/event-stream", ServerSentEvents),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", ServerSentEvents),
        ("application/json", Array),
        ("application/json;q=0.5, application/x-ndjson", Lines),
        ("application/x-ndjson;q=nonsense, application/json", Array),
    ],
)
def test_the_format_is_the_one_that_is_liked_best(accept, expected):
    assert type(chosen(accept)) is expected


@given(st.text() | st.dictionaries(st.text(), st.text()), st.text(min_size=1))
def test_no_event_breaks_its_frame(data, kind):
    """Whatever a process says is one event of one stream, and one line."""
    event = Event(7, 3, 1, "2026-01-31T23:59:59.123Z", kind, data, position=9)
    head, body, end, rest = ServerSentEvents().item(*Line.of(event)).decode().split("\n")
    assert (head, end, rest) == (f"id: {event.cursor}", "", "")
    assert json.loads(body.removeprefix("data: ")) == event.to_json()
    line = Lines().item(*Line.of(event))
    assert line.count(b"\n") == 1
    assert b"\r" not in line


def test_a_notice_moves_no_cursor():
    said = ServerSentEvents().item(*Line.of(Notice("gap", {"from": 1, "to": 3}, cursor="MS4")))
    assert not said.startswith(b"id:")


@given(st.lists(st.text()))
def test_an_array_is_json(texts):
    form = Array()
    events = [Event(n + 1, 1, 1, "", "log", text) for n, text in enumerate(texts)]
    whole = b"".join([*(form.item(*Line.of(event)) for event in events), form.end()])
    assert [item["data"] for item in json.loads(whole)] == texts


def test_every_error_has_a_status():
    for kind in vars(errors).values():
        if (
            isinstance(kind, type)
            and issubclass(kind, errors.Error)
            and kind not in (errors.Error, errors.ProcessFailed)
        ):
            assert Problem.of(kind.__new__(kind)).status < 500 or kind.__name__ in SERVERS_FAULT, kind


SERVERS_FAULT = {
    "NoServer", "ServerUnfit", "NoMesh", "MeshMismatch", "Closed", "CredentialEnded", "TimedOut", "Unreachable",
}  # fmt: skip


def test_who_does_not_serve_http_pays_nothing_for_it():
    code = (
        "import sys, natsproc, natsproc.client; "
        "bad = {'natsproc.http', 'uvicorn', 'starlette', 'fastapi'} & set(sys.modules); assert not bad, bad; "
        "natsproc.asgi; bad = {'uvicorn', 'starlette', 'fastapi'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
