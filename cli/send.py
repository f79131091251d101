"""`natsproc send`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from natsproc_cli import exits, options
from natsproc_cli.options import Target, run_async, with_target


@with_target
def send(
    target: Target,
    id: options.Id,
    text: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT|-", help="What to send; - takes it from stdin.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The text is JSON.")] = False,
    eof: Annotated[bool, typer.Option("--eof", help="End the input of a command, after the text.")] = False,
    output: options.Output = "text",
) -> None:
    """Leave a message in a process's inbox, or text for a command's stdin.

    Returns once the message is stored; whether it is read is the process's business.
    """
    if not text and not eof:
        raise exits.Usage("say what to send: TEXT, - for stdin, or --eof")
    address = target.address(id)
    messages = [(_data(text, json), "message")] if text else []
    if eof:
        messages.append((None, "eof"))

    async def work() -> None:
        async with target.connect() as mesh:
            process = mesh.process(address)
            for data, kind in messages:
                _print(address, await process.send(data, kind=kind), output)

    run_async(work())


def _data(words: list[str], json: bool) -> Any:
    text = sys.stdin.read() if words == ["-"] else " ".join(words)
    if not text and words == ["-"]:
        raise exits.Usage("stdin was empty, and nothing was sent; for an empty message say ''")
    return options.json_value(text, "the message") if json else text


def _print(address: object, sent: Any, output: str) -> None:
    if output == "json":
        exits.print_json({"process": str(address), "id": sent.id, "position": sent.position})
    else:
        print(f"{address}: stored as message {sent.id}", flush=True)
