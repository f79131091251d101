"""Which server to connect to, and as whom: the one named, a context's, `NATS_URL`'s, or the embedded one.

Names and passwords inside a URL are taken out of it, so that no message and no log can show them.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from natsproc.access import Credential, local_sender
from natsproc.access.renewing import Source, ask, asking, reading
from natsproc.bus.connection import Endpoint
from natsproc.bus.renewal import Renew
from natsproc.errors import BadName, BadPayload, Error, NoServer, NotAllowed
from natsproc.protocol.names import check_name, sanitize

from . import joined
from .certificates import local_names
from .home import Home, State, host_port, is_wildcard
from .trust import trusting

GRANT = "NATSPROC_GRANT"
_HOMELESS = (
    "this credential does not say where its server is. Name it with --server (and its authority by NATS_CA, where it "
    "has one of its own), or save the one-line form of the grant, which knows its server, in the file"
)
_SCHEMES = ("nats", "tls", "ws", "wss")


def find(
    server: str | None = None,
    creds: str | None = None,
    context: str | None = None,
    *,
    sender: str | None = None,
    credentials: Source | None = None,
) -> Endpoint:
    """Choose a server, without connecting to it.

    `server` is a URL, or several with commas between; `creds` the path of a .creds file; `context` a
    context of the `nats` CLI (ADR-21), in which `server` and `creds` replace what it says. Without them it
    is `NATSPROC_GRANT`, a credential in one line that may name its server, as a file of `creds` may; then
    `NATS_URL` (with `NATS_CREDS`, `NATS_USER`, `NATS_PASSWORD`, `NATS_TOKEN`, `NATS_NKEY`, `NATS_CA`, `NATS_CERT`,
    `NATS_KEY`, `NATS_JETSTREAM_DOMAIN`; `NATS_CA` counts for a `tls://` or `wss://` URL of `server`, too), then the mesh that this machine has joined, then the embedded server.
    `sender` is who to be where no credential says it. `credentials` gives the credential in place of `creds`, now and
    whenever it is about to end.

    Raises: NoServer if there is none; BadName, BadPayload for a context or file that cannot be used;
    NotAllowed for credentials that have expired or belong to another sender.
    """
    place = Home.find()
    given = _given(creds, credentials, alone=context is server is None)
    granted = given.credential if given else None
    if context is not None:
        settings, origin = _context(context), f"context {context!r}"
    elif granted and granted.url and server is None:
        settings, origin = {"url": granted.url}, creds or GRANT
    elif server is None and os.environ.get("NATS_URL"):
        settings, origin = _environment(), "NATS_URL"
    else:
        settings, origin = {}, ""
    settings = settings | {name: value for name, value in (("url", server), ("creds", creds)) if value}
    if "url" in settings:
        named = _named(settings, origin, place)
        if granted and granted.tls_name and not named.options:
            named = replace(named, options=trusting(granted.ca, granted.tls_name))
        elif server is not None and context is None:
            named = _by_authority(named)
        return _with_sender(named, sender, given)
    if there := joined.endpoint(place.joined):
        return _with_sender(replace(there, creds=creds or there.creds), sender, given)
    with place.changing(shared=True):  # one that is just being started is waited for
        state = place.load()
    if state is None or not place.running:
        raise NoServer(
            "no nats-server is running here, and none was named: "
            + (
                _HOMELESS
                if given
                else "start one with `natsproc up`, or name one with --server, --context or NATS_URL"
            )
        )
    own = _embedded(place, state)
    return _with_sender(replace(own, creds=creds or own.creds), sender, given)


class _Given(NamedTuple):
    """A credential, where it is from, for people, and how the next one is had."""

    credential: Credential
    where: str
    renew: Renew | None

    @classmethod
    def in_file(cls, path: str) -> _Given:
        whole = str(Path(path).expanduser().absolute())
        return cls(Credential.read(whole), f"the credential in {path}", reading(whole))


def _given(creds: str | None, credentials: Source | None, *, alone: bool) -> _Given | None:
    """The credential that may say where its server is: in a file, of a function, or in the environment.

    The last is for its own server only, so not if one was named.
    """
    if creds is not None and credentials is not None:
        raise BadPayload("`creds` and `credentials` exclude each other")
    if credentials is not None:
        return _Given(ask(credentials), "what `credentials` returned", asking(credentials))
    if creds is not None:
        return _Given.in_file(creds)
    line = os.environ.get(GRANT) if alone else None
    return _Given(Credential.of(line, GRANT), f"the credential in {GRANT}", None) if line else None


def endpoint_of(home: Home, state: State) -> Endpoint:
    """The embedded server of a home, by its local credential."""
    return _with_sender(_embedded(home, state), None)


def _embedded(home: Home, state: State) -> Endpoint:
    def look() -> tuple[str, str, dict[str, Any]]:
        now = None
        with suppress(Error):  # it is asked for again
            now = home.load()
        now = now or state
        return now.url, now.name, trusting(home.ca(now), now.tls_name) if now.tls else {}

    return Endpoint(
        (state.url,), creds=str(home.creds), options=look()[2], origin="the embedded server", look=look
    )


def _named(settings: Mapping[str, Any], origin: str, home: Home) -> Endpoint:
    """Make an endpoint of what a context, or the environment, says."""
    servers, options = _split(settings["url"])
    options |= {name: settings[name] for name in ("user", "password", "token") if name in settings}
    if "user" in options and "password" not in options:
        options["token"] = options.pop("user")  # as the `nats` CLI has it
    if "nkey" in settings:
        options["nkeys_seed"] = str(Path(settings["nkey"]).expanduser())
    if settings.keys() & {"ca", "cert", "key"}:
        options["tls"] = _tls(settings)
    if "tls_first" in settings:
        options["tls_handshake_first"] = True
    creds = settings.get("creds")
    if not options and (known := _known(home, servers)):
        creds, options = creds or known.creds, known.options
        if known.options and servers[0].startswith("nats:"):
            servers = known.servers  # by TLS, even if that is not what they say
    return Endpoint(
        servers,
        creds=str(Path(creds).expanduser().absolute()) if creds else None,
        options=options,
        domain=settings.get("jetstream_domain"),
        origin=origin,
    )


def _by_authority(named: Endpoint) -> Endpoint:
    """Know a server that was named here by the authority in `NATS_CA`, if it is to be known and nothing else says how."""
    ca = os.environ.get("NATS_CA")
    if not ca or "tls" in named.options or not any(url.startswith(("tls:", "wss:")) for url in named.servers):
        return named
    return replace(named, options=named.options | {"tls": _tls({"ca": ca})})


def _known(home: Home, servers: tuple[str, ...]) -> Endpoint | None:
    """Our own server, or that of the mesh that was joined, if it is the one whose URLs these are."""
    places = {url.partition(":")[2] for url in servers}
    if places <= joined.places(home.joined):
        return joined.endpoint(home.joined)
    if not (state := home.load()):
        return None
    hosts = [state.near, *(local_names(state) if is_wildcard(state.host) else [])]
    own = {f"//{host_port(host, port)}" for host in hosts for port in (state.port, state.ws_port)}
    return _embedded(home, state) if places <= own else None


def _split(urls: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Take user, password and token out of URLs. Raises: BadName, without showing them."""
    servers = []
    options: dict[str, Any] = {}
    for text in filter(None, (part.strip() for part in urls.split(","))):
        try:
            url = urlsplit(text if "://" in text else f"nats://{text}")
            host, port = url.hostname, url.port
        except ValueError:
            host, port = None, None
        if not host or url.scheme not in _SCHEMES:
            raise BadName(
                f"the server's URL cannot be used: it looks like nats://host:4222 ({', '.join(_SCHEMES)})"
            )
        if url.password is not None:
            options |= {"user": unquote(url.username or ""), "password": unquote(url.password)}
        elif url.username:
            options |= {"token": unquote(url.username)}
        host = f"[{host}]" if ":" in host else host
        default = {"ws": 80, "wss": 443}.get(url.scheme, 4222)
        servers.append(f"{url.scheme}://{host}:{port or default}{url.path.rstrip('/')}")
    if not servers:
        raise BadName("the server's URL is empty")
    return tuple(servers), options


