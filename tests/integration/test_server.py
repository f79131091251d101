"""The embedded server: what it lets in, where it listens, what it keeps; and servers that are not ours."""

import base64
import json
import shutil
import socket
import stat
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import nats
import nkeys
import psutil
import pytest
from harness import ROOT, VERSIONS, binary, free_port, wait_for
from homes import a_home, connect, servers_of, websocket_answer

from natsproc.access import Authority, claims_of, write_private
from natsproc.bus import streams
from natsproc.bus.connection import Connection, Endpoint, NoResponders
from natsproc.errors import Error, NoMesh, NoServer, NotAllowed
from natsproc.protocol.names import Address, Names
from natsproc.server import config, doctor, embedded, find_server
from natsproc.server.embedded import Wishes
from natsproc.server.find import find

PROCESS = Address("default", "a-process")


@pytest.fixture
def home(tmp_path, monkeypatch):
    with a_home(tmp_path / "home", monkeypatch) as home:
        yield home


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_fresh_home_has_a_server_with_a_mesh(home, monkeypatch, version):
    monkeypatch.setenv("NATSPROC_NATS_SERVER", str(binary(version)))
    assert embedded.start(home)
    status = embedded.status(home)
    assert status["running"]
    assert status["version"] == version
    assert servers_of(home) == [status["pid"]]
    connection = await connect(home)
    await streams.check(connection, Names())
    info = await connection.api("STREAM.INFO.PROC_EVENTS")
    assert bool(info["config"].get("allow_batched")) == (config.series(version) >= (2, 14))
    await connection.close()
    assert websocket_answer(status["ws_url"]) == 101
    for finding in await doctor.examine(find(), Names(), home):
        assert finding.level == "ok" or (finding.about, finding.level) == ("server", "warning"), finding
    assert embedded.stop(home)
    assert servers_of(home) == []
    assert not embedded.stop(home)


def test_starting_it_again_changes_nothing(home):
    assert embedded.start(home)
    before = embedded.status(home)
    assert not embedded.start(home)
    assert embedded.status(home) == before


async def test_the_local_credential_may_do_everything_but_only_as_itself(home):
    embedded.start(home)
    connection = await connect(home)
    names, me = Names(), connection.sender
    assert connection.endpoint.verified
    for subject in (names.events(PROCESS), names.inbox(PROCESS, me), "$KV.PROC_CLAIMS.default.a-process"):
        assert (await connection.store(subject, b"{}"))["seq"] == 1
    with pytest.raises(NoResponders):
        await connection.request(names.control(PROCESS, me))
    for subject in (
        names.inbox(PROCESS, "somebody"),
        names.control(PROCESS, "somebody"),
        names.live(PROCESS),
        names.delivered(PROCESS, me),
        names.record(PROCESS),
        names.lease("node"),
        "anything.else",
    ):
        with pytest.raises(NotAllowed, match=me):
            await connection.request(subject)
    await connection.close()


async def test_nobody_comes_in_without_a_credential_of_ours(home, tmp_path):
    embedded.start(home)
    url = embedded.status(home)["url"]
    with pytest.raises(NotAllowed, match="--creds"):
        await Connection.open(Endpoint((url,), origin="the embedded server"))
    write_private(tmp_path / "foreign.creds", Authority.create().credential("root"))
    with pytest.raises(NotAllowed):
        await Connection.open(find(creds=str(tmp_path / "foreign.creds")))


@pytest.mark.parametrize("address", ["url", "ws_url"])
async def test_any_nats_client_can_use_the_file(home, address):
    embedded.start(home)
    client = await nats.connect(embedded.status(home)[address], user_credentials=home.creds)
    live = await client.subscribe("proc.*.*.live")
    events = client.jetstream()
    assert (await events.publish(Names().events(PROCESS), b"said")).seq == 1
    assert (await live.next_msg(5)).data == b"said"
    bucket = await events.key_value("PROC_CLAIMS")
    await bucket.put("default.a-process", b"{}")
    assert (await bucket.get("default.a-process")).value == b"{}"
    await client.close()


async def test_our_own_server_is_known_by_its_url(home, monkeypatch):
    embedded.start(home)
    monkeypatch.setenv("NATS_URL", embedded.status(home)["url"])
    assert find().creds == str(home.creds)
    connection = await Connection.open(find())
    await connection.close()


def test_it_listens_on_this_machine_only(home):
    embedded.start(home)
    status = embedded.status(home)
    listening = psutil.Process(status["pid"]).net_connections()
    at = {connection.laddr for connection in listening if connection.status == psutil.CONN_LISTEN}
    assert {address.ip for address in at} == {"127.0.0.1"}
    assert {address.port for address in at} == {embedded.PORT, embedded.WS_PORT}


