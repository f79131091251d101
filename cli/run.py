"""`natsproc run`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from natsproc_cli import exits, options
from natsproc_cli.options import Target, run_async, with_target

if TYPE_CHECKING:
    from natsproc.command.run import Ended


@with_target
def run(
    target: Target,
    command: Annotated[
        list[str], typer.Argument(metavar="[--] COMMAND...", help="What to run, with its arguments.")
    ],
    id: Annotated[
        str | None, typer.Option(metavar="ID", help="Its address; one is made up unless given.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="What it is; the program's name unless said.")
    ] = None,
    label: options.Labels = None,
    pty: Annotated[bool, typer.Option("--pty", "-t", help="Give it a terminal.")] = False,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Pass our stdin on to it, besides its inbox.")
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="stdout and stderr in their exact order, all of it as stdout.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once it has started, and print its id.")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Run an id again that has ended.")] = False,
    output: Annotated[
        options.OutputChoice, typer.Option("--output", "-o", help="Its own output, or its events as JSON lines.")
    ] = "text",
    report: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> int:
    """Run a command under an address; its output and its exit code are as without natsproc.

    Ctrl-C interrupts it, a second one within two seconds cancels, a third kills. The embedded server is
    started if no other is named and it does not run. Every failure of natsproc exits with 125; 126 and 127
    are for a command that can't be run or found.
    """
    from natsproc.protocol.names import new_id, sanitize

    labels = options.labels(label)
    kind = sanitize(kind or os.path.basename(command[0]), "process")
    named = id is not None
    id = id or new_id(kind)
    address = target.address(id)
    if detach:
        if interactive or output == "json":
            raise exits.Usage("--detach leaves nobody to type or to read: not with --interactive or -o json")
        from natsproc_cli.background import start

        return start(target, id, sys.argv)

    async def work() -> Ended:
        from natsproc.command.run import run_command
        from natsproc.command.runner import Wrapped

        wrapped = Wrapped(
            tuple(command),
            pty=pty,
            merge=merge,
            echo=report is None and output == "text",
            stdin=0 if interactive else None,
        )
        async with target.connect(start=True) as mesh:
            if not named and sys.stderr.isatty():
                exits.remark(f"running as {address}")
            running = run_command(...)

    with exits.told_as_json(output):
        ended = run_async(work())
    if ended.error:
        exits.remark(ended.error)
    return ended.code
