"""What many readers want to know at the same time, asked once: after a reconnect, all of them want to know something.

Whoever comes before a question has been sent joins in. One that is under way is never joined: its answer may be older
than what is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

from .connection import Connection

T = TypeVar("T")
P = TypeVar("P", bound=Hashable)


class _Asking:
    """A question, and who waits for the answer."""

    answer: asyncio.Task[Any]

    def __init__(self) -> None:
        self.parts: dict[Any, None] = {}
        self.askers: list[asyncio.Future[Any]] = []


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

        Each gets a future of its own, and an exception of its own. With the last one cancelled, the question is, too.
        """
        return self.ask_about(question, None, lambda _: send(), turn)

    def ask_about(
        self,
        question: Hashable,
        part: P,
        send: Callable[[Sequence[P]], Awaitable[T]],
        turn: AbstractAsyncContextManager[Any] | None = None,
    ) -> asyncio.Future[T]:
        """As `ask`; `send` gets the parts of all who ask it, each part once."""
        asking = self._waiting.get(question)
        if asking is None:
            asking = self._waiting[question] = _Asking()
            asking.parts[part] = None
            asking.answer = asyncio.create_task(self._send(question, asking, send, turn or nullcontext()))
            asking.answer.add_done_callback(partial(_tell, asking))
        asking.parts[part] = None
        asker: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        asking.askers.append(asker)
        asker.add_done_callback(partial(self._over, question, asking))
        return asker

    async def _send(
        self,
        question: Hashable,
        asking: _Asking,
        send: Callable[[Sequence[P]], Awaitable[T]],
        turn: AbstractAsyncContextManager[Any],
    ) -> T:
        async with turn:
            self._close(question, asking)
            return await send(list(asking.parts))

    def _close(self, question: Hashable, asking: _Asking) -> None:
        if self._waiting.get(question) is asking:
            del self._waiting[question]

    def _over(self, question: Hashable, asking: _Asking, asker: asyncio.Future[Any]) -> None:
        if not asker.cancelled():
            asker.exception()  # it may be awaited by nobody
        elif not asking.answer.done() and all(other.cancelled() for other in asking.askers):
            asking.answer.cancel()
            self._close(question, asking)


def _tell(asking: _Asking, answer: asyncio.Task[Any]) -> None:
    error = None if answer.cancelled() else answer.exception()
    for asker in asking.askers:
        if asker.done():
            continue
        if answer.cancelled():
            asker.cancel()
        elif error is None:
            asker.set_result(answer.result())
        else:
            asker.set_exception(error)
            error = another(error)


def another(error: BaseException) -> BaseException:
    """The same error once more: what is raised in several places has its traceback, and its notes, for each."""
    copy = error.__class__.__new__(error.__class__, *error.args)
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error.__cause__
    return copy
