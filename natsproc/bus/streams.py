"""The streams and buckets of a mesh: what they must look like, and making or checking them. Protocol: section 7.

A stream of our name with settings that we cannot work with is an error that names them, and stays as it is.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from natsproc.errors import MeshMismatch, NoMesh, NoServer, TimedOut
from natsproc.protocol.names import Names

from . import limits as limiting
from .connection import NO_SPACE, ApiError, Connection
from .limits import DEDUPLICATION_SECONDS, Limits

LEASE_SECONDS = 4
OVERDUE_SECONDS = (
    LEASE_SECONDS + 1
)  #: a lease that old has expired, even if the server lost its TTL in a crash
MARKER_SECONDS = 7 * 86400  #: for which the server knows since when a lease is gone
ELECTION_SECONDS = 15.0  #: for which a cluster may be without a leader
_UNAVAILABLE = 503
_EXISTS = 10058
_NO_PLACE = 10005
_SECOND = 1_000_000_000

Durability = Literal["file", "memory"]


def configurations(
    names: Names,
    version: tuple[int, int],
    *,
    replicas: int = 1,
    storage: Durability = "file",
    limits: Limits = limiting.DEFAULT,
) -> list[dict[str, Any]]:
    """The stream configurations that a mesh needs on a server of that version, as JetStream's API takes them."""
    p = names.prefix
    base: dict[str, Any] = {
        "storage": storage,
        "num_replicas": replicas,
        "retention": "limits",
        "discard": "old",
    }
    events = base | {
        "name": names.event_stream,
        "subjects": [f"{p}.*.*.events"],
        "republish": {"src": f"{p}.*.*.events", "dest": f"{p}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.live"},
        "allow_direct": True,
        "max_consumers": 100_000,
        "duplicate_window": DEDUPLICATION_SECONDS * _SECOND,
    }
    if version >= (2, 14):
        events["allow_batched"] = True
    inbox = base | {
        "name": names.inbox_stream,
        "subjects": [f"{p}.*.*.inbox.*"],
        "republish": {
            "src": f"{p}.*.*.inbox.*",
            "dest": f"{p}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.delivered.{{{{wildcard(3)}}}}",
        },
        "allow_direct": True,
        "allow_msg_ttl": True,
        "max_consumers": 100_000,
        "duplicate_window": DEDUPLICATION_SECONDS * _SECOND,
    }
    registry = _bucket(base, names.registry) | {
        "republish": {
            "src": f"$KV.{names.registry}.*.*",
            "dest": f"{p}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.record",
        }
    }
    leases = _bucket(base, names.leases) | {
        "republish": {"src": f"$KV.{names.leases}.*", "dest": f"{p}._nodes.{{{{wildcard(1)}}}}.lease"},
        "allow_msg_ttl": True,
        "subject_delete_marker_ttl": MARKER_SECONDS * _SECOND,
    }
    states = base | {  # an object store as nats-py and the `nats` CLI understand it (ADR-20)
        "name": f"OBJ_{names.states}",
        "subjects": [f"$O.{names.states}.C.>", f"$O.{names.states}.M.>"],
        "allow_rollup_hdrs": True,
        "discard": "new",
        "allow_direct": True,
        "max_consumers": 100_000,
    }
    chosen = limits.settings(names)
    events |= chosen[names.event_stream]
    inbox |= chosen[names.inbox_stream]
    return [events, inbox, _bucket(base, names.claims), registry, _bucket(base, names.ended), leases, states]


def _bucket(base: dict[str, Any], name: str) -> dict[str, Any]:
    """A bucket as nats-py's and the `nats` CLI's KV understand it (ADR-8)."""
    return base | {
        "name": f"KV_{name}",
        "subjects": [f"$KV.{name}.>"],
        "max_msgs_per_subject": 1,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "discard": "new",
        "allow_direct": True,
        "max_consumers": 100_000,
    }


# What an operator may choose without breaking us; everything else has to be as configured.
_FREE = {"storage", "num_replicas", "max_consumers"}
_FREE_IN_LOGS = _FREE | limiting.CHOSEN
# What an older natsproc or server did not give our streams, and `setup` may add.
_ADDED = {"allow_batched", "allow_msg_ttl", "subject_delete_marker_ttl"}


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, str]:
    """What in `found` we cannot work with: the setting, and a part of a sentence on it."""
    wrong = {}
    free = _FREE_IN_LOGS if "max_age" in wanted else _FREE
    for key, value in wanted.items():
        if key in free:
            continue
        actual = found.get(key)
        if key == "duplicate_window":  # within it we promise that what is sent again is stored once
            least = min(value, found.get("max_age") or value)
            if (actual := actual or 0) < least:
                wrong[key] = f"{key} is {actual / _SECOND:g} s, not at least {least / _SECOND:g} s"
            continue
        if isinstance(value, dict):
            actual = {k: v for k, v in (actual or {}).items() if k in value}
        if (actual or None) != (value or None):
            wrong[key] = f"{key} is {actual!r}, not {value!r}"
    return wrong


