"""A NATS of somebody else's: what `natsproc setup --print` says is enough, and no more than that is used."""

import asyncio
import json
import subprocess

import pytest
from harness import Server, running
from homes import NATSPROC, natsproc

import natsproc as sdk
from natsproc.access import Scope, grants_of, permissions
from natsproc.access.roles import roles
from natsproc.bus import streams
from natsproc.bus.connection import Connection
from natsproc.errors import NotAllowed
from natsproc.protocol.names import Names
from natsproc.server.find import find

PRINTED = "setup", "--print", "--for-server"


@pytest.fixture(autouse=True)
def _no_home(tmp_path, monkeypatch):
    monkeypatch.setenv("NATSPROC_HOME", str(tmp_path / "nowhere"))


@pytest.fixture
def server(tmp_path, version):
    """A server whose users have exactly the printed permissions, on which nothing has been made yet."""
    printed = json.loads(natsproc(*PRINTED, "2.14").stdout)["permissions"]
    for name, can in {"dash": ("watch", "send", "control"), "worker": ("own",)}.items():
        allowed = permissions(name, grants_of(can, [Scope.parse("*/*")]))
        printed[name] = {"publish": allowed["pub"], "subscribe": allowed["sub"]}
    users = [
        {"user": name, "password": "secret", "permissions": allowed} for name, allowed in printed.items()
    ]
    with running(tmp_path / "nats", version, extra=f"authorization {json.dumps({'users': users})}") as server:
        yield server


def url(server: Server, user: str) -> str:
    return server.url.replace("//", f"//{user}:secret@")


def denials(server: Server) -> list[str]:
    """What the server has denied, but for a node's own trying whether it could speak in another's name."""
    lines = (server.folder / "server.log").read_text().splitlines()
    return [line for line in lines if "Violation" in line and ".control.not-" not in line]


async def test_what_is_printed_makes_a_mesh(server):
    admin = await Connection.open(find(url(server, "admin")))
    printed = json.loads(natsproc("setup", "--print", "--server", url(server, "admin")).stdout)
    for config in printed["streams"]:
        await admin.api(f"STREAM.CREATE.{config['name']}", config)
    service = await Connection.open(find(url(server, "service")))
    await streams.check(service, Names())
    assert await streams.setup(service, Names()) == []
    await admin.close()
    await service.close()
    assert denials(server) == []


async def test_a_service_does_all_of_its_work_and_makes_no_stream(server):
    made = natsproc("setup", "--server", url(server, "admin"))
    assert made.returncode == 0, made.stderr
    place = url(server, "service")
    async with sdk.connect(place) as mesh:
        handle = mesh.process("worker")
        async with mesh.own("worker") as proc:
            for number in range(2500):  # so many are read by a consumer
                await proc.log(str(number))
            await handle.send({"do": "this"})
            message = await anext(aiter(proc.inbox()))
            await proc.reply(message, "done")
            await proc.checkpoint({"at": 1})
            await proc.checkpoint({"at": 2})  # which removes the one before
            assert await handle.inspect()
            asked = asyncio.create_task(proc.ask("Go on?", choices=["yes", "no"]))
            event = await anext(aiter(handle.tail(types=["asked"])))
            assert (await handle.answer("yes", event.data["ask"])).applied
            assert await asked == "yes"
        assert len([item async for item in handle.tail() if isinstance(item, sdk.Event)]) > 2500
        assert len(await mesh.list(ended=True)) == 1
        assert (await handle.interrupt(hold=60)).status == "accepted"
        with pytest.raises(sdk.Interrupted):  # which removes the command from the inbox
            async with mesh.own("worker", restart=True):
                await asyncio.sleep(30)
        await mesh.prune("worker")
        assert not await mesh.list(ended=True)
    assert denials(server) == []
    for line in natsproc("doctor", "--server", place, "-o", "json").stdout.splitlines():
        assert json.loads(line)["level"] != "problem", line

    service = await Connection.open(find(place))
    config = (await service.api("STREAM.INFO.PROC_EVENTS"))["config"]
    for call, body in {
        "STREAM.CREATE.OTHER": {"name": "OTHER", "subjects": ["other"]},
        "STREAM.UPDATE.PROC_EVENTS": config | {"max_age": 10**9},
        "STREAM.DELETE.PROC_EVENTS": None,
        "STREAM.INFO.OTHER": None,
    }.items():
        with pytest.raises(NotAllowed):
            await service.api(call, body)
    with pytest.raises(NotAllowed):
        await service.request("somebody.elses")
    assert (await service.api("STREAM.INFO.PROC_EVENTS"))["config"] == config
    await service.close()
    admin = await Connection.open(find(url(server, "admin")))
    assert (await admin.api("STREAM.DELETE.KV_PROC_ENDED"))["success"]
    await admin.close()


