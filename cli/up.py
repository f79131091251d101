"""`natsproc up`: start the embedded server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from natsproc_cli import exits, options


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Run it in the background; it always does.")
    ] = True,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Its port; 4222 or a free one unless said.")
    ] = None,
    ws_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Its port for WebSocket; 9222 or a free one.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(metavar="DIR", resolve_path=True, help="Where it keeps its data; below NATSPROC_HOME."),
    ] = None,
    durable: Annotated[
        Literal["interval", "always"] | None,
        typer.Option(
            help="When stored events reach the disk itself: within a second (a power failure may lose that "
            "second; a crash of the server or of natsproc loses nothing), or always before they are "
            "acknowledged, at about a twentieth of the speed (3,500 events a second instead of 70,000)."
        ),
    ] = None,
    keep: options.Keep = None,
    max_bytes: options.MaxBytes = None,
    max_events: options.MaxEvents = None,
    write_config: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Start nothing; write there what nats-server.conf includes."),
    ] = None,
) -> int:
    """Start the embedded nats-server in the background, and return when it is ready.

    It listens on this machine only, outlives the terminal, is started again when it dies, and keeps its
    data. What is said here is remembered for the next time. `natsproc down` stops it.
    """
    from natsproc.bus.limits import Limits
    from natsproc.server import embedded
    from natsproc.server.config import write_config as write
    from natsproc.server.home import Home

    home = Home.find()
    limits = Limits(keep, max_bytes, max_events)
    if write_config is not None:
        if port or ws_port or store or limits != Limits():
            raise exits.Usage(
                "with --write-config, nats-server.conf says the ports, the store lies in DIR, and "
                "`natsproc setup` sets what is kept"
            )
        write(write_config, home, embedded.prepare(home), durable or "interval")
        exits.remark(f"wrote {write_config}/natsproc.conf, and local.creds to connect with")
        return 0
    wishes = embedded.Wishes(port, ws_port, str(store) if store else None, durable)
    started = embedded.start(home, wishes, limits=limits)
    url = embedded.status(home)["url"]
    if started:
        exits.remark(f"started a nats-server at {url} (`natsproc down` stops it)")
    else:
        exits.remark(f"a nats-server runs already at {url}")
    return 0
