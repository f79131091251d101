"""`natsproc share`: a link by which somebody may watch."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from natsproc_cli import exits, options, terminal
from natsproc_cli.durations import format_age

if TYPE_CHECKING:
    from natsproc.protocol.names import Address
    from natsproc.server.home import State

HOUR = 3600.0
BORDER = 2  #: modules of white around a QR code


def share(
    id: options.Id,
    lasts: Annotated[float | None, options.lasting("How long it may be watched; 1h unless said.")] = None,
    at: options.PagesAt = None,
    qr: Annotated[
        Path | None,
        typer.Option(
            "--qr", metavar="FILE", help="Write the QR code there, too, as .svg or .png by its name."
        ),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-N", help="Namespace of the id.", metavar="NAME")
    ] = None,
) -> int:
    """Print a link to a page that shows one process, live, and a QR code of it if this is a terminal.

    Whoever has the link may watch that process, and do nothing else, until the time is over or `natsproc revoke` ends it.
    """
    from natsproc import linking
    from natsproc.protocol.names import Address, new_token
    from natsproc.server import links
    from natsproc.server.home import Home

    if qr and qr.suffix not in (".svg", ".png"):
        raise exits.Usage(f"--qr writes .svg or .png, not {qr.suffix or 'a file without an ending'}")
    home, address = Home.find(), Address.parse(id, namespace)
    seconds = HOUR if lasts is None else lasts or None
    state = linking.own(home)
    where = linking.at(state, options.place(at) if at else None)
    if not _is_known(state, address):
        exits.remark(f"nothing is known of {address} yet: the link shows it from when it starts")
    sender = f"guest-{new_token(6)}"
    scope = f"{address.namespace}/{address.id}"
    wanted = linking.Wanted(address, ("watch",), (scope,), sender, seconds)
    link, _ = linking.granted(home, where, wanted)
    url = f"{where.pages_url}/#{link.fragment}"
    print(url, flush=True)
    until = f"for {format_age(seconds)}" if seconds else "until it is revoked"
    exits.remark(
        f"whoever has this link may watch {address} {until}, so send it to nobody else (`natsproc revoke {sender}` ends it)"
    )
    if not at and links.is_near(state):
        exits.remark(
            "only this machine can open it, because the server listens on this machine only: `natsproc up --listen ADDRESS "
            "--tls` lets others in (after `natsproc down`)"
        )
    elif at and not links.takes(state, where.pages_url):
        exits.remark(
            f"the server takes no pages of {where.pages_url} yet: `natsproc down`, then `natsproc up --origin {where.pages_url}`"
        )
    _draw(url, qr)
    return 0


def _is_known(state: State, address: Address) -> bool:
    async def look() -> bool:
        async with options.Target(state.url).connect() as mesh:
            return await mesh.process(address).record() is not None

    return options.run_async(look())


def _draw(url: str, file: Path | None) -> None:
    """The QR code of a link: on the terminal, if it is one and there is room, and into a file."""
    shown = terminal.is_terminal(sys.stdout)
    if not shown and file is None:
        return
    import segno

    code = segno.make(url, error="l", micro=False)
    if file is not None:
        _write(code, file)
    if not shown:
        return
    width, height = code.symbol_size(border=BORDER)
    screen = os.get_terminal_size(sys.stdout.fileno())
    if width > screen.columns or height // 2 + 2 > screen.lines:
        exits.remark(
            f"a QR code of it takes {width} columns and {height // 2 + 1} lines, and this terminal has {screen.columns} and "
            f"{screen.lines}: make its font smaller, or have it in a file by --qr FILE.svg"
        )
        return
    drawn = io.StringIO()
    code.terminal(drawn, compact=True, border=BORDER)
    print(drawn.getvalue(), end="", flush=True)


def _write(code: object, file: Path) -> None:
    """For our eyes only: it is the secret itself."""

    image = io.BytesIO()
    code.save(image, kind=file.suffix[1:], scale=4, border=4)  # type: ignore[attr-defined]
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(image.getvalue())
    except OSError as error:
        raise exits.Failure(f"cannot write {file}: {error.strerror}") from None
