"""Attacks by who has a real, restricted credential and any NATS client: each fails, and leaves no trace with others.

The victim's log, inbox, claim, record, state and lease are compared before and after; so are the settings and consumers
of all streams. Each attacker has the widest right of its kind, on a process of its own.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
from contextlib import suppress
from dataclasses import replace

import nats
import nkeys
import pytest
import pytest_asyncio
from granting import credential
from harness import free_port
from homes import connect
from test_gate import gate_of
from test_server import websocket_answer

import natsproc
from natsproc import granting
from natsproc.access import Authority, keys, write_private
from natsproc.bus import streams
from natsproc.bus.connection import NoResponders
from natsproc.bus.kv import Bucket
from natsproc.client import connect as open_mesh
from natsproc.errors import NotAllowed
from natsproc.protocol.gate import TARGET
from natsproc.protocol.names import Address, Names
from natsproc.server import embedded
from natsproc.server.home import Home

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAMES = Names()
API = "$JS.API."
VICTIM, MINE = "proc.secret.victim", "proc.default.mine"
EVENTS = f"{VICTIM}.events"
STATE = "secret.victim.1-1-1"
RIGHTS = {
    "watcher": "watch",
    "poster": "send",
    "boss": "control",
    "worker": "own",
    "jack": "watch,send,control,own",
}


class Attacker:
    """A raw client that tells what became of what it tries."""

    def __init__(self, name, nc, errors):
        self.name, self.nc, self.errors = name, nc, errors
        self._numbers = itertools.count()

    async def tries(self, subject, payload=b"", headers=None, reply=None):
        """Publish; returns `denied`, or the answer: its status, or its payload; `silence` if there is none."""
        before = len(self.errors)
        inbox = reply or f"_INBOX.{self.name}.{next(self._numbers)}"
        heard = await self.nc.subscribe(inbox) if reply is None else None
        payload = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        await self.nc.publish(subject, payload, reply=inbox, headers=headers)
        await self.nc.flush()
        answer = asyncio.create_task(heard.next_msg(timeout=5) if heard else asyncio.sleep(0.5))
        while not answer.done() and len(self.errors) == before:  # which of them comes first
            await asyncio.wait([answer], timeout=0.005)
        if len(self.errors) > before:
            answer.cancel()
            return "denied"
        if heard is None or isinstance(answer.exception(), nats.errors.TimeoutError):
            return "silence"
        msg = answer.result()
        return (msg.headers or {}).get("Status") or msg.data.decode()

    async def asks(self, where, target, payload=b"", headers=None, reply=None):
        """Ask the gate for something, under a subject of its."""
        return await self.tries(f"{where}.{self.name}", payload, {TARGET: target, **(headers or {})}, reply)

    async def hears(self, subject):
        """Subscribe; says whether the server lets it."""
        before = len(self.errors)
        subscription = await self.nc.subscribe(subject)
        await self.nc.flush()
        for _ in range(200):
            if len(self.errors) > before:
                return "denied"
            await asyncio.sleep(0.01)
        await subscription.unsubscribe()
        return "heard"


class Scene:
    """A server with a mesh, a victim in it, and attackers."""

    def __init__(self, home, admin, mesh):
        self.home, self.admin, self.mesh = home, admin, mesh
        self.authority = Authority.load(home.keys)
        self.url = home.load().url

    async def attacker(self, name, creds=None):
        errors = []

        async def note(error):
            errors.append(str(error))

        creds = creds or credential(self.authority, self.home.folder, name, RIGHTS[name], "mine")
        nc = await nats.connect(
            self.url, user_credentials=str(creds), error_cb=note, allow_reconnect=False,
            inbox_prefix=f"_INBOX.{name}".encode(), connect_timeout=5,
        )  # fmt: skip
        return Attacker(name, nc, errors)

    async def trace(self):
        """All that the bus has of others than the attackers, and how its streams are made."""
        for subject in ("proc.default.fence.events", "proc.default.fence.inbox." + self.admin.sender):
            await self.admin.store(subject, b"{}")  # behind whatever was sent before
        found = {}
        for config in streams.configurations(NAMES, self.admin.server_version):
            name = config["name"]
            info = await self.admin.api(f"STREAM.INFO.{name}", {"subjects_filter": ">"})
            subjects = info["state"].get("subjects") or {}
            mine = (".mine", ".fence", "$KV.PROC_LEASES.")
            others = {s: n for s, n in subjects.items() if not any(part in s for part in mine)}
            found[name] = (others, info["config"], info["state"].get("consumer_count", 0))
        claim = await Bucket(self.admin, NAMES.claims).get("secret.victim", leader=True)
        leases = await Bucket(self.admin, NAMES.leases).all()
        names = await self.admin.api("STREAM.NAMES")
        return (
            found,
            claim,
            sorted(key for key in leases if not key.startswith(("jack-", "_"))),
            sorted(names["streams"]),
        )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        home = Home(tmp_path_factory.mktemp("home"))
        patch.setenv("NATSPROC_HOME", str(home.folder))
        for name in ("NATS_URL", "NATS_CREDS"):
            patch.delenv(name, raising=False)
        patch.setattr(embedded, "PORT", free_port())
        patch.setattr(embedded, "WS_PORT", free_port())
        embedded.start(home)
        yield home
        embedded.stop(home)


async def live(mesh, id, ready, over):
    async with mesh.own(id) as proc:
        for n in range(20):
            await proc.emit("said", f"{id} {n}")
        await proc.checkpoint({"of": id})
        ready.set()
        await over.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(home):
    admin = await connect(home)
    over = asyncio.Event()
    async with asyncio.timeout(20):
        while True:  # until the gate is there
            try:
                await admin.request(f"proc._nodes._.history.{admin.sender}")
            except NotAllowed:  # it asks for nothing
                break
            except NoResponders:
                await asyncio.sleep(0.05)
    async with open_mesh() as mesh:
        lives = []
        for id in ("secret/victim", "mine"):
            lives.append(asyncio.create_task(live(mesh, id, ready := asyncio.Event(), over)))
            await ready.wait()
            await mesh.process(id).send("a message")
        yield Scene(home, admin, mesh)
        over.set()
        await asyncio.gather(*lives)
    await admin.close()


def last(subject):
    return {"last_by_subj": subject}


def after(subject, **more):
    return {"seq": 1, "next_by_subj": subject, **more}


def consumer(deliver, subject=EVENTS):
    config = {"name": "x", "deliver_subject": deliver, "filter_subject": subject, "ack_policy": "none"}
    return {"stream_name": "PROC_EVENTS", "config": config}


def meta(name):
    return f"$O.PROC_STATES.M.{base64.urlsafe_b64encode(name.encode()).decode()}"


EVENT = {
    "offset": 22,
    "epoch": 1,
    "run": 1,
    "time": "2026-01-01T00:00:00.000Z",
    "type": "said",
    "data": "forged",
}
MINE_ = {right: f"{MINE}.{right}" for right in ("history", "send", "hold", "own")}

# Reading what is not theirs: subjects that no restricted credential may hear.
HEARING = [
    ">", "proc.>", "proc.*.*.live", f"{VICTIM}.live", f"{VICTIM}.record", f"{VICTIM}.delivered.*", f"{VICTIM}.control.*",
    f"{VICTIM}.events", f"{VICTIM}.inbox.*", "proc.*.*.history.*", "proc.*.*.own.*", "_INBOX.>", "_INBOX.admin.>",
    "_NODE.>", "_NODE._gate.>", "$KV.>", "$O.>", "$JS.>", "$JS.API.>", "$SYS.>", "$SRV.>", "*.*.*.*.*",
]  # fmt: skip

# Publishing what nobody restricted may, straight to the server.
DENIED = {
    "write an event of another": (EVENTS, EVENT),
    "write an event of its own process past the gate": (f"{MINE}.events", EVENT),
    "say what only the server says": (f"{VICTIM}.live", EVENT),
    "forge a record for lists": (f"{VICTIM}.record", {}),
    "forge a delivered message": (f"{VICTIM}.delivered.admin", {"id": "1", "data": 1}),
    "forge a lease": ("proc._nodes.x.lease", {}),
    "send as another, past the gate": (f"{VICTIM}.inbox.admin", {"id": "1", "data": 1}),
    "send past the gate": (f"{MINE}.inbox.jack", {"id": "1", "data": 1}),
    "send to another": (f"{VICTIM}.send.jack", {"id": "1", "data": 1}),
    "command as another": (f"{VICTIM}.control.admin", {"id": "1", "verb": "kill"}),
    "command another": (f"{VICTIM}.control.jack", {"id": "1", "verb": "kill"}),
    "command its own process as another": (f"{MINE}.control.admin", {"id": "1", "verb": "kill"}),
    "ask the gate as another": (f"{MINE}.history.admin", b""),
    "ask for another's log": (f"{VICTIM}.history.jack", b""),
    "ask for a list of another namespace": ("proc.secret._.history.jack", b""),
    "ask for a list of its namespace": ("proc.default._.history.jack", b""),
    "ask for a list of the mesh": ("proc._._.history.jack", b""),
    "ask under a wildcard": ("proc.*.*.history.jack", b""),
    "ask under a wildcard id": ("proc.default.*.own.jack", b""),
    "own another": (f"{VICTIM}.own.jack", EVENT),
    "take over another's claim": ("$KV.PROC_CLAIMS.secret.victim", {}),
    "end another in lists": ("$KV.PROC_ENDED.secret.victim", {}),
    "say goodbye for a node": ("$KV.PROC_LEASES.x", b""),
    "overwrite a state": (f"$O.PROC_STATES.C.{STATE}", b"x"),
    "read its own log past the gate": (f"{API}DIRECT.GET.PROC_EVENTS.{MINE}.events", b""),
    "read another's last event": (f"{API}DIRECT.GET.PROC_EVENTS.{EVENTS}", b""),
    "read any event": (f"{API}DIRECT.GET.PROC_EVENTS", after(EVENTS)),
    "read any message": (f"{API}STREAM.MSG.GET.PROC_INBOX", {"seq": 1}),
    "consume to itself": (f"{API}CONSUMER.CREATE.PROC_EVENTS.x", consumer("_INBOX.jack.x")),
    "consume to another's log": (f"{API}CONSUMER.CREATE.PROC_EVENTS.x", consumer(EVENTS, ">")),
    "consume durably": (f"{API}CONSUMER.DURABLE.CREATE.PROC_EVENTS.x", consumer("_INBOX.jack.x")),
    "purge": (f"{API}STREAM.PURGE.PROC_EVENTS", b""),
    "delete an event": (f"{API}STREAM.MSG.DELETE.PROC_EVENTS", {"seq": 1}),
    "delete the stream": (f"{API}STREAM.DELETE.PROC_EVENTS", b""),
    "alter the stream": (f"{API}STREAM.UPDATE.PROC_EVENTS", {"name": "PROC_EVENTS", "subjects": ["x"]}),
    "make a stream": (f"{API}STREAM.CREATE.MINE", {"name": "MINE", "subjects": ["proc.>"]}),
    "list streams": (f"{API}STREAM.NAMES", b""),
    "look at the account": (f"{API}INFO", b""),
    "acknowledge for another": ("$JS.ACK.PROC_EVENTS.x.1.1.1.1.0", b"+ACK"),
    "flow control for another": ("$JS.FC.PROC_EVENTS.x.1", b""),
    "forge the writer's acknowledgement": ("_NODE.admin.abc.1", {"stream": "PROC_EVENTS", "seq": 9}),
    "forge what the gate hears": ("_NODE._gate.abc.0.0", {"stream": "PROC_EVENTS", "seq": 9}),
    "ask nodes who they are": ("$SRV.PING", b""),
    "kick others": ("$SYS.REQ.CLAIMS.UPDATE", b""),
    "look at the server": ("$SYS.REQ.SERVER.PING", b""),
}  # fmt: skip

# Asking the gate, under a subject that is one's own, for what is another's: right, target, payload, headers.
REFUSED = {
    "another's last event": ("history", f"{API}DIRECT.GET.PROC_EVENTS.{EVENTS}", b"", {}),
    "another's log": ("history", f"{API}DIRECT.GET.PROC_EVENTS", after(EVENTS, batch=10), {}),
    "one's own log and another's": (
        "history", f"{API}DIRECT.GET.PROC_EVENTS", {"multi_last": [f"{MINE}.events", EVENTS]}, {}
    ),
    "all logs": ("history", f"{API}DIRECT.GET.PROC_EVENTS", after("proc.*.*.events", batch=10), {}),
    "whatever lies there": ("history", f"{API}STREAM.MSG.GET.PROC_EVENTS", {"seq": 1}, {}),
    "another's claim": ("history", f"{API}STREAM.MSG.GET.KV_PROC_CLAIMS", last("$KV.PROC_CLAIMS.secret.victim"), {}),
    "another's record": ("history", f"{API}DIRECT.GET.KV_PROC_REGISTRY.$KV.PROC_REGISTRY.secret.victim", b"", {}),
    "all records": ("history", f"{API}DIRECT.GET.KV_PROC_REGISTRY", after("$KV.PROC_REGISTRY.*.*", batch=9), {}),
    "all subjects": ("history", f"{API}STREAM.INFO.PROC_EVENTS", {"subjects_filter": ">"}, {}),
    "one's inbox, as who may only watch": (
        "history", f"{API}DIRECT.GET.PROC_INBOX", after(f"{MINE}.inbox.*", batch=9), {}
    ),
    "another's inbox": ("own", f"{API}DIRECT.GET.PROC_INBOX", after(f"{VICTIM}.inbox.*", batch=9), {}),
    "another's state": ("own", f"{API}STREAM.MSG.GET.OBJ_PROC_STATES", last(f"$O.PROC_STATES.C.{STATE}"), {}),
    "the names of another's states": (
        "own", f"{API}STREAM.INFO.OBJ_PROC_STATES", {"subjects_filter": "$O.PROC_STATES.C.secret.victim.>"}, {}
    ),
    "an event for another": ("own", EVENTS, EVENT, {}),
    "another's claim, taken": (
        "own", "$KV.PROC_CLAIMS.secret.victim", {}, {"Nats-Expected-Last-Subject-Sequence": "1"}
    ),
    "its own claim, without looking": ("own", "$KV.PROC_CLAIMS.default.mine", {}, {}),
    "another's record, changed": (
        "own", "$KV.PROC_REGISTRY.secret.victim", {}, {"Nats-Expected-Last-Subject-Sequence": "1"}
    ),
    "another's end": ("own", "$KV.PROC_ENDED.secret.victim", {}, {}),
    "another's state, overwritten": ("own", f"$O.PROC_STATES.C.{STATE}", b"x", {}),
    "another's state, described anew": ("own", meta(STATE), {}, {}),
    "another's state, removed": (
        "own", f"{API}STREAM.PURGE.OBJ_PROC_STATES", {"filter": f"$O.PROC_STATES.C.{STATE}"}, {}
    ),
    "all states, removed": ("own", f"{API}STREAM.PURGE.OBJ_PROC_STATES", {"filter": "$O.PROC_STATES.C.>"}, {}),
    "a purge of all": ("own", f"{API}STREAM.PURGE.PROC_EVENTS", b"", {}),
    "a purge of its own": ("own", f"{API}STREAM.PURGE.PROC_EVENTS", {"filter": f"{MINE}.events"}, {}),
    "a deletion": ("own", f"{API}STREAM.MSG.DELETE.PROC_EVENTS", {"seq": 1}, {}),
    "a consumer": ("own", f"{API}CONSUMER.CREATE.PROC_EVENTS.x", consumer(EVENTS), {}),
    "a stream": ("own", f"{API}STREAM.CREATE.X", {"name": "X"}, {}),
    "a message as another": ("send", f"{MINE}.inbox.admin", {"id": "1", "data": 1}, {}),
    "a message to another": ("send", f"{VICTIM}.inbox.jack", {"id": "1", "data": 1}, {}),
    "a message that hides another's": (
        "send", f"{MINE}.inbox.jack", {"id": "1", "data": 1}, {"Nats-Msg-Id": "secret.victim.admin.1"}
    ),
    "a command in the clothes of a message": (
        "send", f"{MINE}.inbox.jack", {"id": "1", "data": {"id": "1", "verb": "kill"}, "kind": "command"}, {}
    ),
    "a message in the clothes of a command": ("hold", f"{MINE}.inbox.jack", {"id": "1", "data": 1}, {}),
    "a live event": ("own", f"{VICTIM}.live", EVENT, {}),
    "the server's account": ("own", "$SYS.REQ.CLAIMS.UPDATE", b"", {}),
    "nothing": ("history", "", b"", {}),
    "too much at once": ("history", f"{API}DIRECT.GET.PROC_EVENTS", after(f"{MINE}.events", batch=1_000_000), {}),
    "too many at once": (
        "history", f"{API}DIRECT.GET.PROC_EVENTS", {"multi_last": [f"{MINE}.events"] * 1001}, {}
    ),
}  # fmt: skip

# Subjects that an answer must not be sent to.
REPLIES = [
    f"{API}STREAM.PURGE.PROC_EVENTS", f"{API}STREAM.DELETE.PROC_EVENTS", EVENTS, f"{VICTIM}.inbox.admin",
    f"{VICTIM}.control.admin", "_INBOX.admin.x", "_INBOX.jack2.x", "_NODE.admin.x", "_INBOX.jack", "_INBOX.jack.",
    "_INBOX.jack.*", "_INBOX.jack.>", "$KV.PROC_CLAIMS.secret.victim", "$JS.ACK.x",
]  # fmt: skip


@pytest.mark.parametrize("subject", HEARING)
async def test_nobody_hears_what_is_not_granted(scene, subject):
    for name in RIGHTS:
        attacker = await scene.attacker(name)
        assert await attacker.hears(subject) == "denied", name
        await attacker.nc.close()


@pytest.mark.parametrize("what", DENIED)
async def test_the_server_denies_it(scene, what):
    subject, payload = DENIED[what]
    before = await scene.trace()
    for name in RIGHTS:
        attacker = await scene.attacker(name)
        for reply in (None, f"{API}STREAM.PURGE.PROC_EVENTS"):
            assert await attacker.tries(subject.replace("jack", name), payload, reply=reply) == "denied", name
        await attacker.nc.close()
    assert await scene.trace() == before


@pytest.mark.parametrize("what", REFUSED)
async def test_the_gate_refuses_it(scene, what):
    right, target, payload, headers = REFUSED[what]
    before = await scene.trace()
    attacker = await scene.attacker("jack")
    assert await attacker.asks(MINE_[right], target, payload, headers) == "403"
    for node in ("_", "laptop-1"):  # nor under the subjects for nodes
        if right in ("history", "own") and not target.startswith(f"{API}STREAM.INFO"):
            assert await attacker.asks(f"proc._nodes.{node}.{right}", target, payload, headers) == "403"
    await attacker.nc.close()
    assert await scene.trace() == before


@pytest.mark.parametrize("reply", REPLIES)
async def test_nothing_is_answered_into_what_is_not_the_askers(scene, reply):
    """Neither by the gate, whatever it would say, nor by a process."""
    heard = []

    async def hear(msg):
        heard.append(msg)

    watching = await scene.admin.subscribe("_INBOX.>", hear)
    before = await scene.trace()
    attacker = await scene.attacker("jack")
    for right, target, payload in (
        ("history", f"{API}DIRECT.GET.PROC_EVENTS.{MINE}.events", b""),
        ("history", f"{API}DIRECT.GET.PROC_EVENTS", after(f"{MINE}.events", batch=10)),
        ("history", f"{API}STREAM.PURGE.PROC_EVENTS", b""),  # refused, and that is said to nobody
        ("own", f"{API}STREAM.INFO.OBJ_PROC_STATES", {"subjects_filter": "$O.PROC_STATES.C.default.mine.>"}),
        ("send", f"{MINE}.inbox.jack", {"id": "1", "data": {"keep": 0}}),
    ):
        with suppress(nats.errors.Error):
            await attacker.asks(MINE_[right], target, payload, reply=reply)
    with suppress(nats.errors.Error):
        await attacker.tries(f"{MINE}.control.jack", {"id": "1", "verb": "ping"}, reply=reply)
    # what comes behind it on each subscription of the gate has been answered, so it has been dealt with
    assert "stream" in await attacker.asks(MINE_["send"], f"{MINE}.inbox.jack", {"id": "2", "data": 1})
    assert "mark" in await attacker.asks(
        MINE_["history"], f"{API}DIRECT.GET.PROC_EVENTS", after(f"{MINE}.events")
    )
    await attacker.asks(MINE_["own"], f"{API}STREAM.INFO.PROC_INBOX", {"subjects_filter": f"{MINE}.inbox.*"})
    assert await scene.trace() == before
    assert not [msg for msg in heard if msg.subject == reply]
    await scene.admin.unsubscribe(watching)
    await attacker.nc.close()


async def test_the_gate_tells_nothing_of_others_in_what_it_does_answer(scene):
    attacker = await scene.attacker("jack")
    info = json.loads(await attacker.asks("proc._nodes._.history", f"{API}STREAM.INFO.PROC_EVENTS"))
    assert info.keys() == {"type", "config", "ts", "state"}
    assert info["state"] == {}
    mine = await attacker.asks(
        MINE_["own"], f"{API}STREAM.INFO.PROC_INBOX", {"subjects_filter": f"{MINE}.inbox.*"}
    )
    assert all(subject.startswith(MINE) for subject in json.loads(mine)["state"].get("subjects", {}))
    await attacker.nc.close()


@pytest.mark.parametrize("right", ["history", "send", "hold", "own"])
async def test_each_right_is_asked_for_under_its_own_subject(scene, right):
    """A credential with one right asks for what each other right is about, under the subject that it may use."""
    holder = {"history": "watcher", "send": "poster", "hold": "boss", "own": "worker"}[right]
    attacker = await scene.attacker(holder)
    wishes = {
        "history": (f"{API}DIRECT.GET.PROC_EVENTS.{MINE}.events", b""),
        "send": (f"{MINE}.inbox.{holder}", {"id": "1", "data": 1}),
        "hold": (f"{MINE}.inbox.{holder}", {"id": "1", "data": {}, "kind": "command"}),
        "own": (f"{MINE}.events", EVENT),
    }
    for other, (target, payload) in wishes.items():
        if other != right:
            assert await attacker.asks(MINE_[right], target, payload) == "403", other
            if (right, other) != ("own", "history"):  # an owner may read its own log
                assert await attacker.asks(MINE_[other], target, payload) == "denied", other
    await attacker.nc.close()


async def test_a_payload_that_claims_another_sender_is_not_believed(scene):
    attacker = await scene.attacker("jack")
    proc = scene.mesh.process("mine")
    message = {"id": "claims", "data": "hello", "sender": "admin"}
    assert await attacker.asks(MINE_["send"], f"{MINE}.inbox.jack", message) == "403"
    answer = json.loads(
        await attacker.tries(f"{MINE}.control.jack", {"id": "p", "verb": "pause", "sender": "admin"})
    )
    assert answer["sender"] == "jack"
    assert answer["status"] == "refused"
    assert "sender" in answer["why"]
    assert (await proc.record()).state == "running"
    await attacker.nc.close()


async def test_an_oversized_request_ends_the_attacker_alone(scene):
    before = await scene.trace()
    attacker = await scene.attacker("jack")
    with suppress(Exception):
        await attacker.nc.publish(
            MINE_["own"] + ".jack", b"x" * 2_000_000, headers={TARGET: f"{MINE}.events"}
        )
        await attacker.nc.flush()
    assert await scene.trace() == before
    assert (await scene.mesh.process("secret/victim").ping()).applied


async def test_a_node_of_another_is_not_spoken_for(scene):
    before = await scene.trace()
    attacker = await scene.attacker("jack")
    node = (await scene.mesh.process("secret/victim").record()).node
    for headers in ({"Nats-TTL": "4"}, {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}):
        where = f"proc._nodes.{node}.own"
        assert (
            await attacker.asks(where, f"$KV.PROC_LEASES.{node}", {"node": node, "goodbye": True}, headers)
            == "403"
        )
    assert await scene.trace() == before
    await attacker.nc.close()


# What is in it.


RECORD = {
    "namespace": "default", "id": "mine", "kind": "k", "node": "n", "epoch": 1, "run": 1, "state": "completed",
    "started": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:00:00Z",
}  # fmt: skip


@pytest.mark.parametrize(
    "claimed",
    [
        {"namespace": "*", "id": "*"},
        {"namespace": "secret", "id": "victim"},
        {"id": "*"},
        {"id": "a.b"},
        {"id": ""},
    ],
    ids=str,
)
async def test_a_record_that_speaks_of_another_is_neither_taken_nor_believed(scene, claimed):
    """Who prunes and who lists goes by what a record says, with all rights."""
    before = await scene.trace()
    attacker = await scene.attacker("jack")
    lie = RECORD | claimed
    assert await attacker.asks(MINE_["own"], "$KV.PROC_ENDED.default.mine", lie) == "403"
    revision = {"Nats-Expected-Last-Subject-Sequence": "1"}
    assert await attacker.asks(MINE_["own"], "$KV.PROC_REGISTRY.default.mine", lie, revision) == "403"
    await attacker.nc.close()
    # and if it came there otherwise, nobody believes it
    bucket = Bucket(scene.admin, NAMES.ended)
    await bucket.put("default.mine", json.dumps(lie).encode())
    try:
        assert not await scene.mesh.ended(namespace="*")
        shown = await scene.mesh.list(namespace="*", ended=True)
        assert {(str(info.address), info.state) for info in shown} == {
            ("secret/victim", "running"), ("mine", "running")
        }  # fmt: skip
        if claimed.get("namespace") == "*":
            with pytest.raises(natsproc.BadName):
                await scene.mesh.prune(Address("*", "*"))
    finally:
        await bucket.purge("default.mine")
    assert await scene.trace() == before


def raw(subject, reply, headers=None):
    if headers is None:
        return b"PUB %s %s 0\r\n\r\n" % (subject.encode(), reply)
    return b"HPUB %s %s %d %d\r\n%s\r\n" % (subject.encode(), reply, len(headers), len(headers), headers)


@pytest.mark.parametrize("what", ["reply", "tab", "headers", "no headers", "folded"])
@pytest.mark.parametrize("where", ["gate", "process"])
async def test_what_cannot_be_read_stops_neither_gate_nor_process(scene, where, what):
    subject = f"{MINE}.history.jack" if where == "gate" else f"{MINE}.control.jack"
    attacker, other = await scene.attacker("jack"), await scene.attacker("worker")
    await attacker.nc.flush()
    attacker.nc._transport.write({
        "reply": raw(subject, b"_INBOX.jack.\xff"),
        "tab": raw(subject, b"_INBOX.jack.a\x0bb"),
        "headers": raw(subject, b"_INBOX.jack.a", b"NATS/1.0 \xff\xff\xff\r\n\r\n"),
        "no headers": raw(subject, b"_INBOX.jack.a", b"NATS/1.0"),
        "folded": raw(subject, b"_INBOX.jack.a", b"NATS/1.0\r\nA: b\r\n c\r\n\r\n"),
    }[what])  # fmt: skip
    await attacker.nc.flush()
    async with asyncio.timeout(5):
        assert "mark" in await other.asks(
            MINE_["history"], f"{API}DIRECT.GET.PROC_EVENTS", after(f"{MINE}.events")
        )
        assert (await scene.mesh.process("mine").ping(timeout=4)).applied
    for client in (attacker, other):
        await client.nc.close()


async def test_many_long_reads_of_one_hold_up_nobody_else(scene):
    """They take turns, so that what comes is never more than the server keeps for the gate."""
    attacker, other = await scene.attacker("jack"), await scene.attacker("worker")
    gate = gate_of(scene.home)
    for _ in range(16):  # 4 MB
        lines = b"\n".join([json.dumps(EVENT | {"epoch": 0, "data": "x" * 1000}).encode()] * 250)
        assert json.loads(await attacker.asks(MINE_["own"], f"{MINE}.events", lines))["count"] == 250
    for _ in range(400):
        await attacker.nc.publish(
            f"{MINE}.history.jack", json.dumps(after(f"{MINE}.events", batch=1000, max_bytes=4_194_304)).encode(),
            reply="_INBOX.jack.flood", headers={TARGET: f"{API}DIRECT.GET.PROC_EVENTS"},
        )  # fmt: skip
    await attacker.nc.flush()
    for _ in range(5):
        async with asyncio.timeout(10):
            assert await other.asks(MINE_["history"], f"{API}DIRECT.GET.PROC_EVENTS.{MINE}.events")
    assert gate_of(scene.home) == gate
    log = (scene.home.folder / "server.log").read_text()
    assert "Slow Consumer" not in log
    for client in (attacker, other):
        await client.nc.close()


async def test_a_message_that_interrupts_takes_the_right_to_control(scene):
    attacker = await scene.attacker("poster")
    for message in (
        {"id": "1", "data": "stop", "when": "now"},
        {"id": "1", "data": {"text": "\x03"}, "kind": "keys"},
        {"id": "1", "data": {"id": "1", "verb": "kill"}, "kind": "command"},
    ):
        assert await attacker.asks(MINE_["send"], f"{MINE}.inbox.poster", message) == "403"
        assert await attacker.asks(MINE_["hold"], f"{MINE}.inbox.poster", message) == "denied"
    await attacker.nc.close()


# Coming in at all.


def forged(scene, **claims):
    """The worker's own JWT, signed by somebody who is nobody."""
    stranger = Authority.create()
    return credential(stranger, scene.home.folder, "jack", RIGHTS["jack"], "mine", **claims)


