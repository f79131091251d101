"""The mesh's streams are made, checked, and never silently altered."""

import pytest
from harness import OLDEST, running

from natsproc.bus import streams
from natsproc.bus.connection import Connection, Endpoint
from natsproc.errors import MeshMismatch, NoMesh, NoServer, ServerUnfit
from natsproc.protocol.names import Names


@pytest.mark.parametrize("version", [OLDEST, None])
async def test_setup_is_idempotent_on_oldest_and_newest(tmp_path, version):
    with running(tmp_path, version) as server:
        connection = await Connection.open(Endpoint((server.url,), sender="tester"))
        with pytest.raises(NoMesh, match="natsproc setup"):
            await streams.check(connection, Names())
        assert len(await streams.setup(connection, Names())) == 7
        assert await streams.setup(connection, Names()) == []
        await streams.check(connection, Names())
        await connection.close()


async def test_a_stream_with_other_settings_is_refused_and_left_alone(connection):
    names = Names("other")
    body = {"name": names.event_stream, "subjects": ["other.*.*.events"]}
    await connection.api(f"STREAM.CREATE.{names.event_stream}", body)
    with pytest.raises(MeshMismatch, match="republish"):
        await streams.setup(connection, names)
    info = await connection.api(f"STREAM.INFO.{names.event_stream}")
    assert "republish" not in info["config"]


async def test_no_jetstream_and_no_server_are_told_apart(tmp_path):
    with running(tmp_path, jetstream=False) as server:
        connection = await Connection.open(Endpoint((server.url,)))
        with pytest.raises(ServerUnfit, match="no JetStream"):
            await streams.check(connection, Names())
        await connection.close()
    with pytest.raises(NoServer, match="natsproc up"):
        await Connection.open(Endpoint((server.url,)), timeout=1)


async def test_a_server_that_is_too_old_says_so(tmp_path):
    with running(tmp_path, "2.10.26") as server, pytest.raises(ServerUnfit, match="too old"):
        await Connection.open(Endpoint((server.url,)))


@pytest.mark.parametrize("version", [OLDEST, None])
async def test_setup_adds_what_an_older_natsproc_did_not_make(tmp_path, version):
    with running(tmp_path, version) as server:
        connection = await Connection.open(Endpoint((server.url,), sender="tester"))
        names = Names()
        for config in streams.configurations(names, connection.server_version):
            older = {name: value for name, value in config.items() if name != "allow_msg_ttl"}
            if config["name"] == f"KV_{names.leases}":
                older = config | {"subject_delete_marker_ttl": 60_000_000_000}
            await connection.api(f"STREAM.CREATE.{config['name']}", older)
        with pytest.raises(MeshMismatch, match=r"PROC_INBOX.*allow_msg_ttl.*natsproc setup"):
            await streams.check(connection, names)
        assert await streams.setup(connection, names) == []
        await streams.check(connection, names)
        headers = {"Nats-TTL": "1"}
        await connection.store("proc.default.a.inbox.tester", b"1", headers=headers)
        await connection.close()
