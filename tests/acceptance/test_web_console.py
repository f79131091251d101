"""The console: its pure parts in Node, its types, and that what is shipped is what its sources make."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from webclient import ASSETS, CONSOLE, bundled, in_package, installed

SHIPPED = ASSETS / "console"
WHOLE = 125_000  # bytes, gzipped, all in: the client, the libraries, the styles


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
    assert sum(len(gzip.compress(content, 9)) for content in files(SHIPPED).values()) <= WHOLE


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
