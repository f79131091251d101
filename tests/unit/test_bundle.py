"""Bundles: what goes in comes out, in bounds, and what is lost or broken on the way is noticed."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from natsproc.errors import BadPayload
from natsproc.protocol.bundle import MORE, PART, Bundle, Parts, StoredEntry, in_parts, unbundle

TIME = "2026-01-01T00:00:00.123456789Z"
LIMIT = 2000

headers = st.none() | st.dictionaries(st.sampled_from([*MORE, "Other"]), st.sampled_from(["", "PURGE", '"']))
subjects = st.sampled_from(["proc.default.a.events", "proc.default.b.events", 'proc.x.\u2603"\x01.events'])


@st.composite
def answers(draw, largest=LIMIT // 2):
    """What JetStream says: entries in order, each with the position of the one before."""
    entries, position = [], 0
    for _ in range(draw(st.integers(0, 30))):
        before, position = position, position + draw(st.integers(1, 9))
        payload = draw(st.binary(max_size=20)) * draw(st.integers(1, largest // 20))
        entries.append((StoredEntry(position, payload, TIME, draw(subjects), draw(headers)), before))
    return entries


def bundled(entries, limit=LIMIT):
    """As the gate does it: bundles, and whole entries that fit into none."""
    bundle, sent = Bundle(limit), []
    for entry, after in entries:
        if not bundle.add(entry, after):
            sent.append(bundle.take())
            if not bundle.add(entry, after):
                sent.append((entry, after))
    sent.append(bundle.take())
    return [each for each in sent if each]


def read(sent):
    """As an asker does it. Raises: LookupError, if one is lost."""
    found, position = [], 0
    for each in sent:
        after, entries = unbundle(each) if isinstance(each, bytes) else (each[1], [each[0]])
        if after != position:
            raise LookupError
        found += entries
        position = entries[-1].position
    return found


def kept(entry):
    """An entry as a reader has it."""
    more = {name: value for name, value in (entry.headers or {}).items() if name in MORE}
    return entry._replace(headers=more or None)


@given(answers())
def test_what_goes_in_comes_out_within_bounds(entries):
    sent = bundled(entries)
    assert [kept(entry) for entry in read(sent)] == [kept(entry) for entry, _ in entries]
    assert all(len(each) <= LIMIT for each in sent if isinstance(each, bytes))


@given(answers(largest=4 * LIMIT))
def test_what_fits_into_no_bundle_goes_by_itself_in_its_place(entries):
    sent = bundled(entries)
    assert [kept(entry) for entry in read(sent)] == [kept(entry) for entry, _ in entries]


@given(answers(), st.data())
def test_an_entry_that_never_came_to_the_gate_is_missed(entries, data):
    assume(len(entries) > 1)
    lost = data.draw(st.integers(0, len(entries) - 2))
    with pytest.raises(LookupError):
        read(bundled(entries[:lost] + entries[lost + 1 :]))


@given(answers(), st.data())
def test_a_bundle_that_never_came_to_the_asker_is_missed(entries, data):
    sent = bundled(entries, 300)
    assume(len(sent) > 1)
    del sent[data.draw(st.integers(0, len(sent) - 2))]
    with pytest.raises(LookupError):
        read(sent)


@given(answers(), st.data())
def test_what_is_cut_off_or_has_more_is_no_bundle(entries, data):
    assume(entries)
    whole = next(each for each in bundled(entries) if isinstance(each, bytes))
    for broken in (whole[: data.draw(st.integers(0, len(whole) - 1))], whole + b"x"):
        with pytest.raises(BadPayload):
            unbundle(broken)


@given(st.binary() | st.tuples(st.binary(), st.binary()).map(lambda parts: b"\n".join(parts)))
def test_nothing_but_a_bad_payload_comes_of_what_is_none(payload):
    try:
        unbundle(payload)
    except BadPayload:
        pass


@given(st.binary(max_size=50), st.integers(1, 20))
def test_what_is_too_large_for_one_message_comes_in_parts(payload, limit):
    sent, parts = list(in_parts(payload, limit)), Parts()
    assert all(len(part) <= limit for part, _ in sent)
    if len(sent) == 1:
        assert sent == [(payload, {})]
    else:
        whole = [parts.join(header[PART], part) for part, header in sent]
        assert (whole[:-1], whole[-1]) == ([None] * (len(sent) - 1), payload)
