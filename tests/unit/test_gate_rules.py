"""What the gate understands: every request that natsproc makes for one process, and nothing beyond it."""

from __future__ import annotations

import base64
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsproc.errors import BadPayload, NotAllowed
from natsproc.protocol.gate import (
    MAX_BATCH,
    MAX_BYTES,
    MAX_LINES,
    MAX_TTL,
    TARGET,
    Ask,
    Scope,
    is_stored,
    understand,
)
from natsproc.protocol.names import Names

NAMES = Names()
STREAMS = (
    "PROC_EVENTS", "PROC_INBOX", "KV_PROC_CLAIMS", "KV_PROC_REGISTRY", "KV_PROC_ENDED", "KV_PROC_LEASES",
    "OBJ_PROC_STATES",
)  # fmt: skip
RECORD = {
    "namespace": "default", "id": "build", "kind": "make", "node": "n", "epoch": 1, "run": 1, "state": "running",
    "started": "", "updated": "",
}  # fmt: skip
STATE = "default.build.41-7-0"
META = base64.urlsafe_b64encode(STATE.encode()).decode()
REVISION = {"Nats-Expected-Last-Subject-Sequence": "7"}


def asked(target, body=None, headers=None, sender="alice", names=NAMES):
    payload = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return understand(names, sender, target, payload, headers or {})


# What natsproc asks, and the right that it takes.

API = "$JS.API."
GET = f"{API}STREAM.MSG.GET."
DIRECT = f"{API}DIRECT.GET."
EVENTS = "proc.default.build.events"
OWN = "proc.default.build.own.alice"
HISTORY = "proc.default.build.history.alice"


