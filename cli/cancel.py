"""`natsproc cancel`."""

from __future__ import annotations

from typing import Annotated

import typer

from natsproc_cli import options
from natsproc_cli.commanding import command
from natsproc_cli.options import Target, with_target

GRACE_SECONDS = 10.0


@with_target
def cancel(
    target: Target,
    ids: options.Ids,
    grace: Annotated[
        float | None,
        typer.Option(
            parser=options.duration,
            metavar="DURATION",
            help="How long it may take before it is killed; 10s unless said.",
        ),
    ] = None,
    reason: options.Reason = "",
    hold: options.Hold = None,
    output: options.Output = "text",
) -> int:
    """Ask a process to end, and make it after a grace time.

    Returns with the receipt, once the process is gone: 0 if it was applied, 5 if it was refused or came
    too late.
    """
    seconds = GRACE_SECONDS if grace is None else grace
    return command(
        target, ids, output, lambda process: process.cancel(reason=reason, grace=seconds, hold=hold or 0)
    )