def test_pages_of_other_sites_get_no_websocket(home):
    embedded.start(home)
    ws_url = embedded.status(home)["ws_url"]
    port = home.load().pages_port
    assert websocket_answer(ws_url, f"http://localhost:{port}") == 101
    assert websocket_answer(ws_url, f"http://127.0.0.1:{port}") == 101
    for stranger in ("https://example.com", "http://localhost:1", f"https://localhost:{port}", "null"):
        assert websocket_answer(ws_url, stranger) == 403


def test_what_it_keeps_is_for_its_owner_alone(home):
    embedded.start(home)
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    for name in ("keys.json", "local.creds", "server.conf", "state.json", "server.log", "supervisor.log"):
        assert stat.S_IMODE((home.folder / name).stat().st_mode) == 0o600


async def test_data_ports_and_credentials_outlive_it(home):
    embedded.start(home, Wishes(port=(port := free_port())))
    creds = home.creds.read_text()
    connection = await connect(home)
    await connection.store(Names().events(PROCESS), b"kept")
    await connection.close()
    embedded.stop(home)
    with pytest.raises(NoServer, match="natsproc up"):
        find()
    embedded.start(home)
    assert embedded.status(home)["url"].endswith(f":{port}")
    assert home.creds.read_text() == creds
    connection = await connect(home)
    assert (await connection.api("STREAM.INFO.PROC_EVENTS"))["state"]["messages"] == 1
    await connection.close()


def test_a_taken_default_port_means_another_one_that_is_remembered(home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", embedded.PORT))
        taken.listen()
        embedded.start(home)
        chosen = embedded.status(home)["url"]
        assert not chosen.endswith(f":{embedded.PORT}")
        embedded.stop(home)
    embedded.start(home)
    assert embedded.status(home)["url"] == chosen


def test_a_port_that_is_asked_for_and_taken_is_an_error(home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Error, match=f"port {port} is taken"):
            embedded.start(home, Wishes(port=port))
    assert not home.running


def test_a_running_server_is_not_changed_behind_anyones_back(home, tmp_path):
    embedded.start(home, Wishes(durable="always"))
    for wishes in (Wishes(port=free_port()), Wishes(store=str(tmp_path)), Wishes(durable="interval")):
        with pytest.raises(Error, match="natsproc down"):
            embedded.start(home, wishes)
    same = Wishes(port=embedded.PORT, ws_port=embedded.WS_PORT, durable="always")
    assert not embedded.start(home, same)


def test_durable_always_and_another_store(home, tmp_path):
    embedded.start(home, Wishes(store=str(tmp_path / "elsewhere"), durable="always"))
    assert (tmp_path / "elsewhere" / "jetstream").is_dir()
    assert not (home.folder / "store").exists()
    assert "sync_interval: always" in (home.folder / "server.conf").read_text()


def test_two_homes_are_two_meshes(home, tmp_path, monkeypatch):
    embedded.start(home)
    with a_home(tmp_path / "other", monkeypatch) as other:
        embedded.start(other)
        assert embedded.status(home)["url"] != embedded.status(other)["url"]
        with pytest.raises(NotAllowed):
            find_and_connect(replace(find(embedded.status(home)["url"]), creds=str(other.creds)))


def find_and_connect(endpoint):
    import asyncio

    asyncio.run(Connection.open(endpoint))


def test_a_home_with_an_odd_name(tmp_path, monkeypatch):
    with a_home(tmp_path / 'a "quoted" $HOME \\ {größer} #1', monkeypatch) as home:
        assert embedded.start(home)
        assert embedded.status(home)["running"]
        assert (home.folder / "store" / "jetstream").is_dir()


def test_a_state_that_cannot_be_read_is_a_sentence(home):
    home.folder.mkdir()
    (home.folder / "state.json").write_text("{")
    with pytest.raises(Error, match=r"state\.json .*remove it"):
        embedded.start(home)


def test_keys_that_are_gone_are_made_anew_with_their_credential(home):
    embedded.start(home)
    embedded.stop(home)
    before = home.creds.read_text()
    home.keys.unlink()
    assert embedded.start(home)
    assert home.creds.read_text() != before


async def test_what_is_pushed_to_the_server_outlives_its_restart(home):
    """A later account JWT (with grants, with revocations) is not undone by the one that we made."""
    embedded.start(home)
    authority = Authority.load(home.keys)
    assert authority
    (home.folder / "system.creds").write_text(
        replace(authority, account_seed=authority.system_seed).credential(
            "admin", {"pub": (">",), "sub": (">",)}
        )
    )
    user = claims_of(home.creds.read_text().split("JWT-----\n")[1].split("\n")[0])["sub"]
    claims = claims_of(authority.account_jwt)
    now = int(time.time()) + 1  # newer than ours, and later than the credential
    claims |= {"iat": now, "jti": "newer", "nats": claims["nats"] | {"revocations": {user: now}}}
    client = await nats.connect(
        embedded.status(home)["url"], user_credentials=home.folder / "system.creds", connect_timeout=5
    )
    operator = nkeys.from_seed(authority.operator_seed.encode())
    answer = await client.request("$SYS.REQ.CLAIMS.UPDATE", signed(operator, claims), timeout=5)
    assert b"jwt updated" in answer.data
    await client.close()
    embedded.stop(home)
    with pytest.raises(NotAllowed):
        embedded.start(home)


def signed(key: nkeys.KeyPair, claims: dict[str, object]) -> bytes:
    head = {"typ": "JWT", "alg": "ed25519-nkey"}
    text = b".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (head, claims)
    )
    return text + b"." + base64.urlsafe_b64encode(key.sign(text)).rstrip(b"=")


