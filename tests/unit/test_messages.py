"""Messages round trip, and whatever else arrives is told apart: an error of ours, or an entry that cannot count."""

from __future__ import annotations

import contextlib
import enum
import json
import math
import pickle
from collections import deque
from dataclasses import FrozenInstanceError, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from simulated import examples

from natsproc.errors import BadPayload
from natsproc.protocol.messages import (
    UNREADABLE,
    Command,
    Cursor,
    Entry,
    Event,
    Message,
    Notice,
    Receipt,
    decode,
    decode_object,
    encode,
    encode_event,
    encode_frame,
    encode_mark,
    next_event,
)
from natsproc.protocol.names import Address
from natsproc.protocol.records import Claim, Cut, Lease, Record


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (b"\xc3\xa9", "é"), ({1}, [1]), ((1, 2), [1, 2]), (deque([1]), [1]), ((n for n in (1, 2)), [1, 2]),
        (datetime(2026, 1, 31, tzinfo=UTC), "2026-01-31T00:00:00Z"), (date(2026, 1, 31), "2026-01-31"),
        (timedelta(seconds=90), "PT1M30S"), (Decimal("1.50"), "1.50"), (UUID(int=1), str(UUID(int=1))),
        (Path("/a"), "/a"), (Colour.RED, "red"), (Point(1), {"x": 1}), ({1: 2, None: 3}, {"1": 2, "None": 3}),
        (math.nan, "NaN"), (-math.inf, "-Infinity"),
    ],
)  # fmt: skip
def test_what_python_has_and_json_has_not_is_written_as_pydantic_does(value, written):
    assert json.loads(encode(value)) == written


@pytest.mark.parametrize("value", [b"\xff", range(3), object(), memoryview(b"x"), ValueError("x"), "\ud800"])
def test_what_cannot_be_json_is_refused(value):
    with pytest.raises(BadPayload, match="cannot be sent as JSON"):
        encode(value)


numbers = st.integers(0, 2**63)
positive = st.integers(1, 2**53 - 1)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(texts, values, max_size=4)
anything = st.text() | values | st.floats()

cuts = st.builds(Cut, positive, positive, positive, positive)
claims = st.builds(
    Claim, texts, texts, numbers, positive, st.booleans(), st.lists(cuts, max_size=4).map(tuple)
)
commands = st.builds(
    Command,
    id=st.text(max_size=128).filter(bool),
    verb=texts,
    sender=st.just("alice"),
    reason=texts,
    message=values,
    epoch=st.none() | numbers,
    turn=st.none() | numbers,
    hard=st.booleans(),
    grace=st.none() | st.floats(0, 1e6),
    data=objects,
)
statuses = st.sampled_from(["accepted", "applied", "refused", "too_late", "unconfirmed"])
receipts = st.builds(Receipt, texts, texts, statuses, texts, texts, texts, numbers, numbers, objects)
messages = st.builds(
    Message,
    texts,
    st.just("alice"),
    values,
    texts,
    st.just(7),
    st.sampled_from(["message", "eof"]),
    texts,
    texts,
)
tokens = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)
records = st.builds(
    Record, st.builds(Address, tokens, tokens), texts, texts, positive, positive, texts, texts, texts,
    st.dictionaries(texts, texts, max_size=3), texts, texts, st.booleans(), st.none() | st.integers(-200, 200), texts,
    st.lists(texts).map(tuple),
)  # fmt: skip
leases = st.builds(Lease, texts, texts, numbers, texts, texts, numbers, st.floats(0, 100), st.booleans())


@examples(50)
@given(values)
def test_json_round_trips(value):
    assert decode(encode(value)) == value


@examples(50)
@given(st.builds(Cursor, numbers, numbers, numbers, numbers))
def test_cursors_round_trip(cursor):
    assert Cursor.parse(str(cursor)) == cursor
    assert str(cursor).replace("-", "").replace("_", "").isalnum()


@examples(50)
@given(st.text() | st.text("ABCMS4xz019.=-_", max_size=30))
def test_any_text_is_a_cursor_or_refused(text):
    try:
        cursor = Cursor.parse(text)
    except BadPayload:
        return
    assert min(cursor.position, cursor.epoch, cursor.run, cursor.offset) >= 0


