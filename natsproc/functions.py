"""Running Python code under an address: `@process`, `run`, and what `Mesh.own` and `Mesh.run` are made of."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import inspect
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from typing import TYPE_CHECKING, Any, TypeVar

from natsproc.bus.spool import DEFAULT_SIZE
from natsproc.errors import AlreadyEnded, BadName, Cancelled, Closed, Error, Interrupted
from natsproc.protocol.landing import When
from natsproc.protocol.messages import Command, Message, Outcome
from natsproc.protocol.names import DEFAULT_NAMESPACE, check_name, choose_kind, new_id

from .endings import how
from .hosted import STOP_SECONDS, Hosted
from .interruptions import Interruptions
from .node import Declared, Refuse, Spec, WhenFull
from .owner import BlockingProcess, Process
from .states import Migrations, Shape

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .client import Mesh

F = TypeVar("F", bound=Callable[..., Any])

KILL_SECONDS = 2.0
_AS_EVER = nullcontext()
_PATIENCE = 2.0  # seconds after which whoever waits for the server is told so


def process(
    function: F | None = None,
    *,
    kind: str | None = None,
    when_full: WhenFull = "wait",
    allow: Sequence[When] = (),
    state: type[BaseModel] | None = None,
    version: int = 1,
    migrate: Migrations | None = None,
    refuse: Refuse | None = None,
) -> Any:
    """Mark a function as one that runs as a process; its name is the kind unless `kind` is given.

    The function stays what it was and takes the process as its first argument: a `Process` if it is a
    coroutine function, a `BlockingProcess` if it is a plain one. `when_full` says what happens to what it writes
    while the server is away: see `Mesh.own`. `allow` says when messages may land while it is in a turn: `idle`
    (after it), `next` (at its next boundary), `now` (interrupting it); all three unless said. Declared, it says, too, that
    the code takes turns: then no interrupt ends the function before its first turn. `state` is the model
    of what it saves by `checkpoint`, and `version` that of its code's idea of it; `migrate` has for each older
    version a function that makes JSON of the next version of the JSON of one. `refuse(sender, verb)` says why that
    sender may not have that (`interrupt`, `cancel`, `answer` … or `message`), or None if it may: see `Refuse`.
    Raises: BadName.
    """

    def mark(function: F) -> F:
        function.natsproc_kind = kind_of(function, kind)  # type: ignore[attr-defined]
        function.natsproc_when_full = when_full  # type: ignore[attr-defined]
        shape = Shape(state, version, migrate or {})
        function.natsproc_declared = Declared(tuple(allow), shape, refuse)  # type: ignore[attr-defined]
        return function

    return mark if function is None else mark(function)


def kind_of(function: Callable[..., Any], given: str | None = None) -> str:
    """The kind that was given, or the function's: its mark's, or its name. Raises: BadName."""
    if given is None:
        given = getattr(function, "natsproc_kind", None)
    return choose_kind(given, getattr(function, "__name__", ""))


def when_full_of(function: Callable[..., Any], given: WhenFull | None) -> WhenFull:
    """What was said, or what the function's mark says, or to wait."""
    marked: WhenFull = getattr(function, "natsproc_when_full", "wait")
    return given or marked