def test_a_home_that_cannot_be_used_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with a_home(tmp_path / "home", monkeypatch):
        monkeypatch.setenv("NATSPROC_HOME", str(tmp_path / "file" / "home"))
        with pytest.raises(Error, match=r"cannot keep a server in .*/file/home"):
            find_server(start=True)


def test_a_server_that_does_not_start_says_why(home, tmp_path, monkeypatch):
    broken = tmp_path / "nats-server"
    broken.write_text(
        '#!/bin/sh\nif [ "$1" = --version ]; then echo nats-server: v2.15.1; exit; fi\necho out of luck >&2\n'
    )
    broken.chmod(0o755)
    monkeypatch.setenv("NATSPROC_NATS_SERVER", str(broken))
    with pytest.raises(Error, match=r"does not come up(.|\n)*out of luck"):
        embedded.start(home)
    assert not home.running


def test_a_server_program_that_is_missing_or_old_says_so(home, monkeypatch):
    monkeypatch.setenv("NATSPROC_NATS_SERVER", "/nowhere/nats-server")
    with pytest.raises(NoServer, match="/nowhere/nats-server"):
        embedded.start(home)
    monkeypatch.setenv("NATSPROC_NATS_SERVER", shutil.which("true"))
    with pytest.raises(NoServer, match="is not a nats-server"):
        embedded.start(home)
    monkeypatch.setenv("NATSPROC_NATS_SERVER", str(binary("2.10.26")))
    with pytest.raises(Error, match=r"too old \(2\.10\.26\)"):
        embedded.start(home)


def test_starting_one_is_said_once(home, capsys):
    find_server(start=True)
    find_server(start=True)
    assert capsys.readouterr().err.count("natsproc: started a nats-server at nats://127.0.0.1:") == 1


def test_nothing_is_started_when_a_server_is_named(home, monkeypatch):
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    find_server(start=True)
    find_server(server="nats://127.0.0.1:1", start=True)
    assert not home.folder.exists()


@pytest.mark.parametrize("version", [VERSIONS[0], None])
async def test_the_same_by_hand_with_a_stock_server(home, tmp_path, monkeypatch, version):
    monkeypatch.setenv("NATSPROC_NATS_SERVER", str(binary(version)))
    port, ws_port = free_port(), free_port()
    by_hand = (ROOT / "nats-server.conf").read_text()
    assert by_hand.count(":4222") == 2  # `listen`, and the comment
    (tmp_path / "nats-server.conf").write_text(
        by_hand.replace("4222", str(port)).replace("9222", str(ws_port))
    )
    config.write_config(tmp_path / "nats-config", home, embedded.prepare(home), "interval")
    with (tmp_path / "log").open("wb") as log:
        command = [binary(version), "-c", tmp_path / "nats-server.conf"]
        process = subprocess.Popen(command, stderr=log, cwd="/")
    try:
        wait_for(lambda: b"Server is ready" in (tmp_path / "log").read_bytes(), what="the server by hand")
        endpoint = find(f"nats://127.0.0.1:{port}", str(tmp_path / "nats-config" / "local.creds"))
        connection = await Connection.open(endpoint)
        with pytest.raises(NoMesh, match="natsproc setup"):
            await streams.check(connection, Names())
        await streams.setup(connection, Names())
        with pytest.raises(NotAllowed):
            await connection.request(Names().live(PROCESS))
        await connection.close()
        assert not [each for each in await doctor.examine(endpoint, Names(), home) if each.level == "problem"]
        assert websocket_answer(f"ws://127.0.0.1:{ws_port}", "https://example.com") == 403
        assert (tmp_path / "nats-config" / "store" / "jetstream").is_dir()
    finally:
        process.kill()
        process.wait()


def test_by_hand_and_embedded_are_configured_alike(home):
    """Whatever `nats-server.conf` says is what the embedded server is told, too."""
    embedded.start(home)
    ours = (home.folder / "server.conf").read_text()
    by_hand = (ROOT / "nats-server.conf").read_text()
    for setting in ("max_payload: 1MB", "max_control_line: 65536", "no_tls: true", "allowed_origins"):
        assert setting in ours
        assert setting in by_hand


def test_the_program_comes_with_the_package(monkeypatch):
    monkeypatch.delenv("NATSPROC_NATS_SERVER", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert config.find_program().samefile(binary())
    assert Path(config.find_program()).is_absolute()
