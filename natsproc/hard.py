"""Raising HardInterrupt in code that never awaits.

In the main thread by a signal, whose handler runs between any two instructions and inside blocking calls, and
so can ask first whose code it has interrupted. SIGURG, because it is ignored by default and nobody's key.
In other threads by `PyThreadState_SetAsyncExc`, which asks nobody and waits for a blocking call to return.
A long call into C is left alone by both until it returns.

CPython 3.12 and 3.13 compile some loops so that the jump back lies outside every `with` of their own function.
Hit on the very jump, such code is stopped at the next scope out, in a calling function.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar

from natsproc.errors import HardInterrupt

SIGNAL = signal.SIGURG

F = TypeVar("F", bound=Callable[..., Any])
Claim = Callable[[], bool]  # is the code running now in the main thread the one to stop?

_claims: list[Claim] = []
_users = 0
_previous: Any = signal.SIG_DFL


class Shield:
    """Code that must not be torn apart, such as what holds a lock that others wait for: it is hit behind.

    For short stretches that don't wait.
    """

    def __init__(self) -> None:
        self._depth: dict[int, int] = {}

    def __enter__(self) -> None:
        ident = threading.get_ident()
        self._depth[ident] = self._depth.get(ident, 0) + 1

    def __exit__(self, *_: object) -> None:
        ident = threading.get_ident()
        self._depth[ident] -= 1
        if not self._depth[ident]:
            del self._depth[ident]

    def held(self, ident: int) -> bool:
        """Whether that thread is inside."""
        return ident in self._depth


shield = Shield()
_shielded: set[CodeType] = set()


def shielded(function: F) -> F:
    """Have a whole function behind the shield, with what it calls; unlike `shield` it costs a call nothing."""
    _shielded.add(function.__code__)
    return function


class ShieldedCondition:
    """A condition whose lock no HardInterrupt can leave locked; small until somebody waits."""

    __slots__ = ("_condition", "_lock")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._condition: threading.Condition | None = None

    def __enter__(self) -> None:
        shield.__enter__()
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()
        shield.__exit__()

    def wait(self, timeout: float | None = None) -> None:
        """See `threading.Condition`; inside."""
        self._condition = self._condition or threading.Condition(self._lock)
        self._condition.wait(timeout)

    def notify_all(self) -> None:
        """See `threading.Condition`; inside."""
        if self._condition:
            self._condition.notify_all()


def current_task() -> asyncio.Task[Any] | None:
    """The task that runs in this thread; None in plain code and in an event loop's own."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def install() -> None:
    """Listen for the signal, if this is the main thread; each call wants an `uninstall`."""
    global _users, _previous
    if threading.current_thread() is threading.main_thread():
        _users += 1
        if _users == 1:
            _previous = signal.signal(SIGNAL, _on_signal)


def uninstall() -> None:
    """Put back what was there before the first `install`."""
    global _users
    if threading.current_thread() is threading.main_thread() and _users:
        _users -= 1
        if _users == 0 and signal.getsignal(SIGNAL) is _on_signal:
            signal.signal(SIGNAL, _previous if _previous is not None else signal.SIG_DFL)


def by_signal(ident: int) -> bool:
    """Whether that thread can be reached by the signal."""
    return _users > 0 and ident == threading.main_thread().ident


def strike(claim: Claim) -> None:
    """Interrupt the main thread; HardInterrupt is raised there if `claim`, called there, says yes."""
    _claims.append(claim)
    signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if callable(_previous):
        _previous(number, frame)
    if is_delicate(threading.get_ident(), frame):
        return
    with shield:  # from the next signal, too
        claims = _claims[:]
        _claims.clear()  # who is not asked now, or says no, strikes again
        hit = any(claim() for claim in claims)
    if hit:
        raise HardInterrupt


def is_delicate(ident: int, frame: FrameType | None = None) -> bool:
    """Whether that thread is in code which, torn apart, would hold a lock, or lose a task or an offset for good:
    behind the shield, in an event loop, or in natsproc itself.
    """
    frame = frame or sys._current_frames().get(ident)
    module = str(frame.f_globals.get("__name__")) if frame is not None else ""
    if shield.held(ident) or module.partition(".")[0] in ("asyncio", "natsproc"):
        return True
    while frame is not None and frame.f_code not in _shielded:
        frame = frame.f_back
    return frame is not None


class _Nothing(BaseException):
    """What is raised in place of a HardInterrupt that is not wanted any more."""


_raised: set[int] = set()  # threads in which it was, or is to be, raised


def raise_in(ident: int) -> None:
    """Have HardInterrupt raised in a thread as soon as it runs Python code."""
    _raised.add(ident)
    _set_async_exc(ident, HardInterrupt)


def take_back() -> None:
    """Forget a HardInterrupt that may not have been raised yet in this thread.

    Another exception takes its place and is caught here. Merely taking it away would leave CPython looking for it in
    every thread for ever, and 3.11 then never comes out of the first call that a debugger or a coverage tool traces.
    """
    ident = threading.get_ident()
    if ident not in _raised:
        return
    _raised.discard(ident)
    try:
        _set_async_exc(ident, _Nothing)
        _let_it_come()
    except _Nothing:
        pass


def _let_it_come() -> None:
    for _ in range(100):
        pass


def _set_async_exc(ident: int, exception: type[BaseException]) -> None:
    import ctypes  # only here: it costs start-up time

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(exception))
