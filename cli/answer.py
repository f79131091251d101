"""`natsproc answer`."""

from __future__ import annotations

from typing import Annotated

import typer

from natsproc_cli import exits, options
from natsproc_cli.commanding import command
from natsproc_cli.options import Target, with_target


@with_target
def answer(
    target: Target,
    id: options.Id,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[ASK] ANSWER", help="The answer, behind the name of the question if it asks several."
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="The answer is JSON.")] = False,
    hold: options.Hold = None,
    output: options.Output = "text",
) -> int:
    """Answer what a process asks: `natsproc ps --waiting` shows what that is.

    The first answer wins: 0 if it was yours, 5 if somebody was faster, it is not among the choices, or nothing is
    asked any more. --hold keeps an answer only to a question that is open already, of a process that is gone
    without an end (`natsproc ps --waiting` has it); without one it is refused at once.
    """
    *ask, text = words
    if len(ask) > 1:
        raise exits.Usage("an answer of several words is quoted, as in: natsproc answer ID 'not yet'")
    value = options.json_value(text, "the answer") if json else text
    return command(target, [id], output, lambda process: process.answer(value, *ask, hold=hold or 0))
