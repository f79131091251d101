"""The OS processes that are measured: each plays one role, and talks to the harness in lines of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 3.0  # seconds for a child to end by itself
_GRACE = 1.0  # seconds for what it does to come to an end, of those


class Failed(Exception):
    """A child that ended, or said nothing, where it was to say something."""


class Child:
    """A role in an OS process of its own."""

    def __init__(self, role: str, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.role = role
        self.pid = process.pid
        self._process = process
        self._errors = errors

    async def hear(self, timeout: float = 60.0) -> dict[str, Any]:
        """The next thing it says. Raises: Failed."""
        assert self._process.stdout
        try:
            async with asyncio.timeout(timeout):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise Failed(f"{self.role} said nothing for {timeout:g} s{self._last_words()}") from None
        if not line:
            raise Failed(f"{self.role} ended{self._last_words()}")
        said: dict[str, Any] = json.loads(line)
        return said

    def say(self, **what: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(what).encode() + b"\n")

    def _last_words(self) -> str:
        lines = [line for line in self._errors.read_text(errors="replace").splitlines() if line.strip()]
        return f": {lines[-1].strip()[:300]}" if lines else ""

    async def end(self) -> None:
        """Have it end: it is asked, and killed after some seconds."""
        if self._process.returncode is None:
            assert self._process.stdin
            self._process.stdin.close()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._errors.unlink(missing_ok=True)


@asynccontextmanager
async def child(role: str, **arguments: Any) -> AsyncIterator[Child]:
    """Run `role`, as in `roles:view`, with these arguments; it is gone when this is left."""
    number, name = tempfile.mkstemp(prefix="natsproc-bench-", suffix=".err")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NATS_", "NATSPROC_"))}
    environment |= {"PYTHONPATH": str(ROOT), "NATSPROC_HOME": tempfile.gettempdir() + "/natsproc-bench-none"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.children", role, json.dumps(arguments),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=number,
        limit=256 * 1024 * 1024, env=environment, cwd=ROOT,
    )  # fmt: skip
    os.close(number)
    running = Child(role, process, Path(name))
    try:
        yield running
    finally:
        await asyncio.shield(running.end())


class Channel:
    """The child's end."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print must not look like ours

    async def open(self) -> None:
        self._in = asyncio.StreamReader()
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self._in), sys.stdin)
        self.left = asyncio.create_task(
            self._listen()
        )  #: is done when the harness has no more use for this process

    async def _listen(self) -> None:
        while line := await self._in.readline():
            self._lines.put_nowait(line)

    def say(self, **what: Any) -> None:
        self._out.write(json.dumps(what) + "\n")
        self._out.flush()

    async def hear(self) -> dict[str, Any]:
        """What the harness says next."""
        said: dict[str, Any] = json.loads(await self._lines.get())
        return said

    async def gone(self) -> None:
        """Return when the harness has no more use for this process."""
        await asyncio.shield(self.left)


async def _play(role: str, arguments: dict[str, Any], channel: Channel) -> None:
    await channel.open()
    module, _, name = role.partition(":")
    play = asyncio.ensure_future(getattr(import_module(f"benchmarks.{module}"), name)(channel, **arguments))
    await asyncio.wait([play, channel.left], return_when=asyncio.FIRST_COMPLETED)
    if play.done():
        await play
        await channel.gone()
    else:
        play.cancel()
        await asyncio.wait([play], timeout=_GRACE)


def main() -> None:
    arguments = json.loads(sys.argv[2])
    if arguments.pop("uvloop", False):
        import uvloop

        uvloop.install()
    try:
        asyncio.run(_play(sys.argv[1], arguments, Channel()))
    except Exception as error:
        import traceback

        traceback.print_exc()
        print(f"{type(error).__name__}: {error}".replace("\n", " "), file=sys.stderr)
        os._exit(1)
    sys.stderr.flush()
    os._exit(0)  # what a peer's library still runs in the background is nobody's business


if __name__ == "__main__":
    main()
