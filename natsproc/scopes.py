"""Scopes: stretches of a process's code that interrupts stop, in tasks and in plain functions. Knows no NATS.

Code inside a scope can be stopped there, and learns so by `Interrupted` at the scope's exit. Which scopes an
interrupt fires is for `interruptions` to say; here is what a fired scope does.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import copy
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from natsproc import hard
from natsproc.errors import Cancelled, HardInterrupt, Interrupted
from natsproc.protocol.messages import Outcome

if TYPE_CHECKING:
    from natsproc.interruptions import Interruptions
    from natsproc.turns import Gathered

RETURNED = Outcome("too_late", "the function returned first")
IDLE = Outcome("too_late", "no turn is under way")
OVERRULED = Outcome("too_late", "something else stopped the code first")
MISUSED = Outcome("too_late", "its scope was left from another task")

Runner = TypeVar("Runner", "asyncio.Task[Any]", int)

innermost: ContextVar[Scope[Any] | None] = ContextVar("natsproc_scope", default=None)


def around() -> Iterator[Scope[Any]]:
    """The scopes around the code that runs now, those of the task or thread that started it too, innermost first."""
    scope = innermost.get()
    while scope is not None:
        yield scope
        scope = scope.outer


class Order:
    """An interrupt, or without one a cancellation, on its way into the code.

    With `turn` it is for what runs inside that turn alone; without `whole` it never ends the whole function.
    """

    def __init__(self, interrupt: Interrupted | None, turn: int | None = None, whole: bool = True) -> None:
        self.interrupt = interrupt
        self.turn = turn
        self.whole = whole and turn is None
        self.future: concurrent.futures.Future[Outcome] = concurrent.futures.Future()
        self.open: set[Scope[Any]] | None = None  #: scopes it fired and nobody left yet; None: not fired yet
        self.raised = False  #: a scope has raised it
        self.settled = False
        self.remark = ""

    def left(self, scope: Scope[Any], raised: bool, otherwise: Outcome = OVERRULED) -> None:
        """A scope that it fired is left."""
        if raised and not self.raised:
            self.raised = True
            if self.interrupt and scope.owner.on_scope_exit:
                scope.owner.on_scope_exit(self.interrupt)
        if self.open is not None:
            self.open.discard(scope)
        if not self.open:
            self.settle(otherwise)

    def settle(self, otherwise: Outcome) -> None:
        """Say what became of it; only the first word counts."""
        if not self.settled:
            self.settled = True
            self.future.set_result(Outcome("applied", self.remark) if self.raised else otherwise)


class Scope(Generic[Runner]):
    """A stretch of code that interrupts stop. Once fired it always raises Interrupted at its exit, unless an
    outer cancellation wins. It is used once, and left by the task or thread that entered it.
    """

    runner: Runner

    def __init__(self, owner: Interruptions, main: bool = False) -> None:
        self.owner = owner
        self.main = main
        self.outer: Scope[Any] | None = None
        self.open = False
        self.fired: list[Order] = []
        self.told = False  #: plain code has met what fired it
        self.cancels = 0  #: cancellations of the task on its behalf
        self.turn: Gathered | None = None  #: the turn that it is the scope of

    def within(self, turn: int) -> bool:
        """Whether it lies inside that turn, or is its scope."""
        scope: Scope[Any] | None = self
        while scope is not None:
            if scope.owner is self.owner and scope.turn is not None and scope.turn.number == turn:
                return True
            scope = scope.outer
        return False

    def interrupted_outside(self) -> bool:
        """Whether scopes around it have been interrupted, and nothing but that has stopped the code."""
        orders = []
        scope = self.outer
        while scope is not None:
            orders += scope.fired
            scope = scope.outer
        return bool(orders) and all(order.interrupt for order in orders)

    def take_over(self, inner: Scope[Runner]) -> None:
        """A scope inside was abandoned, by a generator that nobody finished: what fired it is ours now."""
        inner.open = False
        for order in inner.fired:
            if order.open is not None and inner in order.open:
                order.open ^= {inner, self}
        self.fired += inner.fired
        self.cancels += inner.cancels
        self.told = self.told or inner.told
        inner.fired = []

    def _left_by(self, runner: object) -> None:
        if runner == self.runner:
            return
        self.owner.leave(self)
        if self.outer and self.outer.open and self.outer.runner == self.runner:
            self.outer.take_over(self)
        for order in self.fired:
            order.left(self, raised=False, otherwise=MISUSED)
        raise RuntimeError("a scope must be left by the task or thread that entered it")

    def _exit(self, error: BaseException | None, *, outer: bool = False) -> None:
        """Raise what this exit has to raise; returning lets `error` go on."""
        interrupts = [order for order in self.fired if order.interrupt]
        cancelled = error is not None and len(interrupts) < len(self.fired)
        yields = outer or cancelled or _holds(error, KeyboardInterrupt, SystemExit, Cancelled)
        for order in self.fired:
            raised = not yields if order.interrupt else cancelled
            order.left(self, raised, otherwise=OVERRULED if error or outer else RETURNED)
        if outer and error is None:
            raise asyncio.CancelledError
        if cancelled and not outer and _holds(error, asyncio.CancelledError, HardInterrupt):
            raise Cancelled from error
        if interrupts and not yields:
            last = copy.copy(interrupts[-1].interrupt)
            assert last
            if not _overtaken(error, interrupts, last):
                self.owner.on_raise(last)
            raise last from error


class TaskScope(Scope["asyncio.Task[Any]"]):
    """A scope in async code."""

    async def __aenter__(self) -> TaskScope:
        task = asyncio.current_task()
        assert task is not None
        self._before = task.cancelling()
        self.owner.enter(self, task)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with hard.shield:
            self._left_by(hard.current_task())
            if _holds(error, HardInterrupt):
                self.owner.fire_all(self.runner)
        if self.cancels:
            # The cancellation may be under way still; caught here, it can't hit what comes after the scope.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        with hard.shield:
            self.owner.leave(self)
            for _ in range(self.cancels):
                self.runner.uncancel()
            if self.fired:
                self._exit(error, outer=self.runner.cancelling() > self._before)
        if not self.main:
            self.owner.tell_loss(error)


class ThreadScope(Scope[int]):
    """A scope in plain code."""

    def __enter__(self) -> ThreadScope:
        if hard.current_task() is not None:
            raise RuntimeError("in async code a scope is entered by `async with proc.interruptible()`")
        self.owner.enter(self, threading.get_ident())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with hard.shield:
            self._left_by(threading.get_ident())
            try:
                self._leave(error)
            except HardInterrupt as late:  # in a thread where no shield is sure to hold
                self._leave(late)

    def _leave(self, error: BaseException | None) -> None:
        self.owner.leave(self)
        if self.fired:
            hard.take_back()
        if self.main and error is None and not self.told:
            for order in self.fired:
                order.settle(RETURNED)
        elif self.fired:
            self._exit(error)


def _holds(error: BaseException | None, *kinds: type[BaseException]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(kinds) is not None
    return isinstance(error, kinds)


def _overtaken(error: BaseException | None, interrupts: list[Order], by: Interrupted) -> bool:
    """Whether another interrupt was on its way out with a message; with what it brings it is not lost."""
    if not isinstance(error, Interrupted) or any(
        order.interrupt and order.interrupt.command == error.command for order in interrupts
    ):
        return False
    by.partial = error.partial
    if error.received:
        by.received, by.message = error.received, error.message
    return bool(error.received)
