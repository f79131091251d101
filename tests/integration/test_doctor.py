"""The doctor: sees what is wrong, says what to do, and leaves nothing behind."""

import os
from dataclasses import replace

import pytest
from harness import Server, free_port, running
from homes import a_home, connect

from natsproc.access import Authority, write_private
from natsproc.bus import streams
from natsproc.bus.connection import ApiError, Connection, Endpoint
from natsproc.protocol.names import Names
from natsproc.server import doctor, embedded, exposure
from natsproc.server.certificates import machine_addresses
from natsproc.server.find import find


@pytest.fixture
def home(tmp_path, monkeypatch):
    with a_home(tmp_path / "home", monkeypatch) as home:
        yield home


async def levels(endpoint: Endpoint, home) -> dict[str, str]:
    """What the doctor finds, the worst of each kind."""
    order = ["ok", "warning", "problem"]
    found: dict[str, str] = {}
    for finding in await doctor.examine(endpoint, Names(), home):
        found[finding.about] = max(finding.level, found.get(finding.about, "ok"), key=order.index)
    return found


async def test_the_doctor_sees_what_a_foreign_server_lacks(home, server: Server):
    found = await levels(find(server.url), home)
    assert [about for about, level in found.items() if level == "problem"] == ["streams"]  # said once
    assert found["rights"] == "warning"  # nothing pins the sender
    connection = await Connection.open(find(server.url))
    await streams.setup(connection, Names())
    assert "problem" not in (await levels(find(server.url), home)).values()
    body = (await connection.api("STREAM.INFO.PROC_INBOX"))["config"] | {"republish": None}
    await connection.api("STREAM.UPDATE.PROC_INBOX", body)
    assert (await levels(find(server.url), home))["streams"] == "problem"
    await connection.close()


async def test_the_doctor_warns_of_logs_that_are_gone_before_they_are_read(home, server: Server):
    connection = await Connection.open(find(server.url))
    await streams.setup(connection, Names())

    async def change(name, **settings):
        body = (await connection.api(f"STREAM.INFO.{name}"))["config"] | settings
        await connection.api(f"STREAM.UPDATE.{name}", body)

    await change("PROC_EVENTS", max_msgs=3, max_age=300 * 10**9)
    await change("PROC_INBOX", max_msgs_per_subject=2)
    found = await doctor.examine(find(server.url), Names(), home)
    warned = [
        finding.text.split(": what")[0] for finding in found if finding.about == "streams" and finding.advice
    ]
    assert warned == ["PROC_EVENTS: max_msgs is 3, max_age is 300 s", "PROC_INBOX: max_msgs_per_subject is 2"]
    await change("PROC_INBOX", duplicate_window=60 * 10**9)
    (wrong,) = [f for f in await doctor.examine(find(server.url), Names(), home) if f.level == "problem"]
    assert "duplicate_window is 60 s, not at least 120 s" in wrong.text
    await connection.close()


async def test_the_doctor_sees_what_the_server_itself_may_store_and_tries_to_store(home):
    embedded.start(home)
    said = [
        finding.text for finding in await doctor.examine(find(), Names(), home) if finding.about == "storage"
    ]
    assert [text for text in said if "75 % of what was free" in text]
    assert [text.split()[0] for text in said if "has stored a message" in text] == [
        "PROC_EVENTS",
        "PROC_INBOX",
    ]


async def test_the_doctor_says_once_that_there_is_no_jetstream(home, tmp_path):
    with running(tmp_path / "plain", jetstream=False) as server:
        found = await doctor.examine(find(server.url), Names(), home)
        assert ["no JetStream" in finding.text for finding in found].count(True) == 1


async def test_the_doctor_leaves_nothing_behind(home):
    embedded.start(home)
    await doctor.examine(find(), Names(), home)
    connection = await connect(home)
    for name in ("PROC_EVENTS", "PROC_INBOX", "KV_PROC_CLAIMS"):
        assert (await connection.api(f"STREAM.INFO.{name}"))["state"]["messages"] == 0
    await connection.close()


async def test_the_doctor_sees_rights_that_are_missing(home, tmp_path):
    embedded.start(home)
    authority = Authority.load(home.keys)
    grants = {"pub": ("$JS.API.>", "*.*.*.control.{sender}"), "sub": ("_INBOX.>", "_NODE.>")}
    write_private(tmp_path / "few.creds", authority.credential("few", grants))
    found = await doctor.examine(
        find(embedded.status(home)["url"], str(tmp_path / "few.creds")), Names(), home
    )
    (rights,) = [finding for finding in found if finding.about == "rights"]
    assert rights.text == "few may not run processes, own ids, send messages, watch processes"


async def test_the_doctor_sees_keys_that_others_can_read(home):
    embedded.start(home)
    assert (await levels(find(), home))["files"] == "ok"
    os.chmod(home.keys, 0o644)
    found = await doctor.examine(find(), Names(), home)
    assert [finding.advice for finding in found if finding.level == "problem"] == [
        f"chmod 600 {home.keys}, or `natsproc doctor --fix`"
    ]


