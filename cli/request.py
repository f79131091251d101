"""`natsproc request`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from natsproc_cli import exits, options
from natsproc_cli.options import Target, run_async, with_target
from natsproc_cli.receive import print_data
from natsproc_cli.send import message_of


@with_target
def request(
    target: Target,
    id: options.Id,
    text: Annotated[list[str], typer.Argument(metavar="TEXT|-", help="What to ask; - takes it from stdin.")],
    json: Annotated[bool, typer.Option("--json", help="The text is JSON.")] = False,
    timeout: options.Timeout = None,
    output: options.Output = "text",
) -> None:
    """Leave a message in a process's inbox, and print what the process replies to it.

    Text comes as it is, anything else as JSON. Exits with 5 if the process ended without a reply, with 124
    after the --timeout.
    """
    address, message = target.address(id), message_of(text, json)

    async def work() -> Any:
        async with target.connect() as mesh:
            return await mesh.process(address).request(message, timeout=timeout)

    reply = run_async(work())
    if output == "json":
        exits.print_json({"process": str(address), "reply": reply})
    else:
        print_data(reply)
