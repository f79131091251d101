"""Grants and revocations on real servers: what is given out works, and what was taken back is over at once."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import stat
import subprocess
import time

import nats
import pytest
from harness import SERVERS, Server, binary, free_port, running, wait_for
from homes import NATSPROC, a_home, natsproc

import natsproc as sdk
from natsproc.access import Authority, Credential, claims_of, write_private
from natsproc.errors import BadName, Error, NoServer, NotAllowed, Refused, TooLarge
from natsproc.server import config, embedded, joined
from natsproc.server.find import find


@pytest.fixture(params=SERVERS, ids=[v or "newest" for v in SERVERS])
def home(tmp_path, monkeypatch, request):
    monkeypatch.setenv("NATSPROC_NATS_SERVER", str(binary(request.param)))
    with a_home(tmp_path / "home", monkeypatch) as home:
        yield home


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A home with keys, and no server."""
    with a_home(tmp_path / "home", monkeypatch) as home:
        embedded.prepare(home)
        yield home


class Client:
    """A plain client of nats-py with a credential, and what the server told it."""

    def __init__(self, home, made, tmp_path):
        self.url = home.url if isinstance(home, Server) else home.load().url
        self.file = tmp_path / f"{made.grant.key}.creds"
        self.file.write_text(made.creds)
        self.errors = []
        self.closed = asyncio.Event()

    async def __aenter__(self):
        async def note(error):
            self.errors.append(str(error))

        async def close():
            self.closed.set()

        self.nc = await nats.connect(
            self.url, user_credentials=str(self.file), error_cb=note, closed_cb=close, allow_reconnect=False,
            inbox_prefix=b"_INBOX." + Credential.read(self.file).sender.encode(),
        )  # fmt: skip
        return self

    async def __aexit__(self, *_):
        await self.nc.close()

    async def denied(self, subject):
        """Whether the server refuses to take something on a subject."""
        before = len(self.errors)
        await self.nc.publish(subject, b"{}")
        await self.nc.flush()
        await self.nc.flush()  # nats-py's first ping overtakes what it has to publish
        return any(subject.lower() in error.lower() for error in self.errors[before:])


async def refused(home, made, tmp_path):
    """Whether the server no longer lets a credential in."""
    told = ""
    try:
        async with Client(home, made, tmp_path):
            pass
    except nats.errors.Error as error:
        told = str(error).lower()
    assert not told or "'authorization violation'" in told or "authentication expired'" in told
    return bool(told)


async def test_a_grant_is_held_by_the_server_to_its_rights_scopes_and_name(home, tmp_path):
    embedded.start(home)
    made = sdk.grant("dash", ["watch", "control"], ["build", "chat/*"])
    async with Client(home, made, tmp_path) as dash:
        for subject in (
            "proc.default.build.history.dash",
            "proc.default.build.control.dash",
            "proc.chat._.history.dash",
            "proc.chat.later.hold.dash",
        ):
            assert not await dash.denied(subject)
        for subject in (
            "proc.default.other.history.dash",
            "proc.default.build.history.root",
            "proc.default.build.send.dash",
            "proc.default.build.inbox.dash",
            "proc.default.build.events",
            "proc.default.build.live",
            "proc._._.history.dash",
            "$JS.API.STREAM.PURGE.PROC_EVENTS",
            "$JS.API.DIRECT.GET.PROC_EVENTS.proc.default.build.events",
            "$KV.PROC_CLAIMS.default.build",
            "_INBOX.root.x",
        ):
            assert await dash.denied(subject), subject


