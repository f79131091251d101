"""The command: wall time and peak memory, from the shell's point of view."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from benchmarks.harness import Contender, Figure, Samples, Section, Turn
from benchmarks.stats import Goal

WALL, PEAK = "wall", "peak memory"
LAUNCH = Path(__file__).parent.parent / "launch.py"
NATSPROC = Path(sys.executable).parent / "natsproc"


def timed(argv: Sequence[str | Path], until: str = "") -> tuple[float, float]:
    """Run a command: seconds until it ended, or until it printed that, and its peak memory in MB."""
    launch = [sys.executable, "-I", "-S", LAUNCH, until, *argv]
    took, peak, failed = subprocess.run(launch, capture_output=True, text=True, check=True).stdout.split()
    if int(failed):
        raise RuntimeError(f"{' '.join(map(str, argv))} failed")
    return float(took), float(peak)


def command(*argv: str | Path) -> Callable[[Turn], Awaitable[Samples]]:
    """A command several times."""

    async def run(turn: Turn) -> Samples:
        return await _times(turn, argv)

    return run


async def _times(turn: Turn, argv: Sequence[str | Path], until: str = "") -> Samples:
    found = [await asyncio.to_thread(timed, argv, until) for _ in range(turn.size(7, 3, 1))]
    return {WALL: [took * 1e3 for took, _ in found], PEAK: [peak for _, peak in found]}


def among(count: int, *argv: str, until: str = "") -> Callable[[Turn], Awaitable[Samples]]:
    """The same where so many processes run, which `ID` is one of."""

    async def run(turn: Turn) -> Samples:
        url, namespace = await turn.url("nats"), turn.name()
        crowd = turn.size(count, min(count, 500), min(count, 5))
        async with turn.child(
            "measures.cost:ours", url=url, count=crowd, traced=False, namespace=namespace
        ) as owner:
            await owner.hear(200)
            ids = await asyncio.to_thread(
                _output, [NATSPROC, "ps", "-o", "id", "--server", url, "-N", namespace]
            )
            if len(ids) != crowd:
                raise RuntimeError(f"{len(ids)} of {crowd} are listed")
            real = [ids[0] if part == "ID" else part for part in argv]
            return await _times(turn, [NATSPROC, *real, "--server", url, "-N", namespace], until)

    return run


def _output(argv: Sequence[str | Path]) -> list[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


SECTION = Section(
    "cli",
    "The command",
    "Wall time and peak memory (`wait4`) of commands, from their start to their end; of `tail`, to the first event printed.",
    [Figure(WALL, "ms"), Figure(PEAK, "MB")],
    [
        Contender("python, nothing", command(sys.executable, "-c", "pass")),
        Contender("python, import nats", command(sys.executable, "-c", "import nats")),
        Contender("natsproc --help", command(NATSPROC, "--help")),
        Contender("natsproc ps of 10", among(10, "ps")),
        Contender("natsproc tail, to the first event", among(10, "tail", "ID", until="one")),
        Contender("natsproc ps of 10,000", among(10_000, "ps"), rounds=1),
    ],
    [
        Goal("natsproc --help", WALL, 2.0, "most", "python, import nats"),
        Goal("natsproc --help", PEAK, 2.0, "most", "python, import nats"),
        Goal("natsproc ps of 10", WALL, 2.0, "most", "python, import nats"),
        Goal("natsproc tail, to the first event", WALL, 2.0, "most", "python, import nats"),
        Goal("natsproc ps of 10,000", WALL, 700.0),
    ],
    rounds=3,
)
