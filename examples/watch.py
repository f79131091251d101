"""Watch a process, remember where you are, and go on there another time, as a web page or a bot would.

    python examples/watch.py build       # shows it from the start; stop this with Ctrl-C, and start it again:
    python examples/watch.py build       # it goes on behind the last event it showed

The cursor lies in a file where it is called; it is all that a viewer has to keep.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import natsproc


async def watch(id: str, after: str | None) -> AsyncIterator[str]:
    """Show what comes, and give the cursor behind each event."""
    async with natsproc.connect() as mesh, mesh.process(id).tail(after=after) as tail:
        async for item in tail:
            print(item.type, item.data, flush=True)
            if isinstance(item, natsproc.Event):
                yield item.cursor


async def main(id: str) -> None:
    place = Path(f".{id}.cursor")
    async for cursor in watch(id, place.read_text() if place.exists() else None):  # noqa: ASYNC240
        place.write_text(cursor)  # noqa: ASYNC240


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1]))
    except natsproc.Error as error:
        sys.exit(f"natsproc: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
