"""What each right covers: exactly the table, on exactly the scopes, and never as somebody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_access import matches

from natsproc.access.rights import FULL, Scope, check_rights, grants_of, permissions
from natsproc.errors import BadName

SENDERS = st.sampled_from(["dash", "mallory", "a-b_c"])
SPACES, IDS = ["default", "chat", "x"], ["build", "build-1", "b"]
NARROW = ["watch", "send", "control", "own"]
SCOPES = st.one_of(
    st.builds(Scope, st.sampled_from(SPACES), st.sampled_from([*IDS, "*"])), st.just(Scope("*", "*"))
)
ASKED = st.tuples(
    st.sets(st.sampled_from(NARROW), min_size=1), st.lists(SCOPES, min_size=1, max_size=4), SENDERS
)

# right: fourth tokens of subjects that end in the holder's name, or that may be heard
SAYS = {
    "watch": {"history", "viewers"},
    "send": {"send"},
    "control": {"control", "hold"},
    "own": {"own", "history", "control"},
}
HEARS = {"watch": {"live", "record"}, "send": set(), "control": set(), "own": {"live", "record"}}
HEARS_ALL = {
    "watch": {"viewers"},
    "send": set(),
    "control": set(),
    "own": {"control", "delivered", "viewers"},
}
OF_NODES = {"watch": {"history"}, "send": set(), "control": set(), "own": {"own", "history"}}

CLASSES = ["events", "live", "record", "lease", "inbox", "delivered", "control", "history", "viewers", "send", "hold", "own"]  # fmt: skip
PLACES = st.tuples(
    st.sampled_from(["proc", "proc", "other"]),
    st.sampled_from([*SPACES, "_", "_nodes"]),
    st.sampled_from([*IDS, "_", "node-1"]),
)
OTHERS = [
    "$JS.API.STREAM.PURGE.PROC_EVENTS", "$JS.API.DIRECT.GET.PROC_EVENTS.proc.default.build.events", "$JS.ACK.x",
    "$KV.PROC_CLAIMS.default.build", "$O.PROC_STATES.C.x", "$SRV.PING", "$SYS.REQ.x", "x", "proc.x", "_INBOX.dash",
    "_INBOX.dash.x.y", "_INBOX.a-b_c.x", "_NODE.dash.x", "_NODE.mallory.x.y",
]  # fmt: skip


def allowed(side: str, can, on, sender: str, subject: str) -> bool:
    granted = permissions(sender, grants_of(can, on))[side]["allow"]
    return any(matches(pattern, subject) for pattern in granted)


def is_due(side: str, can, on, sender: str, subject: str) -> bool:
    """The table, said otherwise."""
    prefix, space, name, kind, *last = (*subject.split("."), *[""] * 4)[: max(4, subject.count(".") + 1)]
    if prefix in ("_INBOX", "_NODE"):
        own = space == sender and subject.count(".") >= 2
        return own if side == "sub" else prefix == "_INBOX" and "own" in can and subject.count(".") >= 2
    if prefix != "proc" or not name:
        return False
    in_scope = any(scope.covers(Scope(space, name)) for scope in on)
    for right in can:
        says = (in_scope and kind in SAYS[right]) or (space == "_nodes" and kind in OF_NODES[right])
        if side == "pub" and says and last == [sender]:
            return True
        if side == "sub" and in_scope and (kind in HEARS[right] and not last):
            return True
        if side == "sub" and in_scope and kind in HEARS_ALL[right] and len(last) == 1:
            return True
        if side == "sub" and right in ("watch", "own") and (space, kind, last) == ("_nodes", "lease", []):
            return True
    return False


@given(asked=ASKED, place=PLACES)
def test_exactly_the_table_is_covered(asked, place):
    can, on, sender = asked
    head = ".".join(place)
    ours = [f"{head}.{kind}{last}" for kind in CLASSES for last in ("", f".{sender}", ".bob", f".{sender}.x")]
    for subject in (*ours, *OTHERS):
        for side in ("pub", "sub"):
            assert allowed(side, can, on, sender, subject) == is_due(side, can, on, sender, subject), subject


@given(asked=ASKED)
def test_no_narrow_grant_touches_jetstream_or_speaks_for_another(asked):
    can, on, sender = asked
    granted = permissions(sender, grants_of(can, on))
    for pattern in granted["pub"]["allow"]:
        tokens = pattern.split(".")
        if tokens[0] == "_INBOX":
            assert can & {"own"}
            continue
        assert tokens[0] == "proc"
        assert len(tokens) == 5
        assert tokens[3] in {"history", "viewers", "send", "control", "hold", "own"}
        assert tokens[4] == sender
    for pattern in granted["sub"]["allow"]:
        tokens = pattern.split(".")
        assert tokens[0] == "proc" or tokens[:2] in (["_INBOX", sender], ["_NODE", sender])
        assert ">" not in tokens[:2]
    assert all(granted[side]["allow"] for side in granted)  # an empty list would allow everything
    assert all(set(granted[side]) == {"allow"} for side in granted)
    assert set(granted) == {"pub", "sub"}  # and so no allow_responses


@given(can=st.sets(st.sampled_from(NARROW), min_size=1), sender=SENDERS, other=st.sampled_from(IDS))
def test_a_namespace_covers_what_does_not_exist_yet_and_its_lists_and_no_other(can, sender, other):
    on = [Scope.parse("chat/*")]
    for name in (other, "_"):
        for right in can:
            for kind in SAYS[right]:
                assert allowed("pub", can, on, sender, f"proc.chat.{name}.{kind}.{sender}")
                assert not allowed("pub", can, on, sender, f"proc.default.{name}.{kind}.{sender}")
    whole = [Scope.parse("*/*")]
    assert all(allowed("pub", can, whole, sender, f"proc._._.{k}.{sender}") for r in can for k in SAYS[r])


@pytest.mark.parametrize(
    ("text", "namespace", "scope"),
    [
        ("build-1", "default", "default/build-1"),
        ("build-1", "chat", "chat/build-1"),
        ("chat/build", "default", "chat/build"),
        ("chat/*", "default", "chat/*"),
        ("*", "chat", "chat/*"),
        ("*/*", "chat", "*/*"),
    ],
)
def test_scopes_as_people_write_them(text, namespace, scope):
    assert str(Scope.parse(text, namespace)) == scope


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("build-*", "whole names"),
        ("chat/build-?", "whole names"),
        ("ch*/*", "whole names"),
        ("**", "whole names"),
        ("*/build", "in which namespace"),
        ("_", "cannot be a process id"),
        ("_nodes/*", "cannot be a process namespace"),
        (">", "cannot be a process id"),
        ("a.b", "cannot be a process id"),
        ("chat/", "cannot be a process id"),
        ("/build", "cannot be a process namespace"),
        ("", "cannot be a process id"),
        ("a/b/c", "cannot be a process id"),
        ("{sender}", "cannot be a process id"),
    ],
)
def test_what_a_server_cannot_hold_anybody_to_is_refused(text, says):
    with pytest.raises(BadName, match=says):
        Scope.parse(text)


def test_all_is_for_the_whole_mesh_or_not_at_all():
    assert grants_of(["all"], []) == grants_of(["all", "watch"], [Scope("*", "*")]) == FULL
    with pytest.raises(BadName, match=r"`all` is trust .* on '\*/\*' only"):
        grants_of(["all"], [Scope("chat", "*")])


def test_rights_are_known_and_something_is_granted():
    assert check_rights(["own", "watch", "own"]) == ("watch", "own")
    with pytest.raises(BadName, match="no right 'write': there are watch, send"):
        check_rights(["watch", "write"])
    with pytest.raises(BadName, match="say what is granted"):
        grants_of([], [Scope("*", "*")])
    with pytest.raises(BadName, match="say on what"):
        grants_of(["watch"], [])


def test_what_another_scope_covers_is_not_said_twice():
    scopes = [Scope.parse(text) for text in ("chat/build", "chat/*", "build", "build")]
    assert grants_of(["send"], scopes)["pub"] == (
        "proc.chat.*.send.{sender}",
        "proc.default.build.send.{sender}",
    )
    assert grants_of(["send"], [*scopes, Scope("*", "*")], "mesh2")["pub"] == ("mesh2.*.*.send.{sender}",)