async def test_a_gate_with_the_rights_of_one_serves_narrow_users(server):
    assert natsproc("setup", "--server", url(server, "admin")).returncode == 0
    gate = subprocess.Popen(
        [NATSPROC, "gate", "--server", url(server, "gate")], stderr=subprocess.PIPE, text=True
    )
    try:
        assert "the gate answers" in (await asyncio.to_thread(gate.stderr.readline))
        async with (
            sdk.connect(url(server, "worker")) as theirs,
            sdk.connect(url(server, "dash")) as mesh,
            theirs.own("worker") as proc,
        ):
            handle = mesh.process("worker")
            await proc.log("seen")
            await handle.send("sent")
            assert (await proc.receive()).data == "sent"
            assert (await handle.pause()).applied
            assert [i.state for i in await mesh.list()] == ["paused"]
            await handle.resume()
            tail = handle.tail(types=["log"])
            assert (await anext(aiter(tail))).data["text"] == "seen"
            await proc.flush()
    finally:
        gate.terminate()
        gate.communicate()
    assert [line for line in denials(server) if '"gate"' in line] == []


@pytest.mark.parametrize("role", ["admin", "service", "gate"])
def test_in_a_domain_the_rights_are_those_of_its_api(role):
    allowed = permissions("me", roles(Names("other"), "hub")[role])["pub"]["allow"]
    assert [subject for subject in allowed if subject.startswith("$JS.API.")] == []
    assert "$JS.hub.API.STREAM.INFO.OTHER_EVENTS" in allowed
    assert [subject for subject in allowed if "PROC" in subject or "proc" in subject] == []


async def test_a_mesh_in_a_jetstream_domain(tmp_path, version, monkeypatch):
    with running(tmp_path / "nats", version, jetstream=False, extra=DOMAIN.format(tmp_path)) as server:
        assert natsproc("setup", "--server", server.url, "--domain", "hub").returncode == 0
        monkeypatch.setenv("NATS_URL", server.url)
        monkeypatch.setenv("NATS_JETSTREAM_DOMAIN", "hub")
        assert natsproc("doctor").returncode == 0
        assert natsproc("run", "--id", "there", "--", "echo", "hi").stdout == "hi\n"
        assert natsproc("logs", "there", "--type", "output").stdout == "hi\n"


DOMAIN = 'jetstream {{ store_dir: "{}/hub", domain: hub }}'


def test_printing_needs_no_server_if_it_is_told_the_version():
    old, new = (
        json.loads(natsproc(*PRINTED, version).stdout)["streams"][0] for version in ("2.11", "2.14.6")
    )
    assert new == old | {"allow_batched": True}
    assert natsproc(*PRINTED, "new").returncode == 2
    too_old = natsproc(*PRINTED, "2.9")
    assert (too_old.returncode, too_old.stdout) == (4, "")
    assert "too old (2.9): natsproc needs 2.11" in too_old.stderr
    assert natsproc("setup", "--for-server", "2.14").returncode == 2
    three = json.loads(natsproc(*PRINTED, "2.14", "--replicas", 3, "--keep", "7d", "--prefix", "x").stdout)
    assert {stream["num_replicas"] for stream in three["streams"]} == {3}
    assert three["streams"][0]["max_age"] == 7 * 86400 * 10**9
