"""Conversations with agents under an address, and what tests wait for in their logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from meshes import events, until

import natsproc

ALLOW = ("idle", "next", "now")

Seen = list[natsproc.Event]


@asynccontextmanager
async def talking(
    mesh: natsproc.Mesh, converse: Callable[[natsproc.Process], Awaitable[Any]], id: str
) -> AsyncIterator[Callable[[], Sequence[natsproc.Message]]]:
    """Run an agent under that id; yields what tells which messages wait in its mailbox."""
    owner: list[natsproc.Process] = []

    async def chat(proc: natsproc.Process) -> None:
        owner.append(proc)
        await converse(proc)

    task = asyncio.create_task(mesh.run(natsproc.process(kind="chat", allow=ALLOW)(chat), id=id))
    try:
        yield lambda: owner[0]._mailbox.waiting
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()):
            raise error


async def has(waiting: Callable[[], Sequence[natsproc.Message]], count: int) -> bool:
    return len(waiting()) == count


async def shown(handle: natsproc.ProcessHandle, condition: Callable[[Seen], Any]) -> Seen:
    """What the log has, once that is true of it."""

    async def found() -> Seen | None:
        seen = await events(handle, follow=False, run="all")
        return seen if condition(seen) else None

    found_last = await until(found, 40)
    assert found_last is not None
    return found_last


def of(seen: Seen, *types: str) -> Seen:
    return [event for event in seen if event.type in types]


def ended(count: int) -> Callable[[Seen], bool]:
    """So many turns have ended, and are saved."""

    def condition(seen: Seen) -> bool:
        turns = of(seen, "turn_ended")
        return len(turns) >= count and of(seen, "checkpointed")[-1].offset > turns[-1].offset

    return condition


def text(seen: Seen) -> str:
    """All that was streamed."""
    return "".join(event.data["text"] for event in of(seen, "token"))
