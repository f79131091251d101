"""`natsproc up`: start the embedded server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from natsproc_cli import exits, options

if TYPE_CHECKING:
    from natsproc.server.home import State


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
    pages_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="The port of the pages for browsers; 9223 or a free one."),
    ] = None,
    origins: Annotated[
        list[str] | None,
        typer.Option(
            "--origin",
            metavar="URL",
            help="Pages of yours that may connect from browsers, as https://team.example.com; may be given several "
            "times, and replaces what was said before ('' forgets it). Our own pages always may.",
        ),
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
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Let other machines in, by this address of this one (0.0.0.0 for all of them); 127.0.0.1, which "
            "lets in none, unless said.",
        ),
    ] = None,
    tls: Annotated[
        bool | None,
        typer.Option(
            "--tls/--no-tls",
            help="Encrypt, and prove that it is this server, for NATS and for WebSocket; by an authority of its own, "
            "or by --cert. Without it whoever is on the way can read all and act as anyone.",
        ),
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(metavar="FILE", resolve_path=True, help="A certificate to use, as PEM.")
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", resolve_path=True, help="Its key.")] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", resolve_path=True, help="Its authority, unless it is one that every system knows."
        ),
    ] = None,
    write_config: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Start nothing; write there what nats-server.conf includes."),
    ] = None,
) -> int:
    """Start the embedded nats-server in the background, and return when it is ready.

    It listens on this machine only, outlives the terminal, is started again when it dies, and keeps its
    data. What is said here is remembered for the next time. `natsproc down` stops it. With --listen ADDRESS --tls
    other machines may join: it prints the line to paste there, and `natsproc invite` prints more of them.
    """
    from natsproc.bus.limits import Limits
    from natsproc.protocol.names import new_id
    from natsproc.server import certificates, embedded, joined, links
    from natsproc.server.config import write_config as write
    from natsproc.server.home import Home, is_loopback
    from natsproc_cli.invite import print_line

    home = Home.find()
    limits = Limits(keep, max_bytes, max_events)
    if write_config is not None:
        if port or ws_port or pages_port or origins or store or listen or tls or cert or limits != Limits():
            raise exits.Usage(
                "with --write-config, nats-server.conf says the ports, addresses and certificates, the store lies in DIR, and "
                "`natsproc setup` sets what is kept"
            )
        write(write_config, home, embedded.prepare(home), durable or "interval")
        exits.remark(f"wrote {write_config}/natsproc.conf, and local.creds to connect with")
        return 0
    before = home.load()
    encryption = _encryption(listen, tls, cert, key, ca, before)
    pages = None if origins is None else tuple(links.check_origin(text) for text in origins if text)
    wishes = embedded.Wishes(
        port, ws_port, str(store) if store else None, durable, listen, *encryption, pages_port, pages
    )
    started = embedded.start(home, wishes, limits=limits)
    url = embedded.status(home)["url"]
    if started:
        exits.remark(f"started a nats-server at {url} (`natsproc down` stops it)")
        if (state := home.load()) and (doubt := certificates.strange_to(state)):
            exits.remark(doubt)
    else:
        exits.remark(f"a nats-server runs already at {url}")
    if listen and started and is_loopback(listen):
        exits.remark(
            f"it listens on this machine only ({listen}), so no other can join: for that, `natsproc down`, then "
            "`natsproc up --listen ADDRESS --tls` with an address that others reach"
        )
    elif listen and started:
        if before is None or is_loopback(before.host):
            name = new_id("machine")
            print_line(joined.invite(home, name).encode(), name)
        else:
            exits.remark("`natsproc invite NAME` prints a line by which another machine joins")
    return 0


def _encryption(
    listen: str | None,
    tls: bool | None,
    cert: Path | None,
    key: Path | None,
    ca: Path | None,
    before: State | None,
) -> tuple[bool | None, str | None, str | None, str | None]:
    """What is wished for of TLS: whether, certificate, key and authority. Raises: Usage."""
    from natsproc.server.home import is_loopback

    if (cert is None) != (key is None) or (ca and not cert):
        raise exits.Usage("--cert and --key belong together, and --ca to them")
    if cert and not tls:
        raise exits.Usage("--cert is for --tls")
    if listen and not is_loopback(listen) and tls is None and not (before and before.tls):
        raise exits.Usage(
            f"on {listen} other machines can connect: --tls encrypts all that goes over the network, and proves to "
            "them that it is this server. --no-tls sends events, messages and commands in the clear, for anyone on "
            "the way to read, and to act in the name of whoever connects"
        )
    if tls is None:
        return None, None, None, None
    return tls, *(str(path) if path else "" for path in (cert, key, ca))  # type: ignore[return-value]
