"""Anyone's handle on one process: watch it, leave it messages, command it, wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from natsproc.errors import AlreadyEnded, Closed, NotAllowed, ProcessFailed, TimedOut
from natsproc.protocol.landing import When
from natsproc.protocol.messages import EXITED, Command, Cursor, Event, Json, Notice, Receipt
from natsproc.protocol.names import Address, new_token
from natsproc.protocol.records import Record

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .client import Mesh, ProcessInfo
    from .sent import Sent
    from .tail import Tail

M = TypeVar("M", bound="BaseModel")

GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Exit:
    """How a run ended."""

    status: str  #: completed, failed, interrupted, cancelled, killed
    code: int  #: the exit code it counts as; 128 + N for signal N
    run: int
    offset: int
    signal: int | None = None
    result: Json = None
    error: str | None = None

    @classmethod
    def of(cls, event: Event) -> Exit:
        """Read a terminal event."""
        data = event.data if isinstance(event.data, dict) else {}
        return cls(
            str(data.get("status", "failed")),
            int(data.get("code", 1)),
            event.run,
            event.offset,
            data.get("signal"),
            data.get("result"),
            data.get("error"),
        )

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class ProcessHandle:
    """Anyone's handle on one process, by its address alone. Made by `Mesh.process`."""

    def __init__(self, mesh: Mesh, address: Address) -> None:
        self.mesh = mesh
        self.address = address

    def tail(
        self,
        *,
        after: str | None = None,
        n: int | None = None,
        since: float | None = None,
        run: int | Literal["all"] | None = None,
        follow: bool = True,
        compact: bool = False,
        types: Collection[str] = (),
        models: Mapping[str, type[BaseModel]] | None = None,
        announce: bool = True,
    ) -> Tail:
        """Watch it: its events from the first of its latest run, live, until that run ends.

        `after` is a cursor to go on behind; `n` begins with the last n events; `since` begins that many seconds
        ago, by the server's clock; `run` is the number of an earlier run, or "all"; without `follow` it stops at
        the end of what is stored; `compact` gives one event for a streamed text; `types` are the only event
        types wanted (notices come all the same); `models` turns the data of a type into a pydantic model; with `announce` it is
        counted among the process's viewers while it follows, as far as it may be.

        Yields each event once, in order, and only what is stored; whatever cannot be shown is said by a
        Notice. Watching costs the process nothing, and stopping stops nothing else.
        Iterating raises: NoSuchProcess, NotAllowed, BadPayload (a cursor that is not one). Protocol: section 2.
        """
        from .tail import tail_one

        cursor = Cursor.parse(after) if after is not None else None
        return tail_one(
            self.mesh, self.address,
            cursor=cursor, n=n, since=since, run=run, follow=follow, compact=compact, types=types, models=models,
            announce=announce,
        )  # fmt: skip

    async def record(self) -> Record | None:
        """What the registry says of it, live or ended."""
        return await self.mesh.io.call(self.mesh.registry.get(self.address))

    async def info(self) -> ProcessInfo | None:
        """The same with what `Mesh.list` says: whether its owner can be reached, and how long it is quiet."""
        record = await self.record()
        return None if record is None else (await self.mesh.io.call(self.mesh.infos([record])))[0]

    async def send(
        self,
        data: Json,
        *,
        id: str | None = None,
        kind: str = "message",
        when: When | None = None,
        user: str = "",
    ) -> Sent:
        """Leave a message in its inbox; returns once it is stored. Any JSON, or a pydantic model.

        `when` says when it is to land while the process is in a turn: `idle` after the turn, `next` at the turn's
        next boundary, `now` at once, by an interrupt. What the process does not allow becomes the nearest gentler
        time that it does; its `received` event says which. Sending it again with the same `id` within two minutes
        stores it once. `user` is for whom it is sent, where many stand behind one sender: it is in the log, by the
        sender's word alone. `await sent.consumed()` says when the process has taken it.
        Raises: NoSuchProcess, AlreadyEnded, Refused (there is no gentler time), TooLarge, BadPayload, NotAllowed.
        Protocol: section 3.
        """
        from natsproc.bus import inbox  # here, as most who watch never send

        from .sent import Sent

        mesh = self.mesh
        sending = inbox.send(
            mesh.connection, mesh.names, self.address, data, id=id, kind=kind, when=when, user=user
        )
        return Sent(mesh, self.address, await mesh.io.call(sending))

    async def request(
        self,
        data: Json,
        *,
        timeout: float | None = None,
        model: type[M] | None = None,
        id: str | None = None,
        user: str = "",
    ) -> Any:
        """Leave a message in its inbox and return what the process replies to it, as `model` if one is given.

        Asking again with the same `id` gets the reply to the first of them.
        Raises: TimedOut after `timeout` seconds; AlreadyEnded if the run ended without a reply; and as `send`.
        """
        self.insist_on_watching()
        sent = await self.send(data, id=id, user=user)
        return await sent.reply(model, timeout=timeout)

    def insist_on_watching(self) -> None:
        """Make sure, before something is sent, that what becomes of it can be seen. Raises: NotAllowed."""
        if not self.mesh.may_watch(self.address):
            raise NotAllowed(
                f"{self.mesh.sender} may not watch {self.address}, where it is told what becomes of a message: "
                "nothing was sent. Ask for a grant of `watch`, too"
            )

    async def command(
        self,
        verb: str,
        *,
        timeout: float = 5.0,
        hold: float = 0.0,
        id: str | None = None,
        epoch: int | None = None,
        **fields: Any,
    ) -> Receipt:
        """Send any command; the verbs below are this with names. Repeating an `id` changes nothing.

        If nobody serves the process, it is kept for `hold` seconds, for whoever starts or takes over the process
        meanwhile: the receipt says `accepted`, and until when in `data["held_until"]`. `user`, for whom it is asked,
        is in the log beside the sender, by the sender's word alone.
        """
        mesh = self.mesh
        order = Command(id or new_token(), verb, mesh.sender, epoch=epoch, **fields)
        if verb == "kill":
            from .closing import kill

            return await mesh.io.call(kill(mesh, self.address, order, timeout=timeout, hold=hold))
        from natsproc.bus import control

        return await mesh.io.call(
            control.command(mesh.connection, mesh.names, self.address, order, timeout=timeout, hold=hold)
        )

    async def interrupt(
        self,
        message: Json = None,
        *,
        reason: str = "",
        turn: int | None = None,
        hard: bool = False,
        timeout: float = 5.0,
        hold: float = 0.0,
    ) -> Receipt:
        """Stop what it is doing now, as Ctrl-C does, and optionally say what to do instead.

        Returns once it has stopped, or refused: see `Receipt.status`. It is recorded in the log with its
        sender. It ends the turn that is under way, not the process; between turns it is too late. `turn`, the
        offset of a `turn_began` event, is the only one that it is meant for: too late once that is over. `hard`
        also reaches code that never awaits. What it is in the middle of in C ends first: then the receipt says
        `accepted` after `timeout` seconds, and the interrupt stays valid. For `hold` see `command`.
        Raises: NoSuchProcess, Unreachable, NotAllowed. Protocol: section 5.
        """
        return await self.command(
            "interrupt", message=message, reason=reason, turn=turn, hard=hard, timeout=timeout, hold=hold
        )

    async def answer(
        self, value: Json, ask: str | None = None, *, timeout: float = 5.0, hold: float = 0.0
    ) -> Receipt:
        """Answer what it asks, with one of the choices if there are any; `ask` may be left out if it asks one thing.

        The first answer wins; a later one is `too_late`, and `why` says whose was first. See `interrupt`.
        On `hold` is kept only what answers a question that is open already: Refused, if there is none.
        """
        data = {"value": value} | ({"ask": ask} if ask is not None else {})
        return await self.command("answer", data=data, timeout=timeout, hold=hold)

    async def pause(self, *, reason: str = "", timeout: float = 5.0, hold: float = 0.0) -> Receipt:
        """Hold it: an OS command at once, Python code at its next call that may wait. See `interrupt`."""
        return await self.command("pause", reason=reason, timeout=timeout, hold=hold)

    async def resume(self, *, reason: str = "", timeout: float = 5.0, hold: float = 0.0) -> Receipt:
        """Let it go on after a pause. See `interrupt`."""
        return await self.command("resume", reason=reason, timeout=timeout, hold=hold)

    async def cancel(
        self,
        *,
        reason: str = "",
        grace: float = GRACE_SECONDS,
        timeout: float | None = None,
        hold: float = 0.0,
    ) -> Receipt:
        """End it, with `grace` seconds to tidy up; the receipt says that it is gone. See `interrupt`.

        Python code that does not stop even so is left behind, and its run ended: the receipt says `unconfirmed`.
        """
        return await self.command(
            "cancel", reason=reason, grace=grace, timeout=timeout or grace + 5.0, hold=hold
        )

    async def kill(self, *, reason: str = "", timeout: float = 15.0, hold: float = 0.0) -> Receipt:
        """End it at once, without asking it. See `interrupt`.

        A run whose owner is gone is ended here; the receipt then says `unconfirmed`, as nobody saw it stop.
        To be sure that it is gone may take some ten seconds: Unreachable, if `timeout` is over before.
        """
        return await self.command("kill", reason=reason, timeout=timeout, hold=hold)

    async def ping(self, *, timeout: float = 1.0) -> Receipt:
        """Ask its node whether it runs; answered also while its code blocks."""
        return await self.command("ping", timeout=timeout)

    async def inspect(self, *, stack: bool = False, timeout: float = 5.0) -> dict[str, Any]:
        """Record, epoch, offsets, node, load, and with `stack` where its Python code is.

        Raises: NoSuchProcess, Unreachable, TimedOut; AlreadyEnded once it has ended.
        """
        receipt = await self.command("inspect", data={"stack": stack}, timeout=timeout)
        if receipt.status == "accepted":
            raise TimedOut(f"{self.address} was not inspected: {receipt.why}")
        if not receipt.applied:
            raise AlreadyEnded(receipt.why)
        return receipt.data

    async def wait(
        self, timeout: float | None = None, *, told: Callable[[Notice], object] = lambda notice: None
    ) -> Exit:
        """Return how its latest run ended, once it has; `told` hears of each notice meanwhile.

        A run whose owner is gone has not ended: the notice `unreachable` says so, and waiting goes on until
        another owner, or who kills it, ends it. Raises: NoSuchProcess; TimedOut after `timeout` s.
        """
        tail = self.tail(n=1, announce=False)
        try:
            async with asyncio.timeout(timeout):
                async for item in tail:
                    if isinstance(item, Event) and item.type == EXITED:
                        return Exit.of(item)
                    if item.type == "ended":  # its log is gone, the terminal event included
                        return Exit(str(item.data["status"]), int(item.data["code"]), item.data["run"], 0)
                    if isinstance(item, Notice):
                        told(item)
        except TimeoutError:
            raise TimedOut(f"{self.address} still runs after {timeout:g} s") from None
        finally:
            await tail.aclose()
        raise Closed(f"the tail of {self.address} ended without a terminal event")

    async def result(self, model: type[M] | None = None, *, timeout: float | None = None) -> Any:
        """Return what its latest run returned, as `model` if given, once it has completed.

        Raises: ProcessFailed if it ended otherwise, with status and code; and what `wait` raises.
        """
        end = await self.wait(timeout)
        if end.status != "completed":
            raise ProcessFailed(
                f"run {end.run} of {self.address} ended {end.status}"
                + (f": {end.error}" if end.error else ""),
                status=end.status,
                code=end.code,
                data=end.to_json(),
            )
        return end.result if model is None else model.model_validate(end.result)
