"""`natsproc resume`."""

from __future__ import annotations

from natsproc_cli import options
from natsproc_cli.commanding import command
from natsproc_cli.options import Target, with_target


@with_target
def resume(
    target: Target,
    ids: options.Ids,
    reason: options.Reason = "",
    hold: options.Hold = None,
    output: options.Output = "text",
) -> int:
    """Let a paused process go on.

    Returns with the receipt: 0 if it was applied, 5 if it was refused or came too late.
    """
    return command(target, ids, output, lambda process: process.resume(reason=reason, hold=hold or 0))
