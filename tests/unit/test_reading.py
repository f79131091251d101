"""What is read is heard in the same order, and as the same messages, as by nats-py alone; but in the turn it comes in."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from noting import Noting
from simulated import examples
from test_parsing import broken, gap, others, payloads, token

from natsproc.bus.mended import MendedClient, _Listening, _OneByOne

LISTS, ONES, OTHER = 7, 8, 9


def told(msg) -> tuple[object, ...]:
    return msg._sid, msg.subject, msg.reply, msg.data, msg.headers


class Recorder(Noting, Client):
    """What nats-py comes to know, one thing after the other; every subscription is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.things: list[object] = []
        self._status = Client.CONNECTED
        self._transport = TcpTransport()
        self._transport._io_reader = self.reader = asyncio.StreamReader()
        self._error_cb = self.on_error
        for number in (LISTS, ONES, OTHER):
            self._subs[number] = Subscription(self, number, "a")

    async def on_error(self, error):
        self.things.append(type(error))

    async def _process_msg(self, sid, subject, reply, data, headers):
        if sid == LISTS:
            self.things.append((subject, reply, data, headers or b""))
        with suppress(UnicodeError, IndexError, ValueError):
            await super()._process_msg(sid, subject, reply, data, headers)
        self.look(sid)

    def look(self, sid):
        """Note what a subscription of nats-py's has been given."""
        if (subscription := self._subs.get(sid)) and not subscription._pending_queue.empty():
            msg = subscription._pending_queue.get_nowait()
            if sid != LISTS:
                self.things.append(told(msg))
            if sid == ONES and msg.data == b"{}":
                self.things.append(ZeroDivisionError)

    async def _process_op_err(self, error):
        self.things.append(type(error))


class Mended(Recorder, MendedClient):
    """Ours: two listen."""

    def __init__(self) -> None:
        super().__init__()
        self._subs[LISTS] = _Listening(self, LISTS, "a", self.things.extend)
        self._subs[ONES] = _OneByOne(self, ONES, "a", self.hear_one)

    async def _process_msg(self, sid, subject, reply, data, headers):
        await MendedClient._process_msg(self, sid, subject, reply, data, headers)
        if sid == OTHER:
            self.look(sid)

    def hear_one(self, msg):
        self.things.append(told(msg))
        if msg.data == b"{}":
            raise ZeroDivisionError


async def play(kind: type[Recorder], pieces: list[tuple[bytes, int]]) -> tuple[list[object], object]:
    client = kind()
    reading = asyncio.create_task(client._read_loop())
    await asyncio.sleep(0)
    for piece, turns in pieces:
        client.reader.feed_data(piece)
        for _ in range(turns):
            await asyncio.sleep(0)
    client.reader.feed_eof()
    await reading
    return client.things, client.stats


blocks = st.sampled_from([b""] * 4 + [
    b"NATS/1.0\r\nA: 1\r\n\r\n", b"NATS/1.0\r\nA:\xc3\xa4\r\nB b: 1\r\n\r\n", b"NATS/1.0\r\n\xff: \xff\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n", b"NATS/1.0 100 Idle\r\nA: 1\r\n\r\n", b"NATS/1.0 \xff\xff\xff\r\n\r\n", b"NATS/1.0", b"N",
])  # fmt: skip


@st.composite
def messages(draw) -> bytes:
    block = draw(blocks)
    payload = block + draw(payloads)
    number = draw(st.sampled_from([b"7", b"8", b"8", b"9", b"10", b"07"]))
    parts = [b"HMSG" if block else b"MSG", draw(token), number, *draw(st.lists(token, max_size=1))]
    parts += [b"%d" % len(block)] * bool(block) + [b"%d" % len(payload)]
    return parts[0] + b"".join(draw(gap) + part for part in parts[1:]) + b"\r\n" + payload + b"\r\n"


@st.composite
def streams(draw) -> list[tuple[bytes, int]]:
    """Pieces of what a server says, and for how many turns of the loop nothing follows each."""
    said = draw(st.lists(messages() | messages() | others, max_size=12))
    raw = b"".join(said) + draw(st.just(b"") | broken)
    whole = st.sampled_from([0, *(len(b"".join(said[:n])) for n in range(len(said)))])
    cuts = sorted(draw(st.lists(whole | st.integers(0, len(raw)), max_size=6)))
    return [
        (raw[start:end], draw(st.sampled_from([0, 1, 3])))
        for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)
    ]


@examples(1500)
@given(streams())
def test_however_it_comes_it_is_what_nats_py_hears(pieces):
    async def both():
        return await play(Recorder, pieces), await play(Mended, pieces)

    by_nats_py, ours = asyncio.run(both())
    assert ours == by_nats_py


def test_what_is_listened_to_is_heard_in_the_turn_in_which_it_comes():
    async def main():
        client = Mended()
        reading = asyncio.create_task(client._read_loop())
        await asyncio.sleep(0)
        feed, things = client.reader.feed_data, client.things
        feed(b"MSG a 7 2\r\n{}\r\nMSG b 8 1\r\nx\r\nPING\r\nMSG c 8 1\r\nx\r\n")
        heard = [(b"a", b"", b"{}", b""), (8, "b", "", b"x", None)]
        assert things == heard
        feed(b"MSG d 8 1\r\nx\r\n")
        assert things == heard, "it overtakes a ping"
        while len(things) < 5:
            await asyncio.sleep(0)
        assert things[2:] == ["ping", (8, "c", "", b"x", None), (8, "d", "", b"x", None)]
        client._status = Client.RECONNECTING
        feed(b"MSG e 8 1\r\nx\r\n")
        assert len(things) == 5, "a session that is over is heard"
        reading.cancel()
        await reading

    asyncio.run(main())


@pytest.mark.parametrize("cut", [
    b"MSG a 7 50\r\nhalf", b"MSG a 7 5", b"MSG a 9 50\r\nhalf", b"PI", b"-ERR 'Stale Connection'\r\nMSG a 7 50\r\nhalf",
    b"PING\r\nMSG a 7 70000\r\n" + b"x" * 66_000,
])  # fmt: skip
def test_nothing_of_a_connection_is_heard_with_what_the_next_one_brings(cut):
    async def main():
        client, whole = Mended(), b"MSG a 7 2\r\n{}\r\n"
        loops, readers = [], []
        for _ in range(2):
            client._transport = TcpTransport()
            client._transport._io_reader = reader = asyncio.StreamReader()
            readers.append(reader)
            loops.append(asyncio.create_task(client._read_loop()))
            await asyncio.sleep(0)
            reader.feed_data(whole + cut)
            for _ in range(5):
                await asyncio.sleep(0)
        assert loops[0].done()
        readers[0].feed_data(whole)
        assert client.things.count((b"a", b"", b"{}", b"")) == 2
        assert all(type(thing) is not tuple or thing[2] == b"{}" for thing in client.things)
        loops[1].cancel()
        await loops[1]

    asyncio.run(main())


def test_who_fails_to_read_what_comes_is_handed_it_and_the_loop_goes_on():
    async def main():
        client = Mended()
        client._subs[LISTS].read = lambda data, start: 1 // 0
        reading = asyncio.create_task(client._read_loop())
        await asyncio.sleep(0)
        client.reader.feed_data(b"MSG a 7 2\r\n{}\r\n")
        await asyncio.sleep(0)
        assert client.things == [ZeroDivisionError, (b"a", b"", b"{}", b"")]
        reading.cancel()
        await reading

    asyncio.run(main())
