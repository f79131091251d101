"""The packages for React and the AI SDK: their types, their examples, and what would be published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from webclient import AI_SDK, REACT, built, compiled, in_package, installed, npm

PACKAGES = {
    REACT: {"index", "mesh", "process", "processes", "following", "texts", "store", "verbs"},
    AI_SDK: {"index", "transport", "turn", "running", "history", "http"},
}
each = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)


@each
def test_its_types_and_those_of_its_example(package: Path):
    built()
    in_package(installed(package), "node_modules/typescript/bin/tsc", "-p", "test")


@each
def test_its_readme_shows_its_example(package: Path):
    assert (package / "example.tsx").read_text() in (package / "README.md").read_text()


@each
def test_its_lock_file_names_no_registry_and_installing_runs_nothing(package: Path):
    packages = json.loads((package / "package-lock.json").read_text())["packages"].values()
    assert {entry["resolved"] for entry in packages if "resolved" in entry} == {"../client"}
    assert not [entry for entry in packages if entry.get("hasInstallScript")]
    assert set(json.loads((package / "package.json").read_text())["scripts"]) == {"build", "test"}


@each
def test_what_would_be_published(package: Path):
    built()
    compiled(package)
    (packed,) = json.loads(
        in_package(package, npm(), "pack", "--dry-run", "--json", "--ignore-scripts").stdout
    )
    modules = {f"dist/{module}{ending}" for module in PACKAGES[package] for ending in (".js", ".d.ts")}
    assert {file["path"] for file in packed["files"]} == {
        "package.json",
        "README.md",
        *modules,
    }
    assert (packed["name"], packed["size"] < 30_000) == (f"@natsproc/{package.name}", True)


@each
def test_it_loads_where_there_is_no_page(package: Path):
    """As a server that renders does."""
    built()
    compiled(package)
    said = in_package(
        package,
        "--input-type=module",
        "-e",
        f"console.log(Object.keys(await import('@natsproc/{package.name}')).length)",
    ).stdout
    assert int(said) > 1


def test_what_a_log_is_to_a_chat():
    built()
    in_package(compiled(AI_SDK), "--test", "test/turn.test.js")
