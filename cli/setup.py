"""`natsproc setup`: make the mesh's streams and buckets on a server that is not ours."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from natsproc_cli import exits, options
from natsproc_cli.options import Target, run_async, with_target

if TYPE_CHECKING:
    from natsproc.bus.limits import Limits
    from natsproc.protocol.names import Names


@with_target
def setup(
    target: Target,
    replicas: Annotated[int, typer.Option(min=1, max=5, help="Copies of each, in a cluster.")] = 1,
    keep: options.Keep = None,
    max_bytes: options.MaxBytes = None,
    max_events: options.MaxEvents = None,
    domain: Annotated[
        str | None, typer.Option(metavar="NAME", help="JetStream domain, unless the context says it.")
    ] = None,
    show: Annotated[
        bool,
        typer.Option(
            "--print",
            help="Make nothing; print streams and permissions as JSON, for the nats CLI and the operator.",
        ),
    ] = False,
    version: Annotated[
        str | None,
        typer.Option(
            "--for-server", metavar="VERSION", help="With --print: for that version, without asking a server."
        ),
    ] = None,
) -> int:
    """Make the streams and buckets that a mesh needs; what exists is checked and left alone, but for limits asked for.

    With --print nothing is made: `streams` are files for `nats stream add --config`, buckets included; `permissions`
    are what a user of each role needs, whose name replaces "admin", "service" or "gate" in it. A service then runs
    without the right to make or change a stream. `natsproc grant --print` says narrower ones.
    """

    async def work() -> None:
        from natsproc.bus import limits, streams
        from natsproc.bus.connection import Connection, check_version
        from natsproc.protocol.names import Names
        from natsproc.server import find_server

        names = Names(target.prefix or "proc")
        asked = limits.Limits(keep, max_bytes, max_events)
        if show and version:
            check_version(_series(version))
            _print(names, _series(version), replicas, asked.over(limits.DEFAULT), domain)
            return
        endpoint = find_server(server=target.server, creds=target.creds, context=target.context)
        connection = await Connection.open(replace(endpoint, domain=domain or endpoint.domain))
        try:
            if show:
                whole = asked.over(limits.DEFAULT)
                _print(names, connection.server_version, replicas, whole, connection.endpoint.domain)
                return
            made = await streams.setup(connection, names, replicas=replicas, limits=asked)
        finally:
            await connection.close()
        for name in made:
            print(name)
        exits.remark(
            f"the mesh {names.prefix!r} at {connection.url} is ready"
            + ("" if made else "; all of it was there already")
        )

    if version and not show:
        raise exits.Usage("--for-server is for --print")
    run_async(work())
    return 0


def _print(names: Names, version: tuple[int, int], replicas: int, limits: Limits, domain: str | None) -> None:
    from natsproc.access import permissions
    from natsproc.access.roles import roles
    from natsproc.bus import streams

    allowed = {role: permissions(role, grants) for role, grants in roles(names, domain).items()}
    found = {
        "mesh": names.prefix,
        "domain": domain,
        "streams": streams.configurations(names, version, replicas=replicas, limits=limits),
        "permissions": {
            role: {"publish": sides["pub"], "subscribe": sides["sub"]} for role, sides in allowed.items()
        },
    }
    print(json.dumps(found, indent=2))
    exits.remark(
        "made nothing. `streams` are for `nats stream add --config`, `permissions` for users of each role; "
        "`natsproc grant NAME --print` says narrower ones"
    )


def _series(version: str) -> tuple[int, int]:
    from natsproc.server.config import series

    try:
        return series(version)
    except ValueError:
        raise exits.Usage(f"--for-server takes a version such as 2.14, not {version!r}") from None
