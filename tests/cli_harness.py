"""The `natsproc` command as a subprocess and on a pseudo-terminal, and Python processes to point it at."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
from harness import Server, running, wait_for

BIN = Path(sys.executable).parent
NATSPROC = str(BIN / "natsproc")
KEPT_OUT = ("NATS", "NO_", "COLUMNS", "LINES")
NOWHERE = "nats://127.0.0.1:1"


class Cli:
    """The command line against one server, with a home of its own."""

    def __init__(self, home: Path, url: str = "") -> None:
        self.home = home
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(KEPT_OUT)}
        self.env |= {
            "NATSPROC_HOME": str(home / "natsproc"),
            "HOME": str(home),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "TERM": "xterm",
            "TZ": "UTC",
        }
        if url:
            self.env["NATS_URL"] = url

    def __call__(
        self, *arguments: str, stdin: str | bytes = b"", timeout: float = 60, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        done = subprocess.run(
            [NATSPROC, *arguments],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            env=self.env | env,
            timeout=timeout,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    def ok(self, *arguments: str, **options: Any) -> str:
        """Run it, insist on exit code 0, and return stdout."""
        done = self(*arguments, **options)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *arguments: str, **options: Any) -> list[dict[str, Any]]:
        """Run it with `-o json`, and return the objects."""
        return [json.loads(line) for line in self.ok(*arguments, "-o", "json", **options).splitlines()]

    @contextlib.contextmanager
    def started(self, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Have it run beside the test; it is killed at the end."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [NATSPROC, *arguments],
            **{"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, "env": self.env, **options},
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait(20)
            for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
                stream.close()

    @contextlib.contextmanager
    def terminal(self, *arguments: str, columns: int = 100, **env: str) -> Iterator[pexpect.spawn]:
        """Run it on a pseudo-terminal."""
        child = pexpect.spawn(
            NATSPROC,
            list(arguments),
            env=self.env | env,
            dimensions=(30, columns),
            timeout=30,
            encoding="utf-8",
            codec_errors="replace",
        )
        try:
            yield child
        finally:
            child.close(force=True)

    @contextlib.contextmanager
    def owner(self, body: str, id: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """A Python process under `id` whose coroutine has that body, in which `proc` is the process."""
        script = (
            "import asyncio, sys, natsproc\n"
            f"async def worker(proc):\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"
            f"natsproc.run(worker, id={id!r}, **{options!r})\n"
        )
        said = self.home / f"{id}.stderr"
        with said.open("wb") as stderr:
            process = subprocess.Popen([sys.executable, "-c", script], env=self.env, stderr=stderr)

        def listed() -> bool:
            assert "Error" not in said.read_text(), said.read_text()
            names = self.ok("ps", "-a", "-N", "*", "-o", "json").splitlines()
            return any(json.loads(line)["id"] == id for line in names)

        try:
            wait_for(listed, 60, f"{id} has started")
            yield process
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(20)

    def log_has(self, id: str, type: str, timeout: float = 30) -> None:
        """Wait until the log of `id` has an event of that type."""
        wait_for(lambda: self.ok("logs", id, "--type", type), timeout, f"{type} in the log of {id}")


@contextlib.contextmanager
def cli_with_server(folder: Path) -> Iterator[tuple[Cli, Server]]:
    """A stock server with a mesh on it, and the command line for it."""
    with running(folder / "nats") as server:
        cli = Cli(folder, server.url)
        cli.ok("setup")
        try:
            yield cli, server
        finally:  # what a failed test has left in the background
            if left := cli("ps", "-N", "*", "-o", "id").stdout.split():
                cli("kill", *left)


def exit_code(child: pexpect.spawn) -> int:
    """Wait for the end of a command on a terminal, and return its exit code."""
    child.expect(pexpect.EOF)
    deadline = time.monotonic() + 20
    while child.isalive():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert child.exitstatus is not None, f"ended by signal {child.signalstatus}"
    return int(child.exitstatus)
