"""What many readers want to know at the same time, asked once: after a reconnect, all of them want to know something.

Whoever comes before a question has been sent joins in. One that is under way is never joined: its answer may be older
than what is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

from .connection import Connection

T = TypeVar("T")


class _Asking:
    def __init__(self, answer: asyncio.Task[Any]) -> None:
        self.answer = answer
        self.askers = 0


class Joint:
    """The questions that have not been sent yet."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, _Asking] = {}

    @classmethod
    def of(cls, connection: Connection) -> Joint:
        """Those of all who ask over this connection."""
        found: Joint = connection.shared.setdefault((cls, ""), cls())
        return found

    def ask(
        self,
        question: Hashable,
        send: Callable[[], Awaitable[T]],
        turn: AbstractAsyncContextManager[Any] | None = None,
    ) -> asyncio.Future[T]:
        """Ask by `send`, in the loop's next turn, and once it is one's `turn`; or join those who have asked before that.

        Each gets a future of its own. With the last one cancelled, the question is, too.
        """

        async def asked() -> T:
            async with turn or nullcontext():
                if self._waiting.get(question) is asking:
                    del self._waiting[question]
                return await send()

        asking = self._waiting.get(question)
        if asking is None:
            asking = self._waiting[question] = _Asking(asyncio.create_task(asked()))
        asking.askers += 1
        answer = asyncio.shield(asking.answer)
        answer.add_done_callback(partial(self._over, question, asking))
        return answer

    def _over(self, question: Hashable, asking: _Asking, answer: asyncio.Future[Any]) -> None:
        if not answer.cancelled():
            answer.exception()  # it may be awaited by nobody
            return
        asking.askers -= 1
        if not asking.askers:
            asking.answer.cancel()
            if self._waiting.get(question) is asking:
                del self._waiting[question]
