"""What a credential may not do is told as NotAllowed by each call, and leaves nothing half done."""

from __future__ import annotations

import asyncio
import json

import pytest
from harness import running
from meshes import make_mesh

import natsproc
from natsproc import client


def user(name, **denied):
    rights = {verb: {"allow": [">"], "deny": subjects} for verb, subjects in denied.items()}
    return {"user": name, "password": name, "permissions": rights}


USERS = [
    {"user": "admin", "password": "admin"},
    user("no-events", publish=["proc.*.*.events"]),
    user("no-control", subscribe=["proc.*.*.control.*"]),
    user("no-inbox", subscribe=["proc.*.*.delivered.*"]),
    user("no-registry", publish=["$KV.PROC_REGISTRY.>"]),
    user("no-claims", publish=["$KV.PROC_CLAIMS.>"]),
    user("no-leases", publish=["$KV.PROC_LEASES.>"]),
    user("mute", publish=["proc.*.*.inbox.>", "proc.*.*.control.>"]),
    user("blind", subscribe=["proc.*.*.live", "proc.*.*.record"]),
    user("illiterate", publish=["$JS.API.>"]),
]


@pytest.fixture(scope="module")
def version():
    return None


@pytest.fixture(scope="module")
def bus(tmp_path_factory):
    extra = f"authorization {{ users: {json.dumps(USERS)} }}"
    with running(tmp_path_factory.mktemp("nats"), extra=extra) as server:
        server.bare = server.url
        server.url = server.bare.replace("nats://", "nats://admin:admin@")
        asyncio.run(make_mesh(server.url))
        yield server


def connect(bus, name):
    return natsproc.connect(bus.bare.replace("nats://", f"nats://{name}:{name}@"), sender=name)


@pytest.mark.parametrize(
    "name", ["no-events", "no-control", "no-inbox", "no-registry", "no-claims", "no-leases"]
)
async def test_who_may_not_own_is_told_and_holds_nothing(bus, name):
    id = f"of-{name}"
    async with connect(bus, name) as mesh, connect(bus, "admin") as admin:
        async with asyncio.timeout(20):
            with pytest.raises(natsproc.NotAllowed, match="may not"):
                async with mesh.own(id):
                    pass
        async with asyncio.timeout(20), admin.own(id, restart=True) as proc:
            assert proc.id == id


async def test_who_may_not_speak_to_a_process_is_told(bus):
    async with connect(bus, "admin") as admin, admin.own("spoken-to"), connect(bus, "mute") as mesh:
        handle = mesh.process("spoken-to")
        for call in (handle.send("x"), handle.interrupt(), handle.ping(), handle.inspect(), handle.pause()):
            with pytest.raises(natsproc.NotAllowed, match="may not publish"):
                await asyncio.wait_for(call, 10)


async def test_who_may_not_watch_is_told(bus):
    async with connect(bus, "admin") as admin, admin.own("watched"), connect(bus, "blind") as mesh:

        async def watch():
            async for _ in mesh.watch():
                pass

        async def tail():
            async for _ in mesh.process("watched").tail():
                pass

        async def several():
            async for _ in mesh.tail("watch*"):
                pass

        for call in (mesh.process("watched").wait(), watch(), tail(), several()):
            with pytest.raises(natsproc.NotAllowed, match="may not subscribe"):
                await asyncio.wait_for(call, 10)


async def test_who_has_no_rights_on_jetstream_is_told_of_the_gate(bus, monkeypatch):
    monkeypatch.setattr(client, "GATE_SECONDS", 0.5)
    with pytest.raises(natsproc.ServerUnfit, match="natsproc gate"):
        async with connect(bus, "illiterate"):
            pass
