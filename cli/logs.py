"""`natsproc logs`: what processes have said so far."""

from __future__ import annotations

from natsproc_cli import options
from natsproc_cli.options import Target, with_target
from natsproc_cli.tail import watch


@with_target
def logs(
    target: Target,
    ids: options.Patterns = None,
    output: options.Output = "text",
    last: options.Last = None,
    since: options.Since = None,
    after: options.After = None,
    types: options.Types = None,
    kind: options.Kind = None,
    run: options.Run = None,
    compact: options.Compact = False,
) -> int:
    """Show the events stored so far, and stop there: `natsproc tail --no-follow`."""
    return watch(
        target, ids, output, last=last, since=since, after=after, follow=False, types=types, kind=kind,
        run=run, compact=compact,
    )  # fmt: skip
