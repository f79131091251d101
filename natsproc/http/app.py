"""The ASGI application: its mesh, and from a request to a response."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

from natsproc.client import Mesh, connect
from natsproc.errors import Error

from . import a2a, agui, events, openapi, records, responses, verbs
from .a2a import AgentCard
from .access import Authorize, Gate
from .problems import Problem
from .request import ClientGone, Receive, Request, Scope, Send
from .routes import A2A, AGUI, CARD, EVENTS, LIST, OPENAPI, RECORD, VERBS, Route, route
from .shared import Shared

HEARTBEAT_SECONDS = 15.0
UNREACHED = "the processes cannot be reached now; whoever runs this finds why in its log"

logger = logging.getLogger(__name__)


def asgi(
    mesh: Mesh | None = None,
    *,
    authorize: Authorize,
    heartbeat: float = HEARTBEAT_SECONDS,
    agent_card: AgentCard | None = None,
    **options: Any,
) -> Application:
    """The mesh as an ASGI application: `app.mount("/proc", natsproc.asgi(mesh, authorize=…))`.

    `mesh` is an open one, or one that `natsproc.connect` has described; without it, `options` are those of `connect`. What
    is not open yet is opened when the server starts, or, mounted below another application, at the first request.

    `authorize(request, namespace, id, right)`, async or not, is asked before anything is done: `right` is "watch",
    "send" or "control", `id` is "*" when all of a namespace is listed (a namespace "*" is all of them). It returns False (403), None if it is not known who asks
    (401), True, the name of the user, which the log then has beside our sender, or a mesh of the user's own.

    `heartbeat` is after how many quiet seconds a stream of Server-Sent Events says that it is there. `agent_card`, a
    function of a process's record, returns what its A2A agent card is to say besides, or instead: `skills`, `securitySchemes` …
    """
    return Application(connect(**options) if mesh is None else mesh, authorize, heartbeat, agent_card)


class Application:
    """Made by `asgi`."""

    def __init__(
        self,
        mesh: Mesh,
        authorize: Authorize,
        heartbeat: float = HEARTBEAT_SECONDS,
        agent_card: AgentCard | None = None,
    ) -> None:
        self.mesh = mesh
        self._agent_card = agent_card
        self._authorize = authorize
        self._heartbeat = heartbeat
        self._shared = Shared()
        self._theirs = False  # the host opened it, and will close it
        self._opening: asyncio.Task[Mesh] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "lifespan":
                await self._live(receive, send)
            case "http":
                with suppress(ClientGone):
                    await self._answer(Request.of(scope), receive, send)
            case _:  # a WebSocket, which a close before it is accepted refuses
                await send({"type": "websocket.close", "code": 1000})

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._open()
                except Error as error:
                    return await send({"type": "lifespan.startup.failed", "message": str(error)})
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.aclose()
                return await send({"type": "lifespan.shutdown.complete"})

    async def _open(self) -> Mesh:
        """Connect, unless somebody has; who asks meanwhile waits for the same. Raises: as opening a mesh."""
        if self._opening is None and (self._theirs or self.mesh.opened):
            self._theirs = True
            return self.mesh
        if self._opening is None or (self._opening.done() and self._opening.exception()):
            self._opening = asyncio.create_task(self.mesh.__aenter__())
        return await asyncio.shield(self._opening)

    async def _opened(self) -> Mesh:
        """As `_open`; who asks is not known yet, so what is wrong is the log's and not the answer's. Raises: Problem."""
        try:
            return await self._open()
        except Error as error:
            logger.warning("the mesh could not be opened: %s", error)
            problem = Problem.of(error)
            raise Problem(problem.status, UNREACHED, headers=problem.headers, **problem.members) from error

    async def aclose(self) -> None:
        """Close the mesh, if it was opened here; the server's shutdown does it."""
        if self._opening is not None:
            with suppress(Error):
                await (await self._opening).__aexit__()
            self._opening = None

    async def _answer(self, request: Request, receive: Receive, send: Send) -> None:
        began = False

        async def sending(message: Any) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._do(request, receive, sending)
        except (Problem, Error) as error:
            if began:
                raise
            problem = error if isinstance(error, Problem) else Problem.of(error)
            await responses.tell(send, problem, head=request.method == "HEAD")

    async def _do(self, request: Request, receive: Receive, send: Send) -> None:
        where = route(request.path, self.mesh.namespace)
        if request.method == "OPTIONS":
            return await responses.nothing(send, {"Allow": ", ".join(where.methods)})
        if request.method not in where.methods:
            allowed = ", ".join(where.methods)
            verbs = (
                f"; what is posted goes to /{{id}}/ and one of {', '.join(VERBS)}"
                if request.method == "POST"
                else ""
            )
            text = f"{request.method} is not for this; {allowed} are{verbs}"
            raise Problem(405, text, headers={"Allow": allowed})
        if where.what == OPENAPI:
            return await openapi.described(request, send)
        gate = Gate(self._authorize, await self._opened(), request)
        if where.what == A2A and where.address is not None:
            return await a2a.call(gate, where.address, request, receive, send, self._heartbeat)
        if where.what == AGUI and where.address is not None:
            return await agui.run(gate, where.address, request, receive, send, self._heartbeat)
        if where.what in VERBS:
            return await self._post(where, gate, request, receive, send)
        return await self._get(where, gate, request, receive, send)

    async def _get(self, where: Route, gate: Gate, request: Request, receive: Receive, send: Send) -> None:
        address = where.address
        if where.what == LIST or address is None:
            return await records.listing(gate, request, send)
        if where.what == CARD:
            base = f"{request.mounted}{request.path.rstrip('/').removesuffix(f'/.well-known/{CARD}')}"
            return await a2a.card(gate, address, request, send, base, self._agent_card)
        actor = await gate.insist(address.namespace, address.id, "watch")
        handle = actor.mesh.process(address)
        if where.what == RECORD:
            return await records.record(handle, request, send)
        assert where.what == EVENTS
        return await events.events(
            handle, request, receive, send, heartbeat=self._heartbeat, shared=self._shared
        )

    async def _post(self, where: Route, gate: Gate, request: Request, receive: Receive, send: Send) -> None:
        verb, address = where.what, where.address
        assert address is not None
        actor = await gate.insist(address.namespace, address.id, VERBS[verb])
        body = await verbs.body_of(verb, request, receive)
        for right in verbs.more_rights(body):
            await gate.insist(address.namespace, address.id, right)
        await verbs.do(verb, body, actor, actor.mesh.process(address), send)
