"""`natsproc invite`: a line by which another machine joins."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from natsproc_cli import exits, options


def invite(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What that machine is called as a sender.")],
    at: Annotated[
        str | None,
        typer.Option(metavar="HOST[:PORT]", help="How it reaches this server, if not by its own address."),
    ] = None,
    lasts: Annotated[float | None, options.lasting("How long it may; for good unless said.")] = None,
) -> int:
    """Print a line for another machine that joins this server's mesh; whoever pastes it there may do everything here.

    It holds a credential of that machine's own, so keep it out of chats and logs. `natsproc revoke NAME` ends it.
    """
    from natsproc.protocol.names import check_name
    from natsproc.server import joined
    from natsproc.server.home import Home

    expires = None if lasts is None else time.time() + lasts
    check_name(name, "sender")
    line = joined.invite(Home.find(), name, at=options.place(at) if at else None, expires=expires)
    print_line(line.encode(), name)
    return 0


def print_line(word: str, name: str) -> None:
    """Print the line to paste, and what it is."""
    print(f"echo {word} | natsproc join", flush=True)
    exits.remark(
        f"paste this line on the machine that joins as {name}. It holds a credential with all rights: keep it to "
        "yourself"
    )
