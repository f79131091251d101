"""`natsproc run`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from natsproc_cli import exits, options
from natsproc_cli.options import Target, run_async, with_target

if TYPE_CHECKING:
    from natsproc.command.runner import Wrapped
    from natsproc.command.session import Ended


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
    receive: Annotated[
        bool,
        typer.Option(
            "--receive", help="Keep messages for `natsproc receive` from the start; none goes to its stdin."
        ),
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Run an id again that has ended.")] = False,
    spool: Annotated[
        int,
        typer.Option(
            parser=options.size,
            metavar="SIZE",
            help="How much of its output may wait on disk while the server is away; 0 for none.",
        ),
    ] = "1GiB",  # type: ignore[assignment]
    when_full: Annotated[
        Literal["block", "drop"],
        typer.Option(help="When that is full: have it wait, or drop its output and say how much."),
    ] = "block",
    output: Annotated[
        Literal["text", "json"],
        typer.Option("--output", "-o", help="Its own output, or its events as JSON lines."),
    ] = "text",
    report: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> int:
    """Run a command under an address; its output and its exit code are as without natsproc.

    Ctrl-C interrupts it, a second one within two seconds cancels, a third kills; Ctrl-Z pauses it, and again
    resumes. The embedded server is
    started if no other is named and it does not run. Every failure of natsproc exits with 125; 126 and 127
    are for a command that can't be run or found.
    """
    from natsproc.protocol.names import choose_kind, new_id

    if report is not None:
        target = Target.taken_over()
    labels = options.labels(label)
    kind = choose_kind(kind, os.path.basename(command[0]))
    if id is None:
        id = new_id(kind)
        if not detach and report is None and sys.stderr.isatty():
            exits.remark(f"running as {id}")
    target.address(id)  # checked before anything starts
    if detach:
        if interactive or output == "json":
            raise exits.Usage("--detach leaves nobody to type or to read: not with --interactive or -o json")
        from natsproc_cli import background

        chosen = (("--pty", pty), ("--merge", merge), ("--receive", receive), ("--restart", restart))
        flags = [flag for flag, on in chosen if on]
        named = [f"--label={key}={value}" for key, value in labels.items()]
        named += [f"--spool={spool}", f"--when-full={when_full}"]
        again = [*flags, *named, f"--id={id}", f"--kind={kind}", "--", *command]
        code = background.start(again, target.handed_on())
        if code == 0:
            print(id, flush=True)
        return code

    from natsproc.command.runner import Wrapped

    echo = report is None and output == "text"
    wrapped = Wrapped(tuple(command), pty, merge, echo, stdin=0 if interactive else None, receive=receive)
    spec = {"id": id, "kind": kind, "labels": labels, "restart": restart}
    spec |= {"spool": spool, "drop": when_full == "drop"}
    with exits.told_as_json(output):
        ended = run_async(_run(target, wrapped, spec, output, report))
    if ended.error:
        exits.remark(ended.error)
    if ended.unshown:
        exits.remark(
            f"the output could not be written here: {ended.unshown}; natsproc logs {id} has it until then"
        )
        return ended.code or exits.OURS
    return ended.code


async def _run(
    target: Target, wrapped: Wrapped, spec: dict[str, Any], output: str, report: int | None
) -> Ended:
    import asyncio

    from natsproc.command.run import run_command

    loop, runs = asyncio.get_running_loop(), asyncio.Event()
    async with target.connect(start=True) as mesh:
        running = asyncio.create_task(
            run_command(
                mesh,
                wrapped,
                **spec,
                foreground=True,
                started=lambda: loop.call_soon_threadsafe(runs.set),
                troubled=exits.remark,
                pausing=lambda: exits.remark(
                    f"pausing it; to go on: Ctrl-Z again, or natsproc resume {spec['id']}"
                ),
                waiting=lambda: exits.remark(
                    f"it has ended; waiting for {mesh.url} to store how; Ctrl-C leaves"
                ),
            )
        )
        begun = asyncio.create_task(runs.wait())
        try:
            await asyncio.wait([running, begun], return_when=asyncio.FIRST_COMPLETED)
            if runs.is_set() and report is not None:
                from natsproc_cli import background

                background.report_running(report)
            if output == "json" and not (running.done() and running.exception()):
                from natsproc_cli import viewer

                await viewer.show(mesh.process(spec["id"]).tail(), viewer.stdout_view(output))
            return await running
        finally:
            begun.cancel()
            running.cancel()  # which cancels the command, if nobody reads about it any more
            await asyncio.wait([running])