@pytest.mark.parametrize(
    ("target", "body", "where"),
    [
        (f"{DIRECT}PROC_EVENTS.{EVENTS}", None, HISTORY),
        (f"{DIRECT}PROC_EVENTS", {"seq": 1, "next_by_subj": EVENTS}, HISTORY),
        (
            f"{DIRECT}PROC_EVENTS",
            {"seq": 1, "next_by_subj": EVENTS, "batch": 1000, "max_bytes": 4096},
            HISTORY,
        ),
        (f"{DIRECT}PROC_EVENTS", {"start_time": "2026-01-01T00:00:00Z", "next_by_subj": EVENTS}, HISTORY),
        (f"{DIRECT}PROC_EVENTS", {"multi_last": [EVENTS], "max_bytes": 4096}, HISTORY),
        (
            f"{DIRECT}PROC_EVENTS",
            {"multi_last": [EVENTS, "proc.default.other.events"]},
            "proc.default._.history.alice",
        ),
        (
            f"{DIRECT}PROC_EVENTS",
            {"multi_last": [EVENTS, "proc.chat.build.events"]},
            "proc._._.history.alice",
        ),
        (f"{GET}PROC_EVENTS", {"last_by_subj": EVENTS}, HISTORY),
        (f"{GET}PROC_EVENTS", {"seq": 9, "next_by_subj": EVENTS}, HISTORY),
        (f"{GET}KV_PROC_CLAIMS", {"last_by_subj": "$KV.PROC_CLAIMS.default.build"}, HISTORY),
        (f"{DIRECT}KV_PROC_REGISTRY.$KV.PROC_REGISTRY.default.build", None, HISTORY),
        (f"{DIRECT}KV_PROC_ENDED.$KV.PROC_ENDED.default.build", None, HISTORY),
        (
            f"{DIRECT}KV_PROC_REGISTRY",
            {"seq": 1, "next_by_subj": "$KV.PROC_REGISTRY.chat.*", "batch": 10},
            "proc.chat._.history.alice",
        ),
        (
            f"{GET}KV_PROC_REGISTRY",
            {"last_by_subj": "$KV.PROC_REGISTRY.*.*"},
            "proc._._.history.alice",
        ),
        (f"{DIRECT}KV_PROC_LEASES.$KV.PROC_LEASES.laptop-1", None, "proc._nodes.laptop-1.history.alice"),
        (
            f"{DIRECT}KV_PROC_LEASES",
            {"multi_last": ["$KV.PROC_LEASES.a", "$KV.PROC_LEASES.b"]},
            "proc._nodes._.history.alice",
        ),
        (f"{API}STREAM.INFO.PROC_EVENTS", None, "proc._nodes._.history.alice"),
        (f"{API}STREAM.INFO.PROC_INBOX", {"subjects_filter": "proc.default.build.inbox.*"}, OWN),
        (f"{DIRECT}PROC_INBOX", {"seq": 1, "next_by_subj": "proc.default.build.inbox.bob", "batch": 9}, OWN),
        (f"{API}STREAM.INFO.OBJ_PROC_STATES", {"subjects_filter": "$O.PROC_STATES.C.default.build.>"}, OWN),
        (f"{GET}OBJ_PROC_STATES", {"last_by_subj": f"$O.PROC_STATES.C.{STATE}"}, OWN),
        (f"{API}STREAM.PURGE.OBJ_PROC_STATES", {"filter": f"$O.PROC_STATES.C.{STATE}"}, OWN),
        (f"{API}STREAM.PURGE.OBJ_PROC_STATES", {"filter": f"$O.PROC_STATES.M.{META}"}, OWN),
        (EVENTS, b"{}", OWN),
        (f"$O.PROC_STATES.C.{STATE}", b"\x00", OWN),
        (f"$O.PROC_STATES.M.{META}", b"{}", OWN),
        ("$KV.PROC_ENDED.default.build", RECORD, OWN),
        ("$KV.PROC_LEASES.alice_n_abc2345678", b"{}", "proc._nodes.alice_n_abc2345678.own.alice"),
        ("proc.default.build.inbox.alice", {"id": "1", "data": 2}, "proc.default.build.send.alice"),
        ("proc.default.build.inbox.alice", b"plain text", "proc.default.build.send.alice"),
        (
            "proc.default.build.inbox.alice",
            {"id": "1", "data": {"id": "1", "verb": "kill"}, "kind": "command"},
            "proc.default.build.hold.alice",
        ),
        (
            "proc.default.build.inbox.alice",
            {"id": "1", "data": 2, "when": "now"},
            "proc.default.build.hold.alice",
        ),
        (
            "proc.default.build.inbox.alice",
            {"id": "1", "data": 2, "when": "next"},
            "proc.default.build.send.alice",
        ),
        (
            "proc.default.build.inbox.alice",
            {"id": "1", "data": {}, "kind": "keys"},
            "proc.default.build.hold.alice",
        ),
        (
            "proc.default.build.inbox.alice",
            {"id": "1", "data": {}, "kind": "eof"},
            "proc.default.build.send.alice",
        ),
    ],
)
def test_it_says_what_right_a_request_takes(target, body, where):
    scope, ask = asked(target, body)
    assert scope.subject(NAMES) == where
    assert Scope.parse(where) == (NAMES, scope)
    assert is_stored(NAMES, target)
    # it goes on as it was meant, and what goes on is understood alike
    assert ask.subject == target
    if isinstance(body, dict) and target.startswith("$JS"):
        sent = json.loads(ask.payload)
        if ask.answers == "many":  # so much is enough for one answer
            assert sent.pop("max_bytes") == min(body.get("max_bytes", MAX_BYTES), MAX_BYTES)
        assert sent == {name: value for name, value in body.items() if name != "max_bytes"}
    assert understand(NAMES, "alice", ask.subject, ask.payload, ask.headers) == (scope, ask)


