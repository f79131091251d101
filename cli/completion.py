"""Ids for shell completion: quick, or nothing."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from natsproc_cli.options import Target

PATIENCE = 3.0


def ids(target: Target, incomplete: str) -> list[str]:
    """The addresses of live processes that begin with `incomplete`; silent about every failure."""
    found: list[str] = []
    with suppress(Exception):
        found = asyncio.run(_live(target, incomplete))
    return found


async def _live(target: Target, incomplete: str) -> list[str]:
    namespace, slash, _ = incomplete.partition("/")
    async with asyncio.timeout(PATIENCE), target.connect() as mesh:
        infos = await mesh.list(namespace=namespace if slash else None)
    shown = (f"{namespace}/{info.address.id}" if slash else str(info.address) for info in infos)
    return [address for address in shown if address.startswith(incomplete)]
