"""The same bytes, however they are cut, bring the same messages in the same order as with nats-py's own parser."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser
from noting import Noting
from simulated import examples

from natsproc.bus.parsing import ListParser

LISTENED = (b"7", b"8")


class Heard(Noting):
    """What a parser tells its client, one thing after the other."""

    def __init__(self) -> None:
        self.things: list[object] = []
        self.lists: list[int] = []

    async def _process_msg(self, sid, subject, reply, data, headers):
        self.things.append((sid, subject, reply, data, headers or b""))

    def listener(self, number):
        return Listener(self, number) if number in LISTENED else None

    def read_on(self, listener, data, start):
        return listener.read(data, start) if listener.read else start

    def hand_over(self, listener, messages):
        self.lists.append(len(messages))
        self.things.extend((int(listener.number), *message) for message in messages)


class Listener:
    """One that is handed everything; number 8 reads for itself what has no headers and two bytes."""

    def __init__(self, heard: Heard, number: bytes) -> None:
        self.things, self.number = heard.things, number
        self.read = self.read_some if number == b"8" else None

    def read_some(self, data, start):
        while found := re.compile(rb"MSG (\S+) 8 2\r\n(..)\r\n", re.S).match(data, start):
            self.things.append((8, found[1], b"", found[2], b""))
            start = found.end()
        return start


def play(parser, heard: Heard, pieces: list[bytes]) -> list[object]:
    async def feed() -> None:
        for piece in pieces:
            await parser.parse(piece)

    try:
        feed().send(None)  # nothing waits
    except StopIteration:
        pass
    except ProtocolError:
        heard.things.append("broken")
    return heard.things


def by_nats_py(pieces: list[bytes]) -> list[object]:
    heard = Heard()
    return play(Parser(heard), heard, pieces)


def in_lists(pieces: list[bytes]) -> tuple[list[object], list[int]]:
    heard = Heard()
    return play(ListParser(heard), heard, pieces), heard.lists


token = st.sampled_from(
    [b"a", b"a.b", b"7", b"8", b"$JS.ACK.S.c.1.2.3.4.5", b"\x0b", b"a\x85", b"\xff", b"MSG", b"+5"]
)
gap = st.sampled_from([b" "] * 8 + [b"  ", b"\t", b" \t"])
payloads = st.sampled_from(
    [b"", b"{}", b"\r\n", b"MSG a 7 2\r\n{}\r\n", b"PING\r\n", b"x" * 200]
) | st.binary(max_size=30)


@st.composite
def messages(draw) -> bytes:
    block = draw(st.sampled_from([b"", b"", b"NATS/1.0\r\nA: 1\r\n\r\n", b"NATS/1.0 100 Idle\r\n\r\n"]))
    payload = block + draw(payloads)
    number = draw(st.sampled_from([b"7", b"7", b"7", b"8", b"9", b"07"]))
    parts = [b"HMSG" if block else b"MSG", draw(token), number, *draw(st.lists(token, max_size=1))]
    parts += [b"%d" % len(block)] * bool(block) + [b"%d" % len(payload)]
    line = parts[0] + b"".join(draw(gap) + part for part in parts[1:])
    return line + b"\r\n" + payload + b"\r\n"


others = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Slow'\r\n", b'INFO {"a":1}\r\n'])
broken = st.sampled_from([b"MSG a 7 x\r\n", b"NEWS\r\n", b"MSG a 7 -1\r\n\r\n", b"HMSG a 7 5\r\n"])


@st.composite
def streams(draw) -> list[bytes]:
    raw = b"".join(draw(st.lists(messages() | messages() | others, max_size=12)))
    raw += draw(st.just(b"") | broken)
    cuts = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    return [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]


@examples(1500)
@given(streams())
def test_however_it_is_cut_it_is_what_nats_py_reads(pieces):
    assert in_lists(pieces)[0] == by_nats_py(pieces)


@examples(100)
@given(st.binary(max_size=300), st.integers(1, 50))
def test_messages_that_come_in_bytes_are_heard_as_those_that_come_at_once(payload, size):
    raw = b"MSG a 7 %d\r\n%b\r\n" % (len(payload), payload) * 3
    pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
    assert in_lists(pieces)[0] == in_lists([raw])[0] == [(7, b"a", b"", payload, b"")] * 3


def test_what_comes_together_is_handed_over_in_one_list():
    raw = b"MSG a 7 2\r\n{}\r\n" * 50
    things, lists = in_lists([raw + b"PING\r\n" + raw[:-4], raw[-4:] + raw])
    assert lists == [50, 49, 51]
    assert things[50] == "ping"
    assert things[100] == (7, b"a", b"", b"{}", b"")
    assert len(things) == 151


@pytest.mark.parametrize("size", [1000, 60_000, 200_000])
def test_a_message_that_is_cut_is_whole_when_its_rest_comes(size):
    raw = b"MSG a 7 %d\r\n%b\r\n" % (size, b"x" * size) * 3
    for cut in (1, 9, 12, 14, 500, len(raw) // 2, len(raw) - 1):
        assert in_lists([raw[:cut], raw[cut:]])[0] == [(7, b"a", b"", b"x" * size, b"")] * 3


def test_of_a_connection_that_is_lost_nothing_is_held():
    heard = Heard()
    parser = ListParser(heard)
    play(parser, heard, [b"MSG a 7 2\r\n{}\r\nMSG a 7 90\r\nabc"])
    parser.reset()
    assert play(parser, heard, [b"MSG a 7 2\r\n[]\r\n"]) == [
        (7, b"a", b"", b"{}", b""),
        (7, b"a", b"", b"[]", b""),
    ]


def test_nats_py_gets_what_is_left_once_nothing_is_cut():
    heard = Heard()
    parser = ListParser(heard)
    left = [parser.take(piece) for piece in (b"MSG a 7 2\r\n{", b"}\r\nPI", b"NG\r\nMSG a 7 2\r\n{}\r\n")]
    assert left == [b"", b"", b"PING\r\nMSG a 7 2\r\n{}\r\n"]
    assert heard.things == [(7, b"a", b"", b"{}", b"")]