def test_a_compare_and_set_keeps_its_revision_and_nothing_else():
    scope, ask = asked("$KV.PROC_CLAIMS.default.build", b"{}", REVISION | {"Nats-Rollup": "all", TARGET: "x"})
    assert scope.subject(NAMES) == OWN
    assert ask.headers == REVISION
    assert asked("$KV.PROC_REGISTRY.default.build", RECORD, REVISION)[1].headers == REVISION
    scope, ask = asked("$KV.PROC_REGISTRY.default.build", b"", REVISION | {"KV-Operation": "DEL"})
    assert ask.headers == REVISION | {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
    assert asked(EVENTS, b"{}", {"Nats-Rollup": "all", "Nats-TTL": "1s"})[1] == Ask(
        EVENTS, b"{}", answers="lines"
    )


def test_a_lease_keeps_its_time_to_live():
    _, ask = asked("$KV.PROC_LEASES.alice_n_abc2345678", b"{}", {"Nats-TTL": "4"})
    assert ask.headers == {"Nats-TTL": "4"}


def test_a_held_command_keeps_its_time_and_a_message_has_none():
    key = {"Nats-Msg-Id": "default.build.alice.1", "Nats-TTL": "60"}
    command = {"id": "1", "data": {}, "kind": "command"}
    assert asked("proc.default.build.inbox.alice", command, key)[1].headers == key
    message = asked("proc.default.build.inbox.alice", {"id": "1", "data": {}}, key)[1]
    assert message.headers == {"Nats-Msg-Id": "default.build.alice.1"}


def test_nothing_is_held_for_ever():
    command = {"id": "1", "data": {}, "kind": "command"}
    assert asked("proc.default.build.inbox.alice", command, {"Nats-TTL": str(MAX_TTL)})[1].headers
    for ttl in (str(MAX_TTL + 1), "9" * 20, "0x1", ""):
        with pytest.raises(BadPayload):
            asked("proc.default.build.inbox.alice", command, {"Nats-TTL": ttl})


@pytest.mark.parametrize("verb", ["INFO", "MSG.GET", "PURGE"])
def test_another_mesh_has_streams_of_its_own(verb):
    body = {"INFO": None, "MSG.GET": {"last_by_subj": "test.a.b.events"}, "PURGE": {"filter": "x"}}[verb]
    with pytest.raises(NotAllowed):
        asked(f"{API}STREAM.{verb}.TEST_EVENTS", body)
    if verb != "PURGE":
        assert asked(f"{API}STREAM.{verb}.TEST_EVENTS", body, names=Names("test"))


# What it does not.


@pytest.mark.parametrize(
    ("target", "body"),
    [
        *(
            (f"{API}STREAM.{verb}.PROC_EVENTS", None)
            for verb in ("CREATE", "UPDATE", "DELETE", "PURGE", "SNAPSHOT")
        ),
        *((f"{API}STREAM.PURGE.{stream}", {"filter": EVENTS}) for stream in STREAMS if "OBJ" not in stream),
        (f"{API}STREAM.PURGE.OBJ_PROC_STATES", {"filter": "$O.PROC_STATES.C.default.build.>"}),
        (f"{API}STREAM.PURGE.OBJ_PROC_STATES", None),
        (f"{API}STREAM.PURGE.OBJ_PROC_STATES", {"filter": f"$O.PROC_STATES.C.{STATE}", "keep": 0}),
        (f"{API}STREAM.PURGE.OBJ_PROC_STATES", {"filter": f"$O.PROC_STATES.M.*.{META}"}),
        (f"{API}STREAM.MSG.DELETE.PROC_INBOX", {"seq": 1}),
        (f"{API}STREAM.INFO.OTHER", None),
        (f"{API}STREAM.INFO.PROC_EVENTS", {"subjects_filter": ">"}),
        (f"{API}STREAM.INFO.PROC_INBOX", {"subjects_filter": "proc.*.*.inbox.*"}),
        (f"{API}STREAM.INFO.PROC_EVENTS", {"subjects_filter": EVENTS, "offset": 0}),
        (f"{API}STREAM.NAMES", None),
        (f"{API}STREAM.LIST", None),
        (f"{API}INFO", None),
        (f"{API}CONSUMER.CREATE.PROC_EVENTS", {"config": {}}),
        (f"{API}CONSUMER.CREATE.PROC_EVENTS.x", {"config": {}}),
        (f"{API}CONSUMER.MSG.NEXT.PROC_EVENTS.x", None),
        (f"{GET}PROC_EVENTS", {"seq": 1}),
        (f"{GET}PROC_EVENTS", {"last_by_subj": ">"}),
        (f"{GET}PROC_EVENTS", {"last_by_subj": "proc.*.*.events"}),
        (f"{GET}PROC_EVENTS", {"last_by_subj": EVENTS, "next_by_subj": "proc.default.b.events"}),
        (f"{GET}PROC_EVENTS", {"seq": True, "next_by_subj": EVENTS}),
        (f"{GET}PROC_EVENTS", {"seq": -1, "next_by_subj": EVENTS}),
        (f"{GET}PROC_EVENTS", b"[]"),
        (f"{GET}PROC_EVENTS", b"\xff"),
        (f"{GET}PROC_EVENTS.x", {"last_by_subj": EVENTS}),
        (f"{DIRECT}PROC_EVENTS", None),
        (f"{DIRECT}PROC_EVENTS", {"seq": 1}),
        (f"{DIRECT}PROC_EVENTS", {"seq": 1, "next_by_subj": "proc.default.*.events"}),
        (f"{DIRECT}PROC_EVENTS", {"seq": 1, "next_by_subj": EVENTS, "batch": MAX_BATCH + 1}),
        (f"{DIRECT}PROC_EVENTS", {"seq": 1, "next_by_subj": EVENTS, "batch": 0}),
        (f"{DIRECT}PROC_EVENTS", {"seq": 1, "next_by_subj": EVENTS, "batch": 9, "max_bytes": 0}),
        (f"{DIRECT}PROC_EVENTS", {"next_by_subj": EVENTS, "multi_last": [EVENTS]}),
        (f"{DIRECT}PROC_EVENTS", {"multi_last": []}),
        (f"{DIRECT}PROC_EVENTS", {"multi_last": [1]}),
        (f"{DIRECT}PROC_EVENTS", {"multi_last": [EVENTS] * (MAX_BATCH + 1)}),
        (f"{DIRECT}PROC_EVENTS", {"multi_last": [EVENTS, "proc.default.x.inbox.alice"]}),
        (f"{DIRECT}PROC_EVENTS", {"start_time": "now\r\nX: y", "next_by_subj": EVENTS}),
        (f"{DIRECT}PROC_EVENTS.>", None),
        (f"{DIRECT}PROC_EVENTS.proc.default.*.events", None),
        (f"{DIRECT}PROC_EVENTS.{EVENTS}", {"seq": 1}),
        (f"{DIRECT}PROC_EVENTS.proc.default.build.inbox.alice", None),
        (f"{DIRECT}KV_PROC_CLAIMS", {"seq": 1, "next_by_subj": "$KV.PROC_CLAIMS.default.*"}),
        (f"{DIRECT}KV_PROC_REGISTRY", {"seq": 1, "next_by_subj": "$KV.PROC_REGISTRY.*.build"}),
        (f"{DIRECT}KV_PROC_REGISTRY", {"seq": 1, "next_by_subj": "$KV.PROC_CLAIMS.default.build"}),
        (f"{DIRECT}KV_PROC_REGISTRY", {"seq": 1, "next_by_subj": "default.build"}),
        (f"{DIRECT}PROC_INBOX", {"multi_last": ["proc.a.b.inbox.x", "proc.a.c.inbox.x"]}),
        ("$JS.ACK.x", b""),
        ("$JS.FC.x", b""),
        ("$JS.API.", b""),
        ("proc.default.build.live", b"{}"),
        ("proc.default.build.record", b"{}"),
        ("proc.default.build.delivered.alice", b"{}"),
        ("proc.default.build.control.alice", b"{}"),
        ("proc.default.*.events", b"{}"),
        ("proc.default.build.events.x", b"{}"),
        ("proc._.build.events", b"{}"),
        ("proc.default.build.inbox.bob", b"{}"),
        ("proc.default.build.inbox.*", b"{}"),
        ("other.default.build.events", b"{}"),
        (EVENTS, b""),
        (EVENTS, b"{}\n"),
        (EVENTS, b"{}\n\n{}"),
        (EVENTS, b"\n".join([b"{}"] * (MAX_LINES + 1))),
        ("$KV.PROC_ENDED.default.build", b"{}"),
        ("$KV.PROC_ENDED.default.build", RECORD | {"id": "other"}),
        ("$KV.PROC_ENDED.default.build", RECORD | {"id": "*"}),
        ("$KV.PROC_ENDED.default.build", RECORD | {"namespace": "*"}),
        ("$KV.PROC_REGISTRY.default.build", RECORD),
        ("$KV.PROC_CLAIMS.default.build", b"{}"),
        ("$KV.PROC_CLAIMS.default.*", b"{}"),
        ("$KV.PROC_LEASES.laptop-abc2345678", b"{}"),
        ("$KV.PROC_LEASES.alice_b_n_abc2345678", b"{}"),
        ("$KV.PROC_LEASES.alice-abc2345678", b"{}"),
        ("$KV.PROC_LEASES.alice_n_abc23", b"{}"),
        ("$KV.PROC_LEASES._prune", b"{}"),
        ("$KV.OTHER.default.build", b"{}"),
        ("$O.PROC_STATES.C.default.build.>", b"{}"),
        ("$O.PROC_STATES.C.default.build.x", b"{}"),
        (f"$O.PROC_STATES.M.{META}!", b"{}"),
        ("$O.PROC_STATES.M.x", b"{}"),
        ("$SYS.REQ.ACCOUNT.PING", b""),
        ("", b""),
    ],
)
def test_it_understands_nothing_that_goes_beyond_one_process(target, body):
    with pytest.raises((NotAllowed, BadPayload)):
        asked(target, body)


@pytest.mark.parametrize("value", ["", "x", "-1", "1\r\nNats-Rollup: all", "1" * 30])
def test_a_revision_is_a_number(value):
    with pytest.raises(BadPayload):
        asked("$KV.PROC_CLAIMS.default.build", b"{}", {"Nats-Expected-Last-Subject-Sequence": value})


def test_the_id_of_a_message_is_its_senders_own():
    for key in ("default.build.bob.1", "default.other.alice.1", "1", ""):
        with pytest.raises(BadPayload):
            asked("proc.default.build.inbox.alice", b"{}", {"Nats-Msg-Id": key})


TOKENS = st.sampled_from(
    ["proc", "default", "chat", "build", "x", "*", ">", "_", "_nodes", "events", "inbox", "alice", "bob", "$KV",
     "$O", "PROC_CLAIMS", "PROC_REGISTRY", "PROC_LEASES", "PROC_STATES", "C", "M", META, "41-7-0", "alice_n_abc2345678"]
)  # fmt: skip
SUBJECTS = st.lists(TOKENS, min_size=1, max_size=7).map(".".join)
BODIES = st.dictionaries(
    st.sampled_from(
        ["seq", "next_by_subj", "last_by_subj", "multi_last", "filter", "subjects_filter", "batch", "keep"]
    ),
    st.one_of(SUBJECTS, st.integers(-1, 2000), st.lists(SUBJECTS, max_size=3)),
    max_size=3,
)
CALLS = st.sampled_from(["DIRECT.GET", "STREAM.MSG.GET", "STREAM.INFO", "STREAM.PURGE", "STREAM.MSG.DELETE"])
TARGETS = st.one_of(
    SUBJECTS,
    st.builds(lambda call, stream: f"{API}{call}.{stream}", CALLS, st.sampled_from(STREAMS)),
    st.builds(lambda stream, rest: f"{DIRECT}{stream}.{rest}", st.sampled_from(STREAMS), SUBJECTS),
)


@given(target=TARGETS, body=st.one_of(st.none(), BODIES))
def test_whatever_is_understood_is_about_the_process_of_its_scope_alone(target, body):
    headers = REVISION | {"Nats-TTL": "4", "KV-Operation": "PURGE", "Nats-Rollup": "all"}
    try:
        scope, ask = asked(target, body, headers)
    except (NotAllowed, BadPayload):
        return
    assert scope.sender == "alice"
    assert not re.search(r"CREATE|UPDATE|DELETE|CONSUMER", ask.subject)
    named = json.dumps([ask.subject, ask.payload.decode()])
    if scope.namespace not in ("_", "_nodes") and scope.id != "_":
        process = f"{scope.namespace}.{scope.id}"
        state = base64.urlsafe_b64encode(f"{process}.41-7-0".encode()).decode()
        wild = [mark for mark in "*>" if mark in named]
        assert process in named or state in named
        if wild:  # all senders of one inbox, all states of one process; only ever read
            assert f"{process}.inbox.*" in named or f"C.{process}.>" in named
            assert ask.subject.startswith(API)
            assert "PURGE" not in ask.subject
        others = {"default", "chat", "build", "x"} - {scope.namespace, scope.id}
        assert not any(f".{other}." in named for other in others)
    elif scope.right == "own":
        assert ask.subject == f"$KV.PROC_LEASES.{scope.id}"
    assert scope.right != "history" or ask.subject.startswith(API)
    assert ask.headers.get("Nats-Rollup", "sub") == "sub"
