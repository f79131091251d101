"""A second machine: TLS by the home's own authority or by certificates given, and the line that invites to it."""

import asyncio
import io
import json
import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import time
from dataclasses import replace

import nats
import pexpect
import pytest
from harness import VERSIONS, binary, free_port, running, wait_for
from homes import NATSPROC, a_home, connect, natsproc, servers_of, websocket_answer

from natsproc.access import Authority, write_private
from natsproc.bus.connection import Connection, NoServer
from natsproc.errors import BadPayload, Error, NotAllowed
from natsproc.protocol.names import Names
from natsproc.server import certificates, doctor, embedded, find_server, joined, supervisor, x509
from natsproc.server.embedded import Wishes
from natsproc.server.find import find
from natsproc.server.home import Home
from natsproc.server.joined import Invitation
from natsproc.server.joining import join

TLS = Wishes(host="127.0.0.1", tls=True)
DAY = 86400


@pytest.fixture
def home(tmp_path, monkeypatch):
    with a_home(tmp_path / "home", monkeypatch) as home:
        yield home


@pytest.fixture
def other(tmp_path):
    """The home of a machine that joins."""
    return Home(tmp_path / "other")


def invited(home: Home, **options) -> Invitation:
    state = home.load()
    return joined.invite(home, "laptop", at=("127.0.0.1", state.port), **options)


def refused(home: Home, other: Home, invitation: Invitation) -> str:
    """The sentence with which a line comes to nothing; nothing is left of it."""
    with pytest.raises(Error) as caught:
        join(other, invitation.encode(), Names())
    assert joined.load(other.joined) is None
    assert not list(other.folder.glob("join*"))
    assert invitation.creds.splitlines()[1] not in str(caught.value)
    return str(caught.value)


async def test_by_tls_alone_and_by_the_authority_of_the_home(home):
    embedded.start(home, TLS)
    status = embedded.status(home)
    assert status["url"].startswith("tls://127.0.0.1:")
    assert status["ws_url"].startswith("wss://127.0.0.1:")
    connection = await connect(home)
    assert connection.url == status["url"]
    await connection.close()
    for url in (status["url"].replace("tls:", "nats:"), status["ws_url"]):
        connection = await Connection.open(find(url))
        await connection.close()
    for url in (status["url"], status["ws_url"]):
        stranger = replace(find(), servers=(url,), options={"tls": ssl.create_default_context()}, look=None)
        with pytest.raises(NoServer, match=r"cannot prove .*\(unable to get local issuer.*NATS_CA"):
            await Connection.open(stranger)
    found = {f.about: f for f in await doctor.examine(find(), Names(), home)}
    assert {f.level for f in found.values()} == {"ok"}, found
    assert "365 days" in found["certificate"].text


async def test_over_ipv6(home, other):
    if not embedded.is_free("::1", 0):
        pytest.skip("NOT TESTED: this machine has no IPv6")
    embedded.start(home, replace(TLS, host="::"))
    assert embedded.status(home)["url"] == f"tls://[::1]:{home.load().port}"
    assert "problem" not in [f.level for f in await doctor.examine(find(), Names(), home)]
    line = joined.invite(home, "laptop", at=("::1", home.load().port)).encode()
    assert join(other, line, Names())[0].urls == (embedded.status(home)["url"],)


