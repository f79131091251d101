"""`natsproc kill`."""

from __future__ import annotations

from natsproc_cli import options
from natsproc_cli.commanding import command
from natsproc_cli.options import Target, with_target


@with_target
def kill(
    target: Target,
    ids: options.Ids,
    reason: options.Reason = "",
    hold: options.Hold = None,
    output: options.Output = "text",
) -> int:
    """End a process at once, without asking it.

    Returns with the receipt: 0 if it was applied, 5 if it was refused or came too late.
    """
    return command(target, ids, output, lambda process: process.kill(reason=reason, hold=hold or 0))
