"""Everyone's side of a process: find it, watch it, command it, wait for it.

A mesh is opened once per OS process as a rule; its connection lives on the I/O thread, and everything here is a
thin face on what runs there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from natsproc.bus import control, inbox, streams
from natsproc.bus.claims import insist
from natsproc.bus.connection import Connection, Endpoint
from natsproc.bus.inbox import Sent
from natsproc.bus.liveness import answers
from natsproc.bus.registry import Registry
from natsproc.bus.thread import IOThread
from natsproc.errors import AlreadyEnded, Closed, Error, NotAllowed, ProcessFailed, TimedOut
from natsproc.protocol.messages import EXITED, Command, Cursor, Event, Json, Receipt, Record
from natsproc.protocol.names import DEFAULT_NAMESPACE, DEFAULT_PREFIX, Address, Names, check_name, new_token

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .node import Node
    from .owner import Process
    from .tail import Tail

T = TypeVar("T")
M = TypeVar("M", bound="BaseModel")

GRACE_SECONDS = 10.0
LIST_SECONDS = 5.0


def connect(
    server: str | None = None,
    *,
    creds: str | None = None,
    context: str | None = None,
    namespace: str = DEFAULT_NAMESPACE,
    prefix: str = DEFAULT_PREFIX,
    sender: str | None = None,
    start: bool = False,
) -> Mesh:
    """Describe the mesh to connect to; `async with natsproc.connect() as mesh` opens it.

    `server` is a URL or several with commas, `creds` the path of a .creds file, `context` one of the `nats`
    command's contexts. With none of them `NATS_URL` is taken, then the embedded server, which `start=True`
    starts if it does not run. `namespace` is used for ids that name none, `prefix` tells meshes apart on one
    server, `sender` is a name to go by where the credential gives none.

    Opening raises: NoServer, ServerUnfit, NoMesh, MeshMismatch, NotAllowed, BadName.
    """
    check_name(namespace, "namespace")
    names = Names(prefix)

    def find() -> Endpoint:
        from natsproc.server import find_server

        return find_server(
            server=server, creds=creds, context=context, sender=sender, start=start, prefix=prefix
        )

    return Mesh(find, names, namespace)


class Mesh:
    """All the processes under one prefix on one NATS account. Made by `connect`."""

    def __init__(self, find: Callable[[], Endpoint], names: Names, namespace: str) -> None:
        self.names = names
        self.namespace = namespace
        self._find = find
        self._io: IOThread | None = None
        self._node: asyncio.Task[Node] | None = None

    # Opening and closing come as a coroutine for loops, and as a plain call for threads.

    async def __aenter__(self) -> Mesh:
        endpoint = await asyncio.to_thread(self._find)
        self._io = IOThread()
        try:
            await self._io.call(self._open(endpoint))
        except BaseException:
            self._io.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def open(self) -> Mesh:
        """Connect, blocking. Raises as described at `connect`."""
        endpoint = self._find()
        self._io = IOThread()
        try:
            self._io.wait(self._open(endpoint))
        except BaseException:
            self._io.stop()
            raise
        return self

    async def _open(self, endpoint: Endpoint) -> None:
        self.connection = await Connection.open(endpoint)
        try:
            await streams.check(self.connection, self.names)
        except NotAllowed:
            pass  # a credential that may only watch is not told how the streams are made
        except BaseException:
            await self.connection.close()
            raise
        self.registry = Registry(self.connection, self.names)
        self._node = None

    def close(self) -> None:
        """Store what is pending, say goodbye and disconnect, blocking. Processes elsewhere go on.

        The run of a process that is still owned here ends as cancelled, and its code learns so at its next call.
        """
        if self._io is not None and self._io.alive:
            self._io.wait(self._close())
            self._io.stop()

    async def _close(self) -> None:
        if self._node is not None:
            with suppress(Error):
                await (await self._node).stop()
        await self.connection.close()

    @property
    def io(self) -> IOThread:
        """The thread that the connection lives on. Raises: Closed."""
        if self._io is None or not (self._io.alive or self._io.forked):
            raise Closed("the mesh is not open; use it inside `async with natsproc.connect() as mesh`")
        return self._io

    @property
    def sender(self) -> str:
        """As whom the mesh sees this connection."""
        return self.connection.sender

    @property
    def url(self) -> str:
        return self.connection.url

    def address(self, process: str | Address) -> Address:
        """Read `id` or `namespace/id`. Raises: BadName."""
        return process if isinstance(process, Address) else Address.parse(process, self._implied(process))

    def _implied(self, text: str) -> str | None:
        return None if "/" in text else self.namespace

    def process(self, process: str | Address) -> ProcessHandle:
        """Anyone's handle on the process of that id; it need not run, or exist. Raises: BadName."""
        return ProcessHandle(self, self.address(process))

    async def list(
        self,
        *,
        namespace: str | None = None,
        ended: bool = False,
        kind: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Sequence[ProcessInfo]:
        """What runs in a namespace (`"*"`: in all of them), and with `ended` what has ended, too."""
        chosen = namespace or self.namespace
        return await self.io.call(self._insist_on_list(chosen, ended, kind, dict(labels or {})))

    async def _insist_on_list(self, *choice: Any) -> Sequence[ProcessInfo]:
        deadline = asyncio.get_running_loop().time() + LIST_SECONDS
        return await insist(lambda: self._list(*choice), deadline)

    async def _list(
        self, namespace: str, ended: bool, kind: str | None, labels: dict[str, str]
    ) -> Sequence[ProcessInfo]:
        records, leases = await asyncio.gather(
            self.registry.list(None if namespace == "*" else namespace, ended=ended), self.registry.leases()
        )
        chosen = [record for record in records if matches(record, kind, labels)]
        doubtful = [r.address for r in chosen if not r.ended and r.node not in leases]
        quiet, alive = await asyncio.gather(
            self.registry.quiet(record.address for record in chosen),
            # a lease can look expired after an outage of the bus; who answers is not gone
            asyncio.gather(*(answers(self.connection, self.names, address) for address in doubtful)),
        )
        gone = {address for address, answered in zip(doubtful, alive, strict=True) if not answered}
        return [
            ProcessInfo(
                record,
                "unreachable" if record.address in gone else record.state,
                quiet.get(record.address),
            )
            for record in chosen
        ]

    async def watch(self, *, namespace: str | None = None) -> AsyncIterator[tuple[Address, Record | None]]:
        """Every change of what runs, from now on: the address, and its record or None once it has ended."""
        from .tail import Follow

        chosen = namespace or self.namespace
        source = Follow(self.io, lambda: _batched(self.registry.watch(None if chosen == "*" else chosen)))
        try:
            async for change in source:
                yield change
        finally:
            await source.aclose()

    def tail(
        self,
        *patterns: str,
        kind: str | None = None,
        follow: bool = True,
        n: int | None = None,
        since: float | None = None,
        types: Collection[str] = (),
        compact: bool = False,
    ) -> Tail:
        """Watch several processes at once, by id or by pattern (`build-*`), also those that start later.

        See `ProcessHandle.tail`. What it yields says in `address` whose it is. Order holds within each process.
        """
        from .tail import tail_many

        return tail_many(
            self, patterns, kind=kind, follow=follow, n=n, since=since, types=types, compact=compact
        )

    async def node(self) -> Node:
        """The node of this OS process, started with its first process."""
        return await self.io.call(self.started_node())

    async def started_node(self) -> Node:
        """The same, on the I/O thread."""
        if self._node is None or (self._node.done() and self._node.exception()):
            self._node = asyncio.create_task(self._start_node())
        return await asyncio.shield(self._node)  # others wait for it too

    async def _start_node(self) -> Node:
        from . import __version__
        from .node import Node

        node = Node(self.connection, self.names, __version__)
        await node.start()
        return node

    @asynccontextmanager
    async def own(
        self,
        id: str | None = None,
        *,
        kind: str = "process",
        labels: Mapping[str, str] | None = None,
        parent: str = "",
        restart: bool = False,
    ) -> AsyncIterator[Process]:
        """Give the code inside an address: `async with mesh.own("order-42") as proc: …`.

        Leaving it writes the one terminal event: completed, failed, interrupted, cancelled or killed. A message
        that nobody sent is never lost: what came before is waiting in the inbox.

        Raises: AlreadyRunning, AlreadyEnded (unless `restart`), BadName, NotAllowed; and Interrupted, when it
        was interrupted outside any scope.
        """
        from .functions import new_spec, owned

        async with owned(self, new_spec(self, id, kind, labels, parent, restart)) as proc:
            yield proc

    async def run(
        self,
        function: Callable[..., Any],
        /,
        *args: Any,
        id: str | None = None,
        kind: str | None = None,
        labels: Mapping[str, str] | None = None,
        parent: str = "",
        restart: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Run `function(proc, *args, **kwargs)` here under an address and return its result.

        A plain function runs in a thread of its own, with a BlockingProcess. Raises as `own`, and whatever the
        function raises.
        """
        from .functions import kind_of, new_spec, run_on

        spec = new_spec(self, id, kind or kind_of(function), labels, parent, restart)
        return await run_on(self, spec, function, args, kwargs)


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process in a list."""

    record: Record
    state: str  #: the record's, or `unreachable`
    quiet: float | None  #: seconds since its last event, by the server's clock

    @property
    def address(self) -> Address:
        return self.record.address

    def to_json(self) -> dict[str, Any]:
        return self.record.to_json() | {"state": self.state, "quiet": self.quiet}


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
    ) -> Tail:
        """Watch it: its events from the first of its latest run, live, until that run ends.

        `after` is a cursor to go on behind; `n` begins with the last n events; `since` begins that many seconds
        ago, by the server's clock; `run` is the number of an earlier run, or "all"; without `follow` it stops at
        the end of what is stored; `compact` gives one event for a streamed text; `types` are the only event
        types wanted (notices come all the same); `models` turns the data of a type into a pydantic model.

        Yields each event once, in order, and only what is stored; whatever cannot be shown is said by a
        Notice. Watching costs the process nothing, and stopping stops nothing else.
        Iterating raises: NoSuchProcess, NotAllowed, BadPayload (a cursor that is not one). Protocol: section 2.
        """
        from .tail import tail_one

        cursor = Cursor.parse(after) if after is not None else None
        return tail_one(
            self.mesh, self.address,
            cursor=cursor, n=n, since=since, run=run, follow=follow, compact=compact, types=types, models=models,
        )  # fmt: skip

    async def record(self) -> Record | None:
        """What the registry says of it, live or ended."""
        return await self.mesh.io.call(self.mesh.registry.get(self.address))

    async def send(self, data: Json, *, id: str | None = None, kind: str = "message") -> Sent:
        """Leave a message in its inbox; returns once it is stored. Any JSON, or a pydantic model.

        Sending it again with the same `id` within two minutes stores it once.
        Raises: NoSuchProcess, AlreadyEnded, TooLarge, BadPayload, NotAllowed. Protocol: section 3.
        """
        mesh = self.mesh
        return await mesh.io.call(
            inbox.send(mesh.connection, mesh.names, self.address, data, id=id, kind=kind)
        )

    async def command(
        self,
        verb: str,
        *,
        timeout: float = 5.0,
        id: str | None = None,
        epoch: int | None = None,
        **fields: Any,
    ) -> Receipt:
        """Send any command; the verbs below are this with names. Repeating an `id` changes nothing."""
        mesh = self.mesh
        order = Command(id or new_token(), verb, mesh.sender, epoch=epoch, **fields)
        return await mesh.io.call(
            control.command(mesh.connection, mesh.names, self.address, order, timeout=timeout)
        )

    async def interrupt(
        self, message: Json = None, *, reason: str = "", hard: bool = False, timeout: float = 5.0
    ) -> Receipt:
        """Stop what it is doing now, as Ctrl-C does, and optionally say what to do instead.

        Returns once it has stopped, or refused: see `Receipt.status`. It is recorded in the log with its
        sender. `hard` also reaches code that never awaits. What it is in the middle of in C ends first: then
        the receipt says `accepted` after `timeout` seconds, and the interrupt stays valid.
        Raises: NoSuchProcess, Unreachable, NotAllowed. Protocol: section 5.
        """
        return await self.command("interrupt", message=message, reason=reason, hard=hard, timeout=timeout)

    async def pause(self, *, reason: str = "", timeout: float = 5.0) -> Receipt:
        """Hold it: an OS command at once, Python code at its next call that may wait. See `interrupt`."""
        return await self.command("pause", reason=reason, timeout=timeout)

    async def resume(self, *, reason: str = "", timeout: float = 5.0) -> Receipt:
        """Let it go on after a pause. See `interrupt`."""
        return await self.command("resume", reason=reason, timeout=timeout)

    async def cancel(
        self, *, reason: str = "", grace: float = GRACE_SECONDS, timeout: float | None = None
    ) -> Receipt:
        """End it, with `grace` seconds to tidy up; the receipt says that it is gone. See `interrupt`."""
        return await self.command("cancel", reason=reason, grace=grace, timeout=timeout or grace + 5.0)

    async def kill(self, *, reason: str = "", timeout: float = 10.0) -> Receipt:
        """End it at once, without asking it. See `interrupt`."""
        return await self.command("kill", reason=reason, timeout=timeout)

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

    async def wait(self, timeout: float | None = None) -> Exit:
        """Return how its latest run ended, once it has. Raises: NoSuchProcess; TimedOut after `timeout` s."""
        tail = self.tail(n=1)
        try:
            async with asyncio.timeout(timeout):
                async for item in tail:
                    if isinstance(item, Event) and item.type == EXITED:
                        return Exit.of(item)
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


def matches(record: Record, kind: str | None, labels: Mapping[str, str]) -> bool:
    """Whether a record is of that kind and has all those labels."""
    return (kind is None or record.kind == kind) and all(record.labels.get(k) == v for k, v in labels.items())


async def _batched(source: AsyncIterator[T]) -> AsyncIterator[Sequence[T]]:
    async for item in source:
        yield [item]
