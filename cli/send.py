"""`natsproc send`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from natsproc_cli import exits, options
from natsproc_cli.options import Target, run_async, with_target

if TYPE_CHECKING:
    from natsproc.sent import Sent, Taken


@with_target
def send(
    target: Target,
    id: options.Id,
    text: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT|-", help="What to send; - takes it from stdin.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The text is JSON.")] = False,
    eof: Annotated[bool, typer.Option("--eof", help="End the input of a command, after the text.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the process has taken it.")] = False,
    timeout: options.Timeout = None,
    when: Annotated[
        Literal["idle", "next", "now"] | None,
        typer.Option(help="Land after the turn under way, at its next boundary, or now, interrupting it."),
    ] = None,
    output: options.Output = "text",
) -> None:
    """Leave a message in a process's inbox, or text for a command's stdin.

    Returns once the message is stored; with --wait once the process has taken it: 5 if it ended without,
    124 after the --timeout. What the process does not allow lands at the nearest gentler time that it does; 5 if
    there is none.
    """
    if not text and not eof:
        raise exits.Usage("say what to send: TEXT, - for stdin, or --eof")
    if timeout is not None and not wait:
        raise exits.Usage("--timeout goes with --wait: without it nothing is waited for")
    address = target.address(id)
    messages = [(message_of(text, json), "message")] if text else []
    if eof:
        messages.append((None, "eof"))

    async def work() -> None:
        async with target.connect() as mesh:
            process = mesh.process(address)
            if wait:
                process.insist_on_watching()
            for data, kind in messages:
                sent = await process.send(data, kind=kind, when=when)
                _print(address, sent, await sent.consumed(timeout=timeout) if wait else None, output)

    run_async(work())


def message_of(words: list[str], json: bool) -> Any:
    """The message that the command line gives: text or JSON, from its words or from stdin. Raises: Usage."""
    text = sys.stdin.read() if words == ["-"] else " ".join(words)
    if not text and words == ["-"]:
        raise exits.Usage("stdin was empty, and nothing was sent; for an empty message say ''")
    return options.json_value(text, "the message") if json else text


def _print(address: object, sent: Sent, taken: Taken | None, output: str) -> None:
    if output == "json":
        more = {"offset": taken.offset, "when": taken.when} if taken else {}
        exits.print_json({"process": str(address), "id": sent.id, "position": sent.position, **more})
    elif taken:
        how = "" if taken.when == "idle" else f", landed {taken.when}"
        print(f"{address}: took message {sent.id} (event {taken.offset}{how})", flush=True)
    else:
        print(f"{address}: stored as message {sent.id}", flush=True)
