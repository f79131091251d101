"""natsproc itself, as anyone would use it. Ways: `` (in a loop), `threads`, and those of `work`."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import natsproc
from benchmarks.roles import Body, Text


async def write(url: str, id: str, body: Body, how: str = "") -> None:
    async with natsproc.connect(url) as mesh, mesh.own(id) as proc:
        await body(partial(proc.emit, "tick"), proc.flush)


async def watch(url: str, id: str, on: Callable[[Text], None], how: str = "") -> None:
    async with natsproc.connect(url) as mesh:
        await follow(mesh, id, on)


connection = natsproc.connect


async def follow(mesh: natsproc.Mesh, id: str, on: Callable[[Text], None], how: str = "") -> None:
    """Watch it from now on, once it is there."""
    await there(mesh, id)
    async for item in mesh.process(id).tail(n=0):
        if item.type == "tick":
            on(item.data)


async def catch_up(mesh: natsproc.Mesh, id: str, on: Callable[[Text], None], how: str = "") -> None:
    """Watch it from its first event on."""
    async for item in mesh.process(id).tail():
        if item.type == "tick":
            on(item.data)


async def there(mesh: natsproc.Mesh, id: str) -> None:
    """Return once a process of that id runs."""
    while not any(info.address.id == id for info in await mesh.list()):
        await asyncio.sleep(0.05)


async def replay(url: str, id: str, on: Callable[[Text], None], how: str = "") -> None:
    async with natsproc.connect(url) as mesh:
        async for item in mesh.process(id).tail(follow=False):
            if item.type == "tick":
                on(item.data)


async def work(
    url: str, id: str, started: Callable[[], None], stopped: Callable[..., None], how: str
) -> None:
    if how == "wrapped":
        return await _wrapped(url, id, started, stopped)
    busy = _BUSY[how]
    async with natsproc.connect(url) as mesh, mesh.own(id) as proc:
        while True:
            try:
                async with proc.interruptible():
                    started()
                    await busy()
            except natsproc.Interrupted:
                stopped()


async def _idle() -> None:
    await asyncio.sleep(3600)


async def _busy_loop(work: int = 10_000) -> None:
    while True:
        sum(range(work))  # of 10,000: some 0.2 ms of work between two turns of the loop
        await asyncio.sleep(0)


async def _busy_threads() -> None:
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            sum(range(10_000))

    for _ in range(2):
        threading.Thread(target=compute, daemon=True).start()
    try:
        await asyncio.sleep(3600)
    finally:
        over.set()


async def _spin() -> None:
    number = 0
    while True:
        number += 1


async def _system_call() -> None:
    time.sleep(3600)  # noqa: ASYNC251


async def _in_c() -> None:
    while True:
        hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 400_000)  # some 0.1 to 0.2 s without a way in


_BUSY = {
    "idle": _idle,
    "busy": _busy_loop,
    "short": partial(_busy_loop, 1000),
    "long": partial(_busy_loop, 500_000),
    "threads": _busy_threads,
    "python": _spin,
    "call": _system_call,
    "c": _in_c,
}

_COMMAND = """
import sys, time
while True:
    try:
        print(0, flush=True)
        time.sleep(3600)
    except KeyboardInterrupt:
        print(time.monotonic_ns(), flush=True)
"""


async def _wrapped(url: str, id: str, started: Callable[[], None], stopped: Callable[..., None]) -> None:
    """A command under `natsproc run`, which says itself when it had stopped."""
    cli = [sys.executable, "-m", "natsproc_cli", "run", "--server", url, "--id", id, "--"]
    command = await asyncio.create_subprocess_exec(
        *cli, sys.executable, "-c", _COMMAND, stdout=asyncio.subprocess.PIPE
    )
    assert command.stdout
    try:
        while line := await command.stdout.readline():
            if at := int(line):
                stopped(at)
            else:
                started()
    finally:  # killed rather than asked: it would wait for a server that is gone; its guard ends what it ran
        command.kill()


@asynccontextmanager
async def controls(url: str, id: str, how: str) -> AsyncIterator[Callable[[], Any]]:
    async with natsproc.connect(url) as mesh:
        handle = mesh.process(id)

        async def stop() -> None:
            receipt = await handle.interrupt(hard=how in ("python", "call", "c"), timeout=20)
            if not receipt.applied:
                raise RuntimeError(f"{receipt.status}: {receipt.why}")

        yield stop
