"""`natsproc attach`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from natsproc_cli import exits, options
from natsproc_cli.options import Target, run_async, with_target
from natsproc_cli.tail import detached

if TYPE_CHECKING:
    from natsproc.handle import Exit


@with_target
def attach(
    target: Target,
    id: options.Id,
    output: options.Output = "text",
    last: options.Last = None,
    detach_keys: Annotated[
        str, typer.Option(metavar="KEYS", help="What detaches from a command with a terminal.")
    ] = "ctrl-p,ctrl-q",
) -> int:
    """Watch a process and type to it, until it ends; exits with its own exit code.

    Lines that you type go to its inbox, or its stdin. Of a command with a terminal (--pty) the screen is
    redrawn and every key goes to it, Ctrl-C included, but for the keys that detach. Leaving it,
    by them or by Ctrl-C, exits with 0; every failure of natsproc with 125.
    """
    from natsproc_cli.keys import parse_keys

    keys = parse_keys(detach_keys)

    async def work() -> Exit | None:
        from natsproc.errors import NoSuchProcess
        from natsproc.handle import Exit
        from natsproc_cli import lines, raw

        address = target.address(id)
        async with target.connect() as mesh:
            process = mesh.process(address)
            record = await process.record()
            if record is None:
                raise NoSuchProcess(f"no process {str(address)!r} is known here")
            terminals = sys.stdin.isatty() and sys.stdout.isatty()
            if record.pty and not record.ended and terminals and output == "text":
                end = await raw.attached(process, record.epoch, keys)
                return Exit.of(end) if end else None
            return await lines.attached(process, output, last)

    try:
        with exits.told_as_json(output):
            end = run_async(work())
    except KeyboardInterrupt:
        detached([id])
        return 0
    if end is None:
        exits.remark(f"detached from {id}, which goes on; to return: natsproc attach {id}")
        return 0
    return end.code
