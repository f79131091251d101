"""Asking the bus until it answers: what is wrong with it mostly passes by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from natsproc.errors import NoServer, ServerUnfit, TimedOut

from .connection import ApiError, NoResponders
from .history import ReadFailed

T = TypeVar("T")

PATIENCE = 30.0  #: seconds for which a server that is away is waited for
_RETRY = 0.2
_PASSING = (NoServer, TimedOut, NoResponders, ServerUnfit, ReadFailed, ApiError)
_UNAVAILABLE = 503


async def insist(call: Callable[[], Awaitable[T]], deadline: float | None = None) -> T:
    """Call until it works, as long as what is wrong passes by itself; until a time of the loop's clock, if given."""
    while True:
        try:
            return await call()
        except _PASSING as error:
            lasting = isinstance(error, ApiError) and error.code != _UNAVAILABLE
            if lasting or (deadline and asyncio.get_running_loop().time() > deadline):
                raise
            await asyncio.sleep(_RETRY)