class PythonTarget:
    """What commands reach inside Python code; `loop` is None for a plain function."""

    def __init__(self, hosted: Hosted, loop: asyncio.AbstractEventLoop | None) -> None:
        self.hosted = hosted
        self.interruptions = Interruptions(loop, on_scope_exit=self._interrupted, on_raise=self._bring)
        self.killed = False
        hosted.mailbox.interrupt = self._land

    def _interrupted(self, interrupt: Interrupted) -> None:
        """Record it where the code stops, before what the code says of it."""
        command, sender, reason = interrupt.command, interrupt.sender, interrupt.reason
        with suppress(Error):  # the receipt says so
            if interrupt.received:
                what = {"command": command, "sender": sender, "reason": reason}
                what |= {"user": interrupt.user} if interrupt.user else {}
                self.hosted.log.append_lifecycle("interrupted", what, cause=command)
            elif command:
                self.hosted.note(
                    "interrupted", command, sender, reason, interrupt.message, user=interrupt.user
                )

    def _land(self, message: Message) -> None:
        """A message is to land now, on the I/O thread."""
        what = Interrupted("a message", sender=message.sender, command=message.id)
        what.received, what.user = message, message.user
        self.interruptions.interrupt(what, whole=False)

    def _bring(self, interrupt: Interrupted) -> None:
        """Give what is raised the message that did it, unless it has to wait for others, or somebody has it."""
        cause, interrupt.received = interrupt.received, None
        message = self.hosted.mailbox.take_now(cause.sender) if cause else None
        if message is not None:
            interrupt.received, interrupt.message = message, message.data
            with suppress(Error):  # then it is nobody's business any more
                self.hosted.mailbox.record(self.hosted.log, message, "now")

    async def apply(self, command: Command) -> Outcome:
        """Do what the command says, on the I/O thread, and return when it has taken effect."""
        interruptions = self.interruptions
        future: concurrent.futures.Future[Outcome]
        match command.verb:
            case "interrupt":
                what = Interrupted(
                    command.reason, message=command.message, sender=command.sender, command=command.id
                )
                what.user = command.user
                whole = not (self.hosted.spec.allow or self.hosted.log.turns)
                future = interruptions.interrupt(what, hard=command.hard, turn=command.turn, whole=whole)
            case "pause":
                future = interruptions.pause()
            case "resume":
                future = interruptions.resume()
            case "cancel":
                future = interruptions.cancel()
            case "kill":
                self.killed = True
                future = interruptions.cancel(hard=True)
            case _:
                return Outcome("refused", f"Python code cannot {command.verb}")
        self.hosted.mailbox.nudge()
        waited = asyncio.wrap_future(future)
        if command.verb == "cancel" and command.grace is not None:
            await asyncio.wait([waited], timeout=command.grace)
            if not waited.done():
                interruptions.cancel(hard=True)
        elif command.verb != "kill":
            return await waited
        done, _ = await asyncio.wait([waited], timeout=KILL_SECONDS)
        if done:
            return waited.result()
        why = "the run has ended, but its Python code has not stopped yet"
        return Outcome("unconfirmed", why + (": its OS process exits" if self.hosted.outlived else ""))

    async def lose(self, lost: Error) -> None:
        """Stop the code, whose calls raise `lost` from now on."""
        self.interruptions.lost = lost
        await self.apply(Command("", "cancel", grace=STOP_SECONDS))

    async def inspect(self, stack: bool) -> dict[str, Any]:
        """Whether it is paused, how long its loop has not turned, and where its code is."""
        state: dict[str, Any] = {"paused": self.interruptions.paused, "turns": self.interruptions.turns()}
        age = self.interruptions.loop_age()
        if age is not None:
            state["loop_age"] = round(age, 3)
        if stack:
            state["stack"] = self.interruptions.stacks()
        return state


def declared_of(function: Callable[..., Any]) -> Declared:
    """What a function's mark says of how it is to be dealt with."""
    return getattr(function, "natsproc_declared", None) or Declared()


def new_spec(
    mesh: Mesh,
    id: str | None,
    kind: str,
    labels: Mapping[str, str] | None,
    parent: str,
    restart: bool,
    when_full: WhenFull,
    declared: Declared,
) -> Spec:
    """What a process of Python code is to be. Raises: BadName."""
    check_name(kind, "kind")
    if when_full not in ("wait", "spool", "drop"):
        raise BadName(f"when_full is 'wait', 'spool' or 'drop', not {when_full!r}")
    spool = DEFAULT_SIZE if when_full == "spool" else 0
    address = mesh.address(id or new_id(kind))
    parent = parent or os.environ.get("NATSPROC_ADDRESS", "")
    return Spec(
        address, kind, dict(labels or {}), parent,
        restart=restart, spool=spool, drop=when_full == "drop", **vars(declared),
    )  # fmt: skip


