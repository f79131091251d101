"""`natsproc interrupt`."""

from __future__ import annotations

from typing import Annotated

import typer

from natsproc_cli import options
from natsproc_cli.commanding import command
from natsproc_cli.options import Target, with_target


@with_target
def interrupt(
    target: Target,
    ids: options.Ids,
    message: Annotated[
        str | None, typer.Option("--message", "-m", metavar="TEXT", help="What to do instead.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The message is JSON.")] = False,
    reason: options.Reason = "",
    hold: options.Hold = None,
    turn: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Only this turn, by the number that tail shows; 5 if it is over."
        ),
    ] = None,
    hard: Annotated[bool, typer.Option("--hard", help="Also reach code that never awaits.")] = False,
    output: options.Output = "text",
) -> int:
    """Stop what a process does now, as Ctrl-C does, and say what to do instead.

    A command gets SIGINT, then the message on its stdin; of Python code that takes turns, the turn ends and no
    more. Returns with the receipt: 0 if it was applied, 5 if it was refused or came too late.
    """
    data = message if message is None or not json else options.json_value(message, "--message")
    return command(
        target,
        ids,
        output,
        lambda process: process.interrupt(data, reason=reason, turn=turn, hard=hard, hold=hold or 0),
    )
