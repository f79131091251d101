"""`natsproc export`: a run as a file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal

import typer

from natsproc_cli import exits, options
from natsproc_cli.options import Target, with_target
from natsproc_cli.terminal import is_terminal

if TYPE_CHECKING:
    from natsproc.handle import ProcessHandle
    from natsproc.protocol.messages import Event
    from natsproc.tail import Tail
    from natsproc_cli.render import View

BAR_AFTER = 1.0  # seconds
COUNT_EVERY = 4096


@with_target
def export(
    target: Target,
    id: options.Id,
    format: Annotated[
        Literal["asciicast", "jsonl"],
        typer.Option(
            help="For terminal players such as asciinema, or every event as `tail -o json` prints it."
        ),
    ] = "jsonl",
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="Where to; stdout unless said.")] = "-",
    run: options.Run = None,
    since: options.Since = None,
    compact: options.Compact = False,
) -> int:
    """Write a run that is stored to a file: the latest unless --run is given, of one that goes on what there is so far.

    `natsproc play FILE` replays the jsonl. A FILE appears once it is complete.
    """
    options.exclusive(run=run, since=since)
    chosen, address = options.run_choice(run), target.address(id)

    async def work() -> None:
        async with target.connect() as mesh:
            process = mesh.process(address)
            end = await _end(process) if is_terminal(sys.stderr) and chosen is None else 0
            with _destination(out) as stream, _bar(end) as tell:
                view = _view(stream, format, str(address))
                last = await _copy(
                    process.tail(run=chosen, since=since, follow=False, compact=compact), view, tell
                )
            if last is None:
                exits.remark(
                    f"no events of {address} are stored" + (" of that time" if since is not None else "")
                )
            elif not last.terminal:
                exits.remark(f"{address} goes on: this is what it has said so far")

    options.run_async(work())
    return 0


def _view(stream: BinaryIO, format: str, title: str) -> View:
    if format == "jsonl":
        from natsproc_cli.render import JsonView

        return JsonView(stream, terminal=stream.isatty())
    from natsproc_cli.cast import CastView

    return CastView(stream, title)


async def _copy(tail: Tail, view: View, tell: Callable[[int, int], None]) -> Event | None:
    """Write all that the tail has; returns its last event. What is missing is said on stderr, too."""
    from natsproc.protocol.messages import Event
    from natsproc_cli.describe import notice

    first, last = 0, None
    async with tail:
        async for item in tail:
            view.show(item)
            if isinstance(item, Event):
                first, last = first or item.offset, item
                if item.offset % COUNT_EVERY == 0:
                    tell(first, item.offset)
            elif said := notice(item):
                exits.remark(said)
    view.close()
    return last


async def _end(process: ProcessHandle) -> int:
    """The offset of the last event that is stored, 0 if there is none."""
    async with process.tail(n=1, follow=False) as tail:
        return max([0, *[getattr(item, "offset", 0) async for item in tail]])


@contextmanager
def _destination(out: str) -> Iterator[BinaryIO]:
    """Where the bytes go. A file gets its name once all of it is there."""
    if out == "-":
        yield sys.stdout.buffer
        return
    path = Path(os.path.realpath(out))
    plain = not path.exists() or path.is_file()  # else a device or a pipe
    part = path.with_name(f"{path.name}.part") if plain else path
    try:
        with part.open("wb") as stream:
            yield stream
        if plain:
            part.replace(path)
    except OSError as error:
        if plain:
            part.unlink(missing_ok=True)
        raise exits.Failure(f"{out} cannot be written: {error.strerror}") from None
    except BaseException:
        if plain:
            with suppress(OSError):
                part.unlink()
        raise


@contextmanager
def _bar(end: int) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, once it takes a while, if that is a terminal: call it with the first offset and the one reached."""
    if not is_terminal(sys.stderr):
        yield lambda first, reached: None
        return
    from rich.console import Console
    from rich.progress import Progress

    began = time.monotonic()
    bar = Progress(console=Console(stderr=True), transient=True, redirect_stdout=False)
    task = bar.add_task("exporting", total=None)

    def tell(first: int, reached: int) -> None:
        if time.monotonic() - began > BAR_AFTER:
            bar.start()
            bar.update(task, completed=reached - first, total=max(end, reached) - first if end else None)

    try:
        yield tell
    finally:
        bar.stop()
