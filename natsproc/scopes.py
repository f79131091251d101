"""What interrupts, pauses and cancels reach inside one process of Python code. Knows no NATS.

A command comes in on the I/O thread; the code it is meant for runs in tasks of the user's loop, or as a plain
function in some thread. Between them stand scopes: code inside one can be stopped there, and learns so by
`Interrupted` at the scope's exit. The outermost scope is the whole function.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import copy
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from natsproc import hard as force
from natsproc import stacks
from natsproc.errors import Cancelled, HardInterrupt, Interrupted, TimedOut
from natsproc.protocol.messages import Outcome

GRACE = 0.05
"""Seconds that a hard interrupt gives the code to come to an await or a check before it is forced."""

ENDED = Outcome("too_late", "the process has ended")
RETURNED = Outcome("too_late", "the function returned first")
OVERRULED = Outcome("too_late", "something else stopped the code first")
MISUSED = Outcome("too_late", "its scope was left from another task")
BEST_EFFORT = "forced in a thread other than the main one, which is best effort"

Runner = TypeVar("Runner", "asyncio.Task[Any]", int)
Future = concurrent.futures.Future[Outcome]

_innermost: ContextVar[Scope[Any] | None] = ContextVar("natsproc_scope", default=None)


class Order:
    """An interrupt, or without one a cancellation, on its way into the code."""

    def __init__(self, interrupt: Interrupted | None) -> None:
        self.interrupt = interrupt
        self.future: Future = concurrent.futures.Future()
        self.open: set[Scope[Any]] | None = (
            None  #: scopes it fired that are not left yet; None: not fired yet
        )
        self.raised = False  #: a scope has raised it
        self.struck: asyncio.Task[Any] | None = None  #: was told otherwise, so needs no cancellation
        self.told = threading.Event()  #: the tasks know, so nothing needs forcing any more
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
        self.told.set()
        if not self.future.done():
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
            raise copy.copy(interrupts[-1].interrupt) from error  # type: ignore[misc]


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
        self._left_by(force.current_task())
        with self.owner.shield:
            self.owner.fire_struck(self.runner)
        if self.cancels:
            # The cancellation may be under way still, or 3.11's wait_for has swallowed it: let it come.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        with self.owner.shield:
            self.owner.leave(self)
            for _ in range(self.cancels):
                self.runner.uncancel()
            if self.fired:
                self._exit(error, outer=self.runner.cancelling() > self._before)


class ThreadScope(Scope[int]):
    """A scope in plain code."""

    def __enter__(self) -> ThreadScope:
        if force.current_task() is not None:
            raise RuntimeError("in async code a scope is entered by `async with proc.interruptible()`")
        self.owner.enter(self, threading.get_ident())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left_by(threading.get_ident())
        try:
            self._leave(error)
        except HardInterrupt as late:  # meant for the code inside, raised here
            self._leave(late)

    def _leave(self, error: BaseException | None) -> None:
        self.owner.leave(self)
        if self.fired:
            force.take_back(self.runner)
        if self.main and error is None and not self.told:
            for order in self.fired:
                order.settle(RETURNED)
        elif self.fired:
            self._exit(error)


class Interruptions:
    """The scopes, the pause and the pending commands of one process; `loop` is None for a plain function.

    Commands may come from any thread. Each returns a future that resolves once it has taken effect: an
    interrupt when every scope that it fired has been left, a cancellation when the function has.
    `on_scope_exit` is called in the user's thread just before an interrupt is first raised; it must not raise.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None,
        *,
        on_scope_exit: Callable[[Interrupted], None] | None = None,
    ) -> None:
        self.on_scope_exit = on_scope_exit
        self.shield = force.Shield()  #: for short code that a hard interrupt must not tear apart
        self._loop = loop
        self._thread = 0  # the one that runs the function, or its loop
        self._main: Scope[Any] | None = None
        self._scopes: list[Scope[Any]] = []  # open ones, in order of entry, without the main scope
        self._orders: set[Order] = set()  # not settled yet
        self._ended = False
        self.reset()
        _all.add(self)

    def reset(self) -> None:
        """Be new, as it has to be in a forked child: no pause, nothing pending, and a lock that is free."""
        self.paused = False
        self._orders.clear()
        self._resumed = asyncio.Event()
        self._changed = threading.Condition()  # reentrant, as a signal's handler may come in between

    # For the code of the process.

    def scope(self) -> TaskScope:
        """What an interrupt stops, in async code."""
        return TaskScope(self)

    def thread_scope(self) -> ThreadScope:
        """What an interrupt stops, in plain code."""
        return ThreadScope(self)

    def main_scope(self) -> TaskScope:
        """The scope around a whole async function, fired if no other is open. May raise Cancelled, too."""
        return TaskScope(self, main=True)

    def main_thread_scope(self) -> ThreadScope:
        """The same around a plain function, in the thread that runs it."""
        return ThreadScope(self, main=True)

    async def gate(self) -> None:
        """Stands before whatever may wait: holds while paused, except code that is being stopped."""
        if self._orders and any(order.open is None for order in self._orders):
            await asyncio.sleep(0)  # so that code which never suspends is reached, too
        while self.paused and not self._being_stopped():
            self._resumed.clear()
            if self.paused:
                await self._resumed.wait()

    def check(self, timeout: float | None = None) -> None:
        """The same for plain code in any thread of the process, and where such code is stopped.

        Raises: Interrupted; Cancelled; TimedOut if still paused after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        task = force.current_task()
        with self._changed:
            while True:
                if task is not None:
                    self._strike_from_inside(task)
                self._raise_fired()
                if not self.paused or self._being_stopped():
                    return
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimedOut(f"still paused after {timeout:g} s")
                self._changed.wait(left)

    # For whoever commands it.

    def interrupt(self, interrupt: Interrupted, *, hard: bool = False) -> Future:
        """Fire the innermost scope of every task and thread that has one open, or else the whole function."""
        return self._send(Order(interrupt), hard)

    def cancel(self, *, hard: bool = False) -> Future:
        """End the function, whatever scopes are open."""
        return self._send(Order(None), hard)

    def pause(self) -> Future:
        """Hold the code at its next call that may wait."""
        return self._set_paused(True)

    def resume(self) -> Future:
        """Let it go on."""
        return self._set_paused(False)

    def close(self) -> None:
        """The function has ended: what is pending, and whatever comes now, is too late."""
        with self._changed:
            self._ended = True
            for order in list(self._orders):
                order.settle(ENDED)

    def _send(self, order: Order, hard: bool) -> Future:
        with self._changed:
            if self._ended:
                order.settle(ENDED)
                return order.future
            self._orders.add(order)
            order.future.add_done_callback(lambda _: self._orders.discard(order))
            self._changed.notify_all()
        if self._loop is None:
            self._fire(order)
        else:
            try:
                self._loop.call_soon_threadsafe(self._fire, order)
            except RuntimeError:
                order.settle(Outcome("too_late", "the process's event loop is closed"))
        if hard:
            threading.Thread(target=self._force, args=(order,), name="natsproc-hard", daemon=True).start()
        return order.future

    def _set_paused(self, paused: bool) -> Future:
        future: Future = concurrent.futures.Future()
        with self._changed:
            outcome = Outcome("applied")
            if self._ended:
                outcome = ENDED
            elif self.paused == paused:
                outcome = Outcome("applied", "already paused" if paused else "not paused")
            self.paused = paused and not self._ended
            self._changed.notify_all()
            if self._loop is not None and not paused:
                with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits there
                    self._loop.call_soon_threadsafe(self._resumed.set)
        future.set_result(outcome)
        return future

    # Scopes, as they open, fire and close.

    def enter(self, scope: Scope[Any], runner: asyncio.Task[Any] | int) -> None:
        with self.shield, self._changed:
            scope.runner, scope.outer, scope.open = runner, _innermost.get(), True
            _innermost.set(scope)
            if not scope.main:
                self._scopes.append(scope)
                return
            self._main, self._thread = scope, threading.get_ident()
            force.install()
            if isinstance(scope, TaskScope):
                self._loop = asyncio.get_running_loop()
                stacks.watch(self._loop)
            for order in list(self._orders):
                self._fire(order)

    def leave(self, scope: Scope[Any]) -> None:
        with self._changed:
            if not scope.open:
                return
            scope.open = False
            index = -1 if scope.main else self._scopes.index(scope)
            abandoned = [inner for inner in self._scopes[index + 1 :] if inner.runner == scope.runner]
            for inner in abandoned:
                scope.take_over(inner)
            self._scopes = [other for other in self._scopes if other.open]
            if _innermost.get() in (scope, *abandoned):
                _innermost.set(scope.outer)
            if scope.main:
                self._main = None
                force.uninstall()
                if isinstance(scope, TaskScope) and self._loop is not None:
                    stacks.unwatch(self._loop)

    def _fire(self, order: Order) -> None:
        with self._changed:
            if self._main is None or order.open is not None or order.future.done():
                return
            live = [
                scope for scope in self._scopes if isinstance(scope, ThreadScope) or not scope.runner.done()
            ]
            innermost = {scope.runner: scope for scope in live} if order.interrupt else {}
            targets = list(innermost.values()) or [self._main]
            order.open = set(targets)
            for scope in targets:
                scope.fired.append(order)
                scope.told = False
                if isinstance(scope, TaskScope) and scope.runner is not order.struck:
                    scope.cancels += 1
                    scope.runner.cancel()
                    scope.runner.add_done_callback(partial(self._gone, scope))
            if all(isinstance(scope, TaskScope) for scope in targets):
                order.told.set()
            self._changed.notify_all()

    def _gone(self, scope: TaskScope, task: asyncio.Task[Any]) -> None:
        """A task ended with a scope open, in a generator that it abandoned."""
        if scope.open:
            self.leave(scope)
            for order in scope.fired:
                order.left(scope, raised=True)

    def _being_stopped(self) -> bool:
        return any(scope.fired and scope.open for scope in _chain())

    def _raise_fired(self) -> None:
        """Tell plain code, once, what fired its scope; and threads that a fired scope started, each time."""
        ident = threading.get_ident()
        outermost = [self._main] if self._main is not None else []
        for scope in list(_chain()) or outermost:
            if scope.owner is not self or not scope.fired:
                continue
            if scope.runner != ident or not scope.told:
                last = scope.fired[-1]
                cancelled = any(order.interrupt is None for order in scope.fired)
                if scope.runner == ident:
                    scope.told = True
                    if scope.main and not cancelled:  # nothing is left by raising it here, so this is all
                        orders, scope.fired = scope.fired, []
                        for order in orders:
                            order.left(scope, raised=True)
                raise Cancelled if cancelled else copy.copy(last.interrupt)  # type: ignore[misc]

    # Code that never awaits.

    def fire_struck(self, task: asyncio.Task[Any]) -> None:
        for order in list(self._orders):
            if order.struck is task:
                self._fire(order)

    def _strike_from_inside(self, task: asyncio.Task[Any]) -> None:
        """A task asks by itself: what the loop had no time for takes effect here."""
        for order in list(self._orders):
            if order.open is None:
                order.struck = task
                self._fire(order)

    def _force(self, order: Order) -> None:
        wait = GRACE
        while not order.told.wait(wait):
            wait = min(2 * wait, 1.0)
            with self._changed:
                self._strike(order)

    def _strike(self, order: Order) -> None:
        if order.open is not None:
            threads = [scope for scope in order.open if isinstance(scope, ThreadScope) and not scope.told]
            for scope in threads:
                if force.by_signal(scope.runner):
                    force.strike(partial(self._is_hit, order))
                elif not self.shield.held(scope.runner):
                    scope.told = True
                    order.remark = BEST_EFFORT
                    force.raise_in(scope.runner)
        elif force.by_signal(self._thread):
            force.strike(partial(self._is_hit, order))
        elif self._loop is not None and not self.shield.held(self._thread):
            task = asyncio.current_task(self._loop)
            if any(scope is not None and scope.runner is task for scope in (*self._scopes, self._main)):
                order.struck, order.remark = task, BEST_EFFORT
                order.told.set()
                force.raise_in(self._thread)

    def _is_hit(self, order: Order) -> bool:
        """Asked by the signal's handler: has it interrupted the code that the order is for?"""
        ident = threading.get_ident()
        if order.told.is_set() or self.shield.held(ident):
            return False
        if order.open is None:
            task = force.current_task()
            if task is None or not any(scope.owner is self for scope in _chain()):
                return False
            order.struck = task
            order.told.set()
            return True
        for scope in list(order.open):
            if scope.runner == ident and not scope.told:
                scope.told = True
                return True
        return False

    # For inspection.

    def loop_age(self) -> float | None:
        """Seconds for which the process's event loop has not turned, 0 below about one; None without a loop."""
        return stacks.age(self._loop) if self._loop is not None else None

    def stacks(self) -> dict[str, list[str]]:
        """Where every thread, and every task of the loop, is now; innermost frame last."""
        return stacks.stacks(self._loop)


def _chain() -> Iterator[Scope[Any]]:
    """The scopes around the code that runs now, from the innermost out."""
    scope = _innermost.get()
    while scope is not None:
        yield scope
        scope = scope.outer


def _holds(error: BaseException | None, *kinds: type[BaseException]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(kinds) is not None
    return isinstance(error, kinds)


def _after_fork() -> None:
    for interruptions in _all:
        interruptions.reset()


_all: weakref.WeakSet[Interruptions] = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork)
