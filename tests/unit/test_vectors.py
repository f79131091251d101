"""The vectors in tests/vectors, which clients in every language have to pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import write_vectors

from natsproc.errors import BadName, BadPayload
from natsproc.protocol.bundle import Parts
from natsproc.protocol.messages import UNREADABLE, Cursor, Entry, Event, Notice
from natsproc.protocol.names import Address, Names, check_name, key_of, reply_is_clients
from natsproc.protocol.ownership import Fold, Verdict, check_log
from natsproc.protocol.reader import Read, Reader
from natsproc.protocol.records import Claim, Cut

VECTORS = Path(__file__).resolve().parent.parent / "vectors"


def test_those_that_models_make_are_up_to_date():
    for name, text in write_vectors.files().items():
        written = (VECTORS / name).read_text("utf-8")
        assert written == text, f"{name}: run `python tests/unit/write_vectors.py`, and have clients pass it"


def load(name: str) -> dict[str, Any]:
    return json.loads((VECTORS / f"{name}.json").read_text("utf-8"))


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in load(name)["cases"]]


def cuts(table):
    return [Cut(*cut) for cut in table]


def entry(epoch, offset, run=1, kind="output"):
    if not epoch:
        return UNREADABLE
    if not offset:
        return Entry(epoch, run, 0, "", "mark", {"node": f"node-{epoch}"})
    return Entry(epoch, run, offset, "", kind, None)


def started(start):
    options = {key: value for key, value in start.items() if key in ("position", "run")}
    if "cursor" in start:
        options["cursor"] = Cursor(*start["cursor"])
    return {"cuts": cuts(start.get("cuts", ())), **options}


def test_names():
    vectors = load("names")
    for name in vectors["names"]["valid"]:
        assert check_name(name) == name
    for name in vectors["names"]["invalid"]:
        with pytest.raises(BadName):
            check_name(name)
    for case in vectors["addresses"]["valid"]:
        address = Address.parse(case["text"])
        assert (address.namespace, address.id, str(address)) == (
            case["namespace"],
            case["id"],
            case["written"],
        )
    for text in vectors["addresses"]["invalid"]:
        with pytest.raises(BadName):
            Address.parse(text)


def test_subjects_streams_and_replies():
    vectors = load("names")
    for case in vectors["subjects"]:
        names, address, sender = Names(case["prefix"]), Address.parse(case["address"]), case["sender"]
        for kind in ("events", "live", "record"):
            assert getattr(names, kind)(address) == case[kind]
        for kind in ("inbox", "delivered", "control"):
            assert getattr(names, kind)(address, sender) == case[kind]
        assert key_of(address) == case["key"]
    for case in vectors["meshes"]:
        names = Names(case["prefix"])
        assert {key: getattr(names, key) for key in case} == case
    replies = vectors["replies"]
    assert all(reply_is_clients(reply, replies["sender"]) for reply in replies["answered"])
    assert not any(reply_is_clients(reply, replies["sender"]) for reply in replies["refused"])


def test_cursors():
    vectors = load("cursors")
    for case in vectors["valid"]:
        cursor = Cursor(case["position"], case["epoch"], case["run"], case["offset"])
        assert Cursor.parse(case["text"]) == cursor
        assert str(cursor) == case["text"]
    for text in vectors["invalid"]:
        with pytest.raises(BadPayload):
            Cursor.parse(text)


@pytest.mark.parametrize("case", load("cursors")["logs"], ids=str)
def test_cursors_of_logs(case):
    claim = case["claim"] and Claim.parse(json.dumps(case["claim"]).encode())
    try:
        check_log(Cursor(*case["cursor"]), claim, case["last"])
        fits = True
    except BadPayload:
        fits = False
    assert fits == case["fits"]


@pytest.mark.parametrize("case", load("events")["entries"], ids=lambda case: case["payload"][:40])
def test_events(case):
    found = Entry.parse(case["payload"].encode())
    assert found == (UNREADABLE if case["entry"] is None else Entry(**case["entry"]))


def test_lines():
    for case in load("events")["lines"]:
        event = Entry.parse(case["payload"].encode()).event(case["position"])
        assert event.to_json() == case["line"]


@pytest.mark.parametrize("case", cases("fold"))
def test_fold(case):
    fold = Fold(**started(case["start"]))
    for step in case["steps"]:
        if isinstance(step, dict):
            fold.refresh(cuts(step["refresh"]), trimmed=step.get("trimmed", False))
        else:
            position, what, verdict = step
            assert fold.feed(position, entry(*what)) is Verdict(verdict), step
    assert fold.missing == (tuple(case["missing"]) if "missing" in case else None)
    assert fold.next_offset == case["next"]
    assert [cut.to_json() for cut in fold.cuts] == case.get("cuts", [cut.to_json() for cut in fold.cuts])


def written(action):
    match action:
        case Event():
            return ["show", action.offset]
        case Notice():
            return ["say", action.type, action.data]
        case Read():
            return ["read", action.after]
        case _:
            return [action.name.lower()]


def act(reader, step):
    (name, given), *_ = step.items()
    match name:
        case "history":
            return reader.history(given[0], entry(*given[1]))
        case "live":
            return reader.live(given[0], given[1], entry(*given[2]))
        case "first":
            return reader.first(given[0], cuts(given[1]), given[2])
        case "last":
            return reader.last(given)
    return getattr(reader, name)()


@pytest.mark.parametrize("case", cases("reader"))
def test_reader(case):
    reader = Reader(**started(case["start"]))
    for step in case["steps"]:
        if step["then"] == [["refuse"]]:
            with pytest.raises(BadPayload):
                act(reader, step)
        else:
            assert [written(action) for action in act(reader, step)] == step["then"], step


@pytest.mark.parametrize("case", load("bundles")["parts"], ids=str)
def test_parts(case):
    parts = Parts()
    try:
        whole = [parts.join(part, payload.encode()) for part, payload in case["parts"]][-1].decode()
    except BadPayload:
        whole = None
    assert whole == case["whole"]
