"""Granting and revoking: credentials made with the keys of a home. Protocol: section 8.

A credential is made without asking any server. Revoking makes a new account JWT; the server takes it at once,
and else with its next start, because it starts with the one that lies with the keys.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from natsproc.access import Authority, Credential, Grant, Grants, Right, Scope, grants_of, ledger, to_line
from natsproc.access.rights import check_rights
from natsproc.errors import BadName, Error, NoServer, NotAllowed, Refused, TimedOut, TooLarge
from natsproc.protocol.gate import NODE
from natsproc.protocol.messages import decode_object
from natsproc.protocol.names import DEFAULT_NAMESPACE, DEFAULT_PREFIX, MAX_NAME, UNIQUE, check_name
from natsproc.server import joined
from natsproc.server.home import Home
from natsproc.server.links import host_of

if TYPE_CHECKING:
    from natsproc.bus.connection import Endpoint

DAY = 86400.0
_KEY = re.compile(r"U[A-Z2-7]{55}")
LONGEST_OWNER = MAX_NAME - len(NODE) - UNIQUE  #: characters
FOR_EVER = 1 << 40  #: a time until which a key is refused, whatever its JWT says of when it was issued
LARGEST = 60_000  #: bytes of a JWT that a server with max_control_line 65536 takes
_UPDATE = "$SYS.REQ.CLAIMS.UPDATE"


@dataclass(frozen=True)
class Granted:
    """A credential that was just made. Its text and its line are secrets: they are shown by no `repr`."""

    grant: Grant
    creds: str = field(repr=False)  #: the text of a .creds file
    line: str = field(repr=False)  #: the same in one line, with where the server is, for a browser
    others: tuple[Grant, ...] = ()  #: what the sender holds besides, still valid


@dataclass(frozen=True)
class Place:
    """Where keys lie, and beside them what was granted with them."""

    keys: Path

    @classmethod
    def of(cls, keys: str | Path | None) -> Place:
        """The keys of the home, or a file of keys that is named."""
        return cls(Path(keys).absolute() if keys else Home.find().keys)

    @property
    def home(self) -> Home:
        return Home(self.keys.parent)

    @property
    def ledger(self) -> Path:
        return self.keys.with_name("grants.json")

    def authority(self) -> Authority:
        """Raises: Error if there are none."""
        if found := Authority.load(self.keys):
            return found
        if there := joined.load(self.home.joined):
            raise Error(
                f"this machine has joined the mesh at {there.urls[0]}: its grants are made on the machine that runs the server"
            )
        raise Error(
            f"there are no keys in {self.keys}: `natsproc up` makes them. For a server whose keys are elsewhere, "
            "`natsproc grant --print` says what to configure there"
        )


def grant(
    sender: str,
    can: Iterable[str],
    on: Iterable[str] = (),
    *,
    seconds: float | None = DAY,
    namespace: str = DEFAULT_NAMESPACE,
    prefix: str = DEFAULT_PREFIX,
    url: str = "",
    keys: str | Path | None = None,
) -> Granted:
    """Make a credential with which `sender`, and nobody else, `can` do this on these ids and namespaces.

    Rights are watch, send, control, own and all; `on` has ids, `namespace/*`, or `*/*`. It ends after `seconds`
    (None: never). `keys` is a file of keys, those of NATSPROC_HOME unless said; `url` is where a browser finds
    the server, the embedded one unless said. No server is asked.

    Raises: BadName; TooLarge for more ids than a credential holds; Error without keys.
    """
    place = Place.of(keys)
    expires = None if seconds is None else time.time() + max(1.0, seconds)
    rights, scopes, subjects = rights_on(sender, can, on, namespace, prefix)
    entry = Grant(sender, "", tuple(rights), tuple(map(str, scopes)), prefix, int(time.time()))
    text, entry, known = make(place, entry, subjects, expires)
    line = to_line(text, prefix=prefix, **_where(place.home, url))
    others = tuple(g for g in known if g.sender == sender and g.state == "valid")
    return Granted(entry, text, line, others)


def _tell_apart(place: Place, sender: str, *, trusted: bool) -> None:
    """Nobody shares a name, and so the inboxes where answers come, with who is trusted with more. Raises: BadName."""
    valid = [g for g in ledger.load(place.ledger) if g.sender == sender and g.state == "valid"]
    local = place.home.creds
    is_local = local.exists() and Credential.read(local).sender == sender
    if not trusted and (is_local or any("all" in g.can for g in valid)):
        whose = "local.creds has that name" if is_local else "a credential of that name has the right `all`"
        raise BadName(
            f"{sender!r} is trusted with everything already ({whose}), and a narrower credential would hear what it "
            "is answered: choose another name"
        )
    if trusted and any("all" not in g.can for g in valid):
        raise BadName(
            f"{sender!r} holds narrower credentials, which would hear what this one is answered: choose another name, or "
            f"`natsproc revoke {sender}` first"
        )


def make(
    place: Place, entry: Grant, subjects: Grants, expires: float | None
) -> tuple[str, Grant, Sequence[Grant]]:
    """Make the credential for an entry and list it; returns its text, the whole entry, and what was listed before.

    Raises: as `grant`.
    """
    with place.home.changing():
        _tell_apart(place, entry.sender, trusted="all" in entry.can)
        text = place.authority().credential(entry.sender, subjects, expires=expires)
        if (size := len(text)) > LARGEST:
            raise TooLarge(
                f"a credential for {len(entry.on)} scopes has {size} bytes, more than a server takes ({LARGEST}): "
                "grant whole namespaces, or make several",
                size=size,
                limit=LARGEST,
            )
        known = ledger.load(place.ledger)
        key = Credential.of(text, "the new credential").key
        entry = replace(entry, key=key, expires=None if expires is None else int(expires))
        ledger.save(place.ledger, [*known, entry])
    return text, entry, known


def rights_on(
    sender: str, can: Iterable[str], on: Iterable[str], namespace: str, prefix: str
) -> tuple[Sequence[Right], Sequence[Scope], Grants]:
    """Read a grant as people write it: its rights, its scopes, and the subjects that they come to. Raises: BadName."""
    check_name(sender, "sender")
    rights, asked = check_rights(can), tuple(on)
    if "own" in rights and len(sender) > LONGEST_OWNER:
        raise BadName(
            f"{sender!r} is too long a name for an owner, for its nodes have it, too: {LONGEST_OWNER} characters at most"
        )
    if "all" in rights and not asked:
        asked = ("*/*",)
    scopes = [Scope.parse(scope, namespace) for scope in asked]
    return rights, scopes, grants_of(rights, scopes, prefix)


def grants(*, keys: str | Path | None = None) -> Sequence[Grant]:
    """What was granted with the keys of NATSPROC_HOME, or with those in a file; revoked and expired ones, too."""
    return ledger.load(Place.of(keys).ledger)


def revoke(
    sender: str, *, key: str | None = None, server: str | None = None, keys: str | Path | None = None
) -> Sequence[Grant]:
    """End every credential that `sender` was granted, or the one whose public key begins with `key`; which they were.

    The embedded server, or the one at the URL `server`, disconnects who holds them before this returns. An embedded
    server that does not run takes it up when it starts.

    Raises: BadName if there is no such grant; NoServer, TimedOut, NotAllowed, Refused if a server did not take it, after
    which it is written down all the same, and repeating it tries again.
    """
    place = Place.of(keys)
    with place.home.changing():
        authority, known = place.authority(), ledger.load(place.ledger)
        ended = [
            replace(g, revoked=g.revoked or int(time.time())) if _is_meant(g, sender, key) else g
            for g in known
        ]
        chosen = [g for g in ended if _is_meant(g, sender, key)]
        if not chosen and key and _KEY.fullmatch(key):  # the list may have been lost
            chosen = [Grant(sender, key, (), (), DEFAULT_PREFIX, 0, revoked=int(time.time()))]
            ended += chosen
        if not chosen:
            which = f" with a key {key}…" if key else ""
            raise BadName(f"{sender} holds no credential that was granted here{which}; see `natsproc grants`")
        forget = [g.key for g in known if g.expires and g.expires < time.time() - DAY]
        authority = authority.revoking({g.key: FOR_EVER for g in ended if g.revoked}, forget=forget)
        authority.save(place.keys)  # before the list, so that nothing is listed as revoked that is not
        ledger.save(place.ledger, ended)
        if endpoint := _endpoint(place.home, server):
            _push(endpoint, authority)
    return chosen


def insist_on_keys(endpoint: Endpoint) -> None:
    """Make sure that a server goes by the keys of NATSPROC_HOME, as the credential for it tells. Raises: Refused, Error."""
    used = Credential.of(endpoint.secret, "the credential") if endpoint.secret else None
    if used is None or used.issuer != Place.of(None).authority().account:
        raise Refused(
            f"the nats-server at {endpoint.servers[0]} does not go by the keys of NATSPROC_HOME: "
            "`natsproc grant --print` says what to configure where its keys are"
        )


def trouble_with(made: Granted, server: str) -> str:
    """For people: why a credential that was just made is of no use at the URL `server`, as far as can be told from here.

    Blocks while that is asked, for some seconds at most; "" if it is let in.
    """
    from natsproc.bus.connection import Connection
    from natsproc.bus.thread import apart
    from natsproc.server.find import find

    async def try_it(endpoint: Endpoint) -> None:
        await (await Connection.open(endpoint)).close()

    try:
        found = find(server)
        apart(try_it(replace(found, secret=made.creds, creds=None, renew=None, sender=made.grant.sender)))
    except NotAllowed:
        return (
            f"the nats-server at {server} does not accept it: that goes by other keys than those here. `natsproc grant "
            "--print` says what to configure there"
        )
    except Error as error:
        return f"whether the server there goes by these keys is not known: {error}"
    return ""


def _is_meant(grant: Grant, sender: str, key: str | None) -> bool:
    return grant.sender == sender and grant.key.startswith(key or "")


def _endpoint(home: Home, server: str | None) -> Endpoint | None:
    """The server to tell, by URL or the one of the home; None if that does not run."""
    from natsproc.server.find import endpoint_of, find

    if server:
        return find(server)
    state = home.load()
    return endpoint_of(home, state) if state and home.running else None


def _push(endpoint: Endpoint, authority: Authority) -> None:
    """Give a server the account JWT, as its system account. Blocks. Raises: NoServer, Refused, NotAllowed."""
    from natsproc.bus.connection import Connection
    from natsproc.bus.thread import apart

    may = {"pub": (_UPDATE,), "sub": ("_INBOX.>", "_NODE.>")}
    secret = authority.credential("revoke", may, expires=time.time() + 60, system=True)
    options = {name: value for name, value in endpoint.options.items() if name.startswith("tls")}
    whom = replace(endpoint, secret=secret, renew=None, expires=None, sender="revoke", options=options)

    async def push() -> Mapping[str, Any]:
        connection = await Connection.open(whom)
        try:
            return decode_object((await connection.request(_UPDATE, authority.account_jwt.encode())).data)
        finally:
            await connection.close()

    try:
        said = apart(push())
    except (NoServer, NotAllowed, TimedOut) as error:
        text = f"revoked in the keys, but the server was not told (`natsproc revoke` again once it answers): {error}"
        raise type(error)(text) from None
    if "error" in said:
        raise Refused(f"the nats-server does not take the revocation: {said['error']}")


def _where(home: Home, url: str) -> dict[str, str]:
    """Where the server is, as a line has it: `url` is for browsers, `nats` for everybody else."""
    with suppress(Error):
        state = home.load()
        if state and url in ("", state.url, state.ws_url):
            host = host_of(state)
            found = {"url": state.ws_url_at(host), "nats": state.url_at(host)}
            return found | ({"ca": home.ca(state), "tls_name": state.tls_name} if state.tls else {})
    return {"url" if url.startswith(("ws://", "wss://")) else "nats": url}
