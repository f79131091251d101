"""The custom element: its types, and that what is shipped is what its sources make."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

from webclient import ASSETS, ELEMENT, in_package, installed, rolled

SHIPPED = ASSETS / "natsproc-tail.js"
WHOLE = 64_000  # bytes, gzipped: the client, nats-core and the element


def test_its_types():
    in_package(installed(ELEMENT), "node_modules/typescript/bin/tsc", "-p", ".")


def test_what_is_shipped_is_what_the_sources_make(tmp_path: Path):
    rolled(ELEMENT, tmp_path / "made.js")
    assert (tmp_path / "made.js").read_bytes() == SHIPPED.read_bytes(), "`make web` builds it anew"


def test_it_is_one_small_file_that_no_policy_forbids():
    text = SHIPPED.read_text()
    assert len(gzip.compress(SHIPPED.read_bytes(), 9)) <= WHOLE
    assert not re.search(r"\beval\(|new Function|innerHTML|\bimport\s*[({\"'`]", text)


def test_its_lock_file_names_no_registry_and_installing_runs_nothing():
    packages = json.loads((ELEMENT / "package-lock.json").read_text())["packages"].values()
    assert not [entry for entry in packages if "resolved" in entry or entry.get("hasInstallScript")]


def test_its_readme_says_all_of_its_attributes():
    source = (ELEMENT / "src" / "natsproc-tail.ts").read_text()
    observed = json.loads(re.search(r"observedAttributes = (\[.*?\])", source)[1])  # type: ignore[index]
    readme = (ELEMENT / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in [*observed, "theme"])
