"""What interrupts, pauses and cancels reach inside one process of Python code. Knows no NATS.

A command comes in on the I/O thread; the code it is meant for runs in tasks of the user's loop, or as a plain
function in some thread. Between them stand scopes, of which the outermost is the whole function.
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
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from natsproc import hard as force
from natsproc import stacks
from natsproc.errors import Cancelled, Interrupted
from natsproc.protocol.messages import Outcome
from natsproc.scopes import IDLE, Order, Scope, TaskScope, ThreadScope, around, innermost

T = TypeVar("T")

GRACE = 0.01
"""Seconds that a hard interrupt gives the code to come to an await or a check before it is forced."""

ENDED = Outcome("too_late", "the process has ended")
BEST_EFFORT = "forced in a thread other than the main one, which is best effort"

Future = concurrent.futures.Future[Outcome]


class Interruptions:
    """The scopes, the pause and the pending commands of one process; `loop` is None for a plain function.

    Commands may come from any thread. Each returns a future that resolves once it has taken effect: an
    interrupt when every scope that it fired has been left, a cancellation when the function has.
    `on_scope_exit` is called in the user's thread just before an interrupt is first raised, `on_raise` before each
    exit of a scope that raises one, with what will be raised; neither must raise.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None,
        *,
        on_scope_exit: Callable[[Interrupted], None] | None = None,
        on_raise: Callable[[Interrupted], None] = lambda _: None,
    ) -> None:
        self.on_scope_exit = on_scope_exit
        self.lost: Exception | None = None  #: raised by every call of the code from now on
        self.on_raise = on_raise
        self._loop = loop
        self._thread = 0  # the one that runs the function, or its loop
        self._main: Scope[Any] | None = None
        self._scopes: list[Scope[Any]] = []  # open ones, in order of entry, without the main scope
        self._orders: list[Order] = []  # not settled yet
        self.begun: list[int] = []  #: turns, by their numbers
        self._ended = self._forced = False
        self.reset()
        _all.add(self)

    def reset(self) -> None:
        """Be new, as it has to be in a forked child: no pause, nothing pending, and a lock that is free."""
        self.paused = False
        self._orders.clear()
        self._resumed: asyncio.Event | None = None  # where code of the loop waits while paused
        self._changed = force.ShieldedCondition()  # reentrant, as a signal's handler may come in between

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

    @property
    def clear(self) -> bool:
        """Whether nothing stands in the way of code that comes to the gate."""
        return not (self._orders or self.paused or self.lost)

    async def gate(self) -> None:
        """Stands before whatever may wait: holds while paused, except code that is being stopped."""
        if self.lost:
            raise self.lost
        if self._orders:
            await self.heed(asyncio.sleep(0))  # so that code which never suspends is reached, too
        while self.paused and not self.being_stopped():
            resumed = self._resumed = self._resumed or asyncio.Event()
            resumed.clear()
            if self.paused:
                await self.heed(resumed.wait())

    async def heed(self, waited: Awaitable[T]) -> T:
        """Wait for it, as every call of the code does that waits: one that is cancelled for a loss is told of the loss."""
        try:
            return await waited
        except asyncio.CancelledError as cancelled:
            self.tell_loss(cancelled)
            raise

    def tell_loss(self, error: BaseException | None) -> None:
        """Raise the loss in place of the cancellation that it has brought; the one that comes later is meant."""
        if self.lost and not self._forced and isinstance(error, asyncio.CancelledError):
            raise self.lost from None

    def check(self) -> None:
        """The same for plain code in any thread of the process, and where such code is stopped.

        Raises: Interrupted; Cancelled.
        """
        if self.clear and not self._fired_around():
            return
        with self._changed:
            while True:
                if self.lost:
                    raise self.lost
                if self._orders and (task := force.current_task()) is not None:
                    self.fire_all(task)  # in its loop's place, which can't turn meanwhile
                self._raise_fired()
                if not self.paused or self.being_stopped():
                    return
                self._changed.wait()

    def _fired_around(self) -> bool:
        scope = innermost.get() or self._main
        while scope is not None and not scope.fired:
            scope = scope.outer
        return scope is not None

    def wait(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Block plain code until `ready()`, which `wake` has asked again; False after `timeout` seconds.

        Raises: as `check`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                self.check()
                if ready():
                    return True
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left)

    def wake(self) -> None:
        """Have plain code that waits look around, from any thread."""
        with self._changed:
            self._changed.notify_all()

    # For whoever commands it.

    def interrupt(
        self, interrupt: Interrupted, *, hard: bool = False, turn: int | None = None, whole: bool = True
    ) -> Future:
        """Fire the innermost scope of every task and thread that has one open, or else the whole function.

        With `turn` only scopes inside that turn, and without `whole` only scopes: it is too late if there are none.
        """
        return self._send(Order(interrupt, turn, whole), hard)

    def cancel(self, *, hard: bool = False) -> Future:
        """End the function, whatever scopes are open."""
        self._forced = self._forced or hard
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
            self._orders.append(order)
            order.future.add_done_callback(lambda _: self._forget(order))
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

    def _forget(self, order: Order) -> None:
        if order in self._orders:
            self._orders.remove(order)

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
                    self._loop.call_soon_threadsafe(self._go_on)
        future.set_result(outcome)
        return future

    def _go_on(self) -> None:
        if self._resumed:
            self._resumed.set()

    # Scopes, as they open, fire and close.

    def enter(self, scope: Scope[Any], runner: asyncio.Task[Any] | int) -> None:
        with self._changed:
            if scope.turn is not None:
                scope.turn.begin()  # whoever has read of it finds it open
                self.begun.append(scope.turn.number)
            scope.runner, scope.outer, scope.open = runner, innermost.get(), True
            innermost.set(scope)
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
            if innermost.get() in (scope, *abandoned):
                innermost.set(scope.outer)
            if scope.main:
                self._main = None
                force.uninstall()
                if isinstance(scope, TaskScope) and self._loop is not None:
                    stacks.unwatch(self._loop)

    def fire_all(self, running: asyncio.Task[Any]) -> None:
        for order in list(self._orders):
            self._fire(order, running)

    def _fire(self, order: Order, running: asyncio.Task[Any] | None = None) -> None:
        """Decide which scopes it is for; the task that is `running` learns of it by an exception instead."""
        with self._changed:
            if self._main is None or order.open is not None or order.settled:
                return
            live = [
                scope for scope in self._scopes if isinstance(scope, ThreadScope) or not scope.runner.done()
            ]
            if order.turn is not None:
                live = [scope for scope in live if scope.within(order.turn)]
            innermost = {scope.runner: scope for scope in live} if order.interrupt else {}
            targets = list(innermost.values()) or ([self._main] if order.whole else [])
            if not targets:
                order.settle(IDLE if order.turn is None else self._no_such_turn(order.turn))
                return
            order.open = set(targets)
            for scope in targets:
                scope.fired.append(order)
                scope.told = False
                if isinstance(scope, TaskScope) and scope.runner is not running:
                    scope.cancels += 1
                    scope.runner.cancel()
                    scope.runner.add_done_callback(partial(self._gone, scope))
            self._changed.notify_all()

    def _no_such_turn(self, turn: int) -> Outcome:
        if turn in self.begun:
            return Outcome("too_late", f"turn {turn} is over")
        return Outcome(
            "too_late", f"there has been no turn {turn} under this owner; `natsproc tail` shows them"
        )

    def _gone(self, scope: TaskScope, task: asyncio.Task[Any]) -> None:
        """A task ended with a scope open, in a generator that it abandoned."""
        if scope.open:
            self.leave(scope)
            for order in scope.fired:
                order.left(scope, raised=True)

    def being_stopped(self) -> bool:
        """Whether the code that runs now is on its way out of a scope."""
        return any(scope.fired and scope.open for scope in around())

    def _raise_fired(self) -> None:
        """Tell plain code, once, what fired its scope; and threads that a fired scope started, each time."""
        ident = threading.get_ident()
        outermost = [self._main] if self._main is not None else []
        for scope in list(around()) or outermost:
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

    def _force(self, order: Order) -> None:
        wait = GRACE
        while not concurrent.futures.wait([order.future], wait).done and self._strike(order):
            wait = min(2 * wait, 1.0)

    def _strike(self, order: Order) -> bool:
        """Force what has not come to an await or a check by itself; returns whether to do it once more."""
        with self._changed:
            if order.open is None:  # the loop has not turned
                there = force.by_signal(self._thread) or self._is_in_loop(order)
                return not (there and self._strike_thread(order, self._thread))
            scopes = [s for s in list(order.open) if isinstance(s, ThreadScope) and not s.told]
            for scope in scopes:
                if self._strike_thread(order, scope.runner):
                    scope.told = True
            return not all(scope.told for scope in scopes)

    def _strike_thread(self, order: Order, ident: int) -> bool:
        """Returns whether it is done; a signal may come at the wrong moment, and only its handler knows."""
        if force.by_signal(ident):
            force.strike(partial(self._is_hit, order))
            return False
        if force.is_delicate(ident):
            return False
        order.remark = BEST_EFFORT
        force.raise_in(ident)
        return True

    def _is_in_loop(self, order: Order) -> bool:
        task = asyncio.current_task(self._loop) if self._loop is not None else None
        meant = [scope for scope in self._scopes if order.turn is None or scope.within(order.turn)]
        outermost = [self._main] if order.whole and self._main is not None else []
        return any(scope.runner is task for scope in (*meant, *outermost))

    def _is_hit(self, order: Order) -> bool:
        """Asked by the signal's handler: has it interrupted the code that the order is for?"""
        ident = threading.get_ident()
        if order.settled:
            return False
        if order.open is not None:
            hit = [scope for scope in list(order.open) if scope.runner == ident and not scope.told]
            for scope in hit:
                scope.told = True
            return bool(hit)
        task = force.current_task()
        if task is None or all(scope.owner is not self for scope in around()):
            return False
        self._fire(order, task)
        return order.whole or any(scope in (order.open or ()) for scope in around())

    # For inspection.

    def turns(self) -> list[int]:
        """The turns that are under way, by the offsets of their first events."""
        with self._changed:
            return [scope.turn.number for scope in self._scopes if scope.turn is not None]

    def loop_age(self) -> float | None:
        """Seconds for which the process's event loop has not turned, 0 below about one; None without a loop."""
        return stacks.age(self._loop) if self._loop is not None else None

    def stacks(self) -> dict[str, list[str]]:
        """Where every thread, and every task of the loop, is now; innermost frame last."""
        return stacks.capture(self._loop)


def _after_fork() -> None:
    for interruptions in _all:
        interruptions.reset()


_all: weakref.WeakSet[Interruptions] = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork)
