"""Which server is chosen, as whom, and that no password is ever shown."""

import json
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsproc.access import Authority
from natsproc.errors import BadName, BadPayload, NoServer, NotAllowed
from natsproc.server import x509
from natsproc.server.find import _split, find


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch, tmp_path):
    """No environment and no home but the test's own."""
    for name in ("URL", "CREDS", "USER", "PASSWORD", "TOKEN", "NKEY", "CA"):
        monkeypatch.delenv(f"NATS_{name}", raising=False)
    monkeypatch.setenv("NATSPROC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture(scope="module")
def authority():
    return Authority.create()


@pytest.fixture
def context(tmp_path):
    def write(name, **settings):
        folder = tmp_path / "config" / "nats" / "context"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(settings))

    return write


def test_nothing_named_and_nothing_running():
    with pytest.raises(NoServer, match="`natsproc up`"):
        find()


def test_what_is_said_here_comes_before_the_environment(monkeypatch, context):
    monkeypatch.setenv("NATS_URL", "nats://from-environment:1")
    context("work", url="nats://from-context:2")
    assert find().servers == ("nats://from-environment:1",)
    assert find().origin == "NATS_URL"
    assert find("nats://said:3").servers == ("nats://said:3",)
    assert find(context="work").servers == ("nats://from-context:2",)
    assert find("nats://said:3", context="work").servers == ("nats://said:3",)


def test_a_password_of_the_environment_goes_only_to_the_environments_server(monkeypatch):
    monkeypatch.setenv("NATS_URL", "nats://there:1")
    monkeypatch.setenv("NATS_USER", "alice")
    monkeypatch.setenv("NATS_PASSWORD", "secret")
    assert find().options == {"user": "alice", "password": "secret"}
    assert find().sender == "alice"
    assert find("nats://elsewhere:1").options == {}


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("localhost", ("nats://localhost:4222",)),
        ("10.0.0.1:4333", ("nats://10.0.0.1:4333",)),
        ("tls://a.example, tls://b.example:5", ("tls://a.example:4222", "tls://b.example:5")),
        ("ws://127.0.0.1:9222", ("ws://127.0.0.1:9222",)),
        ("wss://host/nats/", ("wss://host:443/nats",)),
        ("nats://[::1]:4222", ("nats://[::1]:4222",)),
    ],
)
def test_urls_as_people_write_them(url, servers):
    assert find(url).servers == servers


@pytest.mark.parametrize("url", ["http://host:1", "nats://", "nats://host:port", "nats://u:hunter2@:1", ","])
def test_a_url_that_cannot_be_one_is_refused_without_showing_it(url):
    with pytest.raises(BadName, match="URL") as raised:
        find(url)
    assert "hunter2" not in str(raised.value)


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)


@given(user=WORDS, password=WORDS)
def test_passwords_are_taken_out_of_urls(user, password):
    servers, options = _split(f"nats://{quote(user, '')}:{quote(password, '')}@host:4222")
    assert servers == ("nats://host:4222",)
    assert options == {"user": user, "password": password}


def test_the_authority_of_the_environment_is_for_any_server_that_is_named_by_tls(
    monkeypatch, tmp_path, authority, context
):
    pem, creds = tmp_path / "ca.pem", tmp_path / "some.creds"
    pem.write_text(x509.make_authority("elsewhere").partition("-----BEGIN PRIVATE")[0])
    creds.write_text(authority.credential("alice"))
    monkeypatch.setenv("NATS_CA", str(pem))
    for url in ("tls://there:1", "wss://there:1", "tls://u:p@there:1"):
        (known,) = find(url, str(creds)).options["tls"].get_ca_certs()
        assert "natsproc, for elsewhere" in str(known["subject"])
    assert find("nats://there:1", str(creds)).options == {}
    context("work", url="tls://from-context:2")
    assert find(context="work").options == {}
    monkeypatch.setenv("NATS_CA", str(tmp_path / "none.pem"))
    with pytest.raises(BadPayload, match="certificates named"):
        find("tls://there:1")


def test_a_credential_that_does_not_know_its_server_says_what_is_missing(authority, tmp_path):
    creds = tmp_path / "some.creds"
    creds.write_text(authority.credential("alice"))
    with pytest.raises(NoServer, match=r"--server .*NATS_CA.* one-line form of the grant"):
        find(creds=str(creds))


def test_a_user_without_a_password_is_a_token(monkeypatch):
    monkeypatch.setenv("NATS_URL", "nats://there:1")
    monkeypatch.setenv("NATS_USER", "s3cr3t")
    assert find().options == {"token": "s3cr3t"}
    assert find().sender != "s3cr3t"


def test_a_token_is_taken_out_of_the_url():
    endpoint = find("nats://s3cr3t@host")
    assert endpoint.servers == ("nats://host:4222",)
    assert endpoint.options == {"token": "s3cr3t"}


def test_a_context_of_the_nats_cli(context, authority, tmp_path):
    creds = tmp_path / "alice.creds"
    creds.write_text(authority.credential("alice"))
    context("hub", url="nats://a:1,nats://b:2", creds=str(creds), jetstream_domain="hub", token="", nsc="")
    endpoint = find(context="hub")
    assert endpoint.servers == ("nats://a:1", "nats://b:2")
    assert (endpoint.creds, endpoint.domain, endpoint.origin) == (str(creds), "hub", "context 'hub'")
    assert (endpoint.sender, endpoint.verified) == ("alice", True)

    context("plain", user="bob", password="x", tls_first=True, nkey="~/key.nk", inbox_prefix="_MY")
    endpoint = find(context="plain")
    assert endpoint.servers == ("nats://localhost:4222",)
    assert (endpoint.sender, endpoint.verified) == ("bob", False)
    assert not endpoint.options.pop("nkeys_seed").startswith("~")
    assert endpoint.options == {"user": "bob", "password": "x", "tls_handshake_first": True}


def test_a_context_that_cannot_be_used_says_why(context, tmp_path):
    context("one", url="nats://a")
    context("two", nsc="nsc://operator")
    context("three", ca=str(tmp_path / "none.pem"))
    with pytest.raises(BadName, match="there are: one, three, two"):
        find(context="../one")
    with pytest.raises(BadPayload, match="uses nsc"):
        find(context="two")
    with pytest.raises(BadPayload, match="certificates"):
        find(context="three")


def test_credentials_that_have_expired_or_are_somebody_elses(authority, tmp_path):
    path = tmp_path / "some.creds"
    path.write_text(authority.credential("alice", expires=time.time() - 1))
    with pytest.raises(NotAllowed, match="expired"):
        find("host", str(path))
    path.write_text(authority.credential("alice"))
    with pytest.raises(NotAllowed, match="'alice', not 'bob'"):
        find("host", str(path), sender="bob")
    assert find("host", str(path), sender="alice").verified


def test_a_sender_may_be_chosen_where_nothing_pins_it():
    assert find("host", sender="bob").sender == "bob"
    assert not find("host", sender="bob").verified
    with pytest.raises(BadName, match="sender"):
        find("host", sender="not a token")
