"""Links to pages: what stands behind the `#`, and whose pages may connect."""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsproc import linking
from natsproc.bus.connection import Endpoint
from natsproc.errors import BadName, BadPayload
from natsproc.protocol.links import Link
from natsproc.protocol.names import Address
from natsproc.server import joined, links
from natsproc.server.home import Home, State
from natsproc.server.joined import Invitation

IDS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)


@given(st.text(min_size=1), st.none() | st.builds(Address, IDS, IDS), st.text(), st.text(), st.text())
def test_a_fragment_says_all_and_needs_no_more_than_ascii(credential, process, server, sender, key):
    link = Link(credential, process, server, sender, key)
    assert Link.parse("#" + link.fragment) == link
    assert link.fragment.isascii()
    assert not set(link.fragment) & set(' "<>#')
    assert parse_qs(link.fragment)["c"] == [credential]


def test_the_form_that_pages_read():
    assert Link("natsproc_abc-_", Address("chat", "r1")).fragment == "c=natsproc_abc-_&p=chat/r1"
    assert Link("", None, "ws://h:1", "ada").fragment == "s=ws://h:1&as=ada"
    assert Link("", Address("chat", "r1"), key="SUABC").fragment == "k=SUABC&p=chat/r1"
    assert Link.parse("") == Link()
    assert "abc" not in repr(Link("abc", key="abc"))
    with pytest.raises(BadPayload) as caught:
        Link.parse("c=secret&p=a/b/c")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://team.example.com", "https://team.example.com"),
        ("https://Team.example.com/", "https://team.example.com"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        *((bad, None) for bad in ("team.example.com", "*", "https://*.example.com", "https://a/b", "ftp://a", "https://me@a",
          "https://", "https://a:x", "https://a?b", 'https://a"b', "https://a b")),
    ],
)  # fmt: skip
def test_an_origin_is_what_browsers_send(text, origin):
    if origin:
        assert links.check_origin(text) == origin
    else:
        with pytest.raises(BadName, match="no origin"):
            links.check_origin(text)


def test_our_own_pages_and_those_that_were_named_may_connect():
    state = State("me", 1, 2, pages_port=3, origins=("https://team.example.com",))
    for origin in ("http://localhost:3", "http://127.0.0.1:3", "https://team.example.com"):
        assert links.takes(state, origin)
    for origin in ("http://localhost:2", "https://localhost:3", "https://example.com"):
        assert not links.takes(state, origin)


def test_a_joined_machine_uses_the_pages_of_its_mesh(tmp_path):
    home = Home(tmp_path)
    joined.save(home.joined, Invitation(("tls://10.0.0.5:4222",), "creds", "", "natsproc-1", 9222, 9223))
    there = linking.where(home, Endpoint(("tls://10.0.0.5:4222",)))
    assert there == linking.Where("wss://10.0.0.5:9222", "https://10.0.0.5:9223")
    old = Invitation(("nats://10.0.0.5:4222",), "creds", "", "", 9222)
    assert Invitation.decode(old.encode()) == old
    joined.save(home.joined, old)
    assert linking.where(home, Endpoint(("nats://10.0.0.5:4222",))) == linking.Where("ws://10.0.0.5:9222")
    with pytest.raises(BadName, match="--server ws://HOST:PORT"):
        linking.where(home, Endpoint(("nats://elsewhere:4222",)))