async def test_a_revocation_ends_it_at_once_and_nobody_else(home, tmp_path):
    embedded.start(home)
    first, second = (sdk.grant("dash", ["watch"], ["build"]) for _ in range(2))
    other = sdk.grant("other", ["watch"], ["build"])
    assert [g.key for g in second.others] == [first.grant.key]
    a, b, c = (Client(home, made, tmp_path) for made in (first, second, other))
    async with a, b, c:
        (ended,) = await asyncio.to_thread(sdk.revoke, "dash", key=first.grant.key)
        assert ended.key == first.grant.key
        await asyncio.wait_for(a.closed.wait(), 2)
        assert await refused(home, first, tmp_path)
        await b.nc.flush()
        assert len(await asyncio.to_thread(sdk.revoke, "dash")) == 2
        await asyncio.wait_for(b.closed.wait(), 2)
        assert await refused(home, second, tmp_path)
        third = sdk.grant("dash", ["watch"], ["build"])
        assert not third.others
        assert not await refused(home, third, tmp_path)
        await c.nc.flush()
        assert not c.errors
    states = {grant.key: grant.state for grant in sdk.grants()}
    expected = {first: "revoked", second: "revoked", other: "valid", third: "valid"}
    assert states == {made.grant.key: state for made, state in expected.items()}


async def test_a_revocation_outlives_the_server(home, tmp_path):
    embedded.start(home)
    made, other = sdk.grant("dash", ["watch"], ["build"]), sdk.grant("other", ["watch"], ["build"])
    await asyncio.to_thread(sdk.revoke, "dash")
    for again in (False, True):
        await asyncio.to_thread(embedded.stop, home)
        if again:  # as if the server had never heard of it
            for jwt in (home.folder / "jwt").iterdir():
                jwt.unlink()
        await asyncio.to_thread(embedded.start, home)
        assert await refused(home, made, tmp_path)
        assert not await refused(home, other, tmp_path)


async def test_what_was_revoked_while_the_server_was_down_is_refused_from_its_start_on(home, tmp_path):
    embedded.start(home)
    made, other = sdk.grant("dash", ["watch"], ["build"]), sdk.grant("other", ["watch"], ["build"])
    assert not await refused(home, made, tmp_path)
    await asyncio.to_thread(embedded.stop, home)
    sdk.revoke("dash")
    await asyncio.to_thread(embedded.start, home)
    assert await refused(home, made, tmp_path)
    assert not await refused(home, other, tmp_path)
    with pytest.raises(BadName, match="nobody holds no credential"):
        sdk.revoke("nobody")


def test_what_was_revoked_once_stays_so_whatever_becomes_of_the_list(place):
    made = [sdk.grant(f"s{number}", ["watch"], ["build"]) for number in range(2)]
    before = claims_of(Authority.load(place.keys).account_jwt)["iat"]
    sdk.revoke("s0")
    (place.folder / "grants.json").unlink()
    assert sdk.grants() == []
    again = sdk.grant("s1", ["watch"], ["build"])
    sdk.revoke("s1")
    claims = claims_of(Authority.load(place.keys).account_jwt)
    revoked = claims["nats"]["revocations"]
    assert set(revoked) == {made[0].grant.key, again.grant.key}
    assert claims["iat"] >= before + 2  # or a server may think it the older one


