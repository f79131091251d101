"""`natsproc reply`."""

from __future__ import annotations

from typing import Annotated

import typer

from natsproc_cli.send import message_of


def reply(
    text: Annotated[list[str], typer.Argument(metavar="TEXT|-", help="The reply; - takes it from stdin.")],
    to: Annotated[
        str | None, typer.Option(metavar="MESSAGE", help="Its id; the message received last unless said.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The text is JSON.")] = False,
) -> None:
    """Reply to a message that the process which this runs in has received.

    For scripts under `natsproc run`: what `natsproc request` prints.
    """
    import natsproc

    process = natsproc.current()
    process.reply(to, message_of(text, json))
    process.flush()