@pytest.mark.parametrize(
    "text", ["", "x", "MS4x", "MS4tMS41LjEuMg", "Mi4xLjUuMS4y", "MS4xLjUuMS4yLjM", "é", "9" * 9999]
)
def test_what_cannot_be_a_cursor(text):
    with pytest.raises(BadPayload, match="is not a cursor"):
        Cursor.parse(text)


@examples(50)
@given(positive, positive, positive, texts.filter(lambda t: t != "mark"), values, st.none() | texts)
def test_events_round_trip(offset, epoch, run, kind, data, cause):
    payload = encode_event(
        offset, encode_frame(epoch, run, "2026-01-31T00:00:00.000Z"), encode(kind), encode(data),
        b"" if cause is None else encode(cause),
    )  # fmt: skip
    entry = Entry.parse(payload)
    assert entry == Entry(epoch, run, offset, "2026-01-31T00:00:00.000Z", kind, data, cause)
    assert not entry.is_mark
    event = entry.event(9, Address("default", "build"))
    assert json.loads(encode(event.to_json())) == json.loads(payload) | {
        "cursor": str(Cursor(9, epoch, run, offset))
    }
    assert Cursor.parse(event.cursor) == Cursor(9, epoch, run, offset)


@examples(50)
@given(positive, positive, texts, texts)
def test_marks_round_trip(epoch, run, nonce, node):
    entry = Entry.parse(encode_mark(epoch, run, "t", nonce, node))
    assert entry == Entry(epoch, run, 0, "t", "mark", {"nonce": nonce, "node": node})
    assert entry.is_mark


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"7",
        b"null",
        b'"text"',
        b"[" * 100_000,
        b'{"epoch":5,"run":1,"offset":1}',
        b'{"epoch":5,"offset":1,"type":"output"}',
        b'{"run":1,"offset":1,"type":"output"}',
        b'{"epoch":0,"run":1,"offset":1,"type":"output"}',
        b'{"epoch":-5,"run":1,"offset":1,"type":"output"}',
        b'{"epoch":5,"run":1,"offset":-1,"type":"output"}',
        b'{"epoch":5.5,"run":1,"offset":1,"type":"output"}',
        b'{"epoch":9007199254740992,"run":1,"offset":1,"type":"output"}',
        b'{"epoch":5,"run":1,"offset":1,"type":"output","data":NaN}',
        b'{"epoch":true,"run":1,"offset":1,"type":"output"}',
        b'{"epoch":"5","run":1,"offset":1,"type":"output"}',
        b'{"epoch":1e999,"run":1,"offset":1,"type":"output"}',
        b'{"epoch":5,"run":1,"offset":null,"type":"output"}',
        b'{"epoch":5,"run":1,"type":"output"}',
        b'{"epoch":5,"run":1,"offset":1,"type":"mark"}',
        b'{"epoch":5,"run":1,"offset":1,"type":7}',
    ],
)
def test_garbage_in_the_log_cannot_count(payload):
    assert Entry.parse(payload) is UNREADABLE
    assert UNREADABLE.epoch == 0


@examples(300)
@given(st.binary() | objects.map(encode) | values.map(encode))
def test_reading_an_entry_never_raises(payload):
    entry = Entry.parse(payload)
    assert entry is UNREADABLE or (entry.epoch > 0 and (entry.offset == 0) == entry.is_mark)


def test_what_a_newer_version_writes_is_kept():
    entry = Entry.parse(b'{"offset":1,"epoch":5,"run":1,"type":"levitated","data":{"x":1},"later":true}')
    assert (entry.type, entry.data, entry.time) == ("levitated", {"x": 1}, "")
    claim = Claim.parse(b'{"nonce":"a","node":"b","later":[1]}')
    assert Claim.parse(encode(claim.to_json())) == claim
    assert claim.to_json()["later"] == [1]
    receipt = Receipt.parse(b'{"command":"c","verb":"v","status":"levitated"}')
    assert (receipt.status, receipt.applied) == ("refused", False)
    assert "levitated" in receipt.why


