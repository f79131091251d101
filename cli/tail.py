"""`natsproc tail`: what processes say, live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from natsproc_cli import exits, options
from natsproc_cli.options import Target, with_target

if TYPE_CHECKING:
    from natsproc.client import Mesh
    from natsproc.tail import Tail


@with_target
def tail(
    target: Target,
    ids: options.Patterns = None,
    output: options.Output = "text",
    last: options.Last = None,
    since: options.Since = None,
    after: options.After = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Wait for what comes, or stop at what is stored.")
    ] = True,
    types: options.Types = None,
    kind: options.Kind = None,
    run: options.Run = None,
    compact: options.Compact = False,
) -> int:
    """Show a process's events, from the first of its latest run, live, until that run ends.

    Several ids, a pattern such as 'build-*', or --kind show several processes at once, also those that
    start later. Ctrl-C stops the showing only.
    """
    return watch(
        target, ids, output, last=last, since=since, after=after, follow=follow, types=types, kind=kind,
        run=run, compact=compact,
    )  # fmt: skip


def watch(
    target: Target,
    ids: list[str] | None,
    output: str,
    *,
    last: int | None,
    since: float | None,
    after: str | None,
    follow: bool,
    types: list[str] | None,
    kind: str | None,
    run: str | None,
    compact: bool,
) -> int:
    """What `tail` and `logs` have in common."""
    from natsproc_cli import viewer

    if not ids and kind is None:
        raise exits.Usage("name a process, a pattern such as 'build-*', or a --kind")
    options.exclusive(last=last, since=since, after=after, run=run)
    asked = ids or []
    several = len(asked) != 1 or kind is not None or options.is_pattern(asked[0])
    if several and (after is not None or run is not None):
        raise exits.Usage("--after and --run are for one process: name one id")
    chosen_run = options.run_choice(run)
    addresses = [target.address(text) for text in asked if not options.is_pattern(text)]

    def open_tail(mesh: Mesh) -> Tail:
        wanted = types or ()
        if several:
            return mesh.tail(
                *asked, kind=kind, follow=follow, n=last, since=since, types=wanted, compact=compact
            )
        return mesh.process(addresses[0]).tail(
            after=after, n=last, since=since, run=chosen_run, follow=follow, compact=compact, types=wanted
        )

    async def work() -> None:
        async with target.connect() as mesh:
            if several and follow and not addresses:
                from natsproc.tail import any_match

                if not await any_match(mesh, asked, kind):
                    exits.remark("nothing matches yet; waiting for what starts")
            view = viewer.stdout_view(output, names=several)
            await viewer.show(open_tail(mesh), view, over=mesh.connection if follow else None)

    try:
        options.run_async(work())
    except KeyboardInterrupt:
        detached(asked, several)
        return exits.INTERRUPTED
    return 0


def detached(ids: list[str], several: bool = False) -> None:
    """Say that Ctrl-C stopped the watching and nothing else, and what would."""
    if several:
        exits.remark("stopped watching; every process goes on. To stop one: natsproc interrupt ID")
    else:
        exits.remark(f"detached from {ids[0]}, which goes on; to stop it: natsproc interrupt {ids[0]}")
