"""Narrow credentials at work: what each right allows goes through the gate as if it were JetStream itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import psutil
import pytest
from granting import credential, granted
from harness import binary, running, wait_for
from homes import a_home, natsproc

import natsproc as np
from natsproc import client
from natsproc.access import Authority, Scope, grants_of, permissions
from natsproc.access.roles import roles
from natsproc.bus import streams
from natsproc.bus.connection import Connection, Endpoint
from natsproc.bus.gate import Gate
from natsproc.protocol.names import Names
from natsproc.server import doctor, embedded
from natsproc.server.config import mesh_config, version_of
from natsproc.server.find import find
from natsproc.server.gate import RIGHTS, SENDER, serve
from natsproc.server.home import Home


@pytest.fixture
def home(tmp_path, monkeypatch):
    with a_home(tmp_path / "home", monkeypatch) as home:
        embedded.start(home)
        wait_for(lambda: gate_of(home), what="its gate")
        yield home


def gate_of(home):
    """The pid of the gate that runs for a home; 0 if none does."""
    mine = ["natsproc.server.gate", str(home.folder)]
    found = psutil.process_iter(["cmdline"])
    return next((p.pid for p in found if (p.info["cmdline"] or [])[-2:] == mine), 0)


async def events(source, count=None):
    found = []
    async for item in source:
        if isinstance(item, np.Event):
            found.append(item)
        if count and len(found) == count:
            break
    return found


async def test_an_owner_a_watcher_and_a_sender_need_nothing_of_jetstream(home):
    worker = granted(home, "worker", "own", "job")
    viewer = granted(home, "viewer", "watch,send,control", "job")
    async with worker as mesh, viewer as other:
        handle = other.process("job")
        async with mesh.own("job", labels={"a": "b"}) as proc:
            watching = asyncio.create_task(events(handle.tail()))
            for n in range(3000):
                await proc.emit("said", n)
            await proc.checkpoint({"n": 3000})
            asking = asyncio.create_task(handle.request("ready?", timeout=20))
            message = await proc.receive()
            assert (message.data, message.sender) == ("ready?", "viewer")
            await proc.reply(message, "yes")
            assert await asking == "yes"
            receipt = await handle.pause()
            assert (receipt.sender, receipt.verified, receipt.applied) == ("viewer", True, True)
            await handle.resume()
            assert (await handle.record()).labels == {"a": "b"}
            assert (await handle.inspect())["checkpoint"]["offset"] == 3001
            assert [str(info.address) for info in await other.list()] == ["job"]
        assert (await handle.wait()).status == "completed"
        shown = await asyncio.wait_for(watching, 20)
        assert [event.offset for event in shown] == list(range(1, len(shown) + 1))
        assert [event.data for event in shown if event.type == "said"] == list(range(3000))
        assert [e.offset for e in await events(handle.tail(follow=False))] == [e.offset for e in shown]
        paused = next(event for event in shown if event.type == "paused")
        assert paused.data == {"command": receipt.command, "sender": "viewer"}  # which the server holds it to
        middle = await events(handle.tail(after=shown[1500].cursor, follow=False))
        assert [event.offset for event in middle] == [event.offset for event in shown[1501:]]


async def test_a_grant_on_a_namespace_lists_it_and_covers_what_does_not_exist_yet(home):
    async with (
        granted(home, "all", "own,watch", "*/*") as mesh,
        granted(home, "viewer", "watch", "chat/*") as other,
    ):
        changes = []

        async def watch():
            async for address, record in other.watch(namespace="chat"):
                changes.append((str(address), record and record.state))

        watching = asyncio.create_task(watch())
        assert await other.list(namespace="chat") == []
        async with mesh.own("chat/one"), mesh.own("chat/two"), mesh.own("secret/three"):
            found = await other.list(namespace="chat")
            assert [str(info.address) for info in found] == ["chat/one", "chat/two"]
            assert [str(info.address) for info in await other.list(namespace="*")] == ["chat/one", "chat/two"]
            for call in (other.list(), other.list(namespace="secret")):
                with pytest.raises(np.NotAllowed):
                    await call
            shown = await asyncio.wait_for(events(other.process("chat/one").tail(), 1), 10)
            assert [event.type for event in shown] == ["started"]
            assert {str(info.address) for info in await mesh.list(namespace="*")} == {
                "chat/one", "chat/two", "secret/three"
            }  # fmt: skip
        found = await other.list(namespace="chat", ended=True)
        assert [info.state for info in found] == ["completed", "completed"]
        watching.cancel()
        assert {address for address, _ in changes} == {"chat/one", "chat/two"}


async def test_what_is_granted_one_by_one_is_listed_and_watched_so(home):
    async with (
        granted(home, "all", "own,watch", "*/*") as mesh,
        granted(home, "viewer", "watch", "one,two,three,chat/*") as other,
    ):
        changes = []

        async def watch():
            async for address, record in other.watch(namespace="*"):
                changes.append((str(address), record and record.state))

        watching = asyncio.create_task(watch())
        await other.list()
        async with (
            mesh.own("one"),
            mesh.own("two"),
            mesh.own("four"),
            mesh.own("chat/five"),
            mesh.own("x/six"),
        ):
            assert [(str(i.address), i.quiet is not None) for i in await other.list()] == [
                ("one", True),
                ("two", True),
            ]
            seen = [str(info.address) for info in await other.list(namespace="*")]
            assert seen == ["chat/five", "one", "two"]
            with pytest.raises(np.NotAllowed, match="may not watch x/"):
                await other.list(namespace="x")
            several = other.tail("*")
            shown = await asyncio.wait_for(events(several, 2), 10)
            assert {str(event.address) for event in shown} == {"one", "two"}
        assert [str(info.address) for info in await other.list(ended=True)] == ["one", "two"]
        watching.cancel()
        assert {address for address, _ in changes} == {"one", "two", "chat/five"}


async def test_a_list_of_what_is_granted_one_by_one_says_so(home):
    async with (
        granted(home, "all", "own,watch", "*/*") as mesh,
        mesh.own("one"),
        mesh.own("two"),
        mesh.own("four"),
    ):
        some = credential(Authority.load(home.keys), home.folder, "viewer", "watch", "one,two,chat/*")
        whole = credential(Authority.load(home.keys), home.folder, "whole", "watch", "default/*")
        said = "natsproc: only what viewer may watch is listed: "
        for creds, options, listed, told in (
            (some, ("-o", "id"), "one two", f"{said}one, two\n"),
            (some, ("-N", "*", "-o", "id"), "one two", f"{said}one, two, chat/*\n"),
            (some, ("-N", "chat", "-o", "id"), "", ""),
            (whole, ("-o", "id"), "four one two", ""),
        ):
            done = await asyncio.to_thread(natsproc, "ps", "--creds", creds, *options)
            assert (" ".join(sorted(done.stdout.split())), done.stderr) == (listed, told)
        done = await asyncio.to_thread(natsproc, "ps", "--creds", some, "-o", "json")
        assert (len(done.stdout.splitlines()), done.stderr) == (2, "")


async def test_each_right_is_one_of_its_own(home):
    async with (
        granted(home, "worker", "own", "job") as mesh,
        granted(home, "watcher", "watch", "job") as watcher,
        granted(home, "poster", "send", "job") as poster,
        granted(home, "boss", "control", "job") as boss,
        mesh.own("job") as proc,
    ):
        await proc.flush()
        assert (await events(watcher.process("job").tail(), 1))[0].type == "started"
        sent = await poster.process("job").send("hello")
        assert (await proc.receive()).data == "hello"
        with pytest.raises(np.NotAllowed):
            await sent.consumed(timeout=10)  # who may not watch does not see what became of it
        assert (await boss.process("job").ping()).applied
        calls = [
            watcher.process("job").send("x"), watcher.process("job").interrupt(), boss.process("job").send("x"),
            poster.process("job").cancel(), poster.process("job").record(), boss.process("job").record(),
            anext(poster.process("job").tail()), anext(boss.process("job").tail()),
            watcher.process("other").record(), poster.process("other").send("x"), boss.process("other").ping(),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(np.NotAllowed, match=r"may not (watch|send to|command) default/(job|other)"):
                await asyncio.wait_for(call, 10)
        for other in (watcher, poster, boss):
            with pytest.raises(np.NotAllowed):
                async with other.own("job-2"):
                    pass
        with pytest.raises(np.NotAllowed):
            async with mesh.own("other"):
                pass


async def test_a_command_on_hold_takes_the_right_to_control_and_a_message_does_not(home):
    async with (
        granted(home, "poster", "send,watch", "job") as poster,
        granted(home, "boss", "control,watch", "job") as boss,
        granted(home, "worker", "own", "job") as mesh,
    ):
        with pytest.raises(np.NotAllowed):
            await poster.process("job").interrupt(hold=60)
        receipt = await boss.process("job").interrupt(hold=60)
        assert receipt.status == "accepted"
        assert receipt.data["held_until"]
        with pytest.raises(np.Interrupted) as stopped:
            async with mesh.own("job") as proc:
                await asyncio.wait_for(proc.receive(), 10)
        assert stopped.value.sender == "boss"


async def test_a_gate_that_dies_is_missed_by_nobody(home):
    async with (
        granted(home, "worker", "own", "job") as mesh,
        granted(home, "viewer", "watch", "job") as other,
    ):
        async with mesh.own("job") as proc, asyncio.timeout(60):
            watching = asyncio.create_task(events(other.process("job").tail()))
            for round in range(4):
                for n in range(500):
                    await proc.emit("said", round * 500 + n)
                os.kill(old := gate_of(home), signal.SIGKILL)
                await proc.flush()
                assert gate_of(home) != old
        shown = await asyncio.wait_for(watching, 30)
        assert [event.data for event in shown if event.type == "said"] == list(range(2000))
        assert [event.offset for event in shown] == list(range(1, 2003))


async def test_a_gate_that_could_not_store_for_others_does_not_begin(home):
    state = home.load()
    with pytest.raises(np.NotAllowed, match=r"in its own name only.*role `gate`"):
        await asyncio.wait_for(serve(find(state.url, str(home.creds))), 20)


async def test_a_server_that_restarts_takes_its_gate_along(home):
    async with granted(home, "worker", "own", "job") as mesh, mesh.own("job") as proc:
        await proc.emit("said", 1)
        await proc.flush()
        os.kill(home.server.holder(), signal.SIGKILL)
        for n in range(2, 200):
            await proc.emit("said", n)
        await proc.flush()
    async with granted(home, "viewer", "watch", "job") as other:
        shown = await events(other.process("job").tail(follow=False))
        assert [event.data for event in shown if event.type == "said"] == list(range(1, 200))


async def test_several_gates_share_the_work_and_keep_order(home):
    old = gate_of(home)
    authority = Authority.load(home.keys)
    more = [
        await Connection.open(
            Endpoint((home.load().url,), secret=authority.credential(SENDER, RIGHTS), sender=SENDER)
        )
        for _ in range(3)
    ]
    gates = [Gate(connection) for connection in more]
    for gate in gates:
        await gate.start()
    async with granted(home, "worker", "own,watch", "job") as mesh, mesh.own("job") as proc:
        for n in range(5000):
            await proc.emit("said", n)
        await proc.flush()
        shown = await events(mesh.process("job").tail(follow=False))
        assert [event.data for event in shown if event.type == "said"] == list(range(5000))
    assert all(gate.served > 3 for gate in gates)
    assert gate_of(home) == old
    for gate, connection in zip(gates, more, strict=True):
        await gate.stop()
        await connection.close()


async def test_without_a_gate_that_is_what_is_said(tmp_path, version, monkeypatch):
    authority = Authority.create()
    text = mesh_config(
        authority,
        version_of(binary(version)),
        jwts=tmp_path / "jwt",
        store=tmp_path / "store",
        durable="interval",
    )
    with running(tmp_path / "nats", version, jetstream=False, extra=text) as server:
        monkeypatch.setattr(client, "GATE_SECONDS", 1.0)
        creds = credential(authority, tmp_path, "viewer", "watch", "job")
        with pytest.raises(np.ServerUnfit, match="natsproc gate"):
            async with np.connect(server.url, creds=str(creds)):
                pass


async def test_the_doctor_says_how_a_narrow_credential_fares(home):
    async with granted(home, "early", "watch", "job"):
        pass  # the gate has begun to answer
    viewer = granted(home, "viewer", "watch,send", "job,chat/*")
    endpoint = viewer._find()
    found = {finding.about: finding for finding in await doctor.examine(endpoint, viewer.names, home)}
    assert found["gate"].level == "ok"
    assert "answers" in found["gate"].text
    assert found["rights"].text == "viewer may watch default/job, chat/*; send default/job, chat/*"
    assert found["clock"].level == "ok"
    assert not [finding for finding in found.values() if finding.level == "problem"]
    trusted = {f.about: f for f in await doctor.examine(find(), viewer.names, home)}
    assert "answers" in trusted["gate"].text


# A NATS whose keys are elsewhere: users and permissions in the server's configuration.


def users(*narrow):
    """The configuration of a server with a service, a gate, and users as `grant --print` has them."""
    made = []
    for role in ("admin", "service", "gate"):
        made.append((role, permissions(role, roles(Names())[role])))
    for name, can in narrow:
        made.append((name, permissions(name, grants_of([can], [Scope.parse("job")]))))
    blocks = [
        {"user": name, "password": name, "permissions": {"publish": may["pub"], "subscribe": may["sub"]}}
        for name, may in made
    ]
    return f"authorization {{ users: {json.dumps(blocks)} }}"


def as_user(server, name):
    return np.connect(server.url.replace("nats://", f"nats://{name}:{name}@"), sender=name)


async def test_a_server_of_others_with_its_own_users_holds_them_to_their_names_and_rights(tmp_path, version):
    with running(
        tmp_path / "nats", version, extra=users(("dash", "watch"), ("worker", "own"), ("boss", "control"))
    ) as server:
        url = server.url.replace("nats://", "nats://admin:admin@")
        admin = await Connection.open(find(url))
        await streams.setup(admin, Names())
        await admin.close()
        serving = await Connection.open(find(server.url.replace("nats://", "nats://gate:gate@")))
        gate = Gate(serving)
        await gate.start()
        async with (
            as_user(server, "worker") as mesh,
            as_user(server, "dash") as dash,
            as_user(server, "boss") as boss,
        ):
            async with mesh.own("job") as proc:
                await proc.emit("said", 1)
                receipt = await boss.process("job").pause()
                assert (receipt.sender, receipt.verified) == ("boss", True)
                await boss.process("job").resume()
            shown = await events(dash.process("job").tail(follow=False))
            assert "verified" not in next(event.data for event in shown if event.type == "paused")
            with pytest.raises(np.NotAllowed, match="dash may not command default/job"):
                await dash.process("job").pause()
        found = {
            f.about: f
            for f in await doctor.examine(
                find(server.url.replace("nats://", "nats://dash:dash@")), Names(), Home(tmp_path)
            )
        }
        assert (found["gate"].level, "answers" in found["gate"].text) == ("ok", True)
        assert "streams" not in found
        await gate.stop()
        await serving.close()


async def test_there_too_it_is_said_that_no_gate_runs(tmp_path, version, monkeypatch):
    monkeypatch.setattr(client, "GATE_SECONDS", 1.0)
    with running(tmp_path / "nats", version, extra=users(("dash", "watch"))) as server:
        admin = await Connection.open(find(server.url.replace("nats://", "nats://admin:admin@")))
        await streams.setup(admin, Names())
        await admin.close()
        with pytest.raises(np.ServerUnfit, match="natsproc gate"):
            async with as_user(server, "dash"):
                pass
        found = {
            f.about: f
            for f in await doctor.examine(
                find(server.url.replace("nats://", "nats://dash:dash@")), Names(), Home(tmp_path)
            )
        }
        assert found["gate"].level == "problem"


async def test_nothing_is_asked_of_whom_it_may_not_watch(home):
    async with (
        granted(home, "worker", "own", "job") as mesh,
        granted(home, "poster", "send", "job") as poster,
        mesh.own("job") as proc,
    ):
        await proc.flush()
        with pytest.raises(np.NotAllowed, match="nothing was sent"):
            await poster.process("job").request("please", timeout=5)
        await poster.process("job").send("only this")
        assert (await asyncio.wait_for(proc.receive(), 10)).data == "only this"


def test_a_grant_overwrites_nothing_but_a_credential_of_its_sender(home, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for out, said in (
        ("notes.txt", "choose another file"),
        ("no/such/a.creds", "no such folder"),
        ("-", "without --out"),
    ):
        done = natsproc(
            "grant", "dash", "--can", "watch", "--on", "job", "--out", out if out == "-" else tmp_path / out
        )
        assert done.returncode in (1, 2)
        assert said in done.stderr
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not np.grants()
    for _ in range(2):
        assert (
            natsproc(
                "grant", "dash", "--can", "watch", "--on", "job", "--out", tmp_path / "d.creds"
            ).returncode
            == 0
        )
    assert (
        natsproc("grant", "other", "--can", "watch", "--on", "job", "--out", tmp_path / "d.creds").returncode
        == 2
    )