async def _end(target: PythonTarget, error: BaseException | None, result: Any) -> None:
    status, code, text = ("killed", 137, None) if target.killed else how(error)
    if isinstance(error, Cancelled):
        error.code = code
    hosted = target.hosted
    late = asyncio.get_running_loop().call_later(_PATIENCE, hosted.waits) if hosted.waits else None
    try:
        with suppress(AlreadyEnded):  # killed, or its mesh closed, while it still ran
            await hosted.end(status, code, result=result, error=text)
    finally:
        if late:
            late.cancel()


@asynccontextmanager
async def owned(mesh: Mesh, spec: Spec, *, foreground: bool = False) -> AsyncIterator[Process]:
    """See `Mesh.own`. The result to record may be left in the process's `result_data`.

    In the `foreground` Ctrl-C is an interrupt, and SIGTERM a cancel.
    """
    hosted = Hosted(await mesh.node(), spec)
    target = PythonTarget(hosted, asyncio.get_running_loop())
    signals: AbstractContextManager[Any] = _AS_EVER
    if foreground:
        _be_the_program(hosted)
        signals = stack = ExitStack()
        stack.enter_context(_sigterm(target.interruptions))
    error: BaseException | None = None
    result: Any = None
    first = mesh.io.first()
    try:
        await mesh.io.call(hosted.open(target))
        proc = Process(mesh.io, hosted, target.interruptions)
        async with target.interruptions.main_scope():
            await target.interruptions.gate()  # what was held for it comes before its code
            with _ctrl_c(target.interruptions) if foreground else _AS_EVER:
                yield proc
        result = proc.result_data
    except BaseException as caught:
        error = caught
        raise
    finally:
        target.interruptions.close()
        with first, signals, suppress(Closed):  # also in a forked child, which writes nothing
            ending = asyncio.ensure_future(mesh.io.call(_end(target, error, result)))
            # so that nothing is said of its error if nobody waits any more
            ending.add_done_callback(lambda task: task.cancelled() or task.exception())
            await asyncio.shield(ending)


async def run_on(
    mesh: Mesh,
    spec: Spec,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    foreground: bool = False,
) -> Any:
    """See `Mesh.run`."""
    if inspect.iscoroutinefunction(function):
        async with owned(mesh, spec, foreground=foreground) as proc:
            proc.result_data = await function(proc, *args, **kwargs)
        return proc.result_data
    target = PythonTarget(Hosted(await mesh.node(), spec), None)
    done: concurrent.futures.Future[Any] = concurrent.futures.Future()
    context = contextvars.copy_context()
    call = functools.partial(run_blocking, mesh, target, function, args, kwargs)

    def work() -> None:
        try:
            done.set_result(context.run(call))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=work, name=f"natsproc {spec.address}", daemon=True).start()
    finished = asyncio.wrap_future(done)
    try:
        return await asyncio.shield(finished)
    except asyncio.CancelledError:
        target.interruptions.cancel()
        target.hosted.mailbox.nudge()
        await asyncio.wait([finished])
        raise


