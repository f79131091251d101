"""Where the next credential comes from: a file that is renewed, or a function that gives one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from natsproc.errors import BadPayload

from .credential import Credential

Source = Callable[[], str | Awaitable[str]]
"""Gives the text of a .creds file, or a credential in one line. It runs in a thread of its own, and an async one in a
loop of its own."""

_RETURNED = "what `credentials` returned"


def ask(source: Source) -> Credential:
    """Ask a source, blocking. Raises: BadPayload, and whatever the source raises."""
    return _aside(partial(_ask, source)).result()


def asking(source: Source) -> Callable[[], Awaitable[Credential]]:
    """How to ask a source again, without blocking."""
    return lambda: asyncio.wrap_future(_aside(partial(_ask, source)))


def reading(path: str | Path) -> Callable[[], Awaitable[Credential]]:
    """How to read a file again, without blocking."""
    return lambda: asyncio.wrap_future(_aside(partial(Credential.read, path)))


def _ask(source: Source) -> Credential:
    said = source()
    if inspect.isawaitable(said):
        said = asyncio.run(_awaited(said))
    if not isinstance(said, str):
        raise BadPayload(f"{_RETURNED} is no text of a credential, but {type(said).__name__}")
    return Credential.of(said, _RETURNED)


def _awaited(said: Awaitable[str]) -> Coroutine[Any, Any, str]:
    async def wait() -> str:
        return await said

    return wait()


def _aside(work: Callable[[], Credential]) -> concurrent.futures.Future[Credential]:
    """Run it in a thread of its own, for which nobody has to wait at the end of the program."""
    future: concurrent.futures.Future[Credential] = concurrent.futures.Future()

    def run() -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

    threading.Thread(target=run, name="natsproc-credential", daemon=True).start()
    return future
