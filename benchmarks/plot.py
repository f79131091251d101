"""Plots of what was measured, as SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "natsproc"  # the same figures give the same file
import matplotlib.pyplot as plt  # noqa: E402

from .stats import Summary  # noqa: E402

OURS, THEIRS = "#2b6cb0", "#a0aec0"


def plot(kept: Mapping[str, Any], path: Path) -> None:
    """Draw a section: bars from median to p99, or lines over sizes."""
    figures = [figure for figure in kept["figures"] if _of(kept, figure["name"])]
    if not figures:
        return
    rows = [len(_of(kept, figure["name"])) for figure in figures]
    heights = [3.0] * len(rows) if kept["growth"] else [0.8 + 0.28 * count for count in rows]
    canvas, axes = plt.subplots(
        len(figures),
        1,
        figsize=(9, sum(heights) + 0.4),
        squeeze=False,
        height_ratios=heights,
        layout="constrained",
    )
    for figure, (axis,) in zip(figures, axes, strict=True):
        (_lines if kept["growth"] else _bars)(axis, kept, figure)
    canvas.suptitle(kept["title"])
    canvas.savefig(path, metadata={"Date": None})
    plt.close(canvas)


def _of(kept: Mapping[str, Any], name: str) -> dict[str, Summary]:
    return {
        who: Summary.of([samples for samples in rounds[name] if samples])
        for who, rounds in kept["rounds"].items()
        if any(rounds.get(name) or [])
    }


def _bars(axis: Any, kept: Mapping[str, Any], figure: Mapping[str, Any]) -> None:
    found = _of(kept, figure["name"])
    names = list(reversed(found))
    axis.barh(
        names,
        [found[name].p50 for name in names],
        xerr=[[0] * len(names), [max(0.0, _far(found[name]) - found[name].p50) for name in names]],
        color=[OURS if name.startswith("natsproc") else THEIRS for name in names],
        ecolor="#4a5568",
        capsize=2,
    )
    values = [summary.p50 for summary in found.values() if summary.p50 > 0]
    if values and max(values) / min(values) > 20:
        axis.set_xscale("log")
    axis.set_xlabel(f"{figure['name']} ({figure['unit']}): median, whisker to p99", fontsize=8)
    axis.tick_params(labelsize=8)


def _far(summary: Summary) -> float:
    return summary.p99 if summary.count >= 20 else summary.most


def _lines(axis: Any, kept: Mapping[str, Any], figure: Mapping[str, Any]) -> None:
    found = _of(kept, figure["name"])
    axis.plot(list(found), [summary.p50 for summary in found.values()], "o-", color=OURS)
    axis.set_ylim(bottom=0)
    axis.set_ylabel(figure["unit"], fontsize=8)
    axis.set_title(figure["name"], fontsize=9)
    axis.tick_params(labelsize=8)
