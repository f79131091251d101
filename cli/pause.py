"""`natsproc pause`."""

from __future__ import annotations

from natsproc_cli import options
from natsproc_cli.commanding import command
from natsproc_cli.options import Target, with_target


@with_target
def pause(
    target: Target,
    ids: options.Ids,
    reason: options.Reason = "",
    hold: options.Hold = None,
    output: options.Output = "text",
) -> int:
    """Stop a process where it is: an OS command at once, Python code at its next call that may wait.

    Returns with the receipt: 0 if it was applied, 5 if it was refused or came too late.
    """
    return command(target, ids, output, lambda process: process.pause(reason=reason, hold=hold or 0))
