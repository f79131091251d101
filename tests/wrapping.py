"""Commands under an address, for tests: beside the test in its own loop, or in the foreground of a shell."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import natsproc
from natsproc.bus import inbox
from natsproc.command.run import run_command
from natsproc.command.runner import Wrapped
from natsproc.protocol.names import new_token

DEADLINE = 10.0 if os.environ.get("NATSPROC_MUTANT") else 60.0

WRAPPER = """
import asyncio, json, sys, natsproc
from natsproc.command.run import run_command
from natsproc.command.runner import Wrapped

async def main(url, id, options, *argv):
    wrapped = json.loads(options)
    how = wrapped.pop("how", {})
    async with natsproc.connect(url, sender="owner") as mesh:
        return await run_command(mesh, Wrapped(argv, **wrapped), id=id, foreground=True, **how)

sys.exit(asyncio.run(main(*sys.argv[1:])).code)
"""


class Job:
    """A command that runs in the background of a test, seen through its handle."""

    def __init__(
        self, mesh: natsproc.Mesh, *argv: str, how: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """`how` is passed on to `run_command`."""
        self.id = f"job-{new_token(8)}"
        self.handle = mesh.process(self.id)
        wrapped = Wrapped(argv, **{"echo": False, "linger": 0.5, **options})
        self.task = asyncio.create_task(run_command(mesh, wrapped, id=self.id, **how or {}))

    async def __aenter__(self) -> Job:
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self.task.done():
            self.task.cancel()
        await asyncio.wait([self.task], timeout=DEADLINE)

    async def ended(self) -> Any:
        async with asyncio.timeout(DEADLINE):
            return await self.task

    async def events(self, kind: str = "") -> list[natsproc.Event]:
        """All events of a job that has ended, or those of one type."""
        return [e async for e in self.handle.tail() if isinstance(e, natsproc.Event) and kind in ("", e.type)]

    async def written(self, stream: str = "stdout") -> bytes:
        """What the log of a job that has ended holds of a stream."""
        return b"".join(
            [text(event) for event in await self.events("output") if event.data["stream"] == stream]
        )

    async def begun(self) -> None:
        """Wait until the mesh knows it."""
        async with asyncio.timeout(DEADLINE):
            while not any(info.address.id == self.id for info in await self.handle.mesh.list()):
                await asyncio.sleep(0.01)

    async def shows(self, what: str) -> None:
        """Wait until it has written something."""
        seen = b""
        async with asyncio.timeout(DEADLINE):
            while not self.task.done():
                try:
                    async for event in self.handle.tail(types=["output"]):
                        if isinstance(event, natsproc.Event):
                            seen += text(event)
                            if what.encode() in seen:
                                return
                except natsproc.NoSuchProcess:
                    await asyncio.sleep(0.01)
        raise AssertionError(f"{what!r} is not in {seen!r}; {self.task}")

    async def type(self, data: Any, kind: str) -> None:
        """Send a message of another kind, as `natsproc attach` does."""
        mesh = self.handle.mesh
        await mesh.io.call(inbox.send(mesh.connection, mesh.names, self.handle.address, data, kind=kind))

    async def terminal_event(self) -> dict[str, Any]:
        (event,) = await self.events("exited")
        return event.data


def text(event: natsproc.Event) -> bytes:
    data = event.data
    return data["text"].encode() if "text" in data else base64.b64decode(data["base64"])


class Shell:
    """Starts natsproc as a shell would."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.id = f"job-{new_token(8)}"

    def argv(self, *command: str, **options: Any) -> list[str]:
        return [sys.executable, "-c", WRAPPER, self.url, self.id, json.dumps(options), *command]

    @contextlib.contextmanager
    def started(
        self, *command: str, stdin: int = subprocess.DEVNULL, **options: Any
    ) -> Iterator[subprocess.Popen[bytes]]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(self.argv(*command, **options), stdin=stdin, stdout=pipe, stderr=pipe)
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=30)

    def send(self, text: str) -> None:
        async def send() -> None:
            async with natsproc.connect(self.url) as mesh:
                await mesh.process(self.id).send(text)

        asyncio.run(asyncio.wait_for(send(), 60))

    def events(self, follow: bool = True) -> list[natsproc.Event]:
        async def read() -> list[natsproc.Event]:
            async with natsproc.connect(self.url) as mesh:
                tail = mesh.process(self.id).tail(follow=follow)
                return [item async for item in tail if isinstance(item, natsproc.Event)]

        return asyncio.run(asyncio.wait_for(read(), 60))
