"""`natsproc setup`: make the mesh's streams and buckets on a server that is not ours."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from natsproc_cli import exits, options
from natsproc_cli.options import Target, run_async, with_target


@with_target
def setup(
    target: Target,
    replicas: Annotated[int, typer.Option(min=1, max=5, help="Copies of each, in a cluster.")] = 1,
    keep: options.Keep = None,
    max_bytes: options.MaxBytes = None,
    max_events: options.MaxEvents = None,
    show: Annotated[
        bool, typer.Option("--print", help="Make nothing; print the streams' configurations as JSON lines.")
    ] = False,
) -> int:
    """Make the streams and buckets that a mesh needs; what exists is checked and left alone, but for limits asked for."""

    async def work() -> None:
        from natsproc.bus import limits, streams
        from natsproc.bus.connection import Connection
        from natsproc.protocol.names import Names
        from natsproc.server import find_server

        names = Names(target.prefix or "proc")
        asked = limits.Limits(keep, max_bytes, max_events)
        endpoint = find_server(server=target.server, creds=target.creds, context=target.context)
        connection = await Connection.open(endpoint)
        try:
            if show:
                whole, version = asked.over(limits.DEFAULT), connection.server_version
                for config in streams.configurations(names, version, replicas=replicas, limits=whole):
                    print(json.dumps(config))
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

    run_async(work())
    return 0
