"""`natsproc play`: a run once more, with its timing."""

from __future__ import annotations

from math import inf
from typing import Annotated

import typer

from natsproc_cli import exits, options
from natsproc_cli.options import Target, with_target
from natsproc_cli.pace import Pace, parse_speed


def _speed(text: str) -> float:
    try:
        return parse_speed(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@with_target
def play(
    target: Target,
    id: Annotated[
        str,
        typer.Argument(
            metavar="ID|FILE",
            help="The process, or what `export --format jsonl` wrote.",
            autocompletion=options.complete_ids,
        ),
    ],
    run: options.Run = None,
    speed: Annotated[
        float | None, typer.Option(parser=_speed, metavar="10x|0.5x|max", help="How fast; 1x unless said.")
    ] = None,
    max_pause: Annotated[
        float | None,
        typer.Option(
            parser=options.duration, metavar="DURATION", help="Wait no longer than this, however long it was."
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what a live run still says.")] = False,
) -> int:
    """Replay a run with its timing, by the times of its events; the latest run unless --run is given.

    On a terminal: space pauses, + and - change the speed, the right arrow skips ten seconds, q quits. Of a command with a terminal
    (--pty) the screen is drawn as it was.
    """
    pace = Pace(speed or 1.0, inf if max_pause is None else max_pause)
    chosen = options.run_choice(run)

    async def work() -> None:
        from natsproc_cli import recorded
        from natsproc_cli.player import Player

        if recorded.is_file(id):
            if follow or run:
                raise exits.Usage("--follow and --run are for a process, not for a file")
            await Player(pace).play(recorded.items(id))
            return
        address = target.address(id)
        async with target.connect() as mesh:
            player = Player(pace)
            await player.play(mesh.process(address).tail(run=chosen, follow=follow))
            if not player.over and not (player.last and player.last.terminal):
                exits.remark(
                    f"caught up with {id}, which goes on; to stay with it: natsproc play {id} --follow"
                )

    options.run_async(work())
    return 0
