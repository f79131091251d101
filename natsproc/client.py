"""Everyone's side of a process: find it, watch it, command it, wait for it.

A mesh is opened once per OS process as a rule; its connection lives on the I/O thread, and everything here is a
thin face on what runs there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from natsproc.bus import streams
from natsproc.bus.connection import Connection, Endpoint
from natsproc.bus.liveness import Gone, unreachable_among
from natsproc.bus.patience import insist
from natsproc.bus.registry import Registry
from natsproc.bus.thread import IOThread
from natsproc.errors import Closed, Error, NotAllowed
from natsproc.protocol.landing import When
from natsproc.protocol.names import DEFAULT_NAMESPACE, DEFAULT_PREFIX, Address, Names, check_name
from natsproc.protocol.records import Record

if TYPE_CHECKING:
    from pydantic import BaseModel

    from natsproc.bus.retention import Retention

    from .access import Grant
    from .access.renewing import Source
    from .granting import Granted
    from .handle import ProcessHandle
    from .node import Node, Refuse, WhenFull
    from .owner import Process
    from .states import Migrations
    from .tail import Tail

T = TypeVar("T")

LIST_SECONDS = 5.0
GATE_SECONDS = 5.0  #: for which a gate that is just being started is waited for


def connect(
    server: str | None = None,
    *,
    creds: str | None = None,
    context: str | None = None,
    namespace: str = DEFAULT_NAMESPACE,
    prefix: str | None = None,
    sender: str | None = None,
    start: bool = False,
    credentials: Source | None = None,
) -> Mesh:
    """Describe the mesh to connect to; `async with natsproc.connect() as mesh` opens it.

    `server` is a URL or several with commas, `creds` the path of a .creds file, or of one with a credential in
    one line; `context` is one of the `nats` command's contexts. With none of them it is a line in `NATSPROC_GRANT`,
    then `NATS_URL`, then the embedded server, which `start=True` starts if it does not run. `namespace` is used for
    ids that name none, `prefix` tells meshes apart on one server (`proc`, unless the line says otherwise), `sender` is a
    name to go by where the credential gives none.

    A credential that ends is renewed while the connection goes on: a file of `creds` is read again, and
    `credentials`, in place of it, is a function, async or not, that returns the text of a credential or one in one line. It
    is called now, and again when four fifths of the time that is left have passed; it runs in a thread of its own. What cannot
    be renewed raises CredentialEnded, a NotAllowed, wherever somebody waits.

    Opening raises: NoServer, ServerUnfit, NoMesh, MeshMismatch, NotAllowed, BadName.
    """
    check_name(namespace, "namespace")
    names = None if prefix is None else Names(prefix)

    def find() -> Endpoint:
        from natsproc.server import find_server

        return find_server(
            server=server,
            creds=creds,
            context=context,
            sender=sender,
            start=start,
            prefix=prefix or DEFAULT_PREFIX,
            credentials=credentials,
        )

    return Mesh(find, names, namespace)


class Mesh:
    """All the processes under one prefix on one NATS account. Made by `connect`."""

    def __init__(self, find: Callable[[], Endpoint], names: Names | None, namespace: str) -> None:
        self.names = names or Names()
        self._prefix_said = names is not None
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
        if endpoint.prefix and not self._prefix_said:
            self.names = Names(endpoint.prefix)
        try:
            await self._look_at_streams(endpoint)
        except BaseException:
            await self.connection.close()
            raise
        self.registry = Registry(self.connection, self.names)
        self._node = None

    async def _look_at_streams(self, endpoint: Endpoint) -> None:
        """Make sure that there is a mesh, or for a narrow credential, a gate to it."""
        if endpoint.direct:
            try:
                return await streams.check(self.connection, self.names)
            except NotAllowed:
                pass  # a narrow credential is not told how the streams are made
        self.connection.use_gate(self.names)
        deadline = asyncio.get_running_loop().time() + GATE_SECONDS
        try:
            await insist(lambda: self.connection.api(f"STREAM.INFO.{self.names.event_stream}"), deadline)
        except NotAllowed:
            pass  # one that may not even watch

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
    def opened(self) -> bool:
        """Whether it is open."""
        return self._io is not None and self._io.alive

    @property
    def sender(self) -> str:
        """As whom the mesh sees this connection."""
        return self.connection.sender

    @property
    def url(self) -> str:
        return self.connection.url

    def may_watch(self, process: str | Address) -> bool:
        """Whether the credential covers that process's log, as far as it says; the server decides."""
        address, granted = self.address(process), self.connection.endpoint.watches
        known = self.connection.gated and bool(self.connection.endpoint.secret)
        return not known or any(
            space in ("*", address.namespace) and id in ("*", address.id) for space, id in granted
        )

    def listed(self, namespace: str | None = None) -> Sequence[str]:
        """What lists of a namespace (`"*"`: of all) have, as ids and `namespace/*`, where less than all of it is granted."""
        chosen = namespace or self.namespace
        granted = self.registry.granted(None if chosen == "*" else chosen)
        return [f"{space}/*" if id == "*" else str(Address(space, id)) for space, id in granted]

    def address(self, process: str | Address) -> Address:
        """Read `id` or `namespace/id`. Raises: BadName."""
        return process if isinstance(process, Address) else Address.parse(process, self._implied(process))

    def _implied(self, text: str) -> str | None:
        return None if "/" in text else self.namespace

    def process(self, process: str | Address) -> ProcessHandle:
        """Anyone's handle on the process of that id; it need not run, or exist. Raises: BadName."""
        from .handle import ProcessHandle

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
        records = await self.registry.list(None if namespace == "*" else namespace, ended=ended)
        return await self.infos([record for record in records if matches(record, kind, labels)])

    async def infos(self, records: Sequence[Record]) -> Sequence[ProcessInfo]:
        """What there is to say of these processes now. On the I/O thread."""
        live = [record for record in records if not record.ended]
        quiet, gone = await asyncio.gather(
            self.registry.quiet(record.address for record in records),
            unreachable_among(self.connection, self.names, live),
        )
        return [
            ProcessInfo(record, quiet.get(record.address), gone.get(record.address)) for record in records
        ]

    async def grant(
        self, sender: str, can: Iterable[str], on: Iterable[str] = (), *, seconds: float | None = 86400.0
    ) -> Granted:
        """Make a credential for this mesh, with the keys of NATSPROC_HOME: see `natsproc.grant`.

        Raises: as that; Refused if this mesh's server does not go by these keys.
        """
        from . import granting

        granting.insist_on_keys(self.connection.endpoint)
        make = partial(granting.grant, sender, tuple(can), tuple(on), seconds=seconds, url=self.url)
        return await asyncio.to_thread(make, namespace=self.namespace, prefix=self.names.prefix)

    async def revoke(self, sender: str, *, key: str | None = None) -> Sequence[Grant]:
        """End what `sender` was granted, at once: see `natsproc.revoke`. Raises: as that, and Refused as `grant`."""
        from . import granting

        granting.insist_on_keys(self.connection.endpoint)
        return await asyncio.to_thread(granting.revoke, sender, key=key, server=self.url)

    async def unreachable(self, records: Iterable[Record]) -> Mapping[Address, Gone]:
        """Which of these live processes have no owner that can be reached, and since when."""
        asked = list(records)
        return await self.io.call(insist(lambda: unreachable_among(self.connection, self.names, asked)))

    @property
    def _retention(self) -> Retention:
        from natsproc.bus.retention import Retention

        return Retention(self.connection, self.names)

    async def ended(self, older: float = 0.0, *, namespace: str | None = None) -> Sequence[Record]:
        """The records of what ended at least `older` seconds ago, by the server's clock; the oldest first."""
        chosen = namespace or self.namespace
        return await self.io.call(self._retention.ended(older, None if chosen == "*" else chosen))

    async def prune(self, process: str | Address, *, dry_run: bool = False) -> None:
        """Remove all that the mesh has of a process that has ended: record, log, inbox and id; or see whether it may.

        Raises: NoSuchProcess; Refused if its run has not ended; NotAllowed; BadName.
        """
        await self.io.call(self._retention.prune(self.address(process), dry_run=dry_run))

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

    def own(
        self,
        id: str | None = None,
        *,
        kind: str = "process",
        labels: Mapping[str, str] | None = None,
        parent: str = "",
        restart: bool = False,
        when_full: WhenFull = "wait",
        allow: Sequence[When] = (),
        state: type[BaseModel] | None = None,
        version: int = 1,
        migrate: Migrations | None = None,
        refuse: Refuse | None = None,
    ) -> AbstractAsyncContextManager[Process]:
        """Give the code inside an address: `async with mesh.own("order-42") as proc: …`.

        Leaving it writes the one terminal event: completed, failed, interrupted, cancelled or killed. A message
        that nobody sent is never lost: what came before is waiting in the inbox. If the last owner is gone
        without an end, its run goes on here, with the `state` that it saved last; for `allow` and what follows it see
        `natsproc.process`.

        While the server is away, what is written is kept in memory, up to 20,000 events or 32 MiB for all that runs
        here. Above that, writing waits; `when_full="spool"` has up to 1 GiB of it wait on disk before; with "drop"
        it is dropped, and a stored `dropped` event says in its place how much.

        Signals stay the program's business. A SIGTERM that nobody handles kills it without a word, so the process
        is `unreachable` some seconds later, until somebody takes it up or ends it; to end it as cancelled, cancel
        the task that is in here, as `loop.add_signal_handler(signal.SIGTERM, task.cancel)` does.
        `natsproc.run` does it by itself.

        Raises: AlreadyRunning, AlreadyEnded (unless `restart`), StateUnfit, BadName, BadPayload (`allow`),
        NotAllowed; Interrupted, when it was interrupted outside any scope; and Cancelled, when it was cancelled or killed, which
        `except Exception` lets by: catch it where the program goes on, or it ends that with a traceback.
        """
        from .functions import new_spec, owned
        from .node import Declared
        from .states import Shape

        declared = Declared(tuple(allow), Shape(state, version, migrate or {}), refuse)
        spec = new_spec(self, id, kind, labels, parent, restart, when_full, declared)
        return owned(self, spec)

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
        when_full: WhenFull | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run `function(proc, *args, **kwargs)` here under an address and return its result.

        A plain function runs in a thread of its own, with a BlockingProcess. Raises as `own`, and whatever the
        function raises.
        """
        from .functions import declared_of, kind_of, new_spec, run_on, when_full_of

        full, declared = when_full_of(function, when_full), declared_of(function)
        spec = new_spec(self, id, kind_of(function, kind), labels, parent, restart, full, declared)
        return await run_on(self, spec, function, args, kwargs)


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process in a list."""

    record: Record
    quiet: float | None = None  #: seconds since its last event, by the server's clock
    gone: Gone | None = None  #: since when its node holds no lease, if its owner cannot be reached

    @property
    def state(self) -> str:
        """The record's, or `unreachable`."""
        return "unreachable" if self.gone else self.record.state

    @property
    def address(self) -> Address:
        return self.record.address

    def to_json(self) -> dict[str, Any]:
        return self.record.to_json() | {
            "state": self.state,
            "quiet": self.quiet,
            "unreachable_since": (self.gone and self.gone.since) or None,  # by the server's clock
        }


def matches(record: Record, kind: str | None, labels: Mapping[str, str]) -> bool:
    """Whether a record is of that kind and has all those labels."""
    return (kind is None or record.kind == kind) and all(record.labels.get(k) == v for k, v in labels.items())


async def _batched(source: AsyncIterator[T]) -> AsyncIterator[Sequence[T]]:
    async for item in source:
        yield [item]
