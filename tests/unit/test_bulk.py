"""What a consumer delivers is taken in two ways, one of them quick: they say the same of the same bytes, however those are cut."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st
from noting import Noting
from simulated import examples

from natsproc.bus.bulk import Bulk
from natsproc.bus.parsing import ListParser

SUBJECT, NUMBER = "proc.default.p.events", 7


class Client(Noting):
    """Where one bulk read listens; `quick`: as it is, else it gets all in lists."""

    def __init__(self, upto: int, quick: bool) -> None:
        self.lists: list[int] = []
        self.bulk = Bulk(SimpleNamespace(sender="me"), "S", SUBJECT, 0, upto)
        self.bulk._name = "c"
        self.bulk._listen_by(SimpleNamespace(_id=NUMBER))
        self.read = self.bulk._read if quick else None
        self.quickly = 0
        self.things: list[object] = []

    def listener(self, number):
        return self if number == b"%d" % NUMBER else None

    def read_on(self, listener, data, start):
        end, count = self.read(data, start) if self.read else (start, 0)
        self.quickly += count
        return end

    def hand_over(self, listener, messages):
        self.lists.append(len(messages))
        self.bulk._take(messages)


def took(pieces: list[bytes], upto: int, *, quick: bool) -> tuple[object, int]:
    client = Client(upto, quick)
    parser = ListParser(client)
    for piece in pieces:
        try:
            parser.parse(piece).send(None)
        except StopIteration:
            pass
    bulk = client.bulk
    entries = [(tuple(entry), entry.time, entry.subject, entry.headers) for entry in bulk._entries]
    return (
        entries,
        bulk._number,
        bulk._flow,
        bulk._done,
        bulk._failure,
        bulk._heard.is_set(),
    ), client.quickly


def delivered(
    position: int, number: int, payload: bytes = b"{}", *, block: bytes = b"", form: int = 0
) -> bytes:
    there = f"1.{position}.{number}.1795775000123456789.5"
    stem = ["$JS.ACK.S.c", "$JS.ACK.d.hash.S.c", "$JS.ACK.S.other"][form]
    reply = f"{stem}.{there}{'.token' if form == 1 else ''}".encode()
    sizes = b"%d %d" % (len(block), len(block + payload)) if block else b"%d" % len(payload)
    return b"%s %s 7 %s %s\r\n%s%s\r\n" % (
        b"HMSG" if block else b"MSG", SUBJECT.encode(), reply, sizes, block, payload,
    )  # fmt: skip


def status(line: bytes, reply: bytes = b"") -> bytes:
    head = b"HMSG in.c 7 " + reply + b" " * bool(reply)
    return head + b"%d %d\r\n%s\r\n" % (len(line), len(line), line)


FLOW = status(b"NATS/1.0 100 FlowControl Request\r\n\r\n", b"$JS.FC.S.c.x")
payloads = st.sampled_from([b"{}", b'{"a":1}', b"", b"a.b c\r\n", b"MSG a 7 2\r\n{}\r\n", b"x" * 300])
blocks = st.sampled_from([b""] * 6 + [b"NATS/1.0\r\nA: 1\r\n\r\n"])
forms = st.sampled_from([0] * 12 + [1, 2])


@st.composite
def streams(draw) -> tuple[list[bytes], int]:
    """Pieces of what the server says to a read, and up to where that goes."""
    said, position, number = [], 0, 0
    block_of = draw(st.sampled_from([blocks, blocks, st.just(b"NATS/1.0\r\nA: 1\r\n\r\n")]))
    for _ in range(draw(st.integers(0, 15))):
        position += draw(st.sampled_from([1, 1, 1, 3]))
        number += draw(st.sampled_from([1] * 12 + [2, 0]))
        said.append(delivered(position, number, draw(payloads), block=draw(block_of), form=draw(forms)))
        idle = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: %d\r\nNats-Last-Stream: %d\r\n\r\n"
        said += draw(st.sampled_from([[]] * 8 + [[FLOW], [status(idle % (number, position))], [b"PING\r\n"]]))
    raw = b"".join(said)
    cuts = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    return pieces, draw(st.integers(max(position - 4, 1), position + 2))


@examples(1500)
@given(streams())
def test_the_quick_way_takes_what_the_other_takes(stream):
    pieces, upto = stream
    assert took(pieces, upto, quick=True)[0] == took(pieces, upto, quick=False)[0]


def test_what_simply_follows_is_taken_quickly_up_to_the_last_one():
    raw = b"".join(delivered(n + 100, n) for n in range(1, 101))
    said, quickly = took([raw[:7000], raw[7000:]], 200, quick=True)
    assert quickly == 99
    assert said[0][-1][0][0] == 200
    assert len(said[0]) == said[1] == 100
    assert said[3]


def test_it_may_be_cut_anywhere():
    raw = b"".join(delivered(n, n, b"{}" * n) for n in range(1, 5)) + FLOW + delivered(5, 5)
    for cut in range(len(raw)):
        assert took([raw[:cut], raw[cut:]], 9, quick=True)[0] == took([raw], 9, quick=False)[0]


def test_what_it_cannot_take_quickly_comes_in_lists():
    client = Client(1000, quick=True)
    with_headers = b"".join(delivered(n, n, block=b"NATS/1.0\r\nA: 1\r\n\r\n") for n in range(1, 51))
    others = [delivered(n, n) for n in range(51, 101)]
    parser = ListParser(client)
    assert parser.take(with_headers) == parser.take(b"".join([*others[:9], FLOW, *others[9:]])) == b""
    assert client.lists == [50, 1]
    assert (client.quickly, len(client.bulk._entries), client.bulk._flow) == (50, 100, "$JS.FC.S.c.x")
