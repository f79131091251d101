"""`natsproc doctor`: what is well with the server and its mesh, and what is not."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from natsproc_cli import exits, options, terminal
from natsproc_cli.options import Target, run_async, with_target

_SIGNS = {"ok": ("✓", terminal.GREEN), "warning": ("!", terminal.YELLOW), "problem": ("✗", terminal.RED)}


@with_target
def doctor(
    target: Target,
    fix: Annotated[
        bool, typer.Option("--fix", help="Before, keep others from reading keys and credentials here.")
    ] = False,
    output: options.Output = "text",
) -> int:
    """Check server, version, rights, disk, streams, clock, and who could come in; and say what to do.

    Exits with 1 if anything is wrong (✗; a warning, !, is not), with 4 if there is no server.
    """
    from natsproc.protocol.names import Names
    from natsproc.server import find_server
    from natsproc.server.doctor import examine
    from natsproc.server.exposure import exposed
    from natsproc.server.home import Home

    endpoint = find_server(server=target.server, creds=target.creds, context=target.context)
    colours = terminal.has_colour(sys.stdout)
    for path, mode in exposed(endpoint, Home.find()) if fix else ():
        path.chmod(mode)
        exits.remark(f"chmod {mode:o} {path}")
    found = run_async(examine(endpoint, Names(target.prefix or "proc"), Home.find()))
    for finding in found:
        if output == "json":
            print(json.dumps(asdict(finding)))
            continue
        sign, colour = _SIGNS[finding.level]
        mark = f"\x1b[{colour}m{sign}\x1b[0m" if colours else sign
        print(f"{mark} {finding.about}: {finding.text}" + (f" → {finding.advice}" if finding.advice else ""))
    return exits.FAILURE if any(finding.level == "problem" for finding in found) else 0