def test_a_folder_that_others_can_look_into_is_no_problem_as_long_as_what_is_in_it_is(home):
    home.folder.mkdir(mode=0o755)
    found = list(exposure.files(Endpoint(("nats://elsewhere",)), home))
    assert [(finding.level, finding.advice) for finding in found] == [
        ("ok", ""),
        ("warning", f"chmod 700 {home.folder}"),
    ]


async def test_the_doctor_sees_a_full_account_and_a_full_disk(home, tmp_path, monkeypatch):
    accounts = "accounts { A { users: [{user: a, password: b}], jetstream { max_file: 100000 } } }"
    with running(tmp_path / "nats", extra=accounts) as server:
        endpoint = find(server.url.replace("//", "//a:b@"))
        connection = await Connection.open(endpoint)
        await connection.api("STREAM.CREATE.S", {"name": "S", "subjects": ["s"], "storage": "file"})
        await connection.store("s", b"x" * 95_000)
        with pytest.raises(ApiError):
            await connection.store("s", b"x" * 95_000)
        await connection.close()
        assert (await levels(endpoint, home))["storage"] == "problem"
    embedded.start(home)
    assert (await levels(find(), home))["disk"] == "ok"
    monkeypatch.setattr(doctor, "PLENTY", 1 << 60)
    assert (await levels(find(), home))["disk"] == "warning"
    monkeypatch.setattr(doctor, "LITTLE", 1 << 60)
    assert (await levels(find(), home))["disk"] == "problem"


async def test_the_doctor_sees_an_open_websocket(home, tmp_path):
    embedded.start(home)
    assert (await levels(find(), home))["websocket"] == "ok"
    port = free_port()
    home.save(replace(home.load(), ws_port=port))
    extra = f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true }}'
    with running(tmp_path / "open", extra=extra):
        assert (await levels(find(), home))["websocket"] == "problem"


async def test_the_doctor_sees_a_server_that_lets_in_anyone(home, tmp_path):
    with running(tmp_path / "open") as server:
        assert (await levels(find(server.url), home))["authentication"] == "warning"  # of this machine
    users = "accounts { A { users: [{user: a, password: b}], jetstream: enabled } }"
    with running(tmp_path / "closed", extra=users) as server:
        url = server.url.replace("//", "//a:b@")
        assert (await levels(find(url), home))["authentication"] == "ok"
    with running(tmp_path / "ajar", extra=f"{users}\nno_auth_user: a") as server:
        url = server.url.replace("//", "//a:b@")
        assert (await levels(find(url), home))["authentication"] == "warning"


async def test_the_doctor_sees_lines_that_are_too_short_for_grants(home, server: Server, tmp_path, version):
    assert (await levels(find(server.url), home))["control line"] == "warning"
    with running(tmp_path / "long", version, extra="max_control_line: 65536") as longer:
        assert (await levels(find(longer.url), home))["control line"] == "ok"


async def test_the_doctor_sees_a_server_that_is_out_of_date(home, server: Server, version, monkeypatch):
    installed = ".".join(map(str, doctor._installed()))
    expected = "ok" if version in (None, installed) else "warning"
    assert (await levels(find(server.url), home))["server"] == expected
    monkeypatch.setattr(doctor, "FIXED", (99, 0, 0))
    assert (await levels(find(server.url), home))["server"] == "problem"


async def test_the_doctor_sees_who_is_pinned_by_trying(home, server: Server, tmp_path):
    connection = await Connection.open(find(server.url))
    await streams.setup(connection, Names())
    await connection.close()
    said = {f.about: f.text for f in await doctor.examine(find(server.url), Names(), home)}
    assert "anyone here can pose as" in said["rights"]
    embedded.start(home)
    said = {f.about: f.text for f in await doctor.examine(replace(find(), verified=False), Names(), home)}
    assert "nobody can pose as it" in said["rights"]


async def test_the_doctor_sees_a_certificate_that_comes_near_its_end(home, monkeypatch):
    embedded.start(home, embedded.Wishes(host="127.0.0.1", tls=True))
    for endpoint in (find(), replace(find(), look=None, origin="a joined machine's")):
        assert (await levels(endpoint, home))["certificate"] == "ok"
        with monkeypatch.context() as then:
            then.setattr(exposure, "CERTIFICATE_DAYS", 400)
            assert (await levels(endpoint, home))["certificate"] == "warning"


async def test_the_doctor_sees_what_goes_over_the_network_in_the_clear(home, tmp_path):
    if not (addresses := machine_addresses()):
        pytest.skip("NOT TESTED: this machine has no address that others could reach")
    with running(tmp_path / "clear", host=addresses[0]) as server:
        found = await levels(find(server.url), home)
        assert (found["network"], found["authentication"]) == ("problem", "problem")