def test_files_are_private_and_the_list_has_no_secret(place, tmp_path):
    made = sdk.grant("dash", ["watch"], ["build"], seconds=60)
    sdk.revoke("dash")
    for path in (place.keys, place.folder / "grants.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listed = (place.folder / "grants.json").read_text()
    jwt = made.creds.split("-----\n")[1].split("\n")[0]
    seed = made.creds.split("SEED-----\n")[1].split("\n")[0]
    assert seed.startswith("SU")
    for secret in (jwt, seed, made.line):
        assert secret not in listed
        assert secret not in repr(made)
        assert secret not in repr(Credential.of(made.line, "it"))


def test_a_line_is_the_same_credential_with_where_the_server_is(place):
    made = sdk.grant("dash", ["watch"], ["build"], url="wss://mesh.example/nats", prefix="mesh2")
    assert "\n" not in made.line
    read = Credential.of(made.line, "it")
    assert read == Credential.of(made.creds, "it") == Credential("dash", True, made.grant.expires, False)
    assert (read.text, read.url, read.prefix) == (made.creds, "wss://mesh.example/nats", "mesh2")
    assert Credential.of(sdk.grant("dash", ["send"], ["b"], url="nats://h:1").line, "it").url == "nats://h:1"


async def test_a_credential_that_is_refused_at_once_is_told_why_as_far_as_that_is_known(home, tmp_path):
    embedded.start(home)
    url, may = home.load().url, {"pub": (), "sub": ()}
    ours, theirs = Authority.load(home.keys), Authority.create()
    for authority, seconds, told in (
        (ours, -5, r"expired at 20.* UTC: ask for a new one"),
        (theirs, 60, "'dash': it was revoked .*, or it is of another server. Ask for a new one"),
    ):
        write_private(
            path := tmp_path / "dash.creds", authority.credential("dash", may, expires=time.time() + seconds)
        )
        with pytest.raises(NotAllowed, match=told):
            async with sdk.connect(url, creds=str(path)):
                pass


def test_a_grant_for_a_server_of_other_keys_says_so(home, tmp_path):
    embedded.start(home)
    url, watch = home.load().url, ("grant", "dash", "--can", "watch", "--on", "job", "--server")
    strange = Authority.create()
    text = config.mesh_config(
        strange,
        config.version_of(binary()),
        jwts=tmp_path / "jwt",
        store=tmp_path / "store",
        durable="interval",
    )
    with running(tmp_path / "nats", jetstream=False, extra=text) as other:
        for there, told in (
            (url, None),
            (other.url, f"the nats-server at {other.url} does not accept it"),
            (
                f"nats://127.0.0.1:{free_port()}",
                "whether the server there goes by these keys is not known: no nats-server",
            ),
        ):
            done = natsproc(*watch, there)
            assert (done.returncode, done.stdout[:9]) == (0, "natsproc_")
            remarks = [line for line in done.stderr.splitlines() if " it" in line or " keys" in line]
            assert [told in line for line in remarks] == ([True] if told else []), done.stderr


@pytest.mark.parametrize(
    "broken", ["natsproc_", "natsproc_e30", "natsproc_é", "natsproc_bnVsbA", "natsproc_W10"]
)
def test_a_broken_line_is_refused_without_showing_it(broken):
    with pytest.raises(Error, match=r"^NATSPROC_GRANT is not a \.creds file") as caught:
        Credential.of(broken + "c2VjcmV0", "NATSPROC_GRANT")
    assert "c2VjcmV0" not in str(caught.value)


async def test_a_line_in_the_environment_or_in_a_file_is_all_that_a_client_needs(home, tmp_path, monkeypatch):
    embedded.start(home, prefix="mesh2")
    made = sdk.grant("dash", ["all"], prefix="mesh2")
    monkeypatch.setenv("NATSPROC_HOME", str(tmp_path / "elsewhere"))
    path = tmp_path / "line"
    path.write_text(made.line + "\n")
    async with sdk.connect(creds=str(path)) as mesh:
        assert (mesh.sender, mesh.names.prefix) == ("dash", "mesh2")
    monkeypatch.setenv("NATSPROC_GRANT", made.line)
    async with sdk.connect() as mesh:
        assert (mesh.sender, mesh.names.prefix) == ("dash", "mesh2")
        assert mesh.connection.endpoint.verified
        await asyncio.to_thread(sdk.run, lambda proc: proc.emit("said", 1), id="job", kind="test")
        assert [str(info.address) for info in await mesh.list(ended=True)] == ["job"]
    assert made.line not in repr(find())
    assert find().secret not in repr(find())
    assert find("nats://elsewhere:1").secret == ""  # a line goes to its own server only


async def test_a_line_proves_a_server_with_certificates_of_its_own(home, tmp_path, monkeypatch):
    embedded.start(home, embedded.Wishes(host="127.0.0.1", tls=True))
    made = sdk.grant("dash", ["all"])
    monkeypatch.setenv("NATSPROC_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("NATSPROC_GRANT", made.line)
    async with sdk.connect() as mesh:
        assert mesh.url.startswith("tls://127.0.0.1:")


async def test_a_machine_that_was_invited_is_listed_and_can_be_turned_out(home, tmp_path):
    embedded.start(home)
    at = ("127.0.0.1", home.load().port)
    sdk.grant("dash", ["watch"], ["build"])
    with pytest.raises(BadName, match="'dash' holds narrower credentials, which would hear"):
        joined.invite(home, "dash", at=at)
    sdk.revoke("dash")
    invitation = joined.invite(home, "laptop", at=at)
    (tmp_path / "laptop.creds").write_text(invitation.creds)
    _, listed = sdk.grants()
    assert (listed.sender, listed.can, listed.expires) == ("laptop", ("all",), None)
    async with sdk.connect(home.load().url, creds=str(tmp_path / "laptop.creds")):
        pass
    await asyncio.to_thread(sdk.revoke, "laptop")
    with pytest.raises(NotAllowed):
        async with sdk.connect(home.load().url, creds=str(tmp_path / "laptop.creds")):
            pass


async def test_a_mesh_grants_for_itself_and_revokes(home, tmp_path):
    embedded.start(home)
    async with sdk.connect(namespace="chat") as mesh:
        made = await mesh.grant("dash", ["watch"], ["*"], seconds=60)
        assert made.grant.on == ("chat/*",)
        assert Credential.of(made.line, "it").url == mesh.url
        async with Client(home, made, tmp_path) as dash:
            assert not await dash.denied("proc.chat.x.history.dash")
            await mesh.revoke("dash")
            await asyncio.wait_for(dash.closed.wait(), 2)
        await asyncio.to_thread(embedded.prepare, home)
        Authority.create().save(home.keys)
        with pytest.raises(Refused, match="does not go by the keys"):
            await mesh.grant("dash", ["watch"], ["*"])


async def test_an_expired_credential_is_refused(home, tmp_path):
    embedded.start(home)
    made = sdk.grant("dash", ["all"], seconds=1)
    async with Client(home, made, tmp_path) as dash:
        await asyncio.wait_for(dash.closed.wait(), 5)
    async with asyncio.timeout(5):  # a server counts whole seconds
        while not await refused(home, made, tmp_path):
            pass
    with pytest.raises(NotAllowed, match="expired"):
        find(creds=str(dash.file))


def test_what_cannot_be_granted(place):
    for sender in ("a.b", "*", "", "_x", "a b"):
        with pytest.raises(BadName, match="cannot be a process sender"):
            sdk.grant(sender, ["watch"], ["build"])
    with pytest.raises(TooLarge, match="grant whole namespaces"):
        sdk.grant("dash", ["watch", "send", "control"], [f"a-rather-long-name-{n}" for n in range(200)])
    sdk.grant("dash", ["watch"], [f"a-rather-long-name-{n}" for n in range(100)])
    place.keys.unlink()
    with pytest.raises(Error, match=r"no keys in .*keys\.json.*--print"):
        sdk.grant("dash", ["watch"], ["build"])


async def test_as_many_scopes_as_a_credential_holds_do_connect(home, tmp_path):
    embedded.start(home)
    scopes = []
    while True:
        scopes += [f"a-rather-long-name-{n}" for n in range(len(scopes), len(scopes) + 20)]
        try:
            made = sdk.grant("dash", ["watch", "send", "control"], scopes)
        except TooLarge:
            break
    assert not await refused(home, made, tmp_path)


def test_keys_of_another_file(place, tmp_path, monkeypatch):
    monkeypatch.setenv("NATSPROC_HOME", str(tmp_path / "nothing"))
    with pytest.raises(Error, match="no keys"):
        sdk.grant("dash", ["watch"], ["build"])
    made = sdk.grant("dash", ["watch"], ["build"], keys=place.keys)
    assert [g.key for g in sdk.grants(keys=place.keys)] == [made.grant.key]
    assert sdk.revoke("dash", keys=place.keys)[0].state == "revoked"


def test_the_command_line(home, tmp_path):
    embedded.start(home)
    out = tmp_path / "dash.creds"
    done = natsproc(
        "grant", "dash", "--can", "watch,send", "--on", "build-1,chat/*", "--for", "1h", "--out", out
    )
    assert (done.returncode, done.stdout) == (0, "")
    key = Credential.read(out).key
    assert done.stderr == (
        f"natsproc: dash may watch, send on default/build-1, chat/* for 1h00m; key {key[:12]}\n"
    )
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert 3500 < Credential.read(out).expires - time.time() <= 3600

    line = natsproc("grant", "dash", "--can", "watch,own", "--on", "*/*", "--for", "0")
    assert "dash holds another credential already, until 20" in line.stderr
    whole = Credential.of(line.stdout, "stdout")
    assert whole.expires is None

    listed = natsproc("grants")
    assert [row.split()[:3] for row in listed.stdout.splitlines()] == [
        ["SENDER", "CAN", "STATE"], ["dash", "watch,send", "valid"], ["dash", "watch,own", "valid"]
    ]  # fmt: skip
    objects = [json.loads(row) for row in natsproc("grants", "-o", "json").stdout.splitlines()]
    assert objects[0]["key"] == key
    assert objects[0]["on"] == ["default/build-1", "chat/*"]
    assert (objects[1]["expires"], objects[1]["revoked"], objects[1]["state"]) == (None, None, "valid")

    environment = os.environ | {
        "NATSPROC_GRANT": line.stdout.strip(),
        "NATSPROC_HOME": str(tmp_path / "none"),
    }
    ps = [NATSPROC, "ps", "-o", "json"]  # which the gate answers
    assert subprocess.run(ps, env=environment, capture_output=True).returncode == 0
    one = natsproc("revoke", "dash", "--key", key[:12])
    assert (one.returncode, one.stdout) == (0, f"{key}\n")
    assert subprocess.run(ps, env=environment, capture_output=True).returncode == 0
    assert set(natsproc("revoke", "dash").stdout.split()) == {key, whole.key}
    late = subprocess.run(ps, env=environment, capture_output=True, text=True)
    assert late.returncode == 5
    assert late.stderr.startswith("natsproc: the nats-server at")
    assert len(late.stderr.splitlines()) == 1
    unknown = natsproc("revoke", "stranger")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr == (
        "natsproc: stranger holds no credential that was granted here; see `natsproc grants`\n"
    )
    partial = natsproc("grant", "dash", "--can", "watch", "--on", "build-*")
    assert partial.returncode == 2
    assert "tells whole names apart" in partial.stderr


RIGHTS_PRINTED = ("grant", "dash", "--can", "watch,send", "--on", "build,chat/*", "--print")


def mesh_of_others(folder, home, version, number, routes):
    """A server of a cluster by the keys of a home, as `natsproc up --write-config` configures one."""
    authority = embedded.prepare(home)
    made = config.version_of(binary(version))
    whole = config.mesh_config(
        authority, made, jwts=folder / f"jwt{number}", store=folder / f"js{number}", durable="interval"
    )
    joined_up = f'cluster {{ name: c, listen: "{routes[number][7:]}", routes: {json.dumps(routes)} }}'
    names = f"server_name: s{number}"
    lines = "\n".join(line for line in whole.splitlines() if not line.startswith("jetstream"))
    return Server(folder / f"s{number}", version, "\n".join((names, joined_up, lines)), jetstream=False)


@pytest.mark.parametrize("version", SERVERS, ids=[v or "newest" for v in SERVERS])
async def test_a_revocation_said_to_one_server_of_a_cluster_ends_it_on_all(place, tmp_path, version):
    routes = [f"nats://127.0.0.1:{free_port()}" for _ in range(2)]
    servers = [mesh_of_others(tmp_path, place, version, number, routes) for number in range(2)]
    try:
        for server in servers:
            server.start()
        log = tmp_path / "s0" / "server.log"
        wait_for(lambda: b"Route connection created" in log.read_bytes(), what="the cluster")
        made = sdk.grant("dash", ["watch"], ["build"])
        one, two = (Client(server, made, tmp_path) for server in servers)
        async with one, two:
            await asyncio.to_thread(sdk.revoke, "dash", server=servers[0].url)
            await asyncio.wait_for(one.closed.wait(), 5)
            await asyncio.wait_for(two.closed.wait(), 5)
        servers[1].restart()
        assert await refused(servers[1], made, tmp_path)
        with pytest.raises(NoServer, match="revoked in the keys, but the server was not told"):
            await asyncio.to_thread(sdk.revoke, "dash", server=f"nats://127.0.0.1:{free_port()}")
    finally:
        for server in servers:
            server.stop()


@pytest.mark.parametrize("output", ["conf", "json"])
@pytest.mark.parametrize("version", SERVERS, ids=[v or "newest" for v in SERVERS])
async def test_what_is_printed_for_a_server_of_others_is_enforced_there(tmp_path, version, output):
    printed = natsproc(*RIGHTS_PRINTED, "-o", output, NATSPROC_HOME=str(tmp_path / "none")).stdout
    block = printed if output == "conf" else f"permissions: {printed}"
    users = f'authorization {{ users: [ {{ user: dash, password: "p"\n{block} }} ] }}'
    with running(tmp_path / "nats", version, extra=users) as server:
        told = []

        async def note(error):
            told.append(str(error))

        nc = await nats.connect(server.url, user="dash", password="p", error_cb=note)
        for subject, allowed in {
            "proc.default.build.history.dash": True,
            "proc.chat._.send.dash": True,
            "proc.default.build.history.root": False,
            "proc.default.build.control.dash": False,
            "proc.default.build.events": False,
            "$JS.API.INFO": False,
        }.items():
            told.clear()
            await nc.publish(subject, b"{}")
            await nc.flush()
            await nc.flush()
            assert bool(told) != allowed, subject
        told.clear()
        await nc.subscribe("proc.default.build.live")
        await nc.flush()
        assert not told
        await nc.subscribe("proc.default.build.events")
        await nc.flush()
        await nc.flush()
        assert told
        await nc.close()


def test_printing_needs_no_keys_and_says_all_three_ways(tmp_path):
    done = natsproc(*RIGHTS_PRINTED, "--for", "90m", NATSPROC_HOME=str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "none").exists()
    assert "permissions: {" in done.stdout
    nsc = shlex.split(done.stdout.splitlines()[-1])
    assert nsc[:7] == ["nsc", "add", "user", "--name", "dash", "--expiry", "90m"]
    options = dict(zip(nsc[7::2], nsc[8::2], strict=True))
    printed = json.loads(natsproc(*RIGHTS_PRINTED, "-o", "json").stdout)
    assert options["--allow-pub"].split(",") == printed["publish"]["allow"]
    assert options["--allow-sub"].split(",") == printed["subscribe"]["allow"]
    contradiction = natsproc(*RIGHTS_PRINTED, "--out", tmp_path / "x")
    assert contradiction.returncode == 2
    assert "exclude each other" in contradiction.stderr


def test_nobody_shares_a_name_with_who_is_trusted_with_more(place):
    """They would share the inboxes, and hear each other's answers."""
    local = Credential.read(place.creds).sender
    with pytest.raises(BadName, match="has that name"):
        sdk.grant(local, ["watch"], ["build"])
    sdk.grant(local, ["all"])
    sdk.grant("laptop", ["all"])
    with pytest.raises(BadName, match="the right `all`"):
        sdk.grant("laptop", ["watch"], ["build"])
    sdk.grant("dashboard", ["watch"], ["build"])
    sdk.grant("dashboard", ["control"], ["build"])
    with pytest.raises(BadName, match="natsproc revoke dashboard"):
        sdk.grant("dashboard", ["all"])
    sdk.revoke("dashboard")
    sdk.grant("dashboard", ["all"])