@examples(50)
@given(claims)
def test_claims_round_trip(claim):
    assert Claim.parse(encode(claim.to_json())) == claim
    assert claim.epoch_at(41) == (claim.epoch or 41)


@examples(50)
@given(commands)
def test_commands_round_trip(command):
    assert Command.parse(encode(command.to_json()), "alice") == command


@examples(50)
@given(receipts)
def test_receipts_round_trip(receipt):
    assert Receipt.parse(encode(receipt.to_json())) == receipt


@examples(50)
@given(messages)
def test_messages_round_trip(message):
    assert Message.parse(encode(message.to_json()), "alice", 7) == message


@examples(50)
@given(records)
def test_records_round_trip(record):
    assert Record.parse(encode(record.to_json())) == record


@examples(50)
@given(leases)
def test_leases_round_trip(lease):
    assert Lease.parse(encode(lease.to_json())) == lease


PARSERS = [
    (claims, Claim.parse),
    (commands, lambda payload: Command.parse(payload, "alice")),
    (receipts, Receipt.parse),
    (records, Record.parse),
    (leases, Lease.parse),
]


@pytest.mark.parametrize(("made", "parse"), PARSERS)
@examples(50)
@given(st.data())
def test_a_message_with_one_field_replaced_is_read_or_refused(made, parse, data):
    raw = data.draw(made).to_json()
    replaced = data.draw(anything)
    for field in sorted({*raw, "epoch", "grace", "offset", "run", "code", "cuts"}):
        for value in (replaced, float("inf")):
            text = json.dumps(raw | {field: value}).replace("Infinity", "1e999")
            with contextlib.suppress(BadPayload):
                parse(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("parse", [parse for _, parse in PARSERS])
@pytest.mark.parametrize("payload", [b"", b"\xff", b"[]", b"null", b"{}", b'{"id":7}', b"[" * 9999])
def test_what_is_none_of_ours_is_refused(parse, payload):
    with pytest.raises(BadPayload):
        parse(payload)


def test_the_sender_of_a_command_is_that_of_its_subject():
    assert Command.parse(b'{"id":"c","verb":"ping"}', "alice").sender == "alice"
    assert Message.parse(b'{"id":"m","data":1,"sender":"alice"}', "alice", 7).sender == "alice"
    assert Message.parse(b'{"sender":"root"}', "alice", 7).data == {"sender": "root"}
    with pytest.raises(BadPayload, match="'root', and was sent as 'alice'"):
        Command.parse(b'{"id":"c","verb":"ping","sender":"root"}', "alice")
    with pytest.raises(BadPayload, match="'root', and was sent as 'alice'"):
        Message.parse(b'{"id":"m","data":1,"sender":"root"}', "alice", 7)


@pytest.mark.parametrize("grace", ["NaN", "Infinity", "1e999", "-1", '"soon"', "[]"])
def test_a_grace_time_is_a_number_of_seconds(grace):
    with pytest.raises(BadPayload):
        Command.parse(b'{"id":"c","verb":"cancel","grace":%s}' % grace.encode(), "alice")


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        (b"hello", "hello"),
        (b"\xff", "\ufffd"),
        (b"7", 7),
        (b'{"lr":0.1}', {"lr": 0.1}),
        (b'{"id":"x"}', {"id": "x"}),
        (b"[1]", [1]),
        (b"", ""),
    ],
)
def test_a_plain_clients_message_is_its_data(payload, data):
    message = Message.parse(payload, "alice", 7)
    assert (message.id, message.data, message.kind, message.position) == ("p7", data, "message", 7)


class Point(BaseModel):
    x: int


def test_models_are_sent_as_json():
    assert decode(encode({"at": Point(x=1)})) == {"at": {"x": 1}}


def test_numbers_that_json_lacks_are_sent_as_text_and_never_lost():
    sent = {"loss": float("nan"), "least": float("-inf"), "most": float("inf")}
    assert decode(encode(sent)) == {"loss": "NaN", "least": "-Infinity", "most": "Infinity"}