async def refused(scene, creds):
    try:
        attacker = await asyncio.wait_for(scene.attacker("jack", creds), 10)
    except Exception as error:
        return str(error)
    await attacker.nc.close()
    return ""


async def test_who_has_expired_or_was_signed_by_a_stranger_does_not_come_in(scene):
    expired = credential(scene.authority, scene.home.folder, "jack", "watch", "mine", expires=time.time() - 1)
    for creds in (expired, forged(scene)):
        assert await refused(scene, creds)


async def test_a_jwt_that_was_altered_does_not_come_in(scene, tmp_path):
    text = credential(scene.authority, scene.home.folder, "jack", "watch", "mine").read_text()
    token = text.split("BEGIN NATS USER JWT-----\n")[1].split("\n")[0]
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    claims["nats"]["pub"]["allow"] = [">"]
    altered = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    (tmp_path / "altered.creds").write_text(text.replace(token, f"{head}.{altered}.{signature}"))
    assert await refused(scene, tmp_path / "altered.creds")


async def test_a_jwt_without_its_key_does_not_come_in(scene, tmp_path):
    text = credential(scene.authority, scene.home.folder, "jack", "watch", "mine").read_text()
    seed = text.split("BEGIN USER NKEY SEED-----\n")[1].split("\n")[0]
    other = nkeys.from_seed(nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER)).seed.decode()
    (tmp_path / "stolen.creds").write_text(text.replace(seed, other))
    assert await refused(scene, tmp_path / "stolen.creds")


