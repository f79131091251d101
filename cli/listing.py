"""Processes as a table, as JSON or as ids; once, or again whenever they change."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from natsproc_cli import exits
from natsproc_cli.describe import asked, value, watching, way_out
from natsproc_cli.durations import format_age
from natsproc_cli.table import columns
from natsproc_cli.terminal import (
    BOLD,
    DIM,
    GREEN,
    RED,
    YELLOW,
    has_colour,
    is_terminal,
    one_line,
    paint,
)

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from natsproc.client import Mesh, ProcessInfo
    from natsproc.protocol.records import Record

HEADER = ("ID", "STATE", "KIND", "AGE", "LAST EVENT", "NODE", "LABELS", "TITLE")
REDRAW_SECONDS = 1.0
SETTLE_SECONDS = 0.1

_COLOURS = {"running": GREEN, "paused": YELLOW, "waiting": YELLOW, "unreachable": RED, "failed": RED}


class Listing:
    """The processes that a `ps` is about."""

    def __init__(
        self,
        mesh: Mesh,
        namespace: str,
        ended: bool,
        kind: str | None,
        labels: Mapping[str, str],
        waiting: bool = False,
    ) -> None:
        self._mesh = mesh
        self._namespace = namespace
        self._ended = ended
        self._kind = kind
        self._waiting = waiting
        self._labels = labels

    async def read(self) -> list[ProcessInfo]:
        """What runs now, the oldest first."""
        infos = await self._mesh.list(
            namespace=self._namespace, ended=self._ended, kind=self._kind, labels=self._labels
        )
        infos = [info for info in infos if info.record.asks or not self._waiting]
        return sorted(infos, key=lambda info: (info.record.started, str(info.address)))

    def write(self, infos: Sequence[ProcessInfo], output: str) -> str:
        """Write a list as `-o` asks for it."""
        if output == "id":
            return "".join(f"{self._name(info)}\n" for info in infos)
        if output == "json":
            return "".join(exits.json_line(info.to_json()) + "\n" for info in infos)
        return "".join(f"{line}\n" for line in self._table(infos))

    def say_what_is_listed(self) -> None:
        """Remark on it where that is less than all."""
        if granted := self._mesh.listed(self._namespace):
            exits.remark(f"only what {self._mesh.sender} may watch is listed: {', '.join(granted)}")

    async def keep_table(self) -> None:
        """Show the table now and after every change; on a terminal in place, and every second."""
        from natsproc_cli.viewer import nobody_reads

        changed = asyncio.Event()
        changed.set()

        async def follow() -> None:
            async for _ in self._mesh.watch(namespace=self._namespace):
                changed.set()

        live = _live() if is_terminal(sys.stdout) else None
        following = asyncio.create_task(follow())
        shown: object = None
        try:
            while not following.done():
                with suppress(TimeoutError):
                    async with asyncio.timeout(REDRAW_SECONDS):
                        await changed.wait()
                changed.clear()
                infos = await self.read()
                state = [(info.address, info.state, info.record.run) for info in infos]
                if live:
                    live.update(_text(self._table(infos)), refresh=True)
                elif state != shown:
                    sys.stdout.write(self.write(infos, "table") + "\n")
                sys.stdout.flush()
                if nobody_reads():
                    raise BrokenPipeError
                shown = state
                await asyncio.sleep(SETTLE_SECONDS)
            following.result()
        finally:
            following.cancel()
            if live:
                live.stop()

    async def print_changes(self) -> None:
        """Print what runs now, then each process that changes, a JSON object a line."""
        from natsproc.client import matches
        from natsproc_cli.changes import Changes

        def wanted(record: Record) -> bool:
            return matches(record, self._kind, self._labels) and bool(record.asks or not self._waiting)

        await Changes(self._mesh, self._namespace, wanted).print(self.read)

    def _name(self, info: ProcessInfo) -> str:
        return str(info.address) if self._namespace == "*" else info.address.id

    def _table(self, infos: Sequence[ProcessInfo]) -> list[str]:
        """The table's lines, coloured and cut to the terminal's width if stdout is one."""
        now = datetime.now(UTC)
        header: tuple[str, ...] = HEADER
        rows: list[tuple[str, ...]] = [self._row(info, now) for info in infos]
        if any(info.record.viewers for info in infos):  # mostly nobody watches
            header = (*HEADER[:5], "VIEWERS", *HEADER[5:])
            rows = [
                (*row[:5], watching(info.record.viewers) or "-", *row[5:])
                for row, info in zip(rows, infos, strict=True)
            ]
        lines = columns(header, rows)
        if is_terminal(sys.stdout):
            width = shutil.get_terminal_size().columns
            lines = [line if len(line) <= width else line[: width - 1] + "…" for line in lines]
        if has_colour(sys.stdout):
            head, *rest = lines
            coloured = [self._coloured(line, info) for line, info in zip(rest, infos, strict=True)]
            lines = [paint(head, BOLD), *coloured]
        return lines

    def _row(self, info: ProcessInfo, now: datetime) -> tuple[str, ...]:
        record = info.record
        return (
            self._name(info),
            _state(info),
            one_line(record.kind),
            _age(record.started, now),
            "-" if info.quiet is None else format_age(info.quiet),
            one_line(record.node),
            _labels(record.labels) if record.labels else "-",
            (_asks(record.asks) if record.asks else one_line(record.title)) or "-",
        )

    def _coloured(self, line: str, info: ProcessInfo) -> str:
        if info.record.ended and info.state not in _COLOURS:
            return paint(line, DIM)
        at = line.find(info.state, len(self._name(info)))
        if at < 0:
            return line
        end = at + len(info.state)
        return line[:at] + paint(info.state, _COLOURS.get(info.state, "")) + line[end:]


def _state(info: ProcessInfo) -> str:
    """The state, with the exit code of what has ended, and since when an owner is gone."""
    if info.gone and info.gone.since:
        return f"{info.state} {format_age(info.gone.seconds)}"
    code = info.record.code if info.record.ended else None
    return one_line(info.state) + (f" ({code})" if code else "")


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f"{one_line(key)}={one_line(value)}" for key, value in labels.items())


def _asks(asks: Sequence[Mapping[str, Any]]) -> str:
    """What it waits for, with the names of the questions where there are several."""
    named = len(asks) > 1
    return "; ".join((f"{value(ask['ask'])}: " if named else "") + asked(ask) for ask in asks)


def say_how_to_go_on(infos: Sequence[ProcessInfo]) -> None:
    """Say on stderr what to do about those that are unreachable, if any are."""
    names = [str(info.address) for info in infos if info.state == "unreachable"]
    if len(names) == 1:
        exits.remark(f"{names[0]} is unreachable, its node gone or cut off. {way_out(names[0])}")
    elif names:
        exits.remark(f"{len(names)} processes are unreachable, their nodes gone or cut off. {way_out('ID')}")


def _age(since: str, now: datetime) -> str:
    try:
        return format_age((now - datetime.fromisoformat(since)).total_seconds())
    except (ValueError, TypeError):
        return "-"


def _live() -> Live:
    """A place on the terminal that is drawn over; what does not fit its height is left out."""
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    live.start()
    return live


def _text(lines: Sequence[str]) -> Text:
    from rich.text import Text

    return Text.from_ansi("\n".join(lines), no_wrap=True)