def test_secrets_of_the_authority_are_for_its_owner_alone(home):
    embedded.start(home, TLS)
    for path in (home.authority_pem, home.server_pem, home.folder / "server.conf"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "PRIVATE" not in home.ca_pem.read_text()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_browser_comes_in_by_tls_from_pages_of_this_server_only(home, host):
    embedded.start(home, replace(TLS, host=host))
    ws_url = embedded.status(home)["ws_url"]
    port = home.load().pages_port
    context = ssl.create_default_context(cafile=home.ca_pem)
    own = ["127.0.0.1", "localhost", *(certificates.machine_addresses() if host == "0.0.0.0" else [])]
    for name in (f"[{name}]" if ":" in name else name for name in own):
        assert websocket_answer(ws_url, f"https://{name}:{port}", context) == 101
    for stranger in ("https://example.com", f"http://127.0.0.1:{port}", "null"):
        assert websocket_answer(ws_url, stranger, context) == 403


async def test_who_was_connected_before_there_was_tls_finds_the_server_again(home):
    embedded.start(home)
    connection = await connect(home)
    await asyncio.to_thread(embedded.stop, home)
    await asyncio.to_thread(embedded.start, home, TLS)
    await asyncio.wait_for(connection.wait_connected(), 20)
    assert connection.nc.certificate
    await connection.close()


async def test_nothing_is_said_where_tls_is_no_longer_offered(home, tmp_path):
    """Whoever is in between could say so, and would get the credential's signature."""
    embedded.start(home, TLS)
    endpoint = replace(find(), look=None)
    embedded.stop(home)
    with running(tmp_path / "plain") as plain, pytest.raises(NoServer, match="offers no TLS"):
        await Connection.open(replace(endpoint, servers=(plain.url.replace("nats:", "tls:"),)))


def test_what_is_remembered_and_what_changes_only_when_asked_for(home):
    embedded.start(home, TLS)
    embedded.stop(home)
    embedded.start(home)
    assert embedded.status(home)["tls"]
    with pytest.raises(Error, match="natsproc down"):
        embedded.start(home, Wishes(tls=False))
    embedded.stop(home)
    embedded.start(home, Wishes(tls=False))
    assert embedded.status(home)["url"].startswith("nats://")


def test_an_address_of_another_machine_cannot_be_listened_on(home):
    with pytest.raises(Error, match=r"192\.0\.2\.1 is no address of this machine"):
        embedded.start(home, Wishes(host="192.0.2.1", tls=True))


# Certificates


def test_a_certificate_is_made_anew_long_before_its_end_and_not_before(home, monkeypatch):
    home.folder.mkdir()
    state = embedded._settle(home, TLS)
    made = home.server_pem.read_text()
    assert certificates.settle(home, state) == state
    assert home.server_pem.read_text() == made
    authority = home.authority_pem.read_text()
    for days, anew in ((181, False), (179, True)):
        with monkeypatch.context() as then:
            then.setattr(x509, "SERVER_DAYS", days)
            write_private(
                home.server_pem, x509.sign_server(authority, state.name, x509.read(made.encode())[0])
            )
        assert (certificates.settle(home, state).certificate_ends > time.time() + 200 * DAY) == anew
    assert home.authority_pem.read_text() == authority


def test_another_address_is_in_the_next_certificate(home):
    home.folder.mkdir()
    state = embedded._settle(home, TLS)
    certificates.settle(home, replace(state, host="mesh.example.com"))
    assert "mesh.example.com" in x509.read(home.server_pem.read_bytes())[0]


async def test_the_supervisor_renews_it_when_it_starts_the_server_again(home, monkeypatch):
    embedded.start(home, TLS)
    state, authority = home.load(), home.authority_pem.read_text()
    monkeypatch.setattr(x509, "SERVER_DAYS", 9)
    write_private(home.server_pem, x509.sign_server(authority, state.name, ["localhost", "127.0.0.1"]))
    (pid,) = servers_of(home)
    subprocess.run(["kill", "-9", str(pid)], check=True)
    wait_for(lambda: home.load().restarts == 1 and home.load().answers(), what="the server to be back")
    assert home.load().certificate_ends > time.time() + 300 * DAY
    await (await connect(home)).close()


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_server_that_runs_takes_up_a_new_one_without_a_break(home, monkeypatch, version):
    monkeypatch.setenv("NATSPROC_NATS_SERVER", str(binary(version)))
    embedded.start(home, TLS)
    before = await connect(home)
    state, authority = home.load(), home.authority_pem.read_text()
    assert supervisor.renew(home, state, servers_of(home)[0]) == state
    monkeypatch.setattr(x509, "SERVER_DAYS", 9)
    write_private(home.server_pem, x509.sign_server(authority, state.name, [state.name, "127.0.0.1"]))
    monkeypatch.setattr(x509, "SERVER_DAYS", 300)
    supervisor.renew(home, state, servers_of(home)[0])
    for url in (state.url, state.ws_url):
        await until_its_certificate_lasts(home, url, 300)
    await before.ping()
    assert before.nc.stats["reconnects"] == 0
    await before.close()
    assert home.load().restarts == 0


async def until_its_certificate_lasts(home, url, days):
    """Wait until who connects is shown a certificate that ends in so many days."""
    context = ssl.create_default_context(cafile=home.ca_pem)
    host, port = url.partition("://")[2].split(":")

    def shown() -> bool:
        with socket.create_connection((host, int(port)), 5) as peer:
            if not url.startswith("wss"):
                peer.recv(4096)
            with context.wrap_socket(peer, server_hostname=host) as tls:
                ends = ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"])
        return abs(ends - time.time() - days * DAY) < DAY

    await asyncio.to_thread(wait_for, shown, 20, "the new certificate")


def test_a_certificate_that_was_given(home, other, tmp_path, monkeypatch):
    authority = x509.make_authority("elsewhere")
    cert, ca = tmp_path / "mesh.pem", tmp_path / "ca.pem"
    cert.write_text(x509.sign_server(authority, "mesh", ["mesh.example.com"]))
    ca.write_text(authority.partition("-----BEGIN PRIVATE")[0])
    wishes = replace(TLS, cert=str(cert), key=str(cert), ca=str(ca))
    with pytest.raises(Error, match="cannot use the certificate"):
        embedded.start(home, replace(wishes, key=str(ca)))
    with pytest.raises(
        Error, match=r"unable to get local issuer certificate.*authority that signed it by --ca$"
    ):
        embedded.start(home, replace(wishes, ca=""))
    (tmp_path / "other.pem").write_text(x509.make_authority("other").partition("-----BEGIN PRIVATE")[0])
    with pytest.raises(Error, match="by --ca; those between the two"):
        embedded.start(home, replace(wishes, ca=str(tmp_path / "other.pem")))
    with monkeypatch.context() as then:
        then.setattr(x509, "SERVER_DAYS", -0.5)
        (tmp_path / "old.pem").write_text(x509.sign_server(authority, "mesh", ["mesh.example.com"]))
    with pytest.raises(Error, match=r"has expired.*make a new one"):
        embedded.start(home, replace(wishes, cert=str(tmp_path / "old.pem"), key=str(tmp_path / "old.pem")))
    assert (home.load(), home.running) == (None, False)
    assert embedded.start(home, wishes)
    assert not home.tls.exists()
    assert join(other, invited(home).encode(), Names())[0].tls_name == "mesh.example.com"


@pytest.mark.parametrize(("name", "warned"), [("192.0.2.7", True), ("127.0.0.1", False)])
def test_up_says_what_other_machines_will_meet(home, tmp_path, name, warned):
    authority = x509.make_authority("elsewhere")
    cert, ca = tmp_path / "mesh.pem", tmp_path / "ca.pem"
    cert.write_text(x509.sign_server(authority, "mesh", [name]))
    ca.write_text(authority.partition("-----BEGIN PRIVATE")[0])
    given = ("--tls", "--cert", cert, "--key", cert, "--ca", ca)
    done = natsproc("up", "--port", free_port(), "--ws-port", free_port(), "--listen", "127.0.0.1", *given)
    assert (done.returncode, done.stdout) == (0, "")
    assert ("is for 192.0.2.7, not for 127.0.0.1" in done.stderr) == warned, done.stderr
    assert "this machine only" in done.stderr


def test_without_the_library_it_says_what_to_install(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "natsproc.server.x509", None)
    monkeypatch.delattr("natsproc.server.x509")
    with pytest.raises(Error, match=r"pip install 'natsproc\[tls\]'"):
        embedded.start(home, TLS)


# Joining


async def test_a_machine_that_joined_needs_no_flags(home, other, monkeypatch):
    embedded.start(home, TLS)
    place, sender = join(other, f"echo {invited(home).encode()} | natsproc join\n", Names())
    assert sender == "laptop"
    monkeypatch.setenv("NATSPROC_HOME", str(other.folder))
    for endpoint in (find(), find_server(start=True), find(place.urls[0])):
        connection = await Connection.open(endpoint)
        assert (connection.sender, connection.endpoint.verified) == ("laptop", True)
        await connection.close()
    assert natsproc("ps").returncode == 0
    ws_url = home.load().ws_url
    assert natsproc("ps", "--server", ws_url).returncode == 0
    status = natsproc("status", "-o", "json")
    assert (status.returncode, json.loads(status.stdout)["joined"]) == (0, list(place.urls))
    assert {f.level for f in await doctor.examine(find(), Names(), other)} == {"ok"}
    for path in other.joined.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    invite = natsproc("invite", "another")
    assert invite.returncode == 4
    assert "the machine that runs its server" in invite.stderr
    granted = natsproc("grant", "bob", "--can", "watch", "--on", "x")
    assert (granted.returncode, granted.stdout) == (1, "")
    assert "the machine that runs the server" in granted.stderr
    up = natsproc("up")
    assert (up.returncode, other.running) == (1, False)
    assert "natsproc leave" in up.stderr
    assert "forgot" in natsproc("leave").stderr
    assert natsproc("ps").returncode == 4
    unknown = natsproc("ps", "--server", ws_url)
    assert (unknown.returncode, "cannot prove that it is the server meant" in unknown.stderr) == (4, True)
    ca = {"NATS_CA": str(home.ca_pem)}
    assert natsproc("ps", "--server", ws_url, "--creds", home.creds, **ca).returncode == 0
    assert natsproc("ps", "--server", home.load().url, "--creds", home.creds, **ca).returncode == 0
    assert "no mesh" in natsproc("leave").stderr
    assert not other.joined.exists()


def test_a_machine_whose_credential_is_revoked_is_out_and_told_so(home, other):
    embedded.start(home, TLS)
    word = invited(home).encode()
    join(other, word, Names())
    assert "laptop" in natsproc("grants").stdout
    assert natsproc("ps", NATSPROC_HOME=str(other.folder)).returncode == 0
    assert natsproc("revoke", "laptop").returncode == 0
    out = natsproc("ps", NATSPROC_HOME=str(other.folder))
    assert (out.returncode, "does not accept the credential of 'laptop': it was revoked" in out.stderr) == (
        5,
        True,
    ), out.stderr
    assert "natsproc invite" in out.stderr
    with pytest.raises(NotAllowed, match="refuses the credential in the line"):
        join(other, word, Names())
    assert joined.load(other.joined)  # as it was


async def test_the_websocket_of_a_mesh_that_is_known_needs_no_more_than_its_url(home, other, monkeypatch):
    embedded.start(home, replace(TLS, host="0.0.0.0"))
    addresses = ["127.0.0.1", *(a for a in certificates.machine_addresses() if ":" not in a)]
    urls = [at for a in addresses for at in (home.load().ws_url_at(a), home.load().url_at(a))]
    join(other, invited(home).encode(), Names())
    for folder, sender, known in ((home.folder, None, urls), (other.folder, "laptop", urls[:2])):
        monkeypatch.setenv("NATSPROC_HOME", str(folder))
        for url in known:
            connection = await Connection.open(find(url))
            assert sender in (None, connection.sender)
            assert (connection.url, connection.endpoint.verified) == (url, True)
            await connection.close()


def test_a_machine_that_joined_by_a_line_of_before_is_still_in(home, other):
    embedded.start(home, TLS)
    join(other, invited(home).encode(), Names())
    kept = other.joined / "joined.json"
    kept.write_text(json.dumps(json.loads(kept.read_text())[:2]))
    assert natsproc("ps", NATSPROC_HOME=str(other.folder)).returncode == 0


async def test_any_nats_client_can_use_the_files(home, other):
    embedded.start(home, TLS)
    place, _ = join(other, invited(home).encode(), Names())
    tls = ssl.create_default_context(cafile=other.joined / "ca.pem")
    creds = other.joined / "machine.creds"
    for url in (place.urls[0], embedded.status(home)["ws_url"]):
        client = await nats.connect(url, tls=tls, user_credentials=creds)
        assert await client.jetstream().stream_info("PROC_EVENTS")
        await client.close()


def test_an_authority_that_is_gone_is_a_sentence_and_made_anew(home, other):
    embedded.start(home, TLS)
    join(other, invited(home).encode(), Names())
    shutil.rmtree(home.tls)
    gone = natsproc("ps")
    assert (gone.returncode, "`natsproc down` and `natsproc up`" in gone.stderr) == (1, True), gone.stderr
    assert natsproc("down").returncode == 0
    assert natsproc("up").returncode == 0
    assert natsproc("ps").returncode == 0
    stale = natsproc("ps", NATSPROC_HOME=str(other.folder))
    assert (stale.returncode, "cannot prove" in stale.stderr) == (4, True), stale.stderr


def test_a_line_that_is_none_or_only_a_part(home, other):
    embedded.start(home, TLS)
    word = invited(home).encode()
    for text in ("", "natsproc join", word[:-9], word[:900], word[:50] + "é" + word[51:]):
        with pytest.raises(BadPayload, match="no line of `natsproc invite`"):
            join(other, text, Names())


def test_a_server_that_cannot_be_reached(home, other):
    embedded.start(home, TLS)
    gone = replace(invited(home), urls=(f"tls://127.0.0.1:{free_port()}",))
    assert "cannot reach tls://127.0.0.1" in refused(home, other, gone)
    nowhere = replace(gone, urls=("tls://nowhere.invalid:4222",))
    assert "cannot reach tls://nowhere.invalid:4222" in refused(home, other, nowhere)


def test_of_several_addresses_those_count_that_are_reached(home, other):
    embedded.start(home, TLS)
    one = invited(home)
    both = replace(one, urls=(f"tls://127.0.0.1:{free_port()}", *one.urls))
    assert join(other, both.encode(), Names())[0].urls == one.urls


def test_a_server_with_another_authority(home, other, tmp_path, monkeypatch):
    embedded.start(home, TLS)
    invitation = invited(home)
    with a_home(tmp_path / "stranger", monkeypatch) as stranger:
        embedded.start(stranger, TLS)
        text = refused(home, other, replace(invitation, urls=(embedded.status(stranger)["url"],)))
        assert "cannot prove that it is the server of the line" in text


def test_a_server_without_tls_and_something_that_is_no_server(home, other, tmp_path):
    embedded.start(home, TLS)
    invitation = invited(home)
    with running(tmp_path / "plain") as plain:
        text = refused(home, other, replace(invitation, urls=(plain.url.replace("nats:", "tls:"),)))
        assert "offers no TLS" in text
    port = home.load().ws_port
    text = refused(home, other, replace(invitation, urls=(f"tls://127.0.0.1:{port}",)))
    assert "is no nats-server" in text or "cannot reach" in text


def test_a_certificate_that_is_not_valid_by_the_clock_here(home, other, monkeypatch):
    monkeypatch.setattr(x509, "_EARLIER", -x509._EARLIER)
    with pytest.raises(NoServer, match="a clock is wrong"):
        embedded.start(home, TLS)
    assert "not valid yet by this machine's clock" in refused(home, other, invited(home))


def test_a_credential_that_is_refused_or_has_expired(home, other):
    embedded.start(home, TLS)
    foreign = replace(invited(home), creds=Authority.create().credential("laptop"))
    assert "refuses the credential in the line" in refused(home, other, foreign)
    assert "the line was good until" in refused(home, other, invited(home, expires=time.time() - 5))
    with pytest.raises(NotAllowed):
        join(other, foreign.encode(), Names())


def test_a_machine_whose_own_server_runs_is_not_joined(home, other, tmp_path, monkeypatch):
    embedded.start(home, TLS)
    invitation = invited(home)
    with a_home(other.folder, monkeypatch):
        embedded.start(other)
        with pytest.raises(Error, match="`natsproc down` first"):
            join(other, invitation.encode(), Names())
        assert joined.load(other.joined) is None


def test_a_server_for_this_machine_only_invites_nobody(home):
    with pytest.raises(NoServer):
        joined.invite(home, "laptop")
    embedded.start(home)
    with pytest.raises(Error, match="this machine only"):
        joined.invite(home, "laptop")


def test_the_line_comes_from_stdin_or_a_file_and_never_from_an_argument(home, other, tmp_path):
    embedded.start(home, TLS)
    state = home.load()
    printed = natsproc("invite", "laptop", "--at", f"127.0.0.1:{state.port}")
    assert (printed.returncode, printed.stdout.count("\n")) == (0, 1)
    line = printed.stdout
    word = line.split()[1]
    argument = natsproc("join", word, NATSPROC_HOME=str(other.folder))
    assert argument.returncode == 2
    assert "history" in argument.stderr
    assert word not in argument.stderr
    (tmp_path / "line").write_text(line)
    assert natsproc("join", tmp_path / "line", NATSPROC_HOME=str(other.folder)).returncode == 0
    assert natsproc("leave", NATSPROC_HOME=str(other.folder)).returncode == 0
    piped = subprocess.run(
        line.replace("natsproc join", f"{NATSPROC} join"),
        shell=True, capture_output=True, text=True, env={"NATSPROC_HOME": str(other.folder), "PATH": "/bin"},
    )  # fmt: skip
    assert piped.returncode == 0, piped.stderr
    assert "as laptop" in piped.stderr


def test_up_wants_to_be_told_what_goes_over_the_network(home):
    done = natsproc("up", "--listen", "0.0.0.0")
    assert done.returncode == 2
    assert "--tls" in done.stderr
    assert "--no-tls" in done.stderr
    assert not home.running
    for wrong in (("--tls", "--cert", "x"), ("--cert", "x", "--key", "x"), ("--tls", "--ca", "x")):
        assert natsproc("up", *wrong).returncode == 2
    done = natsproc("up", "--port", free_port(), "--ws-port", free_port(), "--listen", "0.0.0.0", "--no-tls")
    assert (done.returncode, done.stdout[:19]) == (0, "echo natsproc-join.")
    doctor = natsproc("doctor")
    assert doctor.returncode == 1
    assert "✗ listens: on 0.0.0.0 without TLS" in doctor.stdout


def test_a_line_that_is_pasted_on_a_terminal_is_not_shown(home, other):
    embedded.start(home, TLS)
    word = invited(home).encode()
    env = {**os.environ, "NATSPROC_HOME": str(other.folder)}
    terminal = pexpect.spawn(str(NATSPROC), ["join"], env=env, timeout=30, encoding="utf-8")
    terminal.expect("Paste the line")
    terminal.expect("Enter: ")
    terminal.logfile_read = shown = io.StringIO()
    terminal.send(f"{' ' * 3000}echo {word} | natsproc join\r")  # longer than a terminal's lines may be
    terminal.expect("joined the mesh at")
    terminal.expect(pexpect.EOF)
    assert "natsproc-join" not in shown.getvalue()
    terminal.close()
    assert terminal.exitstatus == 0
    assert joined.load(other.joined)
