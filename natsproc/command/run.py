"""Running a command under an address, in the foreground of a terminal or anywhere else."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from natsproc.bus.patience import insist
from natsproc.bus.spool import DEFAULT_SIZE
from natsproc.bus.writer import Writer
from natsproc.closing import close
from natsproc.errors import AlreadyEnded, Error, OwnershipLost, TimedOut
from natsproc.hosted import Hosted
from natsproc.interruptions import Interruptions
from natsproc.local import ADDRESS
from natsproc.node import Node, Spec
from natsproc.owner import Process
from natsproc.protocol.messages import Command
from natsproc.protocol.names import Address, choose_kind, new_id, new_token

from .pump import LIMIT
from .runner import Runner, Wrapped
from .session import Ended
from .terminal import Size, raw

if TYPE_CHECKING:
    from natsproc.client import Mesh

IMPATIENCE_SECONDS = 2.0
GIVE_UP_SECONDS = 10.0
PATIENCE_SECONDS = 2.0
CALLED_OFF = {"interrupt": ("interrupted", 130), "cancel": ("cancelled", 143)}  #: before it has begun


async def run_command(
    mesh: Mesh,
    wrapped: Wrapped,
    *,
    id: str | None = None,
    kind: str | None = None,
    labels: Mapping[str, str] | None = None,
    parent: str = "",
    restart: bool = False,
    foreground: bool = False,
    spool: int = DEFAULT_SIZE,
    drop: bool = False,
    started: Callable[[], object] | None = None,
    waiting: Callable[[], object] | None = None,
    pausing: Callable[[], object] | None = None,
    troubled: Callable[[str], object] | None = None,
) -> Ended:
    """Run a command under an address, and return how it ended once its terminal event is stored.

    In the `foreground` Ctrl-C is an interrupt, again within two seconds a cancel, and then a kill, and once the command has
    ended it leaves a server that stores nothing; SIGTERM and SIGHUP cancel, also before it has begun, which then it never does; Ctrl-Z is a pause, and the next a resume; SIGQUIT is passed on. A command that cannot be run ends with
    code 126 or 127, and `error` says why. Cancelling this cancels the command, and waits for its end. While the server
    takes nothing, output goes to a spool of `spool` bytes on disk; once that is full the command waits, or with `drop`
    its output is dropped and counted.

    `started` is called, on the I/O thread, once the command runs; `waiting` if it has ended and the server does not
    store that within two seconds; `troubled` with a sentence, if the spool cannot be used, and why nothing is stored while
    its start or end waits for that; `pausing` when Ctrl-Z
    pauses it.

    A run of that id whose owner is gone is ended first, as killed: a command cannot be taken up where it stopped.

    Raises: AlreadyRunning, AlreadyEnded (unless `restart`), BadName, NotAllowed; OwnershipLost.
    """
    kind = choose_kind(kind, os.path.basename(wrapped.argv[0]))
    spec = Spec(
        mesh.address(id or new_id(kind)),
        kind,
        dict(labels or {}),
        parent or os.environ.get(ADDRESS, ""),
        title=shlex.join(wrapped.argv),
        pty=wrapped.pty,
        restart=restart,
        spool=spool,
        drop=drop,
        allow=("idle",),
    )

    async def begin() -> tuple[Hosted, Runner]:
        node = await mesh.started_node()
        async with _saying_why(node.writer, troubled):
            again = restart or await _close_lost(node, spec.address)
            hosted = await node.host(replace(spec, restart=again))
        limit = min(LIMIT, mesh.connection.max_payload // 8)  # JSON may take six bytes for one
        runner = Runner(hosted, Process(mesh.io, hosted, Interruptions(None)), wrapped, limit)
        runner.started = started or runner.started
        hosted.troubled = troubled or hosted.troubled
        hosted.attach(runner)
        return hosted, runner

    async def call_off(verb: str, reason: str) -> Ended:
        status, code = CALLED_OFF[verb]
        runner.call_off()
        with suppress(Error):  # the end says so, too
            hosted.note(status, new_token(), mesh.sender, reason, None)
        await hosted.while_storing(asyncio.create_task(hosted.end(status, code)), GIVE_UP_SECONDS)
        return Ended(code)

    async def work() -> Ended:
        try:
            ended = await runner.run()
        except Exception as error:
            with suppress(Error):  # if it can still be written at all
                await hosted.end("failed", 1, error=str(error))
            raise
        late = mesh.io.loop.call_later(PATIENCE_SECONDS, waiting or (lambda: None))
        try:
            async with _saying_why(hosted.node.writer, troubled):
                await hosted.end(runner.status, ended.code, signal=ended.signal, error=ended.error)
        finally:
            late.cancel()
        return ended

    async def told_to_end() -> None:
        await hurry.wait()
        await runner.over.wait()

    async def finish() -> Ended:
        working, hurried = asyncio.create_task(work()), asyncio.create_task(told_to_end())
        await asyncio.wait([working, hurried], return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        try:
            return await hosted.while_storing(working, patience)
        except TimedOut:
            text = (
                f"{spec.address} has ended, but the server did not store how, and maybe not all that it said"
            )
            raise TimedOut(text) from None

    hurry = asyncio.Event()  # somebody has asked natsproc itself to end
    early: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
    begun, patience = False, GIVE_UP_SECONDS

    def command(verb: str, reason: str) -> None:
        nonlocal patience
        if not begun:
            if early.done():
                beginning.cancel()
            else:
                early.set_result((verb, reason))
            return
        leaves = verb == "interrupt" and runner.over.is_set()  # it could be meant for nothing else
        if leaves:
            patience = PATIENCE_SECONDS
        if leaves or verb in ("cancel", "kill"):
            mesh.io.post(hurry.set)
        mesh.io.submit(hosted.apply(Command(new_token(), verb, mesh.sender, reason)))

    def resize() -> None:
        if begun:
            mesh.io.submit(runner.resize(Size.of(1)))

    def ctrl_z() -> None:
        if not begun:
            return
        verb = "resume" if runner.paused else "pause"
        if verb == "pause" and pausing and not hosted.log.ended:
            pausing()
        command(verb, "Ctrl-Z")

    def quit() -> None:
        if begun:
            mesh.io.submit(runner.signal(signal.SIGQUIT))
        else:
            command("cancel", "natsproc got SIGQUIT")

    others = {signal.SIGTSTP: ctrl_z, signal.SIGQUIT: quit, signal.SIGWINCH: resize}

    async def follow() -> Ended:
        finished = asyncio.wrap_future(mesh.io.submit(finish()))
        try:
            return await asyncio.shield(finished)
        except asyncio.CancelledError:
            command("cancel", "the code that ran it was cancelled")
            await finished
            raise

    keys = raw(wrapped.stdin) if wrapped.pty and wrapped.stdin is not None else nullcontext()
    with _signals(command, others) if foreground else nullcontext():
        beginning = asyncio.ensure_future(mesh.io.call(begin()))
        try:
            first: list[asyncio.Future[Any]] = [beginning, early]
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if early.done():  # what is half claimed is claimed and ended, unless the server keeps us waiting
                patience = GIVE_UP_SECONDS if mesh.connection.connected else PATIENCE_SECONDS
                await asyncio.wait([beginning], timeout=patience)
        finally:
            if not beginning.done():
                beginning.cancel()
        if early.done() and (beginning.cancelled() or not beginning.done()):
            return Ended(CALLED_OFF[early.result()[0]][1], error="it was called off before it had its id")
        hosted, runner = await beginning
        if early.done():
            return await mesh.io.call(call_off(*early.result()))
        begun = True
        with keys:
            return await follow()


async def _close_lost(node: Node, address: Address) -> bool:
    """End a run whose owner is gone, because a command cannot be taken up where it stopped; whether there was one.

    Raises: AlreadyRunning, and as `closing.close`.
    """
    record = await insist(lambda: node.registry.get(address))
    if record is None or record.ended:
        return False
    with suppress(AlreadyEnded, OwnershipLost):  # as the log says, or somebody was faster: claiming will tell
        await close(
            node, address, Command(new_token(), "kill", node.connection.sender, "it is run again"), again=True
        )
        return True
    return False


@asynccontextmanager
async def _saying_why(writer: Writer, say: Callable[[str], object] | None) -> AsyncIterator[None]:
    """Whoever waits in here is told, once, why nothing is stored."""

    async def watch() -> None:
        await asyncio.sleep(PATIENCE_SECONDS)
        while not writer.trouble:
            await asyncio.sleep(0.2)
        if say:
            say(writer.trouble)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


@contextmanager
def _signals(
    command: Callable[[str, str], None], others: Mapping[signal.Signals, Callable[[], None]]
) -> Iterator[None]:
    """Turn the signals that natsproc gets into commands, as long as the block runs. In the main thread only."""
    loop = asyncio.get_running_loop()
    presses = [float("-inf")]

    def ctrl_c() -> None:
        if loop.time() - presses[-1] > IMPATIENCE_SECONDS:
            presses.clear()
        presses.append(loop.time())
        command(("interrupt", "cancel", "kill")[min(len(presses), 3) - 1], "Ctrl-C")

    handlers: dict[signal.Signals, Callable[[], None]] = {
        signal.SIGINT: ctrl_c,
        signal.SIGTERM: lambda: command("cancel", "natsproc got SIGTERM"),
        signal.SIGHUP: lambda: command("cancel", "natsproc's terminal was closed"),
        **others,
    }
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        if number != signal.SIGHUP or before[number] != signal.SIG_IGN:  # `nohup` means it
            loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, previous)