@pytest.mark.parametrize(
    "value", [object(), b"\xff", "\ud800", {"a": [object()]}], ids=["object", "bytes", "surrogate", "nested"]
)
def test_what_is_not_json_is_refused_before_it_is_sent(value):
    with pytest.raises(BadPayload, match="cannot be sent as JSON"):
        encode(value)


def nested(depth):
    value = "deep"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [*map(nested, (*range(150, 215), 254, 5000)), 10**4250, 10**5000, -(10**4301)], ids=lambda _: ""
)
def test_what_was_written_can_be_read(value):
    """Else it would be a hole in the log that no reader gets over."""
    try:
        data = encode({"result": value})
    except BadPayload:
        return
    assert Entry.parse(encode_event(1, encode_frame(5, 1, ""), b'"exited"', data)).data == {"result": value}


def test_deep_enough_for_people():
    assert decode(encode(nested(150))) == nested(150)


def test_a_loop_is_refused():
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(BadPayload):
        encode(loop)


def test_decoding_says_what_it_was():
    with pytest.raises(BadPayload, match="receipt is not JSON"):
        decode(b"{", "receipt")
    with pytest.raises(BadPayload, match="receipt is not a JSON object"):
        decode_object(b"[]", "receipt")


def test_the_line_that_a_tail_prints():
    event = Event(7, 41, 1, "2026-01-31T23:59:59.123Z", "exited", {"code": 0}, "c1", 4711)
    assert event.terminal
    assert encode(event.to_json()) == (
        b'{"offset":7,"epoch":41,"run":1,"time":"2026-01-31T23:59:59.123Z","type":"exited","data":{"code":0},'
        b'"cause":"c1","cursor":"MS40NzExLjQxLjEuNw"}'
    )
    notice = Notice("gap", {"from": 1, "to": 2}, cursor="x")
    assert notice.to_json() == {"type": "gap", "data": {"from": 1, "to": 2}, "cursor": "x"}


odd_numbers = st.sampled_from([5] * 8 + [0, -1, 2**53 - 1, 2**53, 2**70, 5.0, 1.5, True, "5", None])
odd_entries = st.fixed_dictionaries(
    {"epoch": odd_numbers, "offset": odd_numbers, "run": odd_numbers, "type": st.just("output") | anything},
    optional={"time": anything, "data": values, "cause": anything},
)


@examples(400)
@given(odd_entries.map(encode) | st.binary(max_size=30), st.sampled_from([5, 5, 5, 1, 2**53 - 1, 2**53]))
def test_the_next_event_is_read_as_any_entry_is(payload, offset):
    event, entry = next_event(payload, 5, offset, 9, None), Entry.parse(payload)
    if event is not None:
        assert (entry.epoch, entry.offset) == (5, offset)
        assert repr(event) == repr(entry.event(9))
        assert event.type not in ("mark", "exited")


@given(objects, st.none() | texts)
def test_an_event_that_follows_is_read_at_once(data, cause):
    payload = encode_event(
        7, encode_frame(5, 1, "now"), b'"output"', encode(data), b"" if cause is None else encode(cause)
    )
    assert next_event(payload, 5, 7, 9, None) == Event(7, 5, 1, "now", "output", data, cause, 9)
    for epoch, offset in ((5, 8), (6, 7), (5, None)):
        assert next_event(payload, epoch, offset, 9, None) is None


def test_an_event_that_was_read_is_as_one_that_was_made():
    read = Entry(5, 1, 7, "2026-01-01T00:00:00.000Z", "output", ["x"], "c1").event(9, Address("default", "a"))
    made = Event(
        7,
        5,
        1,
        "2026-01-01T00:00:00.000Z",
        "output",
        ["x"],
        "c1",
        position=9,
        address=Address("default", "a"),
    )
    assert type(read) is Event
    assert read == made
    assert repr(read) == repr(made)
    assert pickle.loads(pickle.dumps(read)) == made
    assert replace(read, offset=8) == replace(made, offset=8)
    assert hash(replace(read, data=None)) == hash(replace(made, data=None))
    with pytest.raises(FrozenInstanceError):
        read.offset = 8
