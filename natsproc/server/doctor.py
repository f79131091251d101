"""What is well with a server and its mesh, what is not, and what to do about it."""

from __future__ import annotations

import shutil
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from natsproc.bus import clock, streams
from natsproc.bus.connection import ApiError, Connection, Endpoint, NoResponders
from natsproc.errors import Error, NotAllowed
from natsproc.protocol.names import Address, Names, new_token

from .home import Home, State

PLENTY, LITTLE = 5 << 30, 200 << 20  # bytes free on the store's disk
MOST_SUBJECTS = 1_000_000  # a stream keeps its subjects in the server's memory
CLOCK_SECONDS = 2.0

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    about: str
    text: str
    advice: str = ""


async def examine(endpoint: Endpoint, names: Names, home: Home) -> list[Finding]:
    """Look at everything that a mesh needs; leaves nothing behind.

    Raises: NoServer, ServerUnfit, NotAllowed if it cannot even connect.
    """
    connection = await Connection.open(endpoint)
    found = [_server(connection)]
    try:
        for about, check in (
            ("streams", _streams), ("storage", _storage), ("rights", _rights), ("clock", _clock),
        ):  # fmt: skip
            try:
                found += await check(connection, names)
            except Error as error:
                found.append(Finding("problem", about, str(error)))
    finally:
        await connection.close()
    state = home.load() if home.running else None
    if state and state.url in endpoint.servers:
        found += _embedded(home, state)
    return [*found, *_files(endpoint, home)]


def _server(connection: Connection) -> Finding:
    version = connection.nc.connected_server_version
    text = f"nats-server {version.major}.{version.minor}.{version.patch} answers at {connection.url}"
    if connection.server_version < (2, 14):
        return Finding("warning", "server", f"{text}; events are stored faster from 2.14 on", "upgrade it")
    return Finding("ok", "server", text)


async def _streams(connection: Connection, names: Names) -> list[Finding]:
    await streams.check(connection, names)
    found = []
    for config in streams.configurations(names, connection.server_version):
        info = await streams.inspect(connection, config["name"]) or {"state": {}}
        state = info["state"]
        size = (
            f"{config['name']}: {state.get('messages', 0):,} messages, {state.get('bytes', 0) / 1e6:,.1f} MB"
        )
        if state.get("num_subjects", 0) > MOST_SUBJECTS:
            found.append(
                Finding("warning", "streams", f"{size}, over a million subjects", "prune ended ones")
            )
        else:
            found.append(Finding("ok", "streams", size))
    return found


async def _storage(connection: Connection, names: Names) -> list[Finding]:
    account = await connection.api("INFO")
    used, limit = account.get("storage", 0), account.get("limits", {}).get("max_storage", -1)
    text = f"{used / 1e6:,.1f} MB of JetStream storage in use, " + (
        "without a limit" if limit < 0 else f"of {limit / 1e6:,.1f} MB allowed"
    )
    if limit < 0 or used < 0.9 * limit:
        return [Finding("ok", "storage", text)]
    return [Finding("problem", "storage", text, "raise the account's limit, or remove what has ended")]


async def _rights(connection: Connection, names: Names) -> list[Finding]:
    """Try every kind of publish and subscription, in ways that store nothing and reach nobody."""
    nowhere = Address("default", f"doctor-{new_token(8)}")
    stored = {
        "run processes": names.events(nowhere),
        "own ids": f"$KV.{names.claims}.default.{nowhere.id}",
        "send messages": names.inbox(nowhere, connection.sender),
    }
    never = {"Nats-Expected-Last-Sequence": str(1 << 62)}
    missing = []
    for right, subject in stored.items():
        try:
            await connection.store(subject, b"{}", headers=never)
        except (ApiError, NoResponders):
            pass  # permitted, and refused by the stream as it had to be, or there is no stream
        except NotAllowed:
            missing.append(right)
    try:
        await connection.request(names.control(nowhere, connection.sender))
    except NoResponders:
        pass
    except NotAllowed:
        missing.append("control processes")
    if await _denied(connection, names.live(nowhere)):
        missing.append("watch processes")
    if missing:
        who = f"{connection.sender} may not {', '.join(missing)}"
        return [Finding("warning", "rights", who, "ask for grants, if it should")]
    if not connection.endpoint.verified:
        text = f"anyone here can pose as {connection.sender}: no credential pins the sender"
        return [Finding("warning", "rights", text, "give out credentials that do")]
    return [Finding("ok", "rights", f"{connection.sender} may do everything, and nobody can pose as it")]


async def _denied(connection: Connection, subject: str) -> bool:
    denials: list[NotAllowed] = []

    async def ignore(_: object) -> None: ...

    async with connection.denials(subject, denials.append):
        subscription = await connection.subscribe(subject, ignore)
        await connection.ping()
        await subscription.unsubscribe()
    return bool(denials)


async def _clock(connection: Connection, names: Names) -> list[Finding]:
    before = clock.now()
    info = await streams.inspect(connection, names.event_stream) or {}
    ahead = clock.seconds_between(before, info.get("ts", before))
    if abs(ahead) <= CLOCK_SECONDS:
        return [Finding("ok", "clock", f"within {CLOCK_SECONDS:g} s of the server's")]
    text = f"the server's is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    return [Finding("warning", "clock", text, "events carry wrong times: set both by NTP")]


def _embedded(home: Home, state: State) -> Iterator[Finding]:
    free = shutil.disk_usage(home.folder / state.store).free
    level: Level = "ok" if free > PLENTY else "warning" if free > LITTLE else "problem"
    advice = "" if level == "ok" else "make room: a full disk stops everything on this server"
    yield Finding(level, "disk", f"{free / 1e9:,.1f} GB free for {home.folder / state.store}", advice)
    if home.supervisor.holder() is None:
        yield Finding("problem", "supervisor", "it is gone: nothing restarts the server", "run `natsproc up`")
    elif state.restarts:
        text = f"nats-server was restarted {state.restarts} times since `natsproc up`"
        yield Finding("warning", "supervisor", text, f"see {home.folder}/supervisor.log")
    else:
        yield Finding("ok", "supervisor", "it keeps the server running")
    if _lets_in_strangers(state):
        yield Finding(
            "problem", "websocket", "it takes connections from any web site", "natsproc down, then up"
        )
    else:
        yield Finding("ok", "websocket", f"{state.ws_url}, for pages of this machine only")


def _lets_in_strangers(state: State) -> bool:
    """Whether a page of some web site could open a WebSocket."""
    with socket.create_connection(("127.0.0.1", state.ws_port), 2) as peer:
        peer.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://example.com\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bmF0c3Byb2Ntbm90LiEhIQ==\r\n\r\n"
        )
        return peer.recv(64).split(b" ")[1:2] != [b"403"]


def _files(endpoint: Endpoint, home: Home) -> Iterator[Finding]:
    secrets = [home.folder, home.keys, home.creds, *([Path(endpoint.creds)] if endpoint.creds else [])]
    exposed = [path for path in secrets if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077]
    for path in dict.fromkeys(exposed):
        mode = "700" if path.is_dir() else "600"
        yield Finding("problem", "files", f"others on this machine can read {path}", f"chmod {mode} {path}")
    if not exposed:
        yield Finding("ok", "files", "keys and credentials can be read by you alone")