def run_blocking(
    mesh: Mesh,
    target: PythonTarget,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """Run a plain function in this thread under an address, and return its result."""
    interruptions = target.interruptions
    signals = ExitStack()
    signals.enter_context(_sigterm(interruptions))
    result: Any = None
    error: BaseException | None = None
    try:
        mesh.io.wait(target.hosted.open(target))
        with interruptions.main_thread_scope(), _ctrl_c(interruptions):
            result = function(BlockingProcess(mesh.io, target.hosted, interruptions), *args, **kwargs)
    except BaseException as caught:
        error = caught
        raise
    finally:
        interruptions.close()
        with signals, suppress(Closed):
            mesh.io.wait(_end(target, error, result))
    return result


def _be_the_program(hosted: Hosted) -> None:
    """The function is all that this OS process is for: where it does not stop, neither goes on."""

    def say() -> None:
        text = f"{hosted.spec.address} has ended; waiting for {hosted.node.connection.url} to store how; Ctrl-C leaves"
        with suppress(OSError, ValueError):
            print(f"natsproc: {text}", file=sys.stderr, flush=True)

    if threading.current_thread() is threading.main_thread():
        hosted.outlived, hosted.waits = os._exit, say


def _ctrl_c(interruptions: Interruptions) -> AbstractContextManager[None]:
    """Make Ctrl-C an interrupt like any other, while the code runs: before and after it ends the program, as ever."""
    return _on(signal.SIGINT, lambda: interruptions.interrupt(Interrupted("Ctrl-C"), hard=True))


def _sigterm(interruptions: Interruptions) -> AbstractContextManager[None]:
    """Make SIGTERM a cancel, from before the id is claimed until the end is stored; what has its own keeps that."""
    if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return _AS_EVER
    return _on(signal.SIGTERM, lambda: interruptions.cancel(hard=True))


@contextmanager
def _on(number: signal.Signals, act: Callable[[], object]) -> Iterator[None]:
    """Do that on a signal that is not ignored, as in the background of a shell script; the second is Python's own."""
    ignored = signal.getsignal(number) in (signal.SIG_IGN, None)
    if ignored or threading.current_thread() is not threading.main_thread():
        yield
        return

    def once(*_: object) -> None:
        signal.signal(number, previous)
        act()

    previous = signal.signal(number, once)
    try:
        yield
    finally:
        signal.signal(number, previous)


def run(
    function: Callable[..., Any],
    /,
    *args: Any,
    id: str | None = None,
    kind: str | None = None,
    labels: Mapping[str, str] | None = None,
    restart: bool = False,
    when_full: WhenFull | None = None,
    namespace: str = DEFAULT_NAMESPACE,
    server: str | None = None,
    creds: str | None = None,
    context: str | None = None,
    prefix: str | None = None,
    **kwargs: Any,
) -> Any:
    """Run `function(proc, *args, **kwargs)` in this thread under an address, and return its result.

    The function gets a `Process` if it is a coroutine function, a `BlockingProcess` if it is a plain one; its
    name is the kind unless `kind` is given; `when_full` as for `Mesh.own`. Starts the embedded server if none is named and none runs, and
    says so on stderr. In the main thread Ctrl-C is an interrupt, and SIGTERM a cancel, unless the program
    handles or ignores that itself; the second of each is Python's own. In the main thread the function is the program: if it is killed, or
    cancelled with a grace time, and does not stop within two seconds of being forced, the OS process exits at once,
    once that is in the log, with the same code.

    Raises: Interrupted; SystemExit(143) if it was cancelled, as for a program that got SIGTERM, and SystemExit(137)
    if it was killed; what `natsproc.connect` and `Mesh.own` raise, and whatever the function raises.
    """
    from .client import connect

    mesh = connect(server, creds=creds, context=context, namespace=namespace, prefix=prefix, start=True)
    full, declared = when_full_of(function, when_full), declared_of(function)
    spec = new_spec(mesh, id, kind_of(function, kind), labels, "", restart, full, declared)
    try:
        if inspect.iscoroutinefunction(function):
            return asyncio.run(_run_program(mesh, spec, function, args, kwargs))
        mesh.open()
        try:
            hosted = Hosted(mesh.io.wait(mesh.started_node()), spec)
            _be_the_program(hosted)
            return run_blocking(mesh, PythonTarget(hosted, None), function, args, kwargs)
        finally:
            mesh.close()
    except Cancelled as cancelled:
        raise SystemExit(cancelled.code) from None


async def _run_program(mesh: Mesh, spec: Spec, *call: Any) -> Any:
    async with mesh:
        return await run_on(mesh, spec, *call, foreground=True)