async def test_who_was_revoked_is_out_at_once_and_stays_out(scene):
    given = granting.grant("jack", ["watch", "own"], ["mine"], url=scene.url)
    path = scene.home.folder / "given.creds"
    write_private(path, given.creds)
    attacker = await scene.attacker("jack", path)
    before = await scene.trace()
    await asyncio.to_thread(granting.revoke, "jack")
    async with asyncio.timeout(10):
        while not attacker.nc.is_closed:
            await asyncio.sleep(0.01)
    assert await refused(scene, path)
    assert await scene.trace() == before


async def test_a_page_of_another_site_gets_no_websocket(scene):
    state = scene.home.load()
    assert websocket_answer(state.ws_url, "https://example.com") == 403
    assert websocket_answer(state.ws_url, f"http://localhost:{state.pages_port}") == 101


async def test_another_tenant_of_the_server_reaches_nothing(scene):
    """Another account under the same operator, whose users may do everything in it."""
    tenant = replace(Authority.create(), operator_seed=scene.authority.operator_seed)
    operator, account = (
        nkeys.from_seed(seed.encode()) for seed in (tenant.operator_seed, tenant.account_seed)
    )
    jwt = keys._sign(operator, account, "tenant", keys._account(jetstream=True))
    may = {"pub": ("$SYS.REQ.CLAIMS.UPDATE",), "sub": ("_INBOX.>",)}
    write_private(scene.home.folder / "system.creds", scene.authority.credential("sys", may, system=True))
    system = await nats.connect(scene.url, user_credentials=str(scene.home.folder / "system.creds"))
    assert b"error" not in (await system.request("$SYS.REQ.CLAIMS.UPDATE", jwt.encode(), timeout=5)).data
    await system.close()

    before = await scene.trace()
    path = scene.home.folder / "tenant.creds"
    write_private(path, tenant.credential("jack", {"pub": (">",), "sub": (">",)}))
    attacker = await scene.attacker("jack", path)
    heard = await attacker.nc.subscribe(">")
    for subject in (
        EVENTS,
        f"{VICTIM}.inbox.jack",
        f"{VICTIM}.history.jack",
        "$KV.PROC_CLAIMS.secret.victim",
    ):
        await attacker.nc.publish(subject, b"{}", reply="_INBOX.jack.x", headers={TARGET: EVENTS})
    assert json.loads(await attacker.tries(f"{API}STREAM.NAMES"))["streams"] is None
    assert "error" in await attacker.tries(f"{API}STREAM.PURGE.PROC_EVENTS")
    own = (EVENTS, f"{VICTIM}.", "$", "_INBOX.")
    while heard.pending_msgs:  # it hears itself, and nobody else
        assert (await heard.next_msg()).subject.startswith(own)
    await heard.unsubscribe()  # else it would answer itself
    assert await attacker.tries(f"{VICTIM}.control.jack", {"id": "1", "verb": "kill"}) == "503"
    assert await attacker.tries(f"{VICTIM}.history.jack", b"", {TARGET: EVENTS}) == "503"
    assert await scene.trace() == before
    await attacker.nc.close()


async def test_the_secrets_stay_out_of_what_is_logged_and_listed(scene):
    seeds = [
        line
        for path in scene.home.folder.glob("**/*.creds")
        for line in path.read_text().splitlines()
        if line.startswith("SU")
    ]
    assert seeds
    logs = "".join(path.read_text() for path in scene.home.folder.glob("*.log*"))
    state = (scene.home.folder / "state.json").read_text()
    assert not any(seed in logs + state for seed in seeds)
    assert not any(path.stat().st_mode & 0o077 for path in scene.home.folder.glob("**/*") if path.is_file())
