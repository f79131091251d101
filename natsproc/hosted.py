"""One process on its node: its log, inbox, control and record, from the claim to the terminal event.

Everything here lives on the I/O thread, so that commands are answered while user code blocks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from natsproc.bus.checkpoints import Checkpoints, load
from natsproc.bus.claims import Owned, claim, mark_ended, release
from natsproc.bus.clock import now
from natsproc.bus.control import ServedControl
from natsproc.bus.holding import HeldCommands
from natsproc.bus.inbox import InboxReader
from natsproc.bus.log import EventLog
from natsproc.bus.patience import insist
from natsproc.bus.presence import Audience
from natsproc.bus.spool import Spool
from natsproc.errors import (
    AlreadyEnded,
    BadPayload,
    Closed,
    CredentialEnded,
    Error,
    NotAllowed,
    OwnershipLost,
    TimedOut,
    TooLarge,
)
from natsproc.protocol.carried import Carried
from natsproc.protocol.messages import COMMAND, Command, Message, Receipt
from natsproc.protocol.records import Record

from .asking import Asking
from .commanded import Commanded
from .mailbox import Mailbox, passed_over

if TYPE_CHECKING:
    from .node import Node, Spec, Target

T = TypeVar("T")

SETTLE_SECONDS = 2.0
STOP_SECONDS = 3.0
VIEWERS = 50  #: senders that the record names of those who watch
VIEWERS_SECONDS = 0.5
MAX_ERROR = 10_000  #: characters
TICK_SECONDS = 60.0  #: between two looks at whether messages were missed, or the log is quiet
FAILED: dict[str, Any] = {"status": "failed", "code": 1}


class Hosted(Commanded):
    """One process on its node: its log, inbox, control and record.

    Whoever makes one calls `end` in the end, whatever has become of `open`.
    """

    state: Any = None  #: as of the last checkpoint of the run
    outlived: Callable[[int], object] | None = None  #: told the code of a run that its code outlives
    waits: Callable[[], object] | None = None  #: called if its end is not stored within two seconds
    #: told what keeps it from being spooled
    troubled: Callable[[str], object] = staticmethod(lambda text: None)
    _paused = False
    _ready: asyncio.Event | None = None  # where commands wait for a target
    _over: Error | None = None  # why it cannot be ended any more
    _showing: asyncio.TimerHandle | None = None
    _placing: asyncio.Task[Any] | None = None
    _held: HeldCommands | None = None
    _ending: dict[str, Any] = FAILED

    def __init__(self, node: Node, spec: Spec) -> None:
        self.node = node
        self.spec = spec
        self.mailbox = Mailbox(spec.allow)
        self.target: Target | None = None
        self.asking = Asking(self._show_soon)
        self._life = asyncio.Lock()  # opening and ending take turns
        self._owned: Owned | None = None
        self.audience = Audience(node.connection, node.names, spec.address, self._show_viewers)
        self._ticking: asyncio.TimerHandle | None = None
        self._recording = asyncio.Lock()
        self._revision = 0
        self._noted = {}
        self._control: ServedControl | None = None
        self._inbox: InboxReader | None = None
        self._hearing: Any = None  # the subscription to its own record

    async def open(self, target: Target | None = None) -> None:
        """Claim the id, write the first event, and serve inbox and control; commands act on `target`.

        Raises: AlreadyRunning, AlreadyEnded, NotAllowed, and what `claim` raises.
        """
        if target:
            self.attach(target)
        denied: list[NotAllowed] = []
        denials, names = self.node.connection.denials, self.node.names
        async with (
            self._life,
            denials(names.control(self.spec.address), denied.append),
            denials(names.delivered(self.spec.address), denied.append),
        ):
            await self._open()
        if denied:
            raise denied[0]

    async def _open(self) -> None:
        node, spec = self.node, self.spec
        if self._over:
            raise self._over
        owned = await claim(
            node.connection,
            node.names,
            spec.address,
            node=node.name,
            writer=node.writer,
            steady=node.steady,
            restart=spec.restart,
        )
        try:
            self.state = await self._load(owned)
        except BaseException:
            with suppress(Error):  # the run goes on with code that can begin with its state
                await release(node.connection, node.names, owned)
            raise
        self.epoch, self.run = owned.epoch, owned.run
        self._loop = asyncio.get_running_loop()
        self.log = EventLog(
            node.connection,
            node.writer,
            node.names,
            spec.address,
            epoch=owned.epoch,
            run=owned.run,
            next_offset=owned.next_offset,
            nonce=owned.nonce,
            carried=owned.carried,
            spool=self._spool(),
            drop=spec.drop,
            on_trouble=self._say_trouble,
        )
        self.log.on_lost, self.log.on_goal = self._lose, self._many
        self.mailbox.log = self.log
        self.asking.open(self.log, owned.carried.asks)
        self._checkpoints = Checkpoints(node.connection, node.names, owned, self.log)
        started = now()
        self.record = Record(
            spec.address, spec.kind, node.name, owned.epoch, owned.run, "running", started, started,
            labels=spec.labels, parent=spec.parent, title=spec.title, pty=spec.pty, allow=spec.allow,
        )  # fmt: skip
        lease = node.lease
        first = {"kind": spec.kind, "node": node.name, "host": lease.host, "pid": lease.pid}
        first |= {name: value for name in ("labels", "parent", "title") if (value := getattr(spec, name))}
        if owned.claim.checkpoint:
            first["checkpoint"] = owned.claim.checkpoint.offset
        self._owned = owned
        node.count(self, runs=True)
        # the control subject is served before anyone can find the process, and waits for its target
        self._control = ServedControl(node.connection, node.name, owned.epoch, self._apply)
        await self._control.start(node.names.control(spec.address))
        self.log.append_lifecycle(owned.kind, first)
        self._inbox = InboxReader(
            node.connection, node.names, spec.address, self._deliver, owned.carried.received
        )
        await self._inbox.start()
        if self._held:
            await self._held.examined()
        await self.audience.start()
        self._hearing = await node.registry.hear(spec.address, self._written)
        async with self._recording:
            self._revision = await insist(lambda: node.registry.put(self.record))
        self._ticking = self._loop.call_later(TICK_SECONDS, self._tick)
        if owned.kind != "started":
            self._spawn(self._checkpoints.tidy_up())

    def _tick(self) -> None:
        """Look after it: no task waits for that, as there may be many processes, and nearly all of them idle."""
        self._ticking = self._loop.call_later(TICK_SECONDS, self._tick)
        if self._inbox:
            self._inbox.look_again()
        if self._checkpoints.quiet():
            self._place(quiet=True)

    def _many(self) -> None:
        """Many events lie behind the last place; called in any thread."""
        self._soon(self._place)

    def _place(self, *, quiet: bool = False) -> None:
        if not self._over and (self._placing is None or self._placing.done()):
            self._placing = self._spawn(self._fenced(self._checkpoints.make_place(quiet=quiet)))

    def reconnected(self) -> None:
        """After a time without a connection: is the id still ours, and what has come meanwhile?"""
        self._make_sure()
        if self._inbox:
            self._inbox.look_again()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Have it done in the background; errors of ours are for whoever waits for it, if anybody does."""
        self.node.tasks.add(task := asyncio.create_task(work))
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.node.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, Error):
            raise error

    async def _load(self, owned: Owned) -> Any:
        state = await load(self.node.connection, self.node.names, owned)
        if state is None or owned.claim.checkpoint is None:
            return None
        version = owned.claim.checkpoint.version
        return await asyncio.to_thread(self.spec.shape.read, state, version, owned.address)

    async def checkpoint(self, state: bytes, offset: int, carried: Carried) -> int:
        """Save a state, and what had been read by the event of that offset; returns that of the event that says so.

        Raises: as `Checkpoints.save`, and `EventLog.append`.
        """
        version = self.spec.shape.version
        saving = self._checkpoints.save(state, version, offset, carried)
        await asyncio.shield(self._spawn(self._fenced(saving)))  # an interrupt leaves it whole
        self._spawn(self._checkpoints.tidy())
        what = {"offset": offset, "size": len(state), "version": version}
        return self.log.append_lifecycle("checkpointed", what)

    async def _fenced(self, work: Awaitable[None]) -> None:
        """Stop what runs here if the work finds out that the id was lost."""
        try:
            await work
        except OwnershipLost as lost:
            self.log.void(lost)
            raise

    def _deliver(self, message: Message) -> None:
        """Take what the inbox brings: commands that were held are not for the code."""
        if message.kind == COMMAND:
            self._held = self._held or self._hold()
            self._held.hear(message)
        elif not passed_over(self.log, message):
            self.mailbox.put(replace(message, refused=self.spec.why_not(message.sender, "message")))

    def _hold(self) -> HeldCommands:
        assert self._control
        assert self._owned
        connection, names, applied = self.node.connection, self.node.names, self._owned.carried.commands
        return HeldCommands(connection, names, self.spec.address, self._control.take, applied)

    def _written(self, record: Record | None) -> None:
        """Somebody has written our record: we, a newer owner, or whoever closed the run."""
        if record is None or record.epoch > self.epoch:
            self._make_sure()

    def _spool(self) -> Spool | None:
        from .server.home import Home

        wanted = self.spec.spool or self.spec.drop
        return Spool(Home.find().folder / "spool", self.spec.spool) if wanted else None

    def _say_trouble(self, text: str) -> None:
        then = "is dropped" if self.spec.drop else "waits"
        text = f"{text}: what {self.spec.address} says now {then} until the server takes it"
        self.troubled(text)
        with suppress(Error):
            self.log.append("log", {"level": "warning", "text": text})

    def _make_sure(self) -> None:
        """Is the id still ours?"""
        self._spawn(self._confirm())

    async def _confirm(self) -> None:
        try:
            await self.log.confirm()  # what it finds out comes to `_lose`
        except CredentialEnded as ended:  # nothing that is written here will be stored
            self.log.void(ended)
        except Error:
            pass

    def _lose(self, lost: Error) -> None:
        """A newer epoch owns the id, or the credential has ended: what runs here is stopped, and heard no more."""
        if not self._over:
            self._over = lost
            self.mailbox.close(lost)
            self.asking.close(lost)
            self._spawn(self._leave_lost())
            if self.target:
                self._spawn(self.target.lose(lost))

    async def _leave_lost(self) -> None:
        async with self._life:  # what is being opened still is closed, too
            await self._leave()

    def attach(self, target: Target) -> None:
        """Say what commands act on; until then they wait. On the I/O thread."""
        self.target = target
        if self._ready:
            self._ready.set()
        if isinstance(self._over, OwnershipLost | CredentialEnded):
            self._spawn(target.lose(self._over))

    async def _attached(self) -> None:
        if self.target is None:
            self._ready = self._ready or asyncio.Event()
            await self._ready.wait()

    async def apply(self, command: Command) -> Receipt:
        """Carry out one command, and return its final receipt once the log has stored what it did."""
        assert self._control
        return await asyncio.shield(self._control.take(command))

    def _show_soon(self) -> None:
        self._soon(lambda: self._spawn(self._show()))

    def _soon(self, act: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the mesh is closed
            self._loop.call_soon_threadsafe(act)

    def _show_viewers(self) -> None:
        """Once for many that come or go at about the same time."""
        if not self._showing:
            self._showing = self._loop.call_later(VIEWERS_SECONDS, lambda: self._spawn(self._show()))

    async def _show(self) -> None:
        """Write to the registry what it is at; the log has it already."""
        async with self._recording:
            self._showing = None
            viewers = dict(list(self.audience.senders.items())[:VIEWERS])
            asks = self.asking.shown()
            state = "paused" if self._paused else "waiting" if asks else "running"
            shown = replace(self.record, state=state, asks=asks, viewers=viewers)
            if self.log.ended or shown == self.record:
                return
            self.record = replace(shown, updated=now())
            try:
                self._revision = await self.node.registry.put(self.record, self._revision)
            except Error:
                pass  # for people only; the next change writes it again

    async def end(self, status: str, code: int, **data: Any) -> int:
        """Write the one terminal event, once every command taken has its place before it; returns its offset.

        Does nothing, and returns 0, if the id was never won. A result that cannot be kept makes it a failure.
        Raises: AlreadyEnded for every call but one; TooLarge, BadPayload for such a result; and as `EventLog.end`.
        """
        async with self._life:
            if self._over:
                raise self._over
            self._over = AlreadyEnded(f"{self.spec.address} has ended")
            closed = Closed(f"{self.spec.address} has ended")
            self.mailbox.close(closed)
            self.asking.close(closed)
            if self._owned is None:
                return 0
            if self._control:
                await self._control.settle(SETTLE_SECONDS)
            ending = {"status": status, "code": code}
            ending |= {key: value for key, value in data.items() if value is not None}
            if error := data.get("error"):
                ending["error"] = str(error)[:MAX_ERROR].encode(errors="backslashreplace").decode()
            try:
                return await self._write_end(ending)
            except OwnershipLost as lost:
                self._over = lost
                raise
            finally:
                await self._leave()

    async def _write_end(self, ending: dict[str, Any]) -> int:
        try:
            self._ending = ending
            return await self.log.end(ending)
        except (TooLarge, BadPayload) as error:
            if self.log.ended:  # an earlier event was too large, and ended the run
                raise
            self._ending = {"status": "failed", "code": 1, "error": f"its result cannot be kept: {error}"}
            await self.log.end(self._ending)
            raise

    async def _leave(self) -> None:
        assert self._owned
        self.node.count(self, runs=False)
        await self.node.connection.unsubscribe(self._hearing)
        if self._showing:
            self._showing.cancel()
        await self.audience.close()
        for waiting in (self._ticking, self._placing):
            if waiting:
                waiting.cancel()
        if self._inbox:
            await self._inbox.close()
        if self._held:
            self._held.close()
        async with self._recording:
            time = now()
            self.record = replace(
                self.record,
                state=self._ending["status"],
                code=self._ending["code"],
                updated=time,
                ended=time,
                asks=(),
                viewers={},
            )
            try:
                if self.log.ended and self.log.stored >= self.log.offset:
                    await mark_ended(self.node.connection, self.node.names, self._owned, self.log.offset)
                    await self.node.registry.end(self.record)
            except Error:
                pass  # the log says that it ended; the registry is mended by the next owner or viewer
        if self._control:
            await self._control.close()

    async def stop(self) -> None:
        """End the run, because its mesh is being closed; its code learns so at its next call."""
        ending = self.end("cancelled", 143, error="its mesh was closed while it ran")
        with suppress(Error):
            await self.while_storing(asyncio.create_task(ending), STOP_SECONDS)

    async def while_storing(self, task: asyncio.Task[T], patience: float) -> T:
        """Wait for a task, but not once nothing has been stored for `patience` seconds. Raises: TimedOut; as the task."""
        before = -1
        while not task.done():
            stored = self.log.stored if self._owned else 0
            if stored == before:
                task.cancel()
                await asyncio.wait([task])
                raise TimedOut(f"{self.spec.address}: the server stores nothing")
            before = stored
            await asyncio.wait([task], timeout=patience)
        return task.result()