async def inspect(connection: Connection, name: str) -> dict[str, Any] | None:
    """A stream's configuration and state, or None where there is no such stream."""
    try:
        return await connection.api(f"STREAM.INFO.{name}")
    except NoMesh:
        return None


async def _inspect_all(connection: Connection, wanted: list[str]) -> list[dict[str, Any] | None]:
    """The same of several, once the cluster has a leader for them. Raises: NoServer if that takes too long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + ELECTION_SECONDS
    while True:
        try:
            return await asyncio.gather(*(inspect(connection, name) for name in wanted))
        except (ApiError, TimedOut) as error:
            if isinstance(error, ApiError) and error.code != _UNAVAILABLE:
                raise
            if loop.time() > deadline:
                raise NoServer(
                    f"the nats-server at {connection.url} answers, and its JetStream does not ({error}): "
                    "are enough servers of its cluster up?"
                ) from None
            await asyncio.sleep(0.2)


async def check(connection: Connection, names: Names) -> None:
    """Make sure that the mesh is there and as we need it.

    Raises: NoMesh, naming what to run; MeshMismatch, naming the setting; ServerUnfit without JetStream; NoServer
    if a cluster has no leader for it.
    """
    wanted = configurations(names, connection.server_version)
    found = await _inspect_all(connection, [config["name"] for config in wanted])
    missing = [config["name"] for config, info in zip(wanted, found, strict=True) if info is None]
    if missing:
        raise NoMesh(
            f"the nats-server at {connection.url} has no mesh {names.prefix!r} yet "
            f"(missing: {', '.join(missing)}): `natsproc setup` makes it"
        )
    for config, info in zip(wanted, found, strict=True):
        assert info is not None
        _refuse_mismatch(config, info["config"])


def _refuse_mismatch(wanted: dict[str, Any], found: dict[str, Any]) -> None:
    if wrong := differences(wanted, found):
        way_out = "Change it, or use another mesh with --prefix"
        if wrong.keys() <= _ADDED:
            way_out = "An older natsproc or server made it: `natsproc setup` adds what is missing"
        raise MeshMismatch(
            f"stream {wanted['name']} exists with settings that natsproc cannot work with, and was left alone: "
            f"{'; '.join(wrong.values())}. {way_out}"
        )


async def setup(
    connection: Connection,
    names: Names,
    *,
    replicas: int = 1,
    storage: Durability = "file",
    limits: Limits = limiting.NONE,
) -> list[str]:
    """Make what the mesh lacks, change the limits that were asked for, and return the names of what was made or changed.

    What exists is otherwise checked and never altered, with one exception: what an older natsproc or server did not
    give our own streams is added. Raises: MeshMismatch, NotAllowed, ServerUnfit.
    """
    made = []
    asked, whole = limits.settings(names), limits.over(limiting.DEFAULT)
    for config in configurations(
        names, connection.server_version, replicas=replicas, storage=storage, limits=whole
    ):
        name = config["name"]
        info = await inspect(connection, name)
        if info is None:
            info, ours = await _create(connection, config, smaller=limits.max_bytes is None)
            made += [name] * ours
        elif (missing := differences(config, info["config"]).keys()) and missing <= _ADDED:
            grown = info["config"] | {key: config[key] for key in missing}
            info = await connection.api(f"STREAM.UPDATE.{name}", grown)
        _refuse_mismatch(config, info["config"])
        changed = {
            key: value for key, value in asked.get(name, {}).items() if info["config"].get(key) != value
        }
        if changed:
            await connection.api(f"STREAM.UPDATE.{name}", info["config"] | changed)
            made.append(name)
    return made


async def _create(
    connection: Connection, config: dict[str, Any] | None, *, smaller: bool
) -> tuple[dict[str, Any], bool]:
    """Make a stream, with fewer bytes if need be and allowed; returns its info, and whether it was us who made it."""
    while config:
        name = config["name"]
        try:
            return await connection.api(f"STREAM.CREATE.{name}", config, timeout=10), True
        except ApiError as error:
            if error.err_code == _EXISTS:  # somebody else was faster
                return await connection.api(f"STREAM.INFO.{name}"), False
            config = (
                limiting.with_less(config) if smaller and error.err_code in (*NO_SPACE, _NO_PLACE) else None
            )
            if config is None:
                raise
    raise AssertionError
