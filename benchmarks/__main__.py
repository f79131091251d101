"""The command: which sections, how many rounds, how large."""

from __future__ import annotations

import argparse
import asyncio
import compileall
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import measures
from .harness import Scale, measure, turns
from .report import in_markdown, keep, machine, record

HERE = Path(__file__).parent
RESULTS = HERE / "results"
ROUNDS: dict[Scale, int] = {"full": 5, "quick": 1, "toy": 1}


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description="Measure natsproc beside the bus and its peers."
    )
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"all, or of: {' '.join(measures.NAMES)}"
    )
    parser.add_argument("--rounds", type=int, help="how often everyone has a turn (5; quick 1)")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes: to see that it works, not for figures"
    )
    parser.add_argument("--toy", action="store_true", help="the smallest sizes, for the test of this")
    parser.add_argument("--only", help="contenders whose name has this in it, with commas between several")
    parser.add_argument("--out", type=Path, help="the folder for JSON, plots and the table")
    asked = parser.parse_args(argv)
    for name in asked.sections:
        if name not in measures.NAMES:
            parser.error(f"there is no section {name!r}: choose of {', '.join(measures.NAMES)}")
    return asked


def main(argv: list[str] | None = None) -> int:
    """Measure, print and keep; 1 if something failed."""
    asked = arguments(argv)
    scale: Scale = "toy" if asked.toy else "quick" if asked.quick else "full"
    rounds = asked.rounds or ROUNDS[scale]
    out = asked.out or (RESULTS if scale == "full" else RESULTS / scale)
    sections = [measures.section(name) for name in asked.sections or measures.NAMES]
    if asked.only:
        wanted = asked.only.split(",")
        for section in sections:
            section.contenders = [c for c in section.contenders if any(part in c.name for part in wanted)]
    sections = [section for section in sections if section.contenders]
    for package in (HERE, HERE.parent / "natsproc", HERE.parent / "cli"):
        compileall.compile_dir(package, quiet=1)  # as pip does it, which has installed the peers
    failed, began = False, time.monotonic()
    columns = TextColumn("{task.description:45.45}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=sum(len(turns(section, rounds)) for section in sections))
        for section in sections:
            on = machine()

            def tell(text: str) -> None:
                progress.update(task, description=text, advance=1)

            outcome = asyncio.run(measure(section, rounds, scale, tell))
            kept = record(section, outcome, scale, on)
            keep(out, kept)
            failed = failed or bool(outcome.failed)
            progress.console.file.flush()
            print(f"\n## {section.title}\n\n{in_markdown(kept)}", flush=True)
    print(f"in {time.monotonic() - began:.0f} s; table, JSON and plots are in {out}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
