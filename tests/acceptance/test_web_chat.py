"""The page of examples/fastapi-chat: its types, and that what is there is what its sources make."""

from __future__ import annotations

import json
from pathlib import Path

from webclient import CHAT, bundled, in_package, installed


def test_its_types():
    in_package(installed(CHAT), "node_modules/typescript/bin/tsc", "-p", ".")


def test_what_is_there_is_what_the_sources_make(tmp_path: Path):
    bundled(CHAT, tmp_path / "made")
    assert files(tmp_path / "made") == files(CHAT.with_name("static")), "`make web` builds it anew"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_its_lock_file_names_no_registry_and_installing_runs_nothing():
    packages = json.loads((CHAT / "package-lock.json").read_text())["packages"].values()
    assert not [entry for entry in packages if "resolved" in entry or entry.get("hasInstallScript")]
