"""`natsproc console`: a page that shows what runs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from natsproc_cli import exits, options
from natsproc_cli.durations import format_age
from natsproc_cli.options import Target, with_target

if TYPE_CHECKING:
    from natsproc.bus.connection import Endpoint
    from natsproc.linking import Wanted, Where
    from natsproc.protocol.links import Link
    from natsproc.server.home import Home

HALF_A_DAY = 12 * 3600.0


@with_target
def console(
    target: Target,
    id: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]", help="The process to begin with.", autocompletion=options.complete_ids
        ),
    ] = None,
    lasts: Annotated[float | None, options.lasting("How long the page may; 12h unless said.")] = None,
    can: Annotated[
        list[str] | None,
        typer.Option(metavar="RIGHT,…", help="What it may do; watch,send,control unless said."),
    ] = None,
    sender: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Who it acts as; your name and -console.")
    ] = None,
    at: options.PagesAt = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Where no pages are served already: the port to serve them on; 9223 or a free one.",
        ),
    ] = None,
    browse: Annotated[
        bool, typer.Option("--open/--no-open", help="Open a browser, or only print the link.")
    ] = True,
) -> int:
    """Open a page, in a browser, on all that runs, or on one process: to watch it, talk to it and steer it.

    The page connects straight to the nats-server, by a credential in the part of its address that browsers send to
    nobody. Beside a server of natsproc's own the page is always there; for any other it is served from here, until Ctrl-C.
    """
    from natsproc import linking
    from natsproc.server.find import GRANT, find
    from natsproc.server.home import Home

    home = Home.find()
    endpoint = find(target.server, target.creds, target.context)
    where = linking.where(home, endpoint, options.place(at) if at else None)
    given = {
        "process": target.address(id) if id else None,
        "can": options.words(can) or None,
        "sender": sender,
        "seconds": HALF_A_DAY if lasts is None else lasts or None,
        "prefix": target.prefix or endpoint.prefix or None,
    }
    wanted = linking.Wanted(**{k: v for k, v in given.items() if v is not None or k == "seconds"})  # type: ignore[arg-type]
    lent = bool(target.creds or (os.environ.get(GRANT) and not target.server and not target.context))
    if where.pages_url:
        link = _link(home, endpoint, where, wanted, lent=lent, narrowed=bool(can or lasts))
        _show(home, f"{where.pages_url}/#{link.fragment}", browse)
        return 0
    return _serve(home, endpoint, where, wanted, port, lent=lent, narrowed=bool(can or lasts), browse=browse)


def _link(
    home: Home, endpoint: Endpoint, where: Where, wanted: Wanted, *, lent: bool, narrowed: bool
) -> Link:
    """With a credential made for it where the keys are here, else with the one that we have ourselves."""
    from natsproc import linking
    from natsproc.access import Authority, Credential

    authority = Authority.load(home.keys)
    own = Credential.of(endpoint.secret, "the credential") if endpoint.secret else None
    if not lent and own and authority and own.issuer == authority.account:
        link, grant = linking.granted(home, where, wanted)
        until = f"for {format_age(wanted.seconds)}" if wanted.seconds else "until it is revoked"
        exits.remark(
            f"whoever has this link may {', '.join(grant.can)} everything {until}, as {grant.sender} (`natsproc revoke "
            f"{grant.sender}` ends it): keep it to yourself"
        )
        return link
    if narrowed:
        raise exits.Usage(
            "--can and --for are for credentials made here, and the keys of that server are elsewhere"
        )
    if own:
        what = "everything on the mesh" if own.direct else "what that was granted"
        exits.remark(
            f"the page uses the credential of {own.sender}: whoever has this link may do {what}, so keep it to yourself"
        )
    return linking.lent(endpoint, where.ws_url, wanted)


def _serve(
    home: Home, endpoint: Endpoint, where: Where, wanted: Wanted, port: int | None, *, lent: bool, narrowed: bool,
    browse: bool,
) -> int:  # fmt: skip
    """Serve the pages on this machine until Ctrl-C."""
    from urllib.parse import urlsplit

    from natsproc import linking
    from natsproc.server import pages
    from natsproc.server.home import LOOPBACK, PAGES_PORT, host_port
    from natsproc.server.ports import choose_port

    port = choose_port(LOOPBACK, port or PAGES_PORT, asked=port is not None)
    origin = f"http://{host_port(LOOPBACK, port)}"
    linking.insist_on_origin(endpoint, where.ws_url, origin)
    there = urlsplit(where.ws_url)
    settings = pages.Settings("natsproc", LOOPBACK, port, (f"{there.scheme}://{there.netloc}",))
    try:
        server = pages.Pages(settings, pages.load())
    except OSError as error:
        raise exits.Failure(f"cannot serve the pages at {origin}: {error.strerror}") from None
    link = _link(home, endpoint, where, wanted, lent=lent, narrowed=narrowed)
    exits.remark("the page is served from here until Ctrl-C")
    _show(home, f"{origin}/#{link.fragment}", browse)
    try:
        server.serve()
    except KeyboardInterrupt:
        home.opening.unlink(missing_ok=True)
    return 0


def _show(home: Home, url: str, browse: bool) -> None:
    """Print the link, and open it; by a file, because others on this machine can see the arguments of a browser."""
    import webbrowser

    from natsproc.access import write_private

    print(url, flush=True)
    if not browse or not _has_display():
        return
    home.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    escaped = url.replace("&", "&amp;").replace('"', "&quot;")
    write_private(home.opening, f'<meta http-equiv="refresh" content="0;url={escaped}">')
    if not webbrowser.open(home.opening.as_uri()):
        exits.remark("no browser could be opened: the link is above")


def _has_display() -> bool:
    """Whether a browser would come up in a window of its own, and not in this terminal."""
    return sys.platform == "darwin" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
