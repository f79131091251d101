"""Credentials: what they grant, what they say of their holder, and that nobody else can read them."""

import base64
import json
import stat
import time

import nkeys
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsproc.access import Authority, Credential, Scope, claims_of, grants_of, permissions, write_private
from natsproc.errors import BadPayload

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


def matches(pattern: str, subject: str) -> bool:
    """NATS subject matching, written anew."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for number, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > number
        if number >= len(tokens) or token not in ("*", tokens[number]):
            return False
    return len(wanted) == len(tokens)


def may_publish(sender: str, subject: str) -> bool:
    return any(matches(pattern, subject) for pattern in permissions(sender)["pub"]["allow"])


@given(sender=NAMES, other=NAMES, namespace=NAMES, name=NAMES)
def test_a_sender_may_publish_as_itself_and_as_nobody_else(sender, other, namespace, name):
    process = f"proc.{namespace}.{name}"
    for verb in ("inbox", "control", "history", "viewers"):
        assert may_publish(sender, f"{process}.{verb}.{sender}")
        assert may_publish(sender, f"{process}.{verb}.{other}") == (sender == other)
    assert may_publish(sender, f"{process}.events")


@given(sender=NAMES, name=NAMES)
def test_nobody_may_publish_what_only_the_server_says(sender, name):
    for tail in ("live", "record", f"delivered.{sender}"):
        assert not may_publish(sender, f"proc.default.{name}.{tail}")
    assert not may_publish(sender, f"proc._nodes.{name}.lease")


def test_a_credential_says_who_its_holder_is(authority, tmp_path):
    expires = time.time() + 3600
    (tmp_path / "a.creds").write_text(authority.credential("alice", expires=expires))
    credential = Credential.read(tmp_path / "a.creds")
    assert credential == Credential("alice", pinned=True, expires=int(expires))
    assert not credential.expired

    (tmp_path / "b.creds").write_text(authority.credential("alice", expires=time.time() - 1))
    assert Credential.read(tmp_path / "b.creds").expired


@pytest.mark.parametrize(
    "publish",
    [
        (">",),
        ("*.*.*.control.>",),
        ("*.*.*.control.*",),
        ("*.>", "*.*.*.control.{sender}"),
        ("*.*.*.control.{sender}", "proc.a.b.inbox.bob"),
        ("*.*.*.*.{sender}", "proc.a.b.*.bob"),
        ("*.*.*.events", "$JS.API.>"),
        (),
    ],
)
def test_a_name_that_the_server_does_not_enforce_is_not_pinned(authority, tmp_path, publish):
    path = tmp_path / "some.creds"
    path.write_text(authority.credential("alice", {"pub": publish, "sub": (">",)}))
    credential = Credential.read(path)
    assert (credential.sender, credential.pinned) == ("alice", False)


@pytest.mark.parametrize("right", ["watch", "send", "control", "own", "all"])
def test_a_narrow_credential_is_pinned_too_and_says_that_it_needs_the_gate(authority, tmp_path, right):
    path = tmp_path / "some.creds"
    scopes = [Scope.parse(text) for text in ([] if right == "all" else ["build", "chat/*"])]
    path.write_text(authority.credential("alice", grants_of([right], scopes)))
    assert Credential.read(path) == Credential("alice", pinned=True, direct=right == "all")


@pytest.mark.parametrize(
    ("allow", "deny", "direct"),
    [
        ([], [], True),
        ([">"], [], True),
        ([">"], ["$JS.>"], False),
        ([], ["$JS.API.>"], False),
        (["$JS.API.>"], ["$JS.API.STREAM.PURGE.>"], True),
        (["proc.>"], [], False),
    ],
)
def test_a_credential_says_whether_jetstream_answers_its_holder(tmp_path, allow, deny, direct):
    path = tmp_path / "some.creds"
    rights = {"pub": {"allow": allow, "deny": deny}}
    token = base64.urlsafe_b64encode(json.dumps({"name": "alice", "nats": rights}).encode()).decode()
    path.write_text(f"-----BEGIN NATS USER JWT-----\n.{token}.\n")
    assert Credential.read(path).direct == direct


def test_a_name_that_cannot_be_a_sender_is_made_one_and_not_pinned(authority, tmp_path):
    path = tmp_path / "some.creds"
    path.write_text(authority.credential("Alice B. <a@b.c>"))
    assert Credential.read(path) == Credential("Alice-B-a-b-c", pinned=False)


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN NATS USER JWT-----", "\x00\xff"])
def test_a_file_without_a_credential_is_named(tmp_path, text):
    path = tmp_path / "broken.creds"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(BadPayload, match=r"broken\.creds is not a \.creds file"):
        Credential.read(path)
    path.write_text("-----BEGIN NATS USER JWT-----\nabc.def.ghi\n------END NATS USER JWT------\n")
    with pytest.raises(BadPayload, match=r"broken\.creds is not a \.creds file"):
        Credential.read(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadPayload, match=r"none\.creds: No such file"):
        Credential.read(tmp_path / "none.creds")


def test_jwts_are_signed_along_the_chain_of_trust(authority):
    operator, account = claims_of(authority.operator_jwt), claims_of(authority.account_jwt)
    token = authority.credential("alice").split("-----\n")[1].split("\n")[0]
    user = claims_of(token)
    assert operator["iss"] == operator["sub"] == account["iss"] == claims_of(authority.system_jwt)["iss"]
    assert user["iss"] == account["sub"]
    assert operator["nats"]["system_account"] == claims_of(authority.system_jwt)["sub"]
    signed, _, signature = token.rpartition(".")
    issuer = nkeys.from_seed(authority.account_seed.encode())
    assert issuer.public_key.decode() == account["sub"]
    assert issuer.verify(signed.encode(), base64.urlsafe_b64decode(signature + "=="))


def test_keys_are_kept_for_their_owner_alone(authority, tmp_path):
    path = tmp_path / "keys.json"
    assert Authority.load(path) is None
    path.write_text("{}")  # readable by all
    with pytest.raises(BadPayload, match="remove it to begin with new ones"):
        Authority.load(path)
    authority.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Authority.load(path) == authority
    assert json.loads(path.read_text())["operator_seed"].startswith("SO")


def test_a_private_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "secret"
    path.write_text("an older, longer text")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
