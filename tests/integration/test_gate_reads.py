"""Long reads through the gate: many entries in one message, none lost in silence, and nobody held up by who is slow."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, asynccontextmanager, suppress

import nats
import pytest
import pytest_asyncio
from granting import credential
from harness import running
from homes import connect
from test_gate import gate_of, home, users

from natsproc.access import Authority
from natsproc.bus import streams
from natsproc.bus.connection import Connection, Endpoint, NoResponders
from natsproc.bus.gate import Gate
from natsproc.bus.history import History, ReadFailed
from natsproc.bus.kv import Bucket
from natsproc.errors import NotAllowed, TimedOut
from natsproc.protocol.bundle import BUNDLE, unbundle
from natsproc.protocol.gate import TARGET
from natsproc.protocol.names import Names

__all__ = ["home"]
NAMES = Names()
LOG = "proc.default.job.events"
GET = "$JS.API.DIRECT.GET.PROC_EVENTS"


@pytest_asyncio.fixture
async def admin(home):
    connection = await connect(home)
    async with asyncio.timeout(20):
        while True:  # until the gate is there
            try:
                await connection.request(f"proc._nodes._.history.{connection.sender}")
            except NotAllowed:  # it asks for nothing
                break
            except NoResponders:
                await asyncio.sleep(0.05)
    yield connection
    await connection.close()


async def narrow(home, sender="viewer", can="watch", on="job"):
    creds = credential(Authority.load(home.keys), home.folder, sender, can, on)
    connection = await Connection.open(Endpoint((home.load().url,), creds=str(creds), sender=sender))
    connection.use_gate(NAMES)
    return connection


async def asker(home, sender, **options):
    creds = credential(Authority.load(home.keys), home.folder, sender, "watch", "job")
    inbox = f"_INBOX.{sender}".encode()
    return await nats.connect(home.load().url, user_credentials=str(creds), inbox_prefix=inbox, **options)


async def stored(connection, sizes, subject=LOG):
    """Store so many bytes each, and return what was stored."""
    payloads = [b"%d " % n + b"x" * size for n, size in enumerate(sizes)]
    for start in range(0, len(payloads), 100):
        await asyncio.gather(
            *(connection.store(subject, payload) for payload in payloads[start : start + 100])
        )
    return payloads


async def everything(connection, subject=LOG):
    entries = []
    async with aclosing(History(connection, NAMES.event_stream).read(subject)) as lists:
        async for some in lists:
            entries += some
    return entries


def told(entries):
    """What they say; a consumer writes all nine digits of a second, a direct get as few as do."""
    return [(e.position, e.payload, e.time.rstrip("0Z"), e.subject) for e in entries]


async def answers(nc, headers, sender="viewer"):
    """What a client of another kind is answered to a long read, up to the status at its end."""
    inbox, found = f"_INBOX.{sender}.{len(headers)}", []
    heard = await nc.subscribe(inbox)
    body = {"seq": 1, "next_by_subj": LOG, "batch": 1000, "max_bytes": 1 << 22}
    await nc.publish(
        f"proc.default.job.history.{sender}", json.dumps(body).encode(), inbox, {TARGET: GET, **headers}
    )
    while "Status" not in (msg := await heard.next_msg(10)).headers:
        found.append(msg)
    assert msg.headers["Status"] == "204"
    return found


async def test_a_log_comes_whole_and_as_it_is_in_few_messages(home, admin):
    await stored(admin, [n % 300 for n in range(2500)])
    direct = await everything(admin)
    viewer = await narrow(home)
    assert told(await everything(viewer)) == told(direct)
    nc = await asker(home, "viewer")
    bundles = await answers(nc, {BUNDLE: "1"})
    assert len(bundles) <= 3
    entries = [entry for msg in bundles for entry in unbundle(msg.data)[1]]
    assert told(entries) == told(direct[:1000])
    single = await answers(nc, {})  # who does not say that it takes bundles, as clients of before
    assert [msg.data for msg in single] == [entry.payload for entry in entries]
    await nc.close()
    await viewer.close()


async def test_what_is_as_large_as_the_server_takes_comes_too(home, admin):
    most = admin.max_payload
    sizes = [10, most - 600, 10, most // 2, most // 5, most // 5, 10, most - 2 - len("7 ") + 2, 10]
    payloads = await stored(admin, sizes)
    viewer, gate = await narrow(home), gate_of(home)
    assert [entry.payload for entry in await everything(viewer)] == payloads
    assert gate_of(home) == gate
    await viewer.close()


# Gates that lose something, or are older. The server has no gate of its own.


class Lossy(Gate):
    """Loses the second message with entries that it answers, and every other one after that."""

    count = 0

    async def _publish(self, reply, data, headers):
        self.count += len(data) > 1000
        if len(data) < 1000 or self.count % 2:
            await super()._publish(reply, data, headers)


class Older(Gate):
    """Knows nothing of bundles."""

    async def _hear(self, msg):
        del msg.headers[BUNDLE]
        await super()._hear(msg)


@asynccontextmanager
async def served_by(kind, folder):
    """Its server, somebody with all rights, and a watcher."""
    with running(folder / "nats", extra=users(("viewer", "watch"))) as server:
        here = server.url.replace("nats://", "nats://{0}:{0}@").format
        admin, serving, viewer = [
            await Connection.open(Endpoint((here(name),), sender=name))
            for name in ("admin", "gate", "viewer")
        ]
        await streams.setup(admin, NAMES)
        viewer.use_gate(NAMES)
        gate = kind(serving)
        await gate.start()
        await serving.ping()
        yield gate, admin, viewer
        await gate.stop()
        for connection in (admin, serving, viewer):
            await connection.close()


@pytest.mark.parametrize(
    "sizes", [[2000] * 400, [400_000, 700_000, 10]], ids=["bundles", "entries by themselves"]
)
async def test_what_the_gate_loses_is_missed(tmp_path, sizes):
    async with served_by(Lossy, tmp_path) as (gate, admin, viewer):
        await stored(admin, sizes)
        with pytest.raises(ReadFailed, match="lost on the way"):
            await everything(viewer)
        assert gate.count >= 2


async def test_a_part_that_the_gate_loses_is_missed(tmp_path):
    async with served_by(Lossy, tmp_path) as (gate, admin, viewer):
        (payload,) = await stored(admin, [1_040_000])
        history = History(viewer, NAMES.event_stream)
        with pytest.raises(TimedOut):
            await history.last_from_leader(LOG)
        found = await history.last(LOG)
        assert (found.payload, gate.count) == (payload, 3)


async def test_an_older_gate_is_asked_as_well(tmp_path):
    async with served_by(Older, tmp_path) as (_, admin, viewer):
        payloads = await stored(admin, [n % 300 for n in range(2500)])
        assert [entry.payload for entry in await everything(viewer)] == payloads


async def test_an_older_asker_is_told_what_it_cannot_be_given(home, admin):
    await stored(admin, [admin.max_payload - 600])
    nc = await asker(home, "viewer")
    msg = await nc.request("proc.default.job.history.viewer", b"", 10, headers={TARGET: f"{GET}.{LOG}"})
    assert (msg.headers["Status"], msg.data) == ("403", b"")
    assert "more than fits into one message" in msg.headers["Description"]
    await nc.close()


async def test_many_last_entries_come_in_few_messages(home, admin):
    subjects = [f"proc.default.p{n}.events" for n in range(300)]
    for subject in subjects:
        await admin.store(subject, b"1")
        await admin.store(subject, b"2")
    viewer = await narrow(home, on="default/*")
    found = await History(viewer, NAMES.event_stream).last_of([*subjects, "proc.default.none.events"])
    assert {subject: entry.payload for subject, entry in found.items()} == dict.fromkeys(subjects, b"2")
    records = Bucket(admin, NAMES.registry)
    for n in range(5):
        await records.put(f"default.r{n}", b"{}")
    await records.purge("default.r3")
    assert sorted(await Bucket(viewer, NAMES.registry).all("default.*")) == [
        f"default.r{n}" for n in (0, 1, 2, 4)
    ]
    await viewer.close()


async def test_who_asks_and_does_not_read_makes_nobody_else_wait(home, admin):
    """Its answers wait at the server, which cuts it off before they are too many; the gate waits for nobody."""
    await stored(admin, [1000] * 600)
    viewer, gate = await narrow(home), gate_of(home)
    creds = credential(Authority.load(home.keys), home.folder, "deaf", "watch", "job")
    deaf = await nats.connect(
        home.load().url, user_credentials=str(creds), inbox_prefix=b"_INBOX.deaf", allow_reconnect=False
    )
    await deaf.subscribe("_INBOX.deaf.x")
    await deaf.flush()
    deaf._transport._io_reader._transport.pause_reading()  # from now on it reads nothing
    body = json.dumps({"seq": 1, "next_by_subj": LOG, "batch": 1000, "max_bytes": 1 << 22}).encode()
    for _ in range(30):
        with suppress(nats.errors.Error, OSError):  # the server has cut it off
            for _ in range(20):
                await deaf.publish(
                    "proc.default.job.history.deaf", body, "_INBOX.deaf.x", {TARGET: GET, BUNDLE: "1"}
                )
            await deaf._flush_pending()
        async with asyncio.timeout(10):
            assert len(await everything(viewer)) == 600
    assert gate_of(home) == gate
    await viewer.close()
    with suppress(nats.errors.Error, OSError):
        await deaf.close()
