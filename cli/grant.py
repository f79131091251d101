"""`natsproc grant`: give out a credential."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from natsproc_cli import exits, options
from natsproc_cli.durations import format_age

if TYPE_CHECKING:
    from natsproc.granting import Granted

DAY = 86400.0


def grant(
    sender: Annotated[str, typer.Argument(metavar="SENDER", help="The name that its holder goes by.")],
    can: Annotated[
        list[str],
        typer.Option(
            metavar="RIGHT,…",
            help="watch: see it. send: leave messages. control: interrupt, pause, end, answer. own: run it, and "
            "write its log. all: everything on the whole mesh, as this machine may.",
        ),
    ],
    on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPE,…",
            help="An id, or namespace/id; '*' for all of the namespace, 'chat/*' for all of another, '*/*' for the "
            "mesh; what starts later is covered, too.",
        ),
    ] = None,
    lasts: Annotated[float | None, options.lasting("How long; 1d unless said, 0 is until revoked.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write a .creds file; else one line is printed."),
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Where its holder finds the server, if not here.")
    ] = None,
    show: Annotated[
        bool,
        typer.Option(
            "--print", help="Make nothing; print what to configure on a NATS whose keys are elsewhere."
        ),
    ] = False,
    output: Annotated[
        Literal["text", "conf", "json", "nsc"],
        typer.Option("--output", "-o", help="What --print prints: all of it, or one of these alone."),
    ] = "text",
    keys: options.Keys = None,
    namespace: Annotated[
        str, typer.Option("--namespace", "-N", help="Namespace of the ids.", metavar="NAME")
    ] = "default",
    prefix: Annotated[
        str, typer.Option(help="First token of the mesh's subjects.", metavar="TOKEN")
    ] = "proc",
) -> int:
    """Make a credential with which SENDER, and nobody else, may do this, for a day unless said.

    Without --out it is printed as one line, for a browser or for NATSPROC_GRANT; whoever has it can act as
    SENDER. No server has to run; the one at --server is asked whether it goes by these keys. A further grant for the same SENDER adds to the first.
    """
    import natsproc
    from natsproc.granting import trouble_with

    seconds = DAY if lasts is None else lasts
    if show:
        options.exclusive(print=show, out=out, server=server, keys=keys)
        print(
            _elsewhere(
                sender, options.words(can), options.words(on), seconds or None, namespace, prefix, output
            )
        )
        return 0
    if output != "text":
        raise exits.Usage("-o says what --print prints")
    if out is not None:
        _insist_on_place(out, sender)
    made = natsproc.grant(
        sender,
        options.words(can),
        options.words(on),
        seconds=seconds or None,
        namespace=namespace,
        prefix=prefix,
        url=server or "",
        keys=keys,
    )
    _say(made, seconds)
    if out is None:
        print(made.line)
    else:
        _write(out, made)
    if server and (trouble := trouble_with(made, server)):
        exits.remark(trouble)
    return 0


def _write(out: Path, made: Granted) -> None:
    from natsproc.access import write_private

    try:
        write_private(out, made.creds)
    except OSError as error:
        raise exits.Failure(f"cannot write {out}: {error.strerror}") from None


def _insist_on_place(out: Path, sender: str) -> None:
    """Make sure that the file can be written, and is nothing else's. Raises: Usage, Failure."""
    from natsproc.access import Credential
    from natsproc.errors import BadPayload

    if str(out) == "-":
        raise exits.Usage("without --out it is printed")
    if out.exists():
        with suppress(BadPayload):
            if Credential.read(out).sender == sender:
                return
        raise exits.Usage(f"{out} is there already, and is no credential of {sender}: choose another file")
    if not os.access(out.absolute().parent, os.W_OK):
        raise exits.Failure(f"cannot write {out}: there is no such folder, or it is not yours")


def _elsewhere(
    sender: str,
    can: list[str],
    on: list[str],
    seconds: float | None,
    namespace: str,
    prefix: str,
    output: str,
) -> str:
    from natsproc.access import elsewhere
    from natsproc.granting import rights_on

    _, _, subjects = rights_on(sender, can, on, namespace, prefix)
    if output == "conf":
        return elsewhere.as_conf(sender, subjects)
    if output == "json":
        return elsewhere.as_json(sender, subjects)
    if output == "nsc":
        return elsewhere.as_nsc(sender, subjects, seconds)
    return "\n".join(elsewhere.explained(sender, subjects, seconds))


def _say(made: Granted, seconds: float) -> None:
    grant = made.grant
    until = f"for {format_age(seconds)}" if seconds else "until it is revoked"
    exits.remark(
        f"{grant.sender} may {', '.join(grant.can)} on {', '.join(grant.on)} {until}; key {grant.key[:12]}"
    )
    if made.others:
        last = max(other.expires or float("inf") for other in made.others)
        when = (
            "with no end"
            if last == float("inf")
            else f"until {datetime.fromtimestamp(last, UTC):%Y-%m-%d %H:%M:%S} UTC"
        )
        count = len(made.others)
        what = "another credential" if count == 1 else f"{count} other credentials"
        exits.remark(
            f"{grant.sender} holds {what} already, {when}; `natsproc revoke {grant.sender}` ends all of them"
        )
