"""The rooms of the code: imports run one way, protocol/ is pure, bus/ alone talks NATS, and the core stays readable."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    path.relative_to(ROOT) for folder in ("natsproc", "cli") for path in (ROOT / folder).rglob("*.py")
)
HOUR = 4000  # lines that a newcomer reads in an hour
MOST = 520  # lines of one module


def _room(module: str) -> str:
    """The room of an imported or importing module; "" if it is not ours."""
    for room in ("natsproc.protocol", "natsproc.bus", "natsproc.errors", "natsproc_cli", "natsproc"):
        if module == room or module.startswith(f"{room}."):
            return room
    return ""


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).replace(
        "cli", "natsproc_cli", 1 if path.parts[0] == "cli" else 0
    )


def _imports(path: Path) -> set[str]:
    """What a module imports, anywhere in it, by full name."""
    found = set()
    package = _name(path).split(".")[:-1]
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" if node.module is None else module for alias in node.names}
    return found


MAY_IMPORT = {
    "natsproc.errors": set(),
    "natsproc.protocol": {"natsproc.errors", "natsproc.protocol"},
    "natsproc.bus": {"natsproc.errors", "natsproc.protocol", "natsproc.bus"},
    "natsproc": {"natsproc.errors", "natsproc.protocol", "natsproc.bus", "natsproc"},
    "natsproc_cli": {"natsproc.errors", "natsproc.protocol", "natsproc.bus", "natsproc", "natsproc_cli"},
}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_run_one_way(path):
    allowed = MAY_IMPORT[_room(_name(path))]
    wrong = {module for module in _imports(path) if _room(module) and _room(module) not in allowed}
    assert not wrong


@pytest.mark.parametrize("path", [p for p in MODULES if "protocol" in p.parts], ids=str)
def test_the_protocol_is_pure(path):
    impure = {"asyncio", "threading", "time", "socket", "os", "nats", "subprocess"}
    assert not {module for module in _imports(path) if module.split(".")[0] in impure}


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[:2] != ("natsproc", "bus")], ids=str)
def test_only_the_bus_talks_nats(path):
    assert not {module for module in _imports(path) if module.split(".")[0] == "nats"}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_stays_readable(path):
    assert len((ROOT / path).read_text().splitlines()) <= MOST


def test_what_carries_the_guarantees_is_read_in_an_hour():
    """The reading that docs/architecture.md names; its files exist, and are no more than it says."""
    section = (
        (ROOT / "docs/architecture.md").read_text().split("## Where to begin reading")[1].split("That is")[0]
    )
    named = re.findall(r"`([\w/]+\.py)`", section)
    assert len(named) >= 12
    assert sum(len((ROOT / "natsproc" / name).read_text().splitlines()) for name in named) <= HOUR
