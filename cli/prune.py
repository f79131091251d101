"""`natsproc prune`: forget what has ended."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from natsproc_cli import exits, options
from natsproc_cli.options import Target, run_async, with_target
from natsproc_cli.terminal import is_terminal

if TYPE_CHECKING:
    from natsproc.protocol.names import Address

OLDER = 7 * 86400.0


@with_target
def prune(
    target: Target,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Only these, whenever they ended.", show_default=False),
    ] = None,
    older: Annotated[
        float | None,
        typer.Option(
            parser=options.duration,
            metavar="DURATION",
            help="What ended at least so long ago, by the server's clock; 7d unless said.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing; print what would go.")] = False,
) -> int:
    """Forget processes that have ended: record, log, inbox and id together. Prints their ids.

    What runs or cannot be reached is never pruned. Nodes do the same by themselves now and then, with what is
    older than the mesh keeps (`natsproc setup --keep`). -N '*' prunes in all namespaces.
    """
    if ids and older is not None:
        raise exits.Usage("an ID is pruned whenever it ended: leave --older out")
    addresses = [target.address(text) for text in ids or ()]
    return run_async(_run(target, addresses, OLDER if older is None else older, dry_run))


async def _run(target: Target, chosen: Sequence[Address], older: float, dry_run: bool) -> int:
    from natsproc.errors import Error

    codes: list[int] = []
    async with target.connect() as mesh:
        old = [] if chosen else await mesh.ended(older, namespace=target.namespace)
        addresses = chosen or [record.address for record in old]
        for address in _with_progress(addresses):
            try:
                await mesh.prune(address, dry_run=dry_run)
                print(address, flush=True)
            except Error as error:
                codes.append(exits.report(error, ""))
    if not chosen:
        count = len(addresses) - len(codes)
        exits.remark(f"{count} process{'' if count == 1 else 'es'} {'to prune' if dry_run else 'pruned'}")
    return next(iter(codes), 0)


def _with_progress(addresses: Sequence[Address]) -> Iterator[Address]:
    """The same, with a bar on stderr if that is a terminal."""
    if not is_terminal(sys.stderr):
        yield from addresses
        return
    from rich.console import Console
    from rich.progress import Progress

    above = is_terminal(sys.stdout)  # else what is printed goes elsewhere
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=above) as bar:
        yield from bar.track(addresses, description="pruning")
