"""Names and subjects: whatever goes in, what comes out is one token, or BadName."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import examples

from natsproc.errors import BadName
from natsproc.protocol.names import (
    Address,
    Names,
    address_of_key,
    check_name,
    check_pattern,
    choose_kind,
    client_inbox,
    is_pattern,
    key_of,
    new_id,
    new_token,
    reply_is_clients,
    sanitize,
)

tokens = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True)
prefixes = st.from_regex(r"[a-z0-9][a-z0-9-]{0,63}", fullmatch=True)
addresses = st.builds(Address, tokens, tokens)


@examples(50)
@given(tokens)
def test_a_token_is_taken_as_it_is(token):
    assert check_name(token) == token
    assert Address.parse(token) == Address("default", token)
    assert str(Address.parse(token)) == token


@examples(50)
@given(st.text() | st.text("aZ9-_. */>\n\0é", max_size=70))
def test_any_other_text_is_refused_with_the_rule(text):
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", text):
        return
    with pytest.raises(BadName, match="letters, digits"):
        check_name(text)


@pytest.mark.parametrize(
    "value", [None, 7, b"x", "", ".", "*", ">", "a.b", "a b", "a/b", "-a", "a\n", "x" * 65, "é"]
)
def test_what_cannot_be_a_name(value):
    with pytest.raises(BadName):
        check_name(value)


def test_a_name_of_ten_thousand_characters_is_not_repeated_whole():
    with pytest.raises(BadName, match=r"10000 characters") as caught:
        check_name("x" * 10_000)
    assert len(str(caught.value)) < 400


@examples(50)
@given(addresses)
def test_addresses_round_trip(address):
    assert Address.parse(str(address)) == address
    assert Address.parse(address.id, address.namespace) == address
    assert address_of_key(key_of(address)) == address


@pytest.mark.parametrize("text", [None, 3, "", "/", "a/", "/a", "a/b/c", "a.b/c", "a/b.c", "*/a"])
def test_what_cannot_be_an_address(text):
    with pytest.raises(BadName):
        Address.parse(text)


def test_an_address_in_another_namespace_than_asked_for_is_refused():
    assert Address.parse("lab/a", "lab") == Address("lab", "a")
    with pytest.raises(BadName, match=r"'lab'.*'home'"):
        Address.parse("lab/a", "home")


@examples(50)
@given(prefixes, addresses, tokens)
def test_every_subject_is_literal_and_names_its_process(prefix, address, sender):
    names = Names(prefix)
    subjects = [
        names.events(address),
        names.live(address),
        names.record(address),
        names.inbox(address, sender),
        names.delivered(address, sender),
        names.control(address, sender),
    ]
    assert len(set(subjects)) == len(subjects)
    for subject in subjects:
        assert re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+", subject)
        assert names.address_of(subject) == address
    for subject in subjects[3:]:
        assert subject.rsplit(".", 1)[1] == sender


@examples(50)
@given(prefixes, prefixes)
def test_streams_and_buckets_of_a_mesh_are_valid_and_distinct(prefix, other):
    names = Names(prefix)
    assert (names.event_stream == Names(other).event_stream) == (prefix == other)
    made = [names.event_stream, names.inbox_stream, names.claims, names.registry, names.ended, names.leases]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"[A-Z0-9_]+", name) for name in made)


@pytest.mark.parametrize("prefix", ["", "a.b", "*", ">", "a b", "Proc", "PROC", "a_b", "-a", "a\n", "a" * 65])
def test_a_mesh_prefix_is_one_token(prefix):
    with pytest.raises(BadName):
        Names(prefix)


@examples(50)
@given(st.text())
def test_whatever_a_kind_or_a_users_name_is_the_id_made_of_it_is_valid(text):
    assert check_name(new_id(text))
    assert check_name(sanitize(text, "fallback"))


def test_a_kind_that_is_given_is_taken_as_it_is_or_refused():
    assert choose_kind("given", "my program") == "given"
    assert choose_kind(None, "my program") == "my-program"
    for kind in ("a b", "", "a.b"):
        with pytest.raises(BadName, match="kind"):
            choose_kind(kind, "program")


def test_made_up_names_differ():
    assert len({new_id("train") for _ in range(100_000)}) == 100_000
    assert len({new_token() for _ in range(500)}) == 500
    assert check_name(new_id("x" * 1000))
    assert check_name(new_token(24)) != new_token(24)


@examples(50)
@given(st.text())
def test_a_pattern_is_safe_or_refused(text):
    try:
        pattern = check_pattern(text)
    except BadName:
        return
    assert not re.search(r"[.\s>/]", pattern)


def test_patterns():
    assert check_pattern("build-*") == "build-*"
    assert is_pattern("build-?")
    assert not is_pattern("build-1")
    with pytest.raises(BadName, match="wildcards"):
        check_pattern("build.*")


@examples(50)
@given(tokens, st.text(min_size=1).filter(lambda text: not re.search(r"[\s*>]", text)))
def test_replies_into_the_senders_own_inbox_are_answered(sender, rest):
    assert reply_is_clients(f"{client_inbox(sender)}.{rest}", sender)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "_INBOX.alice",
        "_INBOX.alice.",
        "_INBOX.alicia.x",
        "_INBOX.bob.x",
        "_INBOX.*.x",
        "_INBOX.alice.>",
        "_INBOX.alice.x y",
        "_INBOX.alice.x\r\nPUB y 0",
        "$JS.API.STREAM.PURGE.PROC_EVENTS",
        "proc.default.build.events",
        "_NODE.alice.x",
        "x._INBOX.alice.y",
    ],
)
def test_replies_anywhere_else_get_no_answer(reply):
    assert not reply_is_clients(reply, "alice")
