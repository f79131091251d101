"""The console: its pure parts in Node, its types, and that what is shipped is what its sources make."""

from __future__ import annotations

import gzip
import json
import re
from itertools import product
from pathlib import Path

import pytest
from webclient import ASSETS, CONSOLE, bundled, in_package, installed

SHIPPED = ASSETS / "console"
FIRST, CHARTS = (
    106_000,
    25_000,
)  # bytes, gzipped: what a page begins with, and what it fetches for its first chart


def test_its_pure_parts():
    in_package(installed(CONSOLE), "--test", "test/*.test.js")


def test_its_types():
    in_package(installed(CONSOLE), "node_modules/typescript/bin/tsc", "-p", ".")


def test_what_is_shipped_is_what_the_sources_make(tmp_path):
    bundled(CONSOLE, tmp_path / "made")
    assert files(tmp_path / "made") == files(SHIPPED), "`make web` builds it anew"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_stays_small():
    sizes = {name: len(gzip.compress(content, 9)) for name, content in files(SHIPPED).items()}
    charts = sum(size for name, size in sizes.items() if re.search("uPlot|metrics", name))
    assert charts <= CHARTS
    assert sum(sizes.values()) - charts <= FIRST


def test_the_page_has_nothing_that_its_policy_forbids():
    page = (SHIPPED / "index.html").read_text()
    assert "style=" not in page
    assert "onload=" not in page
    assert "<script>" not in page
    assert "//" not in page.replace("</", "")


@pytest.mark.parametrize("package", ["client", "console"])
def test_lock_files_name_no_registry(package):
    lock = json.loads((CONSOLE.parent / package / "package-lock.json").read_text())
    assert not [name for name, entry in lock["packages"].items() if "resolved" in entry]
    assert not [name for name, entry in lock["packages"].items() if entry.get("hasInstallScript")]


def themes() -> list[dict[str, str]]:
    """The colours by name: light, dark by the system, dark by choice."""
    text = (CONSOLE / "src" / "styles" / "tokens.css").read_text()
    blocks = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in re.findall(r"\{([^{}]*)\}", text)
    ]
    return [block for block in blocks if block]


def contrast(one: str, other: str) -> float:
    """By WCAG 2."""

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


TEXT = ("text", "soft", "faint", "accent", "good", "attention", "bad", "hold", *(f"c{n}" for n in range(16)))
PAIRS = [
    *product(TEXT, ("bg", "surface", "sunk")),
    *product(("text", "soft", "attention"), ("attention-tint",)),
    *product(("text", "bad"), ("bad-tint",)),
    *product(("text", "accent", "soft"), ("tint",)),
    ("on-accent", "accent"),
]


def test_its_colours_can_be_read():
    light, dark, chosen = themes()
    assert dark == chosen
    for theme in (light, dark):
        poor = {pair: contrast(*(theme[name] for name in pair)) for pair in PAIRS}
        assert {pair: round(ratio, 2) for pair, ratio in poor.items() if ratio < 4.5} == {}
        assert min(contrast(theme["edge"], theme[ground]) for ground in ("bg", "surface")) >= 3
