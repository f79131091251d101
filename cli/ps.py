"""`natsproc ps`: what runs."""

from __future__ import annotations

import gc
import sys
from typing import Annotated, Literal

import typer

from natsproc_cli import exits, options
from natsproc_cli.options import Target, run_async, with_target


@with_target
def ps(
    target: Target,
    output: Annotated[
        Literal["table", "json", "id"],
        typer.Option("--output", "-o", help="A table, one JSON object a line, or bare ids."),
    ] = "table",
    all: Annotated[bool, typer.Option("--all", "-a", help="Ended ones, too.")] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Show it again whenever it changes; with -o json each change."),
    ] = False,
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Only what waits for somebody to answer a question.")
    ] = False,
    label: options.Labels = None,
    kind: options.Kind = None,
) -> int:
    """List the processes of a namespace; -N '*' lists those of all."""
    if watch and output == "id":
        raise exits.Usage("--watch shows a table, or with -o json each change")
    labels = options.labels(label)

    async def work() -> None:
        if not watch:
            gc.disable()  # which would go through all that is listed again and again, and find nothing

        from natsproc_cli.listing import Listing, say_how_to_go_on

        async with target.connect() as mesh:
            listing = Listing(mesh, target.namespace or mesh.namespace, all, kind, labels, waiting)
            if output != "json":
                listing.say_what_is_listed()
            if not watch:
                infos = await listing.read()
                sys.stdout.write(listing.write(infos, output))
                sys.stdout.flush()
                if output != "id":
                    say_how_to_go_on(infos)
            elif output == "json":
                await listing.print_changes()
            else:
                await listing.keep_table()

    try:
        run_async(work())
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    return 0