def _tls(settings: Mapping[str, Any]) -> Any:
    try:
        made = ssl.create_default_context(cafile=settings.get("ca"))
        if "cert" in settings:
            made.load_cert_chain(settings["cert"], settings.get("key"))
    except (OSError, ssl.SSLError) as error:
        raise BadPayload(f"cannot use the certificates named: {error}") from None
    return made


def _environment() -> dict[str, Any]:
    names = ("url", "creds", "user", "password", "token", "nkey", "ca", "cert", "key", "jetstream_domain")
    return {name: value for name in names if (value := os.environ.get(f"NATS_{name.upper()}"))}


def _context(name: str) -> dict[str, Any]:
    """Read a context of the `nats` CLI, ADR-21. Raises: BadName, BadPayload."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    folder = Path(base) / "nats" / "context"
    path = folder / f"{name}.json"
    known = sorted(file.stem for file in folder.glob("*.json"))
    if name not in known:
        raise BadName(f"no context {name!r} in {folder}; there are: {', '.join(known) or 'none'}")
    try:
        settings = {key: value for key, value in json.loads(path.read_text()).items() if value}
    except (OSError, ValueError, AttributeError) as error:
        raise BadPayload(f"cannot read the context {path}: {error}") from None
    if beyond := settings.keys() & {"nsc", "user_jwt", "jetstream_api_prefix", "windows_cert_store"}:
        raise BadPayload(f"context {name!r} uses {', '.join(beyond)}, which natsproc cannot; use --creds")
    return {"url": "nats://localhost:4222", **settings}


def _with_sender(endpoint: Endpoint, wished: str | None, given: _Given | None = None) -> Endpoint:
    """Settle who we are: the name in the credential, a wished one where it pins none, or the user's."""
    if wished is not None:
        check_name(wished, "sender")
    if given is None and endpoint.creds is None:
        user = sanitize(str(endpoint.options.get("user", "")), local_sender())
        return replace(endpoint, sender=wished or user)
    credential, where, renew = given or _Given.in_file(endpoint.creds or "")
    if credential.expired and credential.expires:
        at = datetime.fromtimestamp(credential.expires, UTC)
        raise NotAllowed(f"{where} expired at {at:%Y-%m-%d %H:%M:%S} UTC: ask for a new one")
    endpoint = replace(
        endpoint,
        secret=credential.text,
        expires=credential.expires,
        renew=renew,
        prefix=credential.prefix,
        direct=credential.direct,
        watches=credential.watches,
    )
    if not credential.pinned:
        return replace(endpoint, sender=wished or credential.sender)
    if wished not in (None, credential.sender):
        raise NotAllowed(f"{where} speaks as {credential.sender!r}, not {wished!r}")
    return replace(endpoint, sender=credential.sender, verified=True)
