"""`natsproc ask`."""

from __future__ import annotations

from typing import Annotated

import typer

from natsproc_cli import exits, options


def ask(
    question: Annotated[list[str], typer.Argument(metavar="QUESTION", help="What to ask.")],
    choices: Annotated[
        str, typer.Option(metavar="A,B,…", help="What it may be answered with; anything unless said.")
    ] = "",
    id: Annotated[
        str | None,
        typer.Option(metavar="ASK", help="A name for it; asked again under it, it is the same question."),
    ] = None,
    timeout: options.Timeout = None,
) -> int:
    """Ask people something for the process that this runs in, wait for the answer, and print it.

    For scripts under `natsproc run`. Answered with `natsproc answer`. Exits with 0 for the first of the choices, 1 for
    the second and so on, with 0 for a free answer; with 124 when the time runs out, with 125 for any other failure. A
    script that is started again after its machine was lost gets the answer that was given.
    """
    import natsproc
    from natsproc.errors import TimedOut
    from natsproc.protocol.asks import text_of

    chosen = [choice.strip() for choice in choices.split(",") if choice.strip()]
    if len(chosen) > exits.MOST_CHOICES:
        raise exits.Usage(f"{len(chosen)} choices are too many: {exits.MOST_CHOICES} at most")
    try:
        answer = natsproc.current().ask(" ".join(question), chosen, id=id, timeout=timeout)
    except TimedOut as error:
        exits.remark(str(error))
        return exits.TIMED_OUT
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    print(text_of(answer), flush=True)
    return chosen.index(answer) if chosen else 0
