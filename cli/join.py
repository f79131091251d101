"""`natsproc join`: make the mesh of another machine the one that the commands here are for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from natsproc_cli import exits


def join(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Where the line is; stdin unless said.")
    ] = None,
    prefix: Annotated[
        str, typer.Option(help="First token of the mesh's subjects.", metavar="TOKEN")
    ] = "proc",
) -> int:
    """Join the mesh of another machine, by the line that `natsproc up --listen` or `natsproc invite` printed there.

    The line holds a credential, so it is read from stdin (typed or pasted, it is not shown) or from FILE. It is
    kept only if it works. Afterwards ps, tail, run, interrupt and the rest go to that mesh. `natsproc leave` forgets it.
    """
    from natsproc.protocol.names import Names
    from natsproc.server import joining
    from natsproc.server.home import Home

    joined, sender = joining.join(Home.find(), _read(file), Names(prefix))
    exits.remark(
        f"joined the mesh at {joined.urls[0]} as {sender}: commands here go there now (`natsproc leave` forgets it)"
    )
    return 0


def _read(file: Path | None) -> str:
    if file is None:
        if not sys.stdin.isatty():
            return sys.stdin.read()
        from natsproc_cli.terminal import hidden_line

        return hidden_line("Paste the line of `natsproc invite` (it is not shown), then Enter: ")
    if file.name.startswith("natsproc-join."):
        raise exits.Usage(
            "the line holds a credential, and arguments are for all to see: pipe it in, as it was printed, "
            "or give the name of a file that has it. This one is in the shell's history now: better use another"
        )
    try:
        return file.read_text()
    except OSError as error:
        raise exits.Usage(f"cannot read {file}: {error.strerror}") from None
