"""Python processes that own an id, to be watched from elsewhere."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TALKS = """
    async for message in proc.inbox():
        await proc.reply(message, {"echo": message.data})
"""
COUNTS = """
    for n in range({count}):
        await proc.emit("count", {{"n": n}})
        await asyncio.sleep({pause})
"""


@contextlib.contextmanager
def owner(folder: Path, id: str, body: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process under `id`, whose coroutine has that body, in which `proc` is the process."""
    script = (
        "import asyncio, natsproc\n"
        f"async def worker(proc):\n    print('ready', flush=True)\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"
        f"natsproc.run(worker, id={id!r}, **{options!r})\n"
    )
    with (folder / f"{id}.stderr").open("wb") as stderr:
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=stderr)
    assert process.stdout
    try:
        assert process.stdout.readline() == b"ready\n", (folder / f"{id}.stderr").read_text()
        yield process
    finally:
        process.kill()
        process.wait(20)
        process.stdout.close()
